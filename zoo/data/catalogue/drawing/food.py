"""How food is drawn."""

import math

from zoo.data.catalogue.drawing.canvas import WHITE, Canvas
from zoo.data.catalogue.drawing.paths import box, drop, ellipse, heart, moved
from zoo.data.catalogue.drawing.tones import tones

_CAKE = tones("#efc980")
_WAFER = tones("#dfa55c")
_LEAF = tones("#58a545")
_STALK = tones("#7a5230")
_STRAWBERRY = tones("#e22c3c")
_FLAME = tones("#ffb02e")
_FLESH = tones("#fff4d4")
_CREAM = tones("#fff6e8")


def apple(c: Canvas) -> None:
    """An apple with its stalk and a leaf: one, two, or one with a half of it."""
    count = c.detail("件数")
    for number in c.copies(*[(0, 0)] if count == "一个" else [(26, -8), (-24, 8)]):
        body = (
            "M50,30 C40,20 14,22 12,50 C11,74 28,94 40,93 Q46,92 50,90 Q54,92 "
            "60,93 C72,94 89,74 88,50 C86,22 60,20 50,30 Z"
        )
        c.panel(body)
        if count == "半个" and number:
            flesh = (
                "M50,35 C42,27 20,28 18,50 C17,70 31,88 41,87 Q46,86 50,84 Q54,86 59,87 C69,88 83,70 82,50 "
                "C80,28 58,27 50,35 Z"
            )
            c.panel(flesh, _FLESH, edge=0.7)
            c.line("M50,40 Q34,58 50,78 Q66,58 50,40 Z", _FLESH, width=1.4)
            for seed in (44, 56):
                c.panel(drop(seed, 60, 2.6), _STALK, edge=0.5)
        else:
            c.gloss("M22,48 Q22,34 34,32 Q28,40 28,52 Q24,54 22,48 Z", 0.6)
        c.strap("M50,32 Q50,20 56,12", 2.6, _STALK)
        c.panel("M53,22 Q58,6 78,10 Q74,26 53,22 Z", _LEAF)
        c.line("M55,21 Q64,14 75,11", _LEAF)


def cake(c: Canvas) -> None:
    """A whole cake with icing that runs down, or a slice; strawberries or candles on it."""
    sponge = c.second or _CAKE
    if c.detail("形状") == "整个":
        c.panel("M2,86 Q50,102 98,86 L96,92 Q50,106 4,92 Z", WHITE)
        c.panel("M12,48 L88,48 L88,84 Q50,98 12,84 Z", sponge)
        c.line("M12,68 Q50,80 88,68", "#fffaf0", width=4)
        c.panel(
            "M12,44 Q12,34 50,32 Q88,34 88,44 L88,58 Q84,68 80,58 Q76,52 72,60 Q68,74 62,64 Q58,54 52,64 Q48,74 42,64 "
            "Q38,54 32,62 Q28,72 22,62 Q18,54 16,60 Q12,64 12,56 Z"
        )
        c.panel(ellipse(50, 43, 37, 9.5), edge=0.7)
        places = [(50, 35), (24, 40), (76, 40), (50, 44)]
    else:
        c.panel("M8,60 L78,36 Q94,40 94,52 L94,84 L8,92 Z", sponge)
        c.panel("M8,72 L94,62 L94,70 L8,80 Z", WHITE, edge=0.7)
        c.panel(
            "M6,60 L70,30 Q96,34 96,50 L96,56 Q90,62 86,56 Q80,54 76,62 Q70,66 66,60 Q58,58 "
            "54,66 Q48,70 42,64 Q34,62 30,72 Q24,74 20,67 Q12,66 8,68 Z"
        )
        c.panel("M6,60 L70,30 Q96,34 96,50 Q50,52 6,60 Z", edge=0.7)
        places = [(70, 42), (44, 48)]
    for x, y in places:
        if c.detail("装饰") == "草莓":
            c.panel(
                f"M{x - 8},{y - 9} Q{x},{y - 15} {x + 8},{y - 9} Q{x + 7},{y} "
                f"{x},{y + 4} Q{x - 7},{y} {x - 8},{y - 9} Z",
                _STRAWBERRY,
            )
            c.line(
                f"M{x - 3},{y - 6} L{x - 3},{y - 5} M{x + 3},{y - 6} L{x + 3},{y - 5} M{x},{y - 2} L{x},{y - 1}",
                _STRAWBERRY,
                width=1.1,
            )
            c.panel(f"M{x - 6},{y - 12} L{x},{y - 15} L{x + 6},{y - 12} L{x + 1},{y - 9} Z", _LEAF, edge=0.6)
        else:
            c.strap(f"M{x},{y} L{x},{y - 20}", 3.4, _CREAM)
            c.line(
                f"M{x - 1.6},{y - 4} L{x + 1.6},{y - 7} M{x - 1.6},{y - 11} L{x + 1.6},{y - 14}", "#e8577e", width=1.6
            )
            c.panel(drop(x, y - 26, 3.2), _FLAME, edge=0.6)


def ice_cream(c: Canvas) -> None:
    """A cone with one ball of ice cream, or with two, one on the other."""
    c.panel("M26,48 L74,48 L52,104 Q50,107 48,104 Z", _WAFER)
    c.line("M34,48 L57,92 M46,48 L61,78 M58,48 L66,64 M66,48 L43,92 M54,48 L39,78 M42,48 L34,64", _WAFER, width=1.3)
    c.panel(box(23, 44, 54, 8, 3), _WAFER)
    ball = (
        "M22,42 C18,10 40,2 50,2 C60,2 82,10 78,42 Q76,50 70,45 Q64,40 60,46 "
        "Q54,52 48,46 Q42,41 38,46 Q32,51 28,45 Q23,48 22,42 Z"
    )
    if c.detail("球数") == "双球":
        c.panel(ball, c.second, plain=True)
        ball = moved(ball, lambda x, y: (50 + (x - 50) * 0.88, y * 0.88 - 26))
        c.panel(ball)
        c.gloss(ellipse(38, -12, 4, 6), 0.5)
    else:
        c.panel(ball)
        c.gloss(ellipse(36, 18, 4.5, 7), 0.5)
        if c.second:
            c.panel(
                "M32,14 Q40,2 50,2 Q60,2 68,14 Q66,24 61,17 Q57,12 54,20 Q50,28 46,18 Q42,14 39,19 Q34,22 32,14 Z",
                c.second,
            )


def lollipop(c: Canvas) -> None:
    """A sweet on a stick: a disc with a spiral, or a heart; a bow on the stick where it has one."""
    c.strap("M50,60 L50,112", 3.6, WHITE)
    swirl = c.second.base if c.second else "#ffffff"
    if c.detail("形状") == "圆形":
        c.panel(ellipse(50, 36, 34), edge=1.3)
        turns = [(r * math.cos(a), r * math.sin(a)) for a, r in ((k * 0.42, 0.72 * k) for k in range(45))]
        c.line("M50,36 L" + " L".join(f"{50 + x:.3f},{36 + y:.3f}" for x, y in turns), swirl, width=4)
        c.gloss("M24,28 Q28,14 42,9 Q30,18 28,32 Z", 0.6)
    else:
        c.panel(heart(50, 38, 37), edge=1.3)
        c.line(heart(50, 37, 22), swirl, width=4)
        c.gloss(ellipse(28, 20, 5, 4), 0.6)
    if c.detail("装饰") == "蝴蝶结":
        c.bow(50, 80, 15, c.second)


def milk(c: Canvas) -> None:
    """Milk in a gabled carton or in a glass bottle, with a label that shows a glass drop."""
    if c.detail("包装") == "纸盒":
        c.panel("M18,38 L62,38 L62,96 L18,94 Z")
        c.panel("M62,38 L84,34 L84,90 L62,96 Z")
        c.panel("M18,38 L30,14 L72,14 L62,38 Z", c.second, plain=True)
        c.panel("M62,38 L72,14 L84,34 Z", c.second or c.main, edge=0.9)
        c.panel("M30,6 L72,6 L72,15 L30,15 Z", c.second, plain=True)
        c.panel(ellipse(40, 66, 16), WHITE)
        c.panel(drop(40, 70, 8), _MILK, edge=0.8)
        return
    c.panel(
        "M38,18 L62,18 Q62,34 70,42 Q76,48 76,56 L76,90 Q76,96 70,96 L30,96 "
        "Q24,96 24,90 L24,56 Q24,48 30,42 Q38,34 38,18 Z",
        WHITE,
    )
    c.panel("M36,8 Q50,4 64,8 L65,20 Q50,24 35,20 Z", c.second, plain=True)
    c.panel(box(24, 56, 52, 28))
    c.panel(ellipse(50, 70, 10), WHITE, edge=0.8)
    c.panel(drop(50, 72.5, 5), _MILK, edge=0.7)
    c.gloss("M30,48 L34,45 L34,92 L30,92 Z", 0.5)


_MILK = tones("#7db9ea")
