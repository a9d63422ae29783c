"""The catalogue's categories, and the images of its items.

A category is one row here and one drawing function in ``zoo.data.catalogue.drawing``.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np

from zoo.data.catalogue.attributes import COLOURS, PATTERNS, Item
from zoo.data.catalogue.drawing import bags, beauty, clothing, digital, food, home, jewellery, shoes
from zoo.data.catalogue.drawing.canvas import Canvas
from zoo.errors import invalid, nearest

Draw = Callable[[Canvas], None]

_CLOTH = tuple(name for name, colour in COLOURS.items() if not colour.metallic)
_ALL = tuple(COLOURS)
_SOBER = ("黑色", "白色", "灰色", "米色", "棕色", "藏青色", "酒红色", "蓝色", "绿色", "粉色")
_DEVICE = ("黑色", "白色", "灰色", "银色", "金色", "粉色", "红色", "蓝色", "绿色", "紫色")
_GEMS = ("金色", "银色", "红色", "蓝色", "绿色", "紫色", "黑色", "白色", "粉色")
_TINTS = ("粉色", "紫色", "蓝色", "绿色", "黄色", "橙色", "红色", "酒红色", "黑色", "金色")
_CASES = ("黑色", "白色", "金色", "银色")
_LENSES = ("棕色", "灰色", "蓝色", "紫色", "绿色", "粉色", "红色")
_LIPS = ("红色", "酒红色", "粉色", "橙色", "棕色", "紫色")
_SWEET = ("白色", "粉色", "棕色", "黄色", "绿色", "紫色", "蓝色", "橙色", "红色")


def _without(colour: str, colours: tuple[str, ...]) -> tuple[str, ...]:
    """Second colours, without the one that the part has by itself."""
    return tuple(name for name in colours if name != colour)


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
        second_colours: The colours that a smaller part of it may have, each unlike the first; empty: it has no such part.
        details: Its own attributes, with their values; the first is what an item has that says nothing of it.
    """

    name: str
    field: str
    draw: Draw
    synonyms: tuple[str, ...]
    colours: tuple[str, ...]
    patterns: tuple[str, ...]
    second_colours: tuple[str, ...] = ()
    details: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def looks(self) -> Iterator[tuple[str, str]]:
        """List the pairs of a colour and a pattern that it comes in."""
        for pattern in self.patterns:
            yield from ((colour, pattern) for colour in self.colours if colour in PATTERNS[pattern].colours)


_PLAIN = ("纯色",)
_PRINTS = ("纯色", "条纹", "格子", "波点", "碎花", "豹纹")
_WOVEN = (*_PRINTS, "渐变", "牛仔")
_EVERY = tuple(PATTERNS)

_SLEEVES = ("短袖", "长袖", "无袖")
_POCKET = ("无口袋", "有口袋")
_LENGTH = ("短款", "长款")

CATEGORIES = {
    category.name: category
    for category in (
        Category("连衣裙", "服装", clothing.dress, ("连身裙", "裙装"), _CLOTH, (*_WOVEN, "针织"), _CLOTH,
                 {"袖长": _SLEEVES, "领型": ("圆领", "V领", "方领"), "长度": _LENGTH}),
        Category("半身裙", "服装", clothing.skirt, ("半裙", "半截裙"), _CLOTH, (*_WOVEN, "针织"), _CLOTH,
                 {"裙型": ("A字裙", "百褶裙", "包臀裙"), "长度": _LENGTH}),
        Category("T恤", "服装", clothing.t_shirt, ("体恤", "t恤衫"), _CLOTH, _EVERY, _CLOTH,
                 {"袖长": ("短袖", "长袖"), "领型": ("圆领", "V领"), "口袋": _POCKET}),
        Category("衬衫", "服装", clothing.shirt, ("衬衣", "翻领衬衣"), _CLOTH, (*_WOVEN, "迷彩"), _CLOTH,
                 {"袖长": ("长袖", "短袖"), "口袋": _POCKET}),
        Category("卫衣", "服装", clothing.hoodie, ("运动上衣", "帽衫"), _CLOTH,
                 ("纯色", "条纹", "格子", "迷彩", "渐变", "针织", "豹纹"), _CLOTH,
                 {"领型": ("连帽", "圆领"), "开合": ("套头", "拉链")}),
        Category("羽绒服", "服装", clothing.puffer, ("羽绒衣", "羽绒外套"), _CLOTH,
                 ("纯色", "格子", "迷彩", "渐变", "豹纹"), _CLOTH,
                 {"长度": _LENGTH, "领型": ("连帽", "立领")}),
        Category("西装", "服装", clothing.blazer, ("西服", "西装外套"), _SOBER, ("纯色", "格子"),
                 _without("灰色", _CLOTH), {"扣型": ("单排扣", "双排扣")}),
        Category("长裤", "服装", clothing.trousers, ("裤子", "休闲裤"), _CLOTH, (*_WOVEN, "迷彩"), _CLOTH,
                 {"裤型": ("直筒裤", "阔腿裤", "紧身裤")}),
        Category("短裤", "服装", clothing.shorts, ("短裤子", "五分裤"), _CLOTH, _EVERY, _CLOTH,
                 {"腰部": ("纽扣", "抽绳")}),
        Category("运动鞋", "鞋靴", shoes.sneaker, ("跑鞋", "球鞋"), _ALL, ("纯色", "格子", "豹纹", "迷彩"),
                 _CLOTH, {"鞋带": ("系带", "魔术贴")}),
        Category("高跟鞋", "鞋靴", shoes.high_heel, ("高跟单鞋",), _ALL,
                 ("纯色", "格子", "波点", "碎花", "豹纹"), _ALL,
                 {"鞋跟": ("细跟", "粗跟"), "装饰": ("无装饰", "蝴蝶结")}),
        Category("靴子", "鞋靴", shoes.boot, ("女靴", "时装靴"), _CLOTH, ("纯色", "格子", "豹纹", "牛仔", "针织"),
                 _without("黑色", _CLOTH), {"筒高": ("短筒", "长筒"), "鞋跟": ("平跟", "高跟")}),
        Category("拖鞋", "鞋靴", shoes.slippers, ("凉拖", "居家拖鞋"), _CLOTH, (*_PRINTS, "迷彩", "牛仔"),
                 _without("黑色", _CLOTH), {"款式": ("一字拖", "人字拖")}),
        Category("帆布鞋", "鞋靴", shoes.canvas_shoe, ("板鞋", "布鞋"), _CLOTH, (*_WOVEN, "迷彩"), _CLOTH,
                 {"鞋帮": ("高帮", "低帮")}),
        Category("双肩包", "箱包", bags.backpack, ("背包", "书包"), _CLOTH, (*_WOVEN, "迷彩", "针织"),
                 _CLOTH, {"口袋": ("单口袋", "双口袋")}),
        Category("手提包", "箱包", bags.handbag, ("女包", "手拎包"), _ALL, (*_WOVEN, "针织"), _ALL,
                 {"形状": ("梯形", "方形", "圆形")}),
        Category("钱包", "箱包", bags.wallet, ("皮夹", "钱夹"), _ALL, _WOVEN, _without("金色", _ALL),
                 {"款式": ("短款", "长款")}),
        Category("行李箱", "箱包", bags.suitcase, ("拉杆箱", "旅行箱"), _ALL,
                 ("纯色", "条纹", "格子", "波点", "豹纹", "迷彩", "渐变"), _without("银色", _ALL),
                 {"外壳": ("竖纹", "光面")}),
        Category("项链", "饰品", jewellery.necklace, ("吊坠", "锁骨链"), _GEMS, _PLAIN, _GEMS,
                 {"吊坠": ("圆形", "心形", "水滴形", "星形")}),
        Category("耳环", "饰品", jewellery.earrings, ("耳坠", "耳饰"), _GEMS, _PLAIN, _GEMS,
                 {"形状": ("圆环", "水滴形", "心形", "星形")}),
        Category("戒指", "饰品", jewellery.ring, ("指环", "戒子"), ("金色", "银色"), _PLAIN, _GEMS,
                 {"镶嵌": ("圆钻", "心形", "素圈")}),
        Category("手表", "饰品", jewellery.watch, ("腕表", "石英表"), _ALL, _PLAIN, _without("白色", _ALL),
                 {"表盘": ("圆形", "方形")}),
        Category("帽子", "饰品", jewellery.hat, ("帽", "潮帽"), _CLOTH, _EVERY, _CLOTH,
                 {"款式": ("棒球帽", "渔夫帽", "毛线帽")}),
        Category("围巾", "饰品", jewellery.scarf, ("围脖", "保暖围巾"), _CLOTH, (*_PRINTS, "渐变", "针织"),
                 _CLOTH, {"围巾边": ("流苏", "无流苏")}),
        Category("墨镜", "饰品", jewellery.sunglasses, ("太阳镜", "太阳眼镜"), _ALL, ("纯色", "豹纹"),
                 _LENSES, {"镜框": ("圆框", "方框", "猫眼")}),
        Category("腰带", "饰品", jewellery.belt, ("皮带", "裤带"), _CLOTH, ("纯色", "条纹", "豹纹", "迷彩", "牛仔"),
                 _without("金色", _ALL), {"扣头": ("方扣", "圆扣")}),
        Category("口红", "美妆", beauty.lipstick, ("唇膏", "唇釉"), _LIPS, _PLAIN, _CASES,
                 {"件数": ("单支", "两支")}),
        Category("香水", "美妆", beauty.perfume, ("香氛", "淡香水"), _TINTS, ("纯色", "渐变"),
                 _without("金色", _ALL), {"瓶形": ("方瓶", "圆瓶", "心形瓶")}),
        Category("面霜", "美妆", beauty.cream, ("乳霜", "保湿霜"), _ALL, _PLAIN, _without("金色", _ALL),
                 {"盖子": ("开盖", "合盖")}),
        Category("指甲油", "美妆", beauty.nail_polish, ("甲油", "美甲油"), _ALL, _PLAIN,
                 _without("黑色", _ALL), {"件数": ("单瓶", "两瓶")}),
        Category("杯子", "家居", home.mug, ("马克杯", "水杯"), _ALL, (*_PRINTS, "迷彩", "渐变"), _ALL,
                 {"印图": ("无图案", "爱心", "星星"), "件数": ("单只", "两只")}),
        Category("台灯", "家居", home.lamp, ("床头灯", "灯具"), _ALL, (*_PRINTS, "渐变"),
                 _without("金色", _ALL), {"灯罩": ("锥形", "半球形", "圆筒形")}),
        Category("抱枕", "家居", home.cushion, ("靠垫", "靠枕"), _CLOTH, _EVERY, _CLOTH,
                 {"形状": ("方形", "长方形", "心形")}),
        Category("雨伞", "家居", home.umbrella, ("晴雨伞", "遮阳伞"), _CLOTH, (*_PRINTS, "迷彩", "渐变"),
                 _CLOTH, {"伞柄": ("弯柄", "直柄")}),
        Category("花瓶", "家居", home.vase, ("花器", "插花瓶"), _ALL, (*_PRINTS, "渐变"), _ALL,
                 {"插花": ("插花", "空瓶"), "瓶形": ("圆肚", "细高")}),
        Category("椅子", "家居", home.chair, ("餐椅", "靠背椅"), _CLOTH,
                 ("纯色", "条纹", "格子", "波点", "碎花", "豹纹", "牛仔"), _without("棕色", _ALL),
                 {"扶手": ("无扶手", "有扶手")}),
        Category("手机壳", "数码", digital.phone_case, ("手机套", "保护壳"), _ALL, (*_PRINTS, "迷彩", "渐变"),
                 _ALL, {"印图": ("无图案", "爱心", "星星")}),
        Category("耳机", "数码", digital.headphones, ("耳麦", "蓝牙耳机"), _DEVICE, _PLAIN, _DEVICE,
                 {"款式": ("头戴式", "入耳式")}),
        Category("键盘", "数码", digital.keyboard, ("机械键盘", "电脑键盘"), _DEVICE, _PLAIN, _DEVICE,
                 {"数字键": ("有数字键", "无数字键")}),
        Category("鼠标", "数码", digital.mouse, ("滑鼠", "电脑鼠标"), _DEVICE, ("纯色", "渐变"), _DEVICE,
                 {"连接": ("无线", "有线")}),
        Category("相机", "数码", digital.camera, ("照相机", "数码相机"), _DEVICE, _PLAIN, _ALL,
                 {"背带": ("无背带", "有背带")}),
        Category("苹果", "食品", food.apple, ("鲜苹果", "水果苹果"), ("红色", "绿色", "黄色"), ("纯色", "渐变"),
                 (), {"件数": ("一个", "两个", "半个")}),
        Category("蛋糕", "食品", food.cake, ("生日蛋糕", "奶油蛋糕"), _SWEET, _PLAIN, _SWEET,
                 {"形状": ("整个", "切块"), "装饰": ("草莓", "蜡烛")}),
        Category("冰淇淋", "食品", food.ice_cream, ("雪糕", "冰激凌"), _SWEET, ("纯色", "波点"),
                 _SWEET, {"球数": ("单球", "双球")}),
        Category("棒棒糖", "食品", food.lollipop, ("糖果", "波板糖"),
                 ("红色", "粉色", "橙色", "黄色", "绿色", "蓝色", "紫色"), _PLAIN, _without("白色", _SWEET),
                 {"形状": ("圆形", "心形"), "装饰": ("无装饰", "蝴蝶结")}),
        Category("牛奶", "食品", food.milk, ("鲜奶", "纯牛奶"),
                 ("白色", "蓝色", "绿色", "红色", "粉色", "黄色", "棕色"), ("纯色", "波点"), _CLOTH,
                 {"包装": ("纸盒", "玻璃瓶")}),
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
        others = (colour for colour in category.second_colours if colour != item.colour)
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
