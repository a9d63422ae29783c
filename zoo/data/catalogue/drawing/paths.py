"""Outlines as SVG paths of absolute ``M``, ``L``, ``Q``, ``C`` and ``Z``, each point written ``x,y``."""

import math
import re
from collections.abc import Callable
from functools import lru_cache

Point = tuple[float, float]

_POINT = re.compile(r"(-?[\d.]+),(-?[\d.]+)")
_STEP = re.compile(r"([MLQCZ])([^MLQCZ]*)")
_ROUND = 0.5523  # where the handles of a quarter circle lie


def ellipse(x: float, y: float, width: float, height: float | None = None) -> str:
    """Give an ellipse by its centre and its half axes; a circle has one."""
    height = width if height is None else height
    w, h = _ROUND * width, _ROUND * height
    return (
        f"M{x - width:g},{y:g} C{x - width:g},{y - h:g} {x - w:g},{y - height:g} {x:g},{y - height:g} "
        f"C{x + w:g},{y - height:g} {x + width:g},{y - h:g} {x + width:g},{y:g} "
        f"C{x + width:g},{y + h:g} {x + w:g},{y + height:g} {x:g},{y + height:g} "
        f"C{x - w:g},{y + height:g} {x - width:g},{y + h:g} {x - width:g},{y:g} Z"
    )


def box(x: float, y: float, width: float, height: float, corner: float = 0.01) -> str:
    """Give a rectangle by its upper left corner, its size and the radius of its corners."""
    right, bottom, r = x + width, y + height, corner
    return (
        f"M{x + r:g},{y:g} L{right - r:g},{y:g} Q{right:g},{y:g} {right:g},{y + r:g} "
        f"L{right:g},{bottom - r:g} Q{right:g},{bottom:g} {right - r:g},{bottom:g} "
        f"L{x + r:g},{bottom:g} Q{x:g},{bottom:g} {x:g},{bottom - r:g} L{x:g},{y + r:g} Q{x:g},{y:g} {x + r:g},{y:g} Z"
    )


def heart(x: float, y: float, half: float) -> str:
    """Give a heart by its centre and half its width."""
    return scaled(
        "M0,1 C-0.3,0.65 -1,0.3 -1,-0.3 C-1,-0.95 -0.25,-1.05 0,-0.5 C0.25,-1.05 1,-0.95 1,-0.3 C1,0.3 0.3,0.65 0,1 Z",
        x, y, half,
    )  # fmt: skip


def star(x: float, y: float, radius: float) -> str:
    """Give a star of five points by its centre and its radius."""
    corners = [
        (x + length * math.sin(math.pi * corner / 5), y - length * math.cos(math.pi * corner / 5))
        for corner, length in enumerate([radius, 0.45 * radius] * 5)
    ]
    return "M" + " L".join(f"{x:.3f},{y:.3f}" for x, y in corners) + " Z"


def drop(x: float, y: float, half: float) -> str:
    """Give a hanging drop by the centre of its round part and half its width."""
    return scaled(
        "M0,-1.9 C0.25,-1.2 1,-0.7 1,0 C1,0.55 0.55,1 0,1 C-0.55,1 -1,0.55 -1,0 C-1,-0.7 -0.25,-1.2 0,-1.9 Z",
        x,
        y,
        half,
    )


def scaled(path: str, x: float, y: float, scale: float) -> str:
    """Enlarge a path that lies around the origin, and move it to a place."""
    return moved(path, lambda px, py: (x + scale * px, y + scale * py))


@lru_cache(maxsize=4096)  # drawings have few paths, and all images the same
def mirrored(path: str) -> str:
    """Mirror a path at the middle of the canvas, x = 50."""
    return moved(path, lambda x, y: (100 - x, y))


def moved(path: str, move: Callable[[float, float], Point]) -> str:
    """Move each point of a path."""

    def replaced(match: re.Match[str]) -> str:
        x, y = move(float(match[1]), float(match[2]))
        return f"{x:.3f},{y:.3f}"

    return _POINT.sub(replaced, path)


@lru_cache(maxsize=4096)
def points_on(path: str) -> tuple[Point, ...]:
    """List points on a path: all corners, and eight of each curve."""
    at, found = (0.0, 0.0), []
    for step, rest in _STEP.findall(path):
        points = [(float(x), float(y)) for x, y in _POINT.findall(rest)]
        degree = {"Q": 2, "C": 3}.get(step, 1)
        for start in range(0, len(points), degree):
            controls = [at, *points[start : start + degree]]
            found += [_between(controls, part / 8) for part in range(1, 8) if degree > 1]
            at = controls[-1]
            found.append(at)
    return tuple(found)


def _between(controls: list[Point], part: float) -> Point:
    while len(controls) > 1:
        controls = [
            (x + (other_x - x) * part, y + (other_y - y) * part)
            for (x, y), (other_x, other_y) in zip(controls, controls[1:], strict=False)
        ]
    return controls[0]
