"""A colour's tones: the light, the shade and the outline that belong to it, in CIELAB."""

import math
import random
from dataclasses import dataclass
from functools import lru_cache

Lab = tuple[float, float, float]

_WHITE_POINT = (0.95047, 1.0, 1.08883)  # D65
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_TO_RGB = ((3.2404542, -1.5371385, -0.4985314), (-0.9692660, 1.8760108, 0.0415560), (0.0556434, -0.2040259, 1.0572252))


@dataclass(frozen=True)
class Tones:
    """A colour as paint: each field is a hex colour.

    Args:
        base: The colour itself.
        light: Where light falls on it.
        shade: Where it does not.
        outline: Its edge, a darker tone of its own.
        seam: A line on it: darker, or lighter on what is almost black.
        contrast: What stands out from it: white on what is not light, else a dark tone of its own.
        metallic: Whether it shines in bands.
    """

    base: str
    light: str
    shade: str
    outline: str
    seam: str
    contrast: str
    metallic: bool = False


@lru_cache(maxsize=4096)
def tones(colour: str, metallic: bool = False) -> Tones:
    """Mix the tones of a hex colour."""
    lightness, a, b = lab(colour)

    def tone(change: float, chroma: float = 1.0) -> str:
        return to_hex((min(max(lightness + change, 4), 100), a * chroma, b * chroma))

    return Tones(
        base=colour,
        light=tone(16, 0.85),
        shade=tone(-27 if lightness > 90 else -16 if lightness > 40 else -10),
        outline=tone(-42 if lightness > 90 else -30 if lightness > 45 else -16, 0.9),
        seam=tone(-24 if lightness > 38 else 34, 0.9),
        contrast="#ffffff" if lightness < 68 else tone(-50, 0.85),
        metallic=metallic,
    )


def mixed(colour: str, other: str, part: float) -> str:
    """Cover a hex colour with a part (0 to 1) of another."""
    pairs = ((int(colour[start : start + 2], 16), int(other[start : start + 2], 16)) for start in (1, 3, 5))
    return "#" + "".join(f"{round(one + (two - one) * part):02x}" for one, two in pairs)


def inside(paint: Tones) -> Tones:
    """Give the tones of what lies in an item's own shade: the inside of a hood, of a cup."""
    return Tones(paint.shade, paint.shade, paint.outline, paint.outline, paint.outline, paint.contrast)


def jittered(colour: str, random: random.Random) -> str:
    """Move a hex colour a little in lightness, hue and chroma, as light and cameras do."""
    lightness, a, b = lab(colour)
    hue = math.atan2(b, a) + math.radians(random.uniform(-4, 4))
    chroma = math.hypot(a, b) * random.uniform(0.94, 1.04)
    return to_hex((lightness + random.uniform(-1.5, 1.5), chroma * math.cos(hue), chroma * math.sin(hue)))


def lab(colour: str) -> Lab:
    """Give a hex colour in CIELAB (D65)."""
    linear = [_linear(int(colour[start : start + 2], 16) / 255) for start in (1, 3, 5)]
    x, y, z = (
        _cube_root(sum(weight * value for weight, value in zip(row, linear, strict=True)) / white)
        for row, white in zip(_TO_XYZ, _WHITE_POINT, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def to_hex(colour: Lab) -> str:
    """Give the hex colour nearest to one in CIELAB, channel by channel."""
    lightness, a, b = colour
    y = (lightness + 16) / 116
    roots = (y + a / 500, y, y - b / 200)
    xyz = [
        white * (root**3 if root > 6 / 29 else 3 * (6 / 29) ** 2 * (root - 4 / 29))
        for root, white in zip(roots, _WHITE_POINT, strict=True)
    ]
    channels = (sum(weight * value for weight, value in zip(row, xyz, strict=True)) for row in _TO_RGB)
    return "#" + "".join(f"{round(255 * _gamma(min(max(value, 0), 1))):02x}" for value in channels)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def _cube_root(value: float) -> float:
    return value ** (1 / 3) if value > (6 / 29) ** 3 else value / (3 * (6 / 29) ** 2) + 4 / 29
