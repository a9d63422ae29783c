"""How devices are drawn."""

from zoo.data.catalogue.drawing.canvas import BLACK, RED, STEEL, WHITE, Canvas
from zoo.data.catalogue.drawing.paths import box, ellipse, heart, star
from zoo.data.catalogue.drawing.tones import inside, tones

_LENS = tones("#2c3e5c")


def phone_case(c: Canvas) -> None:
    """The back of a phone in its case: the camera's window with lenses, keys at the side."""
    c.panel(box(78, 24, 5, 14, 1.5), c.second or c.main, plain=True)
    c.panel(box(78, 42, 5, 10, 1.5), c.second or c.main, plain=True)
    c.panel(box(19, 2, 62, 96, 10), c.second, plain=True)
    c.panel(box(22.5, 5.5, 55, 89, 7))
    c.panel(box(26, 9, 25, 27, 6), BLACK)
    for x, y in ((33, 16), (33, 29), (44.5, 22.5)):
        c.panel(ellipse(x, y, 4.6), STEEL, edge=0.6)
        c.panel(ellipse(x, y, 3.2), _LENS, edge=0.5)
    c.fill(ellipse(44.5, 13, 1.6), "#fff6d0")
    if c.detail("印图") != "无图案":
        c.emblem({"爱心": heart, "星星": star}[c.detail("印图")](50, 66, 17))


def headphones(c: Canvas) -> None:
    """Headphones with a band and cups, or earbuds before their charging case."""
    if c.detail("款式") == "头戴式":
        c.strap("M16,60 Q12,10 50,10 Q88,10 84,60", 7, c.second)
        c.strap("M30,15 Q38,10 50,10 Q62,10 70,15", 9, c.second)
        c.both("M8,56 Q10,46 20,46 L26,46 L26,88 L20,88 Q8,88 8,76 Z")
        c.both("M25,44 Q34,44 34,54 L34,80 Q34,90 25,90 Q22,88 22,80 L22,54 Q22,46 25,44 Z", BLACK)
        c.line("M12,58 L12,76 M88,58 L88,76", width=1.6)
        return
    c.panel(box(22, 52, 56, 42, 15))
    c.panel("M24,52 Q24,30 40,30 L60,30 Q76,30 76,52 Z")
    c.panel("M28,50 Q29,35 41,35 L59,35 Q71,35 72,50 Z", inside(c.main))
    c.fill(ellipse(50, 66, 2), "#58d07a")
    for _ in c.pair():
        c.panel("M30,22 L37,20 L38,56 Q34,60 31,56 Z", c.second)
        c.panel("M22,14 Q22,2 34,2 Q44,4 43,15 Q42,26 32,26 Q22,25 22,14 Z", c.second)
        c.panel("M41,8 Q48,10 47,16 Q45,22 40,20 Z", BLACK, edge=0.7)


def keyboard(c: Canvas) -> None:
    """A keyboard from above, keys in rows; with a number pad or without."""
    has_pad = c.detail("数字键") == "有数字键"
    columns = 17 if has_pad else 11
    keys = tones(c.main.light)
    wide = 5 * columns + 7
    left = 50 - wide / 2
    c.panel(box(left, 30, wide, 40, 3), c.second)
    for row in range(5):
        for column in range(columns):
            is_pad = has_pad and column > 12
            x = left + 3.5 + 5 * column + (1.2 if is_pad else -0.3)
            y = 33.5 + 6.7 * row
            if row == 4 and 3 <= column <= 8:
                if column == 3:
                    c.panel(box(x, y, 29, 5.6, 1), keys, edge=0.5)
                continue
            if row == 0 and column == 1:
                continue
            c.panel(box(x, y, 4.2, 5.6, 1), keys, edge=0.5)


def mouse(c: Canvas) -> None:
    """A mouse from above: two buttons, a wheel; with a cable or without."""
    if c.detail("连接") == "有线":
        c.strap("M50,14 Q50,0 60,-2 Q72,-4 84,6", 2.6, BLACK)
    c.panel("M26,44 Q26,8 50,8 Q74,8 74,44 L76,64 Q76,96 50,96 Q24,96 24,64 Z", edge=1.2)
    side = c.second or inside(c.main)
    c.both("M25,48 Q30,60 29,76 Q24,72 24,62 Z", side)
    c.line("M50,9 L50,46 M26,44 Q50,52 74,44", width=1.5)
    c.panel(box(45.5, 20, 9, 20, 4.5), BLACK)
    c.panel(box(47, 23, 6, 14, 3), c.second or STEEL, edge=0.7)
    for y in (26, 30, 34):
        c.line(f"M47.4,{y} L52.6,{y}", c.second or STEEL, width=0.8)
    c.gloss("M31,40 Q32,18 44,13 Q38,22 37,41 Z", 0.35)


def camera(c: Canvas) -> None:
    """A camera from the front: a big lens, a viewfinder, a shutter button, a leather front."""
    if c.detail("背带") == "有背带":
        c.strap("M9,40 Q-4,10 22,2 Q50,-8 78,2 Q104,10 91,40", 4, BLACK)
    c.panel("M34,30 L38,18 L62,18 L66,30 Z")
    c.panel(box(14, 24, 13, 7, 2), BLACK)
    c.panel(box(74, 23, 12, 8, 2), STEEL)
    c.panel(box(6, 29, 88, 58, 7))
    c.panel(box(6, 42, 88, 34), c.second or (BLACK if c.main.metallic else inside(c.main)), edge=0.8)
    c.panel(ellipse(50, 58, 27), STEEL, edge=1.2)
    c.panel(ellipse(50, 58, 22.5), BLACK)
    c.panel(ellipse(50, 58, 16), _LENS)
    c.panel(ellipse(50, 58, 9), inside(_LENS), edge=0.6)
    c.gloss(ellipse(43, 50, 4.5, 3.5), 0.75)
    c.gloss(ellipse(56, 65, 2.2), 0.45)
    c.panel(box(44, 21, 12, 6, 1.5), WHITE, edge=0.7)
    c.panel(ellipse(84, 36, 2.6), RED, edge=0.6)
