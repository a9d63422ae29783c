"""How things for the home are drawn."""

import math

from zoo.data.catalogue.drawing.canvas import BRASS, STEEL, Canvas
from zoo.data.catalogue.drawing.paths import box, ellipse, heart, mirrored, points_on, star
from zoo.data.catalogue.drawing.tones import inside, tones

_WOOD = tones("#b98350")
_LEAF = tones("#4f9a55")
_GLOW = tones("#fff3b8")
_EMBLEMS = {"爱心": heart, "星星": star}
_PETALS = (tones("#ef6f93"), tones("#f7c948"), tones("#b58be0"))


def mug(c: Canvas) -> None:
    """A mug with a handle, seen a little from above; one, or two."""
    trim = c.second or c.main
    for _ in c.copies(*[(0, 0)] if c.detail("件数") == "单只" else [(-34, -14), (24, 10)]):
        c.strap("M72,38 Q94,34 92,54 Q90,74 68,72", 7, trim)
        c.panel("M14,26 Q46,36 76,26 L73,80 Q72,90 60,91 Q45,93 30,91 Q18,90 17,80 Z")
        c.panel(ellipse(45, 26, 31, 9), trim, plain=True)
        c.panel(ellipse(45, 27, 26, 6.4), inside(c.main), plain=True, edge=0.7)
        if c.detail("印图") != "无图案":
            c.emblem(_EMBLEMS[c.detail("印图")](43, 61, 15))


def lamp(c: Canvas) -> None:
    """A table lamp: a shade, a stem with a pull cord, a foot; light below the shade."""
    base = c.second or BRASS
    c.panel("M30,92 Q32,84 50,84 Q68,84 70,92 Q60,96 50,96 Q40,96 30,92 Z", base)
    c.panel("M47,48 L53,48 L53,66 Q60,72 54,86 L46,86 Q40,72 47,66 Z", base)
    c.strap("M63,48 L63,66", 0.8, BRASS)
    c.panel(ellipse(63, 68, 2), BRASS, edge=0.6)
    shape = c.detail("灯罩")
    if shape == "半球形":
        c.panel(ellipse(50, 50, 36, 5), _GLOW)
        c.panel("M12,50 Q13,8 50,6 Q87,8 88,50 Q50,58 12,50 Z")
        c.panel(ellipse(50, 6, 5, 2.6), base, edge=0.8)
        c.gloss("M22,38 Q26,18 42,13 Q32,24 30,39 Z", 0.45)
        return
    top = {"锥形": 15, "圆筒形": 27}[shape]
    foot = {"锥形": 38, "圆筒形": 28}[shape]
    c.panel(ellipse(50, 51, foot - 1, 5), _GLOW)
    c.panel(f"M{50 - top},8 Q50,4 {50 + top},8 L{50 + foot},50 Q50,58 {50 - foot},50 Z")
    c.line(f"M{50 - foot + 1},46.5 Q50,54 {50 + foot - 1},46.5 M{50 - top},11 Q50,7 {50 + top},11")


def cushion(c: Canvas) -> None:
    """A stuffed cushion with piping and creases at its edge."""
    shape = c.detail("形状")
    path = {
        "方形": "M10,12 Q30,18 50,17 Q70,18 90,12 Q84,32 85,52 Q84,72 90,92 Q70,86 "
        "50,87 Q30,86 10,92 Q16,72 15,52 Q16,32 10,12 Z",
        "长方形": "M2,24 Q30,30 50,29 Q70,30 98,24 Q93,42 93,52 Q93,62 98,80 "
        "Q70,74 50,75 Q30,74 2,80 Q7,62 7,52 Q7,42 2,24 Z",
        "心形": heart(50, 54, 42),
    }[shape]
    if shape != "心形":
        c.panel(path, edge=1.2)
        c.line(path, c.second.base if c.second else None, width=3.4 if c.second else 2)
        inset, y = (34, 34) if shape == "方形" else (42, 22)
        for path in (
            f"M{50 - inset},{52 - y} Q{56 - inset},{60 - y} {64 - inset},{62 - y}",
            f"M{50 - inset},{52 + y} Q{56 - inset},{44 + y} {64 - inset},{42 + y}",
        ):
            c.line(path, width=1.3)
            c.line(mirrored(path), width=1.3)
        return
    edge = points_on(path)[::2]
    for point in edge:  # a frill
        c.panel(ellipse(*point, 8.4), c.second, plain=True, edge=0.9)
    c.panel(path)
    for right, low in edge:
        c.line(f"M{0.88 * right + 6:g},{0.88 * low + 6.2:g} L{0.78 * right + 11:g},{0.78 * low + 11.4:g}", width=1.2)


def umbrella(c: Canvas) -> None:
    """An open umbrella from its side: gores, ribs, a tip, a handle."""
    grip = c.second or _WOOD
    c.strap("M50,40 L50,80", 2, STEEL)
    if c.detail("伞柄") == "弯柄":
        c.strap("M50,74 L50,88 Q50,97 58,97 Q66,97 66,88", 4.4, grip)
    else:
        c.panel(box(46, 74, 8, 24, 3), grip)
    c.strap("M50,2 L50,10", 2.4, STEEL)
    edges = (4, 20, 38, 62, 80, 96)
    bends = (4, 18, 38, 62, 82, 96)
    for gore in range(5):
        left, right = edges[gore], edges[gore + 1]
        c.panel(
            f"M50,8 Q{bends[gore] + (50 - bends[gore]) * 0.25:g},{16 if gore else 14} {left},52 "
            f"Q{(left + right) / 2:g},43 {right},52 "
            f"Q{bends[gore + 1] + (50 - bends[gore + 1]) * 0.25:g},{16 if gore < 4 else 14} 50,8 Z",
            c.second if gore % 2 else None,
            tilt=(-24, -12, 0, 12, 24)[gore],
        )


def vase(c: Canvas) -> None:
    """A vase, round or slender, with flowers or without."""
    slim = c.detail("瓶形") == "细高"
    if c.detail("插花") == "插花":
        for x, y, paint in ((30, -2, _PETALS[0]), (52, -16, _PETALS[1]), (72, 0, _PETALS[2])):
            c.strap(f"M50,40 Q50,20 {x},{y + 6}", 1.6, _LEAF)
            for petal in range(6):
                angle = petal * math.pi / 3
                c.panel(ellipse(x + 7 * math.cos(angle), y + 7 * math.sin(angle), 5.4), paint, edge=0.7)
            c.panel(ellipse(x, y, 4.6), _GLOW, edge=0.7)
        c.both("M49,32 Q30,30 26,16 Q42,16 49,32 Z", _LEAF)
    body = (
        "M40,30 L60,30 Q58,40 64,54 Q68,70 61,92 Q50,95 39,92 Q32,70 36,54 Q42,40 40,30 Z"
        if slim
        else "M38,30 L62,30 Q58,40 62,44 Q84,52 82,70 Q80,86 64,93 L36,93 Q20,86 18,70 Q16,52 38,44 Q42,40 38,30 Z"
    )
    c.panel(body)
    c.panel(ellipse(50, 30, 11 if slim else 14, 3.4), c.second or inside(c.main))
    if c.second:
        c.panel("M37,88 L63,88 L64,94 Q50,97 36,94 Z", c.second)
        c.panel("M41,38 Q50,41 59,38 L60,43 Q50,46 40,43 Z", c.second)
    else:
        c.line("M41,39 Q50,42 59,39 M37,89 Q50,92 63,89")
    c.gloss("M42,50 Q36,60 38,74 Q32,66 36,54 Z" if slim else "M30,56 Q22,64 28,80 Q18,70 26,57 Z", 0.5)


def chair(c: Canvas) -> None:
    """A chair from the front: a padded back and seat on wooden legs, with arms or without."""
    legs = c.second or _WOOD
    c.both("M32,62 L38,62 L37,90 L33,90 Z", inside(legs))
    c.strap("M35,80 L65,80", 2, inside(legs))
    c.both("M28,40 L34,40 L34,62 L29,62 Z", legs)
    c.panel("M26,8 Q28,4 33,4 L67,4 Q72,4 74,8 Q76,30 72,48 Q50,44 28,48 Q24,30 26,8 Z")
    c.line("M31,9 Q29,28 32,43 Q50,40 68,43 Q71,28 69,9 Z")
    if c.detail("扶手") == "有扶手":
        c.both("M15,42 L20,42 L21,70 L17,70 Z", legs)
        c.both("M10,40 Q10,36 15,36 L31,36 L31,42 L12,43 Z", legs)
    c.both("M18,70 L26,70 L22,104 L17,104 Z", legs)
    c.panel("M26,56 Q50,52 74,56 L83,68 Q84,74 78,75 Q50,79 22,75 Q16,74 17,68 Z")
    c.line("M18,69 Q50,74 82,69", width=1.2)
