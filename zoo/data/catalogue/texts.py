"""What is said of the catalogue's products: queries, titles and copy, as people and shops write them."""

import random
from collections.abc import Mapping

from zoo.data.catalogue.attributes import COLOURS, PATTERNS
from zoo.data.catalogue.categories import CATEGORIES
from zoo.data.catalogue.products import Product

# Values that nobody says: what is plain, or lacks something.
UNSAID = {"纯色", "一个", "整个", "无口袋", "无装饰", "无流苏", "无图案", "无扶手", "无数字键", "无背带"}

# Words of titles that no image shows.
EVERYWHERE = "2021新款 网红 百搭 爆款 热卖 ins风 高级感 小众设计 包邮 官方正品 明星同款 特价".split()
OF_FIELDS = {
    "服装": "显瘦 宽松 韩版 气质 纯棉 舒适透气 通勤 学生 洋气 春秋款 休闲 大码".split(),
    "鞋靴": "软底 防滑 透气 轻便 增高 舒适 耐磨 学生 春秋款 真皮 休闲 不累脚".split(),
    "箱包": "大容量 轻便 防水 通勤 学生 旅行 耐磨 时尚 质感 多功能 出差 休闲".split(),
    "饰品": "气质 简约 复古 轻奢 送女友 礼物 不过敏 精致 时尚 日系 闺蜜款 百搭款".split(),
    "美妆": "滋润 保湿 持久 学生党 平价 温和 敏感肌可用 礼盒 专柜 清爽 淡雅 便携".split(),
    "家居": "北欧 简约 家用 创意 客厅 卧室 宿舍 礼品 日式 精致 耐用 现代".split(),
    "数码": "高清 智能 便携 游戏 办公 高颜值 学生 长续航 灵敏 家用 礼物 官方旗舰".split(),
    "食品": "新鲜 零食 早餐 营养 手工 孕妇可吃 整箱 送礼 网红款 当季 独立包装 好吃".split(),
}
PRAISE = {
    "服装": "上身显瘦又减龄 穿上气质满满 柔软亲肤，久穿不累 简单一搭就很出彩 约会通勤都合适 版型利落，不挑身材".split(),
    "鞋靴": "走一天也不累脚 轻盈舒适，步步生风 搭裙搭裤都好看 软底贴合脚型 出街回头率很高 防滑耐穿，日常首选".split(),
    "箱包": "容量够大，出门全装下 质感在线，越看越喜欢 通勤旅行两相宜 轻便好背 细节精致，提升品位 结实耐用".split(),
    "饰品": "举手投足都是优雅 细节之处见精致 一戴就有亮点 送人自用都体面 点亮日常穿搭 低调里藏着小心机".split(),
    "美妆": "呵护肌肤每一天 气色瞬间提亮 随身携带，随时精致 温和滋润，用着安心 梳妆台上的小确幸 送给爱美的你".split(),
    "家居": "为家添一份温馨 让平凡的角落有了光 简约耐看，百搭不腻 用心生活的人都懂它 摆在哪里都好看 实用又好看".split(),
    "数码": "好看也好用 工作娱乐都顺手 小巧机身，大有作为 科技感扑面而来 灵敏顺畅，告别卡顿 出门在外的好搭档".split(),
    "食品": "一口就爱上的味道 新鲜看得见 忙碌时的小小慰藉 全家人都爱吃 香甜不腻口 给生活加点甜".split(),
}
COPY = (
    "{what}，{details}{praise}",
    "这款{what}{details}{praise}。",
    "{what}来了！{details}{praise}",
    "{praise}，就选这款{what}{end}",
    "推荐一款{what}，{details}{praise}。",
    "{details}这款{what}{praise}",
    "喜欢{colour}的你别错过：{what}，{details}{praise}。",
    "{category}也可以很特别，{colour}{pattern}，{details}{praise}",
)
DETAIL = ("{}设计，", "{}款式，", "{}更出彩，", "贴心{}，", "经典{}，", "{}的样子，")
# Other words for the values of details.
DETAILS = {
    "短袖": ("半袖",),
    "长袖": ("长袖子",),
    "无袖": ("背心款",),
    "圆领": ("小圆领",),
    "V领": ("鸡心领",),
    "连帽": ("带帽子",),
    "立领": ("高领",),
    "短款": ("短版",),
    "长款": ("长版",),
    "百褶裙": ("百褶",),
    "包臀裙": ("包臀",),
    "阔腿裤": ("阔腿",),
    "直筒裤": ("直筒",),
    "紧身裤": ("小脚",),
    "魔术贴": ("粘扣",),
    "蝴蝶结": ("带蝴蝶结",),
    "细跟": ("细高跟",),
    "坡跟": ("坡跟厚底",),
    "心形": ("爱心形", "桃心"),
    "圆形": ("圆的",),
    "方形": ("方的",),
    "两个": ("一对",),
    "流苏": ("带流苏",),
    "拉链": ("带拉链",),
    "无线": ("无线款",),
    "有线": ("有线款", "带线"),
    "有口袋": ("带口袋",),
    "有背带": ("带背带",),
    "有扶手": ("带扶手",),
}
ASIDES = ("", "", "", "新款", "女生", "好看的", "便宜", "高级感", "推荐", "送人")


def words() -> dict[str, dict[str, list[str]]]:
    """Give all words for each value of each kind of attribute."""
    kinds = {"类别": [*CATEGORIES], "颜色": [*COLOURS], "图案": [*PATTERNS], "拼色": [*COLOURS]}
    for category in CATEGORIES.values():
        for kind, values in category.details.items():
            kinds.setdefault(kind, []).extend(values)
    return {
        kind: {value: [spoken(kind, word) for word in ways(kind, value)] for value in values}
        for kind, values in kinds.items()
    }


def spoken(kind: str, word: str) -> str:
    """Give a word as it stands in a text: a second colour is joined to the first."""
    return f"拼{word}" if kind == "拼色" else word


def ways(kind: str, value: str) -> tuple[str, ...]:
    """Give all words for a value of an attribute: its name first."""
    known: Mapping[str, Mapping] = {"类别": CATEGORIES, "颜色": COLOURS, "图案": PATTERNS, "拼色": COLOURS}
    synonyms = known[kind][value].synonyms if kind in known else DETAILS.get(value, ())
    return (value, *synonyms)


def say(kind: str, value: str, source: random.Random) -> str:
    """Say an attribute: by its name half of the time, else in another way."""
    name, *others = ways(kind, value)
    return spoken(kind, name if not others or source.random() < 0.5 else source.choice(others))


def query(asked: Mapping[str, str], source: random.Random) -> str:
    """Ask for a product by some of its attributes, its category among them, as people type it.

    Args:
        asked: The attributes, as of ``Product.attributes``.
        source: Of the words.
    """
    words = [say(kind, value, source) for kind, value in asked.items() if kind != "类别"]
    source.shuffle(words)
    category, aside = say("类别", asked["类别"], source), source.choice(ASIDES)
    if source.random() < 0.2:
        return " ".join(filter(None, [category, *words, aside]))
    between = "的" if words and source.random() < 0.2 else ""
    return f"{aside}{''.join(words)}{between}{category}"


def title(product: Product, source: random.Random) -> str:
    """Name a product as shops do: many words in any order, some of them of what no image shows, some attributes not.

    What makes a product new is always said.
    """
    said = {product.item.category, product.item.colour} if product.new else {product.item.category}
    if product.new:
        said.add(product.item.pattern)
    words = [
        say(kind, value, source)
        for kind, value in product.attributes.items()
        if value not in UNSAID and kind != "类别" and (value in said or source.random() < 0.75)
    ]
    field = CATEGORIES[product.item.category].field
    words += source.sample(EVERYWHERE, source.randint(1, 2)) + source.sample(OF_FIELDS[field], source.randint(1, 3))
    source.shuffle(words)
    words.insert(source.randint(len(words) // 2, len(words)), say("类别", product.item.category, source))
    return "".join(words)


def copy(product: Product, source: random.Random) -> str:
    """Write a sentence that sells a product: its category, colour and pattern, and mostly its details."""
    item = product.item
    colour = say("颜色", item.colour, source)
    if item.second_colour is not None:
        colour += say("拼色", item.second_colour, source)
    pattern = say("图案", item.pattern, source) if item.pattern not in UNSAID or source.random() < 0.2 else ""
    category = say("类别", item.category, source)
    details = [
        source.choice(DETAIL).format(say(kind, value, source))
        for kind, value in item.details.items()
        if value not in UNSAID and source.random() < 0.6
    ]
    source.shuffle(details)
    ending = "".join(details).removesuffix("，")
    return source.choice(COPY).format(
        what=source.choice(("{0}{1}{2}", "{1}{2}（{0}）", "{0}的{1}{2}")).format(colour, pattern, category),
        colour=colour,
        pattern=pattern,
        category=category,
        details="".join(details),
        praise=source.choice(PRAISE[CATEGORIES[item.category].field]),
        end=f"，{ending}。" if ending else "。",
    )
