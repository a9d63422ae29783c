"""How cosmetics are drawn."""

from zoo.data.catalogue.drawing.canvas import BLACK, BRASS, GLASS, STEEL, WHITE, Canvas
from zoo.data.catalogue.drawing.paths import box, ellipse, heart
from zoo.data.catalogue.drawing.tones import inside


def lipstick(c: Canvas) -> None:
    """An open lipstick: the bullet in its case; a second one lower beside it where there are two."""
    for _ in c.copies(*[(0, 0)] if c.detail("件数") == "单支" else [(-19, -8), (19, 8)]):
        c.panel("M40,38 L40,20 Q42,8 58,5 Q61,7 60,12 L60,38 Z")
        c.gloss("M43,34 L43,20 Q44,13 50,10 Q46.5,14 46.5,34 Z")
        c.panel(box(38, 36, 24, 20, 1), BRASS)
        c.panel(box(33, 54, 34, 40, 2), c.second)
        c.panel(box(33, 54, 34, 6, 1), BRASS)


def perfume(c: Canvas) -> None:
    """A glass bottle with scent in it, a neck and a stopper."""
    shape = c.detail("瓶形")
    bottle, liquid = {
        "方瓶": (box(18, 38, 64, 56, 5), box(24, 52, 52, 36, 3)),
        "圆瓶": (ellipse(50, 64, 36, 31), "M20,58 L80,58 Q84,88 50,89 Q16,88 20,58 Z"),
        "心形瓶": (heart(50, 66, 40), "M18,62 L82,62 Q74,82 50,100 Q26,82 18,62 Z"),
    }[shape]
    c.panel(bottle, GLASS)
    c.panel(liquid, edge=0.7)
    neck = 40 if shape == "心形瓶" else 28
    c.panel(box(42, neck, 16, 11, 1), BRASS)
    cap = c.second or BRASS
    c.panel(box(37, neck - 21, 26, 22, 3), cap)
    c.line(f"M37,{neck - 5} L63,{neck - 5}", cap, width=1.2)
    if shape != "心形瓶":
        c.panel(box(37, 63, 26, 14, 1), WHITE, edge=0.7)
        c.line("M41,68 L59,68 M45,72 L55,72", STEEL.outline, width=1.3)
    c.gloss("M24,54 L29,54 L29,84 L24,82 Z", 0.55)


def cream(c: Canvas) -> None:
    """A wide jar of cream, its lid on, or leaning beside with the cream to be seen."""
    lid = c.second or BRASS
    if c.detail("盖子") == "合盖":
        c.panel("M12,42 L88,42 L84,84 Q82,92 72,92 L28,92 Q18,92 16,84 Z")
        c.panel(box(8, 20, 84, 24, 5), lid)
        for x in range(14, 90, 6):
            c.line(f"M{x},25 L{x},40", lid, width=1)
    else:
        c.panel(ellipse(84, 62, 17, 28), lid)
        c.panel(ellipse(87, 62, 13, 23), inside(lid))
        c.panel("M4,42 L76,42 L73,84 Q71,92 62,92 L18,92 Q9,92 7,84 Z")
        c.panel(ellipse(40, 42, 37, 11), WHITE)
        c.panel("M12,40 Q18,24 34,28 Q34,12 48,16 Q42,20 50,28 Q66,28 68,40 Q60,50 40,50 Q20,50 12,40 Z", WHITE)
        c.line("M24,40 Q36,32 56,38 M34,29 Q44,26 50,28", WHITE, width=1.4)
    x = 50 if c.detail("盖子") == "合盖" else 40
    c.panel(box(x - 19, 58, 38, 22, 2), WHITE, edge=0.8)
    c.line(f"M{x - 13},65 L{x + 13},65", STEEL.outline, width=2)
    c.line(f"M{x - 9},72 L{x + 9},72", STEEL.outline, width=1.3)


def nail_polish(c: Canvas) -> None:
    """A small round bottle of varnish under a long cap; one, or two."""
    for _ in c.copies(*[(0, 0)] if c.detail("件数") == "单瓶" else [(-24, 0), (24, 0)]):
        c.panel("M43,50 L57,50 Q58,56 66,60 Q73,66 72,84 Q71,94 62,94 L38,94 Q29,94 28,84 Q27,66 34,60 Q42,56 43,50 Z")
        c.gloss("M34,68 Q38,62 43,60 L41,84 Q36,86 34,82 Z", 0.6)
        c.panel("M41,52 L43,8 Q50,4 57,8 L59,52 Q50,55 41,52 Z", c.second or BLACK)
        c.panel("M40.6,48 Q50,51 59.4,48 L59.6,53 Q50,56 40.4,53 Z", STEEL, edge=0.7)
        c.fill(box(30, 90, 40, 2, 1), "#ffffff", 0.25)
