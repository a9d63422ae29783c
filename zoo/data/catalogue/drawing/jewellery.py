"""How jewellery and what else is worn beside clothes is drawn."""

import math

from zoo.data.catalogue.drawing.canvas import BLACK, BRASS, GLASS, STEEL, WHITE, Canvas
from zoo.data.catalogue.drawing.paths import box, drop, ellipse, heart, scaled, star
from zoo.data.catalogue.drawing.tones import inside

_PENDANTS = {
    "圆形": ellipse(0, 0, 1),
    "心形": heart(0, 0, 1),
    "水滴形": drop(0, 0.2, 0.85),
    "星形": star(0, 0, 1.15),
}


def necklace(c: Canvas) -> None:
    """A chain of links in a wide loop, with a pendant."""
    chain = c.main if c.main.metallic else BRASS
    for link in range(31):
        angle = math.pi * (0.14 + 1.72 * link / 30)
        x, y = 50 - 38 * math.sin(angle), 44 - 44 * math.cos(angle) * (1 if math.cos(angle) > 0 else 0.72)
        c.panel(ellipse(x, 88 - y, 2.6), chain, edge=0.7)
    c.panel(ellipse(50, 78, 3), chain, edge=1.2)
    c.panel(scaled(_PENDANTS[c.detail("吊坠")], 50, 94, 15), c.second, edge=1.3)
    c.gloss(ellipse(45, 89, 3.2, 2.4), 0.7)


def earrings(c: Canvas) -> None:
    """A pair: two hoops, or two hooks with a charm on each."""
    hook = c.main if c.main.metallic else BRASS
    for _ in c.pair():
        c.strap("M20,22 Q20,8 27,8 Q33,9 32,20 L30,30", 1.8, hook)
        if c.detail("形状") == "圆环":
            c.strap(ellipse(28, 54, 19, 22), 5)
            c.panel(ellipse(28, 78, 5), c.second, edge=0.8)
        else:
            c.panel(ellipse(29, 34, 5), None, edge=1)
            c.strap("M29,39 L29,46", 1.6, hook)
            c.panel(scaled(_PENDANTS[c.detail("形状")], 29, 66, 18), c.second, edge=1.3)
            c.gloss(ellipse(24, 62, 3.5, 3), 0.7)


def ring(c: Canvas) -> None:
    """A ring seen a little from above, with a stone or without."""
    if c.detail("镶嵌") == "素圈":
        c.panel(ellipse(50, 60, 38, 35), edge=1.2)
        c.panel(ellipse(50, 52, 32, 25), inside(c.main))
        c.fill("M20,57 Q28,34 50,34 Q72,34 80,57 Q66,77 50,77 Q34,77 20,57 Z", "#ffffff")
        c.line("M17,70 Q30,88 50,88 Q70,88 83,70", c.second, width=2.4)
        return
    c.strap(ellipse(50, 64, 28, 27), 8)
    gem = c.second or GLASS
    if c.detail("镶嵌") == "圆钻":
        c.panel("M36,22 L40,36 L60,36 L64,22 Z", edge=1)
        c.panel("M38,6 L62,6 L72,16 L50,40 L28,16 Z", gem, edge=1.2)
        c.line("M28,16 L72,16 M38,6 L42,16 L50,40 L58,16 L62,6 M42,16 L50,6 L58,16", gem, width=1.1)
        c.gloss("M38,7 L42,15 L30,15 Z", 0.8)
    else:
        c.panel("M38,30 L42,38 L58,38 L62,30 Z", edge=1)
        c.panel(heart(50, 20, 19), gem, edge=1.3)
        c.gloss(ellipse(41, 13, 4, 3), 0.8)


def watch(c: Canvas) -> None:
    """A wrist watch from the front: strap, case, crown, dial with hands."""
    is_round = c.detail("表盘") == "圆形"
    c.panel("M36,30 L39,0 Q40,-4 44,-4 L56,-4 Q60,-4 61,0 L64,30 Z")
    c.panel("M36,70 L39,98 Q44,108 50,108 Q56,108 61,98 L64,70 Z")
    c.panel(box(37, -8, 26, 8, 2), STEEL)
    for hole in (86, 92, 98):
        c.fill(ellipse(50, hole, 1.8), c.main.outline)
    c.stitches("M40.5,24 L42.5,2 M59.5,24 L57.5,2 M40.5,76 L42.5,96 M59.5,76 L57.5,96")
    case = c.main if c.main.metallic else STEEL
    c.panel(box(76, 46, 7, 8, 2), case)
    dial = c.second or WHITE
    if is_round:
        c.panel(ellipse(50, 50, 29), case, edge=1.3)
        c.panel(ellipse(50, 50, 23), dial)
    else:
        c.panel(box(24, 22, 52, 56, 10), case, edge=1.3)
        c.panel(box(30, 28, 40, 44, 6), dial)
    for mark in range(12):
        x, y = math.sin(mark * math.pi / 6), math.cos(mark * math.pi / 6)
        reach = 1.0 if is_round else 0.85 / max(abs(x), abs(y))
        c.line(
            f"M{50 + 20 * reach * x:g},{50 - 20 * reach * y:g} L{50 + 17 * reach * x:g},{50 - 17 * reach * y:g}",
            dial,
            width=1.5,
        )
    c.line("M50,50 L40,41", dial, width=2.6)
    c.line("M50,50 L61,37", dial, width=1.8)
    c.fill(ellipse(50, 50, 2.2), dial.seam)


def hat(c: Canvas) -> None:
    """A baseball cap from its side, a bucket hat, or a woollen hat with a pompom."""
    trim = c.second
    style = c.detail("款式")
    if style == "棒球帽":
        c.panel("M32,66 Q10,66 0,76 Q-3,82 4,83 Q22,78 42,76 Z", trim, plain=True)
        c.panel("M30,68 Q30,30 62,28 Q94,30 95,70 Q64,80 30,68 Z")
        c.line("M62,28 Q46,44 48,73 M62,28 Q82,44 80,74", width=1.2)
        c.panel(ellipse(62, 28, 4, 2.6), trim, plain=True)
        c.fill(ellipse(71, 46, 1.3), c.main.outline)
    elif style == "渔夫帽":
        c.panel("M26,60 L74,60 Q90,70 98,82 Q50,96 2,82 Q10,70 26,60 Z", trim)
        c.line("M14,74 Q50,86 86,74 M8,79 Q50,91 92,79", trim)
        c.panel("M33,32 Q50,26 67,32 L75,62 Q50,70 25,62 Z")
        c.panel(ellipse(50, 32, 17, 4.6))
        c.line("M26,59 Q50,67 74,59", width=1.3)
    else:
        c.panel("M17,72 Q16,28 50,26 Q84,28 83,72 Z")
        if c.item.pattern == "纯色":
            c.line("M30,68 Q31,44 42,30 M43,68 Q44,44 48,28 M57,68 Q56,44 52,28 M70,68 Q69,44 58,30", width=1.4)
        c.panel(box(13, 66, 74, 19, 6), trim, plain=True)
        for x in range(20, 84, 7):
            c.line(f"M{x},68 L{x},83", trim, width=1.3)
        spikes = [(13 + 2.2 * (spike % 2), spike * math.pi / 12) for spike in range(24)]
        edge = " L".join(f"{50 + r * math.cos(a):.4g},{18 + r * math.sin(a):.4g}" for r, a in spikes)
        c.panel(f"M{edge} Z", trim, plain=True)


def scarf(c: Canvas) -> None:
    """A scarf tied in a loop, two ends hanging; with fringes or without."""
    fringed = c.detail("围巾边") == "流苏"
    for x, top, bottom, tilt in ((52, 44, 92, -7), (34, 44, 100, 6)):
        shift = -tilt * 0.7
        if fringed:
            for fringe in range(6):
                fx = x + shift + 1.5 + 3.8 * fringe
                c.strap(f"M{fx:g},{bottom - 2} L{fx + shift * 0.2:g},{bottom + 9}", 1.8, c.second)
        c.panel(f"M{x},{top} L{x + 20},{top} L{x + 22 + shift:g},{bottom} L{x - 1 + shift:g},{bottom} Z", tilt=tilt)
        c.panel(
            f"M{x - 0.6 + shift * 0.85:g},{bottom - 7} L{x + 21.5 + shift * 0.85:g},{bottom - 7} "
            f"L{x + 22 + shift:g},{bottom} L{x - 1 + shift:g},{bottom} Z",
            c.second,
        )
    c.panel("M16,24 Q20,8 50,8 Q80,8 84,24 Q80,30 74,30 Q66,20 50,20 Q34,20 26,30 Q20,30 16,24 Z", tilt=10)
    c.panel("M16,22 Q14,40 34,48 L58,54 Q80,46 84,22 Q70,38 50,38 Q30,38 16,22 Z", tilt=8)
    c.panel("M34,36 Q48,30 62,38 Q66,52 58,58 Q44,62 34,54 Q30,44 34,36 Z", tilt=-20)
    c.line("M38,40 Q40,48 38,55 M48,36 Q50,46 48,58 M57,39 Q59,46 56,56")
    c.line("M22,34 Q36,44 48,44 M78,34 Q70,42 62,44")


def sunglasses(c: Canvas) -> None:
    """Sunglasses from the front, their temples folded behind; dark lenses with a reflection."""
    lens = {
        "圆框": ellipse(26, 50, 19),
        "方框": "M6,36 L46,36 Q48,54 42,62 Q36,66 16,64 Q6,62 6,36 Z",
        "猫眼": "M-2,28 Q20,32 44,38 Q50,44 46,56 Q40,68 24,66 Q8,64 6,48 Q6,38 -2,28 Z",
    }[c.detail("镜框")]
    dark = c.second or BLACK
    for _ in c.pair():
        c.strap("M6,44 Q10,34 22,28 L44,22", 3)
    c.strap("M42,46 Q50,40 58,46", 4)
    for _ in c.pair():
        c.panel(lens, edge=1)
        inner = scaled(lens, 25.5 * 0.2, 50.5 * 0.2, 0.8)
        c.panel(inner, dark, edge=0.8)
    for _ in c.copies((0, 0), (48, 0)):
        c.gloss("M14,46 L20,40 L24,40 L14,53 Z", 0.5)


def belt(c: Canvas) -> None:
    """A belt rolled up, its buckle in front and its end with holes."""
    c.panel("M14,40 Q14,16 54,16 Q94,16 94,40 L94,60 L14,60 Z")
    c.panel("M26,40 Q30,30 54,30 Q78,30 84,40 Q84,52 54,54 Q26,52 26,40 Z", inside(c.main))
    c.panel("M14,38 Q16,56 54,58 Q92,56 94,40 L94,62 Q90,80 54,82 Q16,80 14,60 Z")
    c.panel("M40,57.5 L100,52 Q106,62 101,73 L40,81 Z", tilt=-6)
    c.stitches("M42,60.5 L98,55.5 M42,78 L98,70.5")
    for x in (66, 76, 86):
        c.fill(ellipse(x, 68.5 - (x - 50) * 0.09, 1.9), c.main.outline)
    metal = c.second or BRASS
    if c.detail("扣头") == "方扣":
        frame, inner = box(26, 50, 26, 40, 4), box(32, 56, 14, 28, 2)
    else:
        frame, inner = ellipse(39, 69.5, 19, 21), ellipse(39, 69.5, 12, 14)
    c.panel(frame, metal, edge=1.2)
    c.panel(inner, plain=False)
    c.strap("M30,69.5 L56,68", 3, metal)
