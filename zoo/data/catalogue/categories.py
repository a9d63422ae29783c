"""The catalogue's categories, and the images of its items.

A category is one row here and one drawing function in ``zoo.data.catalogue.drawing``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np

from zoo.data.catalogue.attributes import COLOURS, PATTERNS, Item
from zoo.data.catalogue.drawing import beauty, clothing, shoes
from zoo.data.catalogue.drawing.canvas import Canvas
from zoo.errors import invalid, nearest

Draw = Callable[[Canvas], None]


@dataclass(frozen=True)
class Category:
    """A kind of product.

    Args:
        name: Its name on a product page.
        field: The part of a shop that it is in: 服装, 鞋靴, 箱包, 饰品, 美妆, 家居, 数码 or 食品.
        draw: What draws an item of it.
        synonyms: Other ways to say it.
        colours: The colours that it comes in.
        patterns: The patterns that it comes in.
        second_part: What of it may have a second colour, in words; empty: nothing.
        details: Its own attributes, with their values; the first is what an item has that says nothing of it.
    """

    name: str
    field: str
    draw: Draw
    synonyms: tuple[str, ...]
    colours: tuple[str, ...]
    patterns: tuple[str, ...]
    second_part: str = ""
    details: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def looks(self) -> Iterator[tuple[str, str]]:
        """List the pairs of a colour and a pattern that it comes in."""
        for pattern in self.patterns:
            yield from ((colour, pattern) for colour in self.colours if colour in PATTERNS[pattern].colours)


_ALL = tuple(COLOURS)
_CLOTH = tuple(name for name, colour in COLOURS.items() if not colour.metallic)
_PLAIN = ("纯色",)
_PRINTS = ("纯色", "条纹", "格子", "波点", "碎花", "豹纹")
_LIPS = ("红色", "酒红色", "粉色", "橙色", "棕色", "紫色")

CATEGORIES = {
    category.name: category
    for category in (
        Category("连衣裙", "服装", clothing.dress, ("裙子", "长裙", "连身裙"), _CLOTH, (*_PRINTS, "渐变", "牛仔", "针织"), "袖子和腰带",
                 {"袖长": ("短袖", "长袖", "无袖"), "领型": ("圆领", "V领", "方领"), "长度": ("短款", "长款")}),
        Category("运动鞋", "鞋靴", shoes.sneaker, ("跑鞋", "球鞋", "跑步鞋"), _ALL, ("纯色", "迷彩", "渐变", "豹纹"), "鞋头和鞋跟"),
        Category("口红", "美妆", beauty.lipstick, ("唇膏", "唇釉"), _LIPS, _PLAIN, "外壳"),
    )
}  # fmt: skip


def check(item: Item) -> None:
    """Check that an item is one that its category has.

    Raises:
        UserError: If it is not; the message names what does not fit.
    """
    category = CATEGORIES[_known("category", item.category, CATEGORIES)]
    _known(f"the colour of {category.name}", item.colour, category.colours)
    _known(f"the pattern of {category.name}", item.pattern, category.patterns)
    _known(f"the colour of {item.pattern}", item.colour, PATTERNS[item.pattern].colours)
    if item.second_colour is not None:
        others = (colour for colour in COLOURS if category.second_part and colour != item.colour)
        _known(f"the second colour of {category.name}", item.second_colour, others)
    for name, value in item.details.items():
        _known(f"{category.name}'s {name}", value, category.details[_known("detail", name, category.details)])


def svg(item: Item, seed: int) -> str:
    """Draw an item as SVG; the same item and seed give the same text.

    Args:
        item: What is drawn.
        seed: What else differs between two images of it: the shade of its colours, size, turn, side.

    Raises:
        UserError: If the item's category has no such item.
    """
    check(item)
    category = CATEGORIES[item.category]
    details = {name: values[0] for name, values in category.details.items()} | dict(item.details)
    canvas = Canvas(replace(item, details=details), seed)
    category.draw(canvas)
    return canvas.svg()


def render(item: Item, seed: int, size: int) -> np.ndarray:
    """Draw an item as ``[size, size, 3]`` uint8 RGB on white.

    Args:
        item: As of :func:`svg`.
        seed: As of :func:`svg`.
        size: Pixels a side.
    """
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(
        svg_string=svg(item, seed), width=size, height=size, background="#ffffff", skip_system_fonts=True
    )
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def _known(argument: str, value: str, valid: Iterable[str]) -> str:
    valid = tuple(valid)
    if value not in valid:
        raise invalid(argument, value, f"give one of {', '.join(valid) or 'none'}.{nearest(value, valid)}")
    return value
