"""The canvas that items are drawn on: panels of cloth with light, pattern and outline; seams, straps, gloss, shadow.

A drawing lies somewhere near a square of 100 by 100 and is symmetric to x = 50 where the item is. The canvas turns,
mirrors and scales it into the image, so that no drawing need fill the square by itself. Light stays at the top left.
"""

import math
import random
from collections.abc import Iterator

from zoo.data.catalogue.attributes import COLOURS, Item
from zoo.data.catalogue.drawing.motifs import MOTIFS
from zoo.data.catalogue.drawing.paths import Point, ellipse, mirrored, points_on, scaled
from zoo.data.catalogue.drawing.tones import Tones, jittered, mixed, tones

WHITE, BLACK = tones("#f7f7f5"), tones("#323236")
STEEL, BRASS = tones("#b9bec6", metallic=True), tones("#cba24a", metallic=True)
GLASS, RED = tones("#d9ecf4"), tones("#e0333c")
THREAD = "#e39a3c"  # of jeans

Bands = tuple[tuple[float, str, float], ...]  # along the light: where, which colour, how much it covers


class Canvas:
    """A canvas with one item.

    Args:
        item: What is drawn.
        seed: What else differs between two images of it: the shade of its colours, size, turn, side, start of patterns.
    """

    def __init__(self, item: Item, seed: int) -> None:
        self.item = item
        chance = random.Random(seed)
        self._is_mirrored = chance.random() < 0.5
        self._turn = math.radians(chance.uniform(-5, 5))
        self._span = chance.uniform(73, 83)
        self._tile_scale = chance.uniform(0.9, 1.15)
        self._tile_start = (chance.uniform(0, 20), chance.uniform(0, 20))
        self.main = _paint(item.colour, chance)
        self.second = _paint(item.second_colour, chance) if item.second_colour else None
        self._defs: dict[str, str] = {}
        self._marks: list[str] = []
        self._points: list[Point] = []
        self._offset = (0.0, 0.0)
        self._heights: list[float] = []  # of what fades from its top to its bottom

    def copies(self, *offsets: Point) -> Iterator[int]:
        """Draw what the body of a loop draws once at each offset, which are numbered."""
        for number, self._offset in enumerate(offsets):
            yield number
        self._offset = (0, 0)

    def pair(self) -> Iterator[None]:
        """Draw what the body of a loop draws, and its mirror image at x = 50."""
        for _ in range(2):
            yield
            self._is_mirrored = not self._is_mirrored

    def detail(self, name: str) -> str:
        """Give the item's value of one of its category's attributes."""
        return self.item.details[name]

    def panel(
        self, path: str, of: Tones | None = None, *, tilt: float = 0, plain: bool = False, edge: float = 1
    ) -> None:
        """Draw a closed piece with light, shade and an outline.

        Args:
            path: Its outline.
            of: Its paint; None: the item's colour and pattern.
            tilt: By how much the pattern turns, in degrees clockwise.
            plain: Whether a piece of the item's colour goes without its pattern.
            edge: The outline's width.
        """
        paint = of or self.main
        path = self._placed(path)
        pattern = "纯色" if of or plain else self.item.pattern
        if pattern != "纯色":
            self._marks.append(f'<path d="{path}" fill="{paint.base}"/>')
            self._marks.append(f'<path d="{path}" fill="url(#{self._tile(pattern, paint, tilt)})"/>')
        if pattern == "渐变":
            self._heights += [y for _, y in points_on(path)]
        if pattern == "牛仔":
            self._wash(path, paint)
        self._marks.append(
            f'<path d="{path}" fill="url(#{self._light(paint, pattern)})" stroke="{paint.outline}" '
            f'stroke-width="{edge:g}" stroke-linejoin="round"/>'
        )

    def both(self, path: str, of: Tones | None = None, *, tilt: float = 0, plain: bool = False) -> None:
        """Draw a panel and its mirror image at x = 50."""
        for _ in self.pair():
            self.panel(path, of, tilt=tilt, plain=plain)

    def fill(self, path: str, colour: str, opacity: float = 1) -> None:
        """Fill a path with one colour, without light or outline."""
        self._marks.append(f'<path d="{self._placed(path)}" fill="{colour}" fill-opacity="{opacity:g}"/>')

    def line(self, path: str, of: Tones | str | None = None, *, width: float = 0.9, dash: str = "") -> None:
        """Draw a seam, a fold or a stitch.

        Args:
            path: Its course.
            of: A hex colour, or the paint whose seams it is like; None: the item's.
            width: Its width.
            dash: SVG's dashes; none: a line.
        """
        colour = of if isinstance(of, str) else (of or self.main).seam
        if of is None and self.item.pattern == "牛仔":
            colour, dash, width = THREAD, "2.4 1.2", max(width, 1.1)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._marks.append(
            f'<path d="{self._placed(path)}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes} '
            'stroke-linecap="round" stroke-linejoin="round"/>'
        )

    def strap(self, path: str, width: float, of: Tones | None = None) -> None:
        """Draw a strap, a cord or a tube along a path: outlined, lit along its upper left."""
        paint = of or self.main
        path = self._placed(path, width / 2)
        for colour, wide, shift in (
            (paint.outline, width + 1.6, 0.0),
            (paint.base, width, 0.0),
            (paint.light, width * 0.35, -width * 0.16),
        ):
            self._marks.append(
                f'<path d="{path}" transform="translate({shift:.3g} {shift:.3g})" fill="none" stroke="{colour}" '
                f'stroke-width="{wide:g}" stroke-linecap="round" stroke-linejoin="round"/>'
            )

    def bow(self, x: float, y: float, half: float, of: Tones | None = None) -> None:
        """Draw a bow by its knot and half its width."""
        self.panel(scaled("M0,0 L-0.7,0.95 L-0.2,0.9 L0,0.3 L0.2,0.9 L0.7,0.95 Z", x, y, half), of, plain=True)
        loops = (
            "M0,0 C0.3,-0.75 1,-0.8 1,-0.1 C1,0.6 0.35,0.5 0,0 Z M0,0 "
            "C-0.3,-0.75 -1,-0.8 -1,-0.1 C-1,0.6 -0.35,0.5 0,0 Z"
        )
        self.panel(scaled(loops, x, y, half), of, plain=True)
        self.panel(ellipse(x, y, 0.2 * half), of, plain=True)

    def emblem(self, path: str) -> None:
        """Draw a printed sign with a white border, in the second colour, or red."""
        self.line(path, "#ffffff", width=5)
        self.panel(path, self.second or RED)

    def gloss(self, path: str, opacity: float = 0.55) -> None:
        """Draw a reflection of the light."""
        self.fill(path, "#ffffff", opacity)

    def stitches(self, path: str) -> None:
        """Draw a dashed seam."""
        self.line(path, dash="1.8 1.4", width=0.8)

    def svg(self) -> str:
        """Give the image: what was drawn, turned, scaled into the middle, with its shadow on the ground."""
        cos, sin = math.cos(self._turn), math.sin(self._turn)
        turned = [(x * cos - y * sin, x * sin + y * cos) for x, y in self._points]
        left, right = min(x for x, _ in turned), max(x for x, _ in turned)
        top, bottom = min(y for _, y in turned), max(y for _, y in turned)
        scale = self._span / max(right - left, bottom - top)
        x = 50 - scale * (left + right) / 2
        y = 49 - scale * (top + bottom) / 2
        ground = min(y + scale * bottom, 94)
        width = scale * (right - left)
        shadow = f'<path d="{ellipse(51, ground, 0.5 * width + 1, 4.5)}" fill="url(#ground)"/>'
        self._defs["ground"] = (
            '<radialGradient id="ground"><stop stop-color="#3c3c46" stop-opacity=".42"/>'
            '<stop offset=".6" stop-color="#3c3c46" stop-opacity=".16"/>'
            '<stop offset="1" stop-color="#3c3c46" stop-opacity="0"/></radialGradient>'
        )
        if self._heights:
            top, bottom = min(self._heights), max(self._heights)
            self._defs["fade"] = (
                f'<linearGradient id="fade" gradientUnits="userSpaceOnUse" x1="50" y1="{top:.4g}" x2="50" '
                f'y2="{bottom:.4g}"><stop offset=".25" stop-color="{self.main.base}"/>'
                '<stop offset=".92" stop-color="#fffdfa"/></linearGradient>'
            )
        place = f"translate({x:.4g} {y:.4g}) scale({scale:.4g}) rotate({math.degrees(self._turn):.4g})"
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
            f"<defs>{''.join(self._defs.values())}</defs>{shadow}"
            f'<g transform="{place}">{"".join(self._marks)}</g></svg>'
        )

    def _placed(self, path: str, margin: float = 0) -> str:
        """Move a path where its copy is, mirror it where the seed does, and note where it lies."""
        if any(self._offset):
            path = scaled(path, *self._offset, 1)
        path = mirrored(path) if self._is_mirrored else path
        points = points_on(path)
        self._points += points
        if margin:
            self._points += [
                (x + dx, y + dy) for x, y in points for dx in (-margin, margin) for dy in (-margin, margin)
            ]
        return path

    def _tile(self, pattern: str, paint: Tones, tilt: float) -> str:
        if pattern == "渐变":
            return "fade"
        tilt = -tilt if self._is_mirrored else tilt
        name = f"tile{tilt:g}"
        if name not in self._defs:
            width, height, motif = MOTIFS[pattern]
            x, y = self._tile_start
            self._defs[name] = (
                f'<pattern id="{name}" width="{width}" height="{height}" patternUnits="userSpaceOnUse" '
                f'patternTransform="rotate({tilt:g} 50 20) translate({x:.3g} {y:.3g}) scale({self._tile_scale:.3g})">'
                f"{motif(paint)}</pattern>"
            )
        return name

    def _light(self, paint: Tones, pattern: str) -> str:
        """Light from the upper left: over a pattern; on plain paint the paint itself, so that one fill does."""
        plain = pattern == "纯色"
        name = f"light{paint.base[1:]}{'p' * plain}{'m' * paint.metallic}"
        if name not in self._defs:
            stops = ""
            for offset, colour, cover in _shiny(paint) if paint.metallic else _matt(paint):
                if plain:
                    colour, cover = mixed(paint.base, colour, cover), 1
                elif offset == 0:
                    cover /= 2
                stops += f'<stop offset="{offset}" stop-color="{colour}" stop-opacity="{cover:g}"/>'
            self._defs[name] = f'<linearGradient id="{name}" x1="0" y1="0" x2="1" y2="1">{stops}</linearGradient>'
        return name

    def _wash(self, path: str, paint: Tones) -> None:
        """Pale a panel in its middle and sew a seam along its inside, as jeans have it."""
        self._defs["wash"] = (
            '<radialGradient id="wash"><stop stop-color="#ffffff" stop-opacity=".38"/>'
            '<stop offset="1" stop-color="#ffffff" stop-opacity="0"/></radialGradient>'
        )
        self._marks.append(f'<path d="{path}" fill="url(#wash)"/>')
        name = f"clip{len(self._defs)}"
        self._defs[name] = f'<clipPath id="{name}"><path d="{path}"/></clipPath>'
        self._marks.append(
            f'<g clip-path="url(#{name})" fill="none"><path d="{path}" stroke="{THREAD}" stroke-width="5.6" '
            f'stroke-dasharray="2.6 1.2"/><path d="{path}" stroke="{paint.base}" stroke-width="3.6"/></g>'
        )


def _paint(colour: str, chance: random.Random) -> Tones:
    return tones(jittered(COLOURS[colour].hex, chance), COLOURS[colour].metallic)


def _matt(paint: Tones) -> Bands:
    return (0, paint.light, 0.85), (0.45, paint.light, 0), (0.55, paint.shade, 0), (1, paint.shade, 0.9)


def _shiny(paint: Tones) -> Bands:
    white, dark = "#ffffff", paint.outline
    return (
        (0, white, 0.75),
        (0.22, white, 0.1),
        (0.4, dark, 0.5),
        (0.55, white, 0.7),
        (0.72, white, 0.05),
        (1, dark, 0.6),
    )
