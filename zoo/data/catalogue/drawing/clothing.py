"""How clothes are drawn: laid flat, seen from the front."""

from zoo.data.catalogue.drawing.canvas import Canvas

# The neckline's lowest point between the shoulders, and how the edge runs there from (40, 14) to (60, 14).
_NECKS = {"圆领": "Q43,22 50,22 Q57,22 60,14", "V领": "L50,31 L60,14", "方领": "L42,25 L58,25 L60,14"}


def dress(c: Canvas) -> None:
    """A bodice, a waistband and a wide skirt."""
    hem, wide = {"短款": (80, 80), "长款": (112, 86)}[c.detail("长度")]
    neck = _NECKS[c.detail("领型")]
    _sleeves(c, {"无袖": 0, "短袖": 20, "长袖": 50}[c.detail("袖长")])
    c.panel(
        f"M36,49 L64,49 Q{wide - 6},{hem - 20} {wide},{hem} Q50,{hem + 7} {100 - wide},{hem} Q{106 - wide},{hem - 20} 36,49 Z"
    )
    for x in (40, 47, 54, 61):
        c.line(f"M{x},54 Q{x + (x - 50) * 0.5:g},70 {x + (x - 50) * (wide - 60) / 16:g},{hem}")
    c.panel(f"M33,14 L40,14 {neck} L67,14 Q65,22 68,30 Q64,40 64,48 L36,48 Q36,40 32,30 Q35,22 33,14 Z")
    c.panel("M35,46 L65,46 L65,51 L35,51 Z", c.second, plain=True)
    c.line(f"M40,14 {neck}", width=1.6)


def _sleeves(c: Canvas, length: float) -> None:
    """Sleeves from the shoulders of a top at (33, 14), hanging aslant."""
    if length:
        x, y = 33 - 0.42 * length, 16 + length
        c.both(f"M35,14 Q28,15 {x - 9:g},{y - 3:g} L{x + 3:g},{y + 3:g} L34,32 Z", c.second, tilt=24)
        c.line(f"M{x - 7:g},{y - 5:g} L{x + 4:g},{y:g}")
        c.line(f"M{107 - x:g},{y - 5:g} L{96 - x:g},{y:g}")
