"""How cosmetics are drawn."""

from zoo.data.catalogue.drawing.canvas import BLACK, BRASS, Canvas
from zoo.data.catalogue.drawing.paths import box


def lipstick(c: Canvas) -> None:
    """An open lipstick: the bullet in its case, and its cap where it is shown."""
    case = c.second or BLACK
    c.panel("M41,36 L41,20 Q43,8 58,6 Q60,8 59,12 L59,36 Z")
    c.gloss("M44,33 L44,20 Q45,13 50,10 Q47,14 47,33 Z")
    c.panel(box(39, 34, 22, 20), BRASS)
    c.panel(box(35, 52, 30, 40, 2), case)
    c.panel(box(35, 52, 30, 5, 1), BRASS)
