"""How bags are drawn: from the front."""

from zoo.data.catalogue.drawing.canvas import BLACK, BRASS, STEEL, Canvas
from zoo.data.catalogue.drawing.paths import box, ellipse
from zoo.data.catalogue.drawing.tones import tones


def backpack(c: Canvas) -> None:
    """A rucksack: a handle on top, straps at its sides, one pocket in front or two."""
    trim = c.second or c.main
    c.both("M28,26 Q12,34 14,66 Q14,78 22,80 L26,74 Q20,60 26,44 Z", trim)
    c.strap("M40,14 Q40,3 50,3 Q60,3 60,14", 4, trim)
    c.panel("M22,34 Q22,10 50,10 Q78,10 78,34 L80,84 Q80,92 70,92 L30,92 Q20,92 20,84 Z")
    c.line("M23,44 Q22,18 50,17 Q78,18 77,44", width=2.2)
    c.line("M23,44 Q22,18 50,17 Q78,18 77,44", STEEL.light, width=1, dash="1.4 1.2")
    c.panel(box(30, 36, 5, 9, 1), BRASS, edge=0.6)
    if c.detail("口袋") == "单口袋":
        c.panel("M28,58 Q28,54 32,54 L68,54 Q72,54 72,58 L73,82 Q73,87 68,87 L32,87 Q27,87 27,82 Z", c.second)
        c.line("M29,62 L71,62", c.second, width=1.8)
        c.panel(box(62, 60, 3, 8, 1), BRASS, edge=0.6)
    else:
        c.both("M26,60 Q26,57 29,57 L45,57 Q48,57 48,60 L48,83 Q48,87 44,87 L30,87 Q26,87 26,83 Z", c.second)
        c.both("M25,58 Q25,54 29,54 L45,54 Q49,54 49,58 L49,67 Q37,71 25,67 Z", c.second)
        for x in (37, 63):
            c.panel(ellipse(x, 65, 1.9), BRASS, edge=0.6)
    c.panel(box(43, 24, 14, 9, 1.5), trim, edge=0.8)


def handbag(c: Canvas) -> None:
    """A lady's handbag with a flap, a lock and a handle: trapezoid, rectangular or round."""
    trim = c.second or c.main
    c.strap("M30,40 Q30,8 50,8 Q70,8 70,40", 4.4, trim)
    shape = c.detail("形状")
    if shape == "圆形":
        c.panel(ellipse(50, 60, 36, 34))
        c.panel("M15,52 Q20,26 50,26 Q80,26 85,52 Q68,66 50,66 Q32,66 15,52 Z", c.second)
        lock = 64
    else:
        wide = {"梯形": 10, "方形": 0}[shape]
        c.panel(
            f"M20,36 L80,36 L{84 + wide},88 Q{84 + wide},92 {80 + wide},92 "
            f"L{20 - wide},92 Q{16 - wide},92 {16 - wide},88 Z"
        )
        c.panel("M19,34 L81,34 L83,54 Q66,64 50,64 Q34,64 17,54 Z", c.second)
        c.line(f"M{20 - wide},86 L{80 + wide},86")
        lock = 61
    for x in (30, 70):
        c.panel(ellipse(x, 40, 3.4), BRASS, edge=0.7)
    c.panel(box(45, lock - 6, 10, 12, 2), BRASS, edge=0.8)
    c.fill(ellipse(50, lock - 1, 1.6), "#5a4312")
    c.line(f"M50,{lock} L50,{lock + 3}", "#5a4312", width=1.4)


def wallet(c: Canvas) -> None:
    """A long wallet with a zip round it, or a short one with a flap and a button; notes peep out."""
    if c.detail("款式") == "长款":
        c.panel("M16,24 L78,17 L82,44 L18,50 Z", _NOTE)
        c.panel("M22,30 L86,24 L88,44 L24,50 Z", _NOTE)
        c.panel(box(6, 34, 88, 46, 6))
        c.line("M10,44 L90,44", width=2.4)
        c.line("M10,44 L90,44", STEEL.light, width=1.2, dash="1.4 1.2")
        c.panel("M84,42 L90,42 L91,60 Q87,63 83,60 Z", c.second or BRASS, edge=0.8)
        c.stitches("M10,50 L10,76 L90,76 L90,64")
        c.panel(box(36, 58, 28, 8, 1.5), c.second or BRASS, edge=0.8)
        return
    c.panel("M20,26 L70,17 L74,36 L24,40 Z", _NOTE)
    c.panel("M26,28 L77,22 L79,40 L28,44 Z", _NOTE)
    c.panel(box(14, 32, 72, 54, 6))
    c.stitches("M18,38 L18,82 L82,82 L82,38 Z")
    c.panel("M60,50 L89,50 Q92,50 92,53 L92,67 Q92,70 89,70 L60,70 Q52,60 60,50 Z", c.second, plain=True)
    c.panel(ellipse(64, 60, 3.4), BRASS, edge=0.8)


def suitcase(c: Canvas) -> None:
    """A hard case on wheels with a telescopic handle, ribbed or with corner pieces."""
    c.strap("M38,24 L38,-6 L62,-6 L62,24", 3, STEEL)
    c.panel(box(34, -9, 32, 6, 3), BLACK)
    for x in (26, 66):
        c.panel(box(x, 96, 8, 10, 3), BLACK)
    c.panel(box(18, 18, 64, 80, 9))
    c.panel(box(40, 14, 20, 6, 2), BLACK)
    if c.detail("外壳") == "竖纹":
        for x in (29, 39, 50, 61, 71):
            c.line(f"M{x},24 L{x},92", width=2.2)
            c.line(f"M{x - 1.4},24 L{x - 1.4},92", c.main.light, width=0.9)
    else:
        c.stitches("M19,58 L81,58")
        c.line("M19,58 L81,58", width=2)
    for corner in (
        "M18,30 L18,27 Q18,18 27,18 L32,18 L32,22 Q22,22 22,30 Z",
        "M18,86 L18,89 Q18,98 27,98 L32,98 L32,94 Q22,94 22,86 Z",
    ):
        c.both(corner, c.second or STEEL)
    c.panel(box(45, 50, 10, 8, 1.5), c.second or STEEL)


_NOTE = tones("#8fbf9a")
