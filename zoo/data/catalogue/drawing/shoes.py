"""How shoes are drawn: one from its side, the toe at the left; slippers as a pair from above."""

from zoo.data.catalogue.drawing.canvas import WHITE, Canvas
from zoo.data.catalogue.drawing.paths import box, ellipse, star
from zoo.data.catalogue.drawing.tones import tones

_INSIDE = tones("#8d7f76")
_RUBBER = tones("#3a3a3e")


def sneaker(c: Canvas) -> None:
    """A running shoe: a thick curved sole, a stripe at its side, laces or a strap."""
    c.panel(
        "M8,66 Q6,56 20,52 Q38,46 48,32 Q52,28 57,33 Q64,40 72,34 Q78,26 84,23 Q90,22 90,30 Q88,44 93,55 L93,68 L8,68 Z"
    )
    c.panel("M8,66 Q7,57 20,52 Q30,56 31,68 L8,68 Z", c.second, plain=True)
    c.panel("M78,40 Q86,38 89,34 Q88,46 93,56 L93,68 L72,68 Q71,52 78,40 Z")
    stripe = c.second.base if c.second else c.main.contrast
    c.fill("M36,65 Q50,64 66,43 L71,47 Q58,66 42,68 Z", stripe)
    if c.detail("鞋带") == "系带":
        for x, y in ((27, 50), (34, 46), (41, 40), (46, 34)):
            c.strap(f"M{x},{y} L{x + 9},{y + 7}", 2, WHITE)
    else:
        for x, y in ((30, 47), (42, 36)):
            c.panel(
                f"M{x},{y} Q{x + 3},{y - 5} {x + 7},{y - 3} L{x + 21},{y + 12} L{x + 15},{y + 17} Z", c.second or WHITE
            )
    c.panel("M5,66 Q30,69 50,66 Q75,62 94,62 Q99,70 94,78 L70,78 Q62,74 54,78 L18,78 Q3,76 5,66 Z", WHITE)
    c.line("M10,72 Q50,73 94,70", WHITE, width=1.6)


def high_heel(c: Canvas) -> None:
    """A pump on a thin heel or a block heel; a bow at its toe where it has one."""
    sole = c.second or c.main
    heel = {
        "细跟": "M82,42 Q92,48 92,44 L86,90 L82,90 Q83,64 74,54 Z",
        "粗跟": "M76,44 L94,42 L92,90 L74,90 Q76,64 70,56 Z",
    }[c.detail("鞋跟")]
    c.panel(heel, sole)
    c.panel("M6,84 Q8,92 24,91 Q48,88 62,66 Q72,52 92,50 L93,44 L60,52 L34,82 Z", sole)
    c.panel("M38,70 Q56,40 92,26 Q91,33 88,40 Q64,50 48,74 Z", _INSIDE)
    c.panel(
        "M5,83 Q12,76 26,72 Q34,68 38,66 Q42,74 50,66 Q70,44 92,24 Q97,36 94,48 Q74,50 64,62 Q46,88 22,90 Q8,91 5,83 Z"
    )
    c.gloss("M12,82 Q20,77 30,74 Q24,80 13,84 Z", 0.5)
    if c.detail("装饰") == "蝴蝶结":
        c.bow(33, 69, 11, c.second)


def boot(c: Canvas) -> None:
    """A boot to the ankle or to the knee, with a zip and a low or a high heel."""
    top = {"短筒": 26, "长筒": -18}[c.detail("筒高")]
    high = c.detail("鞋跟") == "高跟"
    sole = c.second or _RUBBER
    if high:
        c.panel("M70,76 L94,72 L90,100 L76,100 Q78,86 70,82 Z", sole)
    toe = 96 if high else 84
    c.panel(
        f"M48,{top} Q68,{top - 4} 90,{top} Q86,50 93,66 L94,82 L66,82 "
        f"Q44,{toe + 2} 12,{toe} Q6,{toe - 14} 20,{toe - 20} "
        f"Q44,{toe - 26} 50,50 Q52,30 48,{top} Z"
    )
    c.panel(f"M48,{top} Q68,{top - 4} 90,{top} L89,{top + 9} Q68,{top + 5} 48.6,{top + 9} Z", c.second, plain=True)
    c.line(f"M80,{top + 9} L79,74", width=2.4)
    c.line(f"M80,{top + 9} L79,74", "#e6e8ec", width=1.2, dash="1.3 1.3")
    c.line("M50,52 Q60,58 70,54 M50,58 Q58,64 66,61", width=1.2)
    if high:
        c.panel(
            f"M9,{toe - 2} Q40,{toe + 1} 66,81 L72,80 L72,84 Q44,{toe + 6} 12,{toe + 3} Q8,{toe + 1} 9,{toe - 2} Z",
            sole,
        )
    else:
        c.panel("M8,80 Q40,84 62,80 L95,79 L95,90 L68,90 L66,86 L62,90 L14,90 Q7,89 8,80 Z", sole)


def slippers(c: Canvas) -> None:
    """A pair from above, with a broad band or with a strap between the toes."""
    foot = "M8,24 Q8,6 24,5 Q42,5 42,24 Q42,40 38,56 Q40,90 25,93 Q10,92 11,60 Q8,40 8,24 Z"
    inner = "M12,25 Q12,10 25,9 Q38,9 38,25 Q38,40 35,57 Q36,87 25,89 Q14,87 15,60 Q12,40 12,25 Z"
    is_band = c.detail("款式") == "一字拖"
    for _ in c.pair():
        c.panel(foot, c.second, plain=True)
        c.panel(inner, c.second if is_band else None, plain=is_band)
        if is_band:
            c.panel("M5,28 Q24,14 45,28 L43,54 Q24,42 7,54 Z")
            c.stitches("M7,31 Q24,18 43,31 M8.5,50 Q24,39 41.5,50")
        else:
            c.strap("M10,50 Q12,30 25,22 Q38,30 40,50", 4.4, c.second or _RUBBER)
            c.strap("M25,16 L25,23", 3, c.second or _RUBBER)


def canvas_shoe(c: Canvas) -> None:
    """A canvas shoe: a flat rubber sole, a rubber toe cap, laces through eyelets, a round badge at a high ankle."""
    high = c.detail("鞋帮") == "高帮"
    top = 16 if high else 44
    tongue = f"M50,{top + 4} Q48,{top - 8} 60,{top - 7} Q66,{top - 6} 64,{top + 4} L58,62 L44,62 Z"
    c.panel(tongue, c.second or c.main, plain=True)
    c.panel(
        f"M10,74 Q8,60 26,58 Q40,56 46,52 Q54,{top + 20} 56,{top} Q74,{top + (2 if high else 10)} 92,{top} "
        f"Q90,50 94,76 L10,76 Z"
    )
    c.panel("M8,75 Q6,58 25,58 Q32,62 33,76 Z", WHITE)
    c.line("M66,74 Q62,62 46,58", width=1)
    c.stitches(f"M84,{top + 2} L86,74")
    steps = 5 if high else 3
    for step in range(steps):
        part = step / (steps - 1)
        x, y = 44 + 12 * part, 56 - (50 - top - 2) * part if high else 56 - (52 - top) * part
        c.strap(f"M{x - 4:g},{y - 3:g} L{x + 9:g},{y + 3:g}", 2.2, WHITE)
    if high:
        c.panel(ellipse(77, 36, 8), WHITE)
        c.fill(star(77, 36, 6), (c.second or c.main).base)
    c.panel(box(6, 74, 90, 11, 4), WHITE)
    c.line("M8,77.5 L94,77.5", c.second.base if c.second else c.main.base, width=1.8)
