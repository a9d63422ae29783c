"""How shoes are drawn: one shoe from its side, the toe at the left."""

from zoo.data.catalogue.drawing.canvas import WHITE, Canvas


def sneaker(c: Canvas) -> None:
    """A trainer with a thick sole and laces."""
    c.panel(
        "M8,66 Q8,56 22,52 Q38,46 48,30 Q52,27 56,31 Q62,38 70,32 Q76,24 82,22 Q88,22 88,30 Q87,44 92,54 L92,68 L8,68 Z"
    )
    c.panel("M8,66 Q8,57 21,53 Q30,56 31,68 L8,68 Z", c.second, plain=True)
    c.panel("M76,38 Q86,38 88,36 Q88,46 92,55 L92,68 L72,68 Q70,52 76,38 Z", c.second, plain=True)
    c.line("M40,66 Q50,46 62,44", width=4, of=WHITE.base)
    c.panel("M7,66 L92,66 Q97,72 93,78 L16,78 Q5,77 7,66 Z", WHITE)
    c.line("M10,73 L92,73", WHITE)
    for x, y in ((27, 49), (34, 45), (41, 39), (46, 33)):
        c.strap(f"M{x},{y} L{x + 9},{y + 7}", 2, WHITE)
