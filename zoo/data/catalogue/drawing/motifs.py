"""The patterns' motifs: what is drawn on one tile of cloth, over the item's own colour."""

from collections.abc import Callable

from zoo.data.catalogue.drawing.paths import ellipse, scaled
from zoo.data.catalogue.drawing.tones import Tones, lab, to_hex

Motif = Callable[[Tones], str]


def shifted(colour: str, lightness: float, chroma: float = 1.0) -> str:
    """Give a colour of the same hue, lighter by ``lightness`` of 100 and as many times as colourful."""
    own, a, b = lab(colour)
    return to_hex((min(max(own + lightness, 4), 100), a * chroma, b * chroma))


def _stripes(tones: Tones) -> str:
    return f'<path d="M0,6.4 H9 V9.6 H0Z" fill="{tones.contrast}"/>'


def _checks(tones: Tones) -> str:
    dark = shifted(tones.base, -30 if lab(tones.base)[0] > 23 else 26)
    return (
        f'<path d="M0,1 H16 V8 H0Z M1,0 H8 V16 H1Z" fill="{dark}" fill-opacity=".5"/>'
        f'<path d="M1,1 H8 V8 H1Z" fill="{dark}" fill-opacity=".8"/>'
        f'<path d="M0,12 H16 M12,0 V16" stroke="{tones.contrast}" stroke-width="1.1" stroke-opacity=".9"/>'
    )


def _dots(tones: Tones) -> str:
    dots = "".join(ellipse(x, y, 2.3) for x, y in ((3, 3), (9, 9)))
    return f'<path d="{dots}" fill="{tones.contrast}"/>'


def _flowers(tones: Tones) -> str:
    light = lab(tones.base)[0] > 75
    marks = []
    for x, y, size, petal in (
        (5, 5, 2.1, "#e8577e" if light else "#ffffff"),
        (15, 14.5, 2.1, "#5b7fd6" if light else "#ffe14d"),
    ):
        petals = "".join(
            ellipse(x + dx * size, y + dy * size, size)
            for dx, dy in ((0, -1.2), (1.15, -0.3), (0.7, 1), (-0.7, 1), (-1.15, -0.3))
        )
        marks.append(f'<path d="{petals}" fill="{petal}"/><path d="{ellipse(x, y, 1.4)}" fill="#f08a1c"/>')
    leaf = "#2f8a4a" if light else "#8be39a"
    leaves = (
        "M8.5,8.5 Q11,6.5 12.5,8.5 Q10.5,10.5 8.5,8.5 Z M0,14 Q2.5,12 "
        "4.5,14 Q2.5,16 0,14 Z M13,2 Q15,0 17,2 Q15,4 13,2 Z"
    )
    return "".join(marks) + f'<path d="{leaves}" fill="{leaf}"/>'


def _leopard(tones: Tones) -> str:
    dark = lab(tones.base)[0] <= 55
    inside = shifted(tones.base, 16 if dark else -16, 1.15)
    spots = (
        "M2,4 Q3,1 6,1.6 Q8.5,2.4 8,5 Q7,7.6 4.4,7 Q2,6.4 2,4 Z M12,9 Q13,6.4 15.6,7 Q18,8 17.2,10.6 "
        "Q15.6,12.8 13.4,12 Q11.8,11 12,9 Z M3,14 Q4.4,12 6.8,13 Q8.6,14.6 7.2,16.8 Q5,18 3.4,16.6 Q2.6,15.4 3,14 Z"
    )
    rings = (
        "M2.4,3.4 Q3.4,1 6.4,1.7 M8,3.6 Q8.6,6.6 5.6,7.2 M2,5 Q2.4,6.6 3.6,6.9 M12,9.4 Q12.6,6.6 15.4,7 M17.4,8.8 "
        "Q17.8,11.6 14.8,12.3 M3,15.2 Q3.4,12.4 6.4,12.9 M7.7,14.8 Q7.6,17.2 4.6,17.2 M12,2.6 L14,1.8 M11,16 L12.8,17.4"
    )
    return (
        f'<path d="{spots}" fill="{inside}"/>'
        f'<path d="{rings}" fill="none" stroke="#2c1a12" stroke-width="2" stroke-linecap="round"/>'
    )


def _camouflage(tones: Tones) -> str:
    blobs = (
        (
            shifted(tones.base, 24, 0.55),
            "M3,4 Q8,-1 14,3 Q20,2 19,8 Q13,9 11,14 Q4,15 5,10 Q-1,9 3,4 Z "
            "M18,20 Q25,14 31,20 Q30,27 23,26 Q16,25 18,20 Z",
        ),
        (
            shifted(tones.base, -19, 0.8),
            "M16,9 Q24,4 31,10 Q31,16 25,16 Q22,22 16,20 Q11,16 15,13 Z M0,18 "
            "Q6,13 12,18 Q17,20 13,26 Q8,31 3,27 Q-3,24 0,18 Z",
        ),
        (
            "#33342c",
            "M9,11 Q14,7 18,12 Q19,17 13,18 Q8,16 9,11 Z M20,2 Q26,-1 30,4 "
            "Q27,9 21,7 Z M11,25 Q16,21 20,26 Q17,31 12,29 Z",
        ),
    )
    return "".join(
        f'<path d="{scaled(path, x, y, 1)}" fill="{colour}"/>'
        for colour, path in blobs
        for x in (0, -26)
        for y in (0, -26)
    )


def _twill(tones: Tones) -> str:
    light = shifted(tones.base, 16 if lab(tones.base)[0] < 85 else -14, 0.7)
    return f'<path d="M-1,5 L5,-1 M-1,1 L1,-1 M3,5 L5,3" stroke="{light}" stroke-width=".95" stroke-opacity=".85"/>'


def _knit(tones: Tones) -> str:
    dark = shifted(tones.base, -22 if lab(tones.base)[0] > 23 else 28, 0.9)
    light = shifted(tones.base, 14, 0.8)
    return (
        f'<path d="M.6,.2 L4,4 L7.4,.2 M.6,5.4 L4,9.2 L7.4,5.4" fill="none" stroke="{light}" stroke-width="1.5"/>'
        f'<path d="M0,2.4 L4,6.8 L8,2.4 M0,-2.6 L4,1.6 L8,-2.6 M0,7.6 L4,12 L8,7.6 M0,0 V10.4 M8,0 V10.4" fill="none" '
        f'stroke="{dark}" stroke-width="1.6"/>'
    )


# Each pattern's tile: its width, its height, and what is on it. The gradient has none: it runs over the whole item.
MOTIFS: dict[str, tuple[float, float, Motif]] = {
    "条纹": (9, 9.6, _stripes),
    "格子": (16, 16, _checks),
    "波点": (12, 12, _dots),
    "碎花": (20, 20, _flowers),
    "豹纹": (19, 19, _leopard),
    "迷彩": (26, 26, _camouflage),
    "牛仔": (4, 4, _twill),
    "针织": (8, 10.4, _knit),
}
