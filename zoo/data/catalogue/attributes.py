"""What the catalogue's items have in common: colours, patterns, and what an item is. Rules as data, no drawing."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Colour:
    """A named colour.

    Args:
        name: Its name on a product page.
        hex: Its middle; each render moves it a little.
        synonyms: Other ways to say it.
        metallic: Whether it shines in bands, as metal does.
    """

    name: str
    hex: str
    synonyms: tuple[str, ...] = ()
    metallic: bool = False


@dataclass(frozen=True)
class Pattern:
    """A pattern or a material.

    Args:
        name: Its name on a product page.
        synonyms: Other ways to say it.
        colours: The colours that it comes in.
    """

    name: str
    synonyms: tuple[str, ...]
    colours: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """What is drawn, in words.

    Args:
        category: One of ``CATEGORIES``.
        colour: One of ``COLOURS``; the larger part of it.
        pattern: One of ``PATTERNS``.
        second_colour: The colour of a smaller part, where the category has one; None: as it has it by itself.
        details: The category's own attributes; one left out has the first value that the category lists.
    """

    category: str
    colour: str
    pattern: str = "纯色"
    second_colour: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)


COLOURS = {
    colour.name: colour
    for colour in (
        Colour("黑色", "#2b2b2e", ("黑", "纯黑", "炭黑")),
        Colour("白色", "#fbfbfb", ("白", "纯白", "雪白")),
        Colour("灰色", "#727478", ("灰", "深灰", "烟灰")),
        Colour("银色", "#b5bbc3", ("银", "银白", "亮银"), metallic=True),
        Colour("米色", "#e6d2aa", ("米白", "杏色", "奶油色")),
        Colour("棕色", "#7b4a2a", ("咖啡色", "褐色", "咖色")),
        Colour("红色", "#dc2329", ("大红", "正红", "中国红")),
        Colour("酒红色", "#74152f", ("酒红", "暗红", "枣红")),
        Colour("粉色", "#f6a3be", ("粉红", "浅粉", "樱花粉")),
        Colour("橙色", "#f47a1c", ("橘色", "橘红", "橙")),
        Colour("黄色", "#fbdb30", ("明黄", "柠檬黄", "鹅黄")),
        Colour("金色", "#c79a3a", ("金", "香槟金", "土豪金"), metallic=True),
        Colour("绿色", "#2f9a4c", ("草绿", "翠绿", "绿")),
        Colour("蓝色", "#3f8fe0", ("蓝", "天蓝", "湖蓝")),
        Colour("藏青色", "#1e2f63", ("藏青", "深蓝", "海军蓝")),
        Colour("紫色", "#8a4fc0", ("紫", "紫罗兰", "葡萄紫")),
    )
}

_ALL = tuple(COLOURS)
_CLOTH = tuple(name for name, colour in COLOURS.items() if not colour.metallic)

PATTERNS = {
    pattern.name: pattern
    for pattern in (
        Pattern("纯色", ("素色", "单色", "净色"), _ALL),
        Pattern("条纹", ("横条", "条纹款", "海魂纹"), _CLOTH),
        Pattern("格子", ("格纹", "苏格兰格", "方格"), _CLOTH),
        Pattern("波点", ("圆点", "波点印花", "小圆点"), _CLOTH),
        Pattern("碎花", ("小碎花", "花朵印花", "田园花"), _CLOTH),
        Pattern(
            "豹纹", ("豹点", "豹纹印花", "野性豹纹"), ("米色", "棕色", "灰色", "白色", "粉色", "红色", "橙色", "黄色")
        ),
        Pattern(
            "迷彩",
            ("迷彩印花", "军旅迷彩", "丛林迷彩"),
            ("绿色", "灰色", "米色", "蓝色"),
        ),
        Pattern(
            "渐变",
            ("渐变色", "晕染", "扎染渐变"),
            ("黑色", "灰色", "棕色", "红色", "酒红色", "粉色", "橙色", "黄色", "绿色", "蓝色", "藏青色", "紫色"),
        ),
        Pattern("牛仔", ("牛仔布", "丹宁", "水洗牛仔"), ("蓝色", "藏青色")),
        Pattern("针织", ("毛线", "粗针织", "麻花针织"), _CLOTH),
    )
}
