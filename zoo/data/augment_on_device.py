"""AutoAugment of a whole batch where its images lie: the worker draws, the device computes what Pillow does.

The images are Pillow's to the bit: computed in integers where they suffice, in float64 where Pillow interpolates, in
float32 where it blends. The host never waits for the device.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.augment import FILL, Step

Numbers = tuple[float, float, float, float, float, float]
"""An operation's magnitude and five zeros, or the matrix of an affine map."""

MOST = 32
"""The most images of a group: however large the batch, the work on 224² images takes less than 1 GB."""


class Plan(NamedTuple):
    """What AutoAugment does to a batch: G groups of images, one operation each, one group after the other.

    The tensors are integers, for a trainer may round a batch's fractions to its own precision.
    """

    operations: list[str]  # G names
    counts: list[int]  # G numbers of images, N together
    rows: Tensor  # [N] int64, places in the batch, those of one group after those of the other
    numbers: Tensor  # [N, 6] int64, the bits of float64


def plan(drawn: Sequence[Sequence[Step]], size: int) -> Plan:
    """Group a batch's images by operation; every first step comes before every second one.

    Args:
        drawn: The steps of each image, as ``draw_auto_augment`` gives them.
        size: Side of the images in pixels.
    """
    groups: dict[tuple[int, str], list[tuple[int, Numbers]]] = defaultdict(list)
    for row, steps in enumerate(drawn):
        for place, step in enumerate(steps):
            operation, numbers = _numbers(step, size)
            groups[place, operation].append((row, numbers))
    pieces = [
        (operation, group[start : start + MOST])
        for (_, operation), group in sorted(groups.items())
        for start in range(0, len(group), MOST)
    ]
    planned = [each for _, piece in pieces for each in piece]
    return Plan(
        operations=[operation for operation, _ in pieces],
        counts=[len(piece) for _, piece in pieces],
        rows=torch.tensor([row for row, _ in planned], dtype=torch.int64),
        numbers=torch.tensor([numbers for _, numbers in planned], dtype=torch.float64).view(torch.int64),
    )


def auto_augment_batch(images: Tensor, plan: Plan) -> Tensor:
    """Augment images ``[B, 3, S, S] uint8`` in place as planned, each as ``auto_augment`` does."""
    groups = plan.rows.split(plan.counts), plan.numbers.view(torch.float64).split(plan.counts)
    for operation, rows, numbers in zip(plan.operations, *groups, strict=True):
        images.index_copy_(0, rows, OPERATIONS[operation](images.index_select(0, rows), numbers))
    return images


# --- on the host -------------------------------------------------------------------------------------------------


def _numbers(step: Step, size: int) -> tuple[str, Numbers]:
    """Give a step's operation on the device and its six numbers."""
    name, magnitude = step
    if name == "rotate":
        return "affine", _rotation(magnitude, size)
    if name == "shear_x":
        return "affine", (1.0, magnitude, 0.0, 0.0, 1.0, 0.0)
    return name, (magnitude, 0.0, 0.0, 0.0, 0.0, 0.0)


def _rotation(degrees: float, size: int) -> Numbers:
    """Give the matrix by which Pillow rotates an image of this side."""
    angle, half = -math.radians(degrees % 360), size / 2
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return cos, sin, cos * -half + sin * -half + half, -sin, cos, -sin * -half + cos * -half + half


# --- on the device: images [G, 3, S, S] uint8 and numbers [G, 6] float64 to images -------------------------------


def posterize(images: Tensor, numbers: Tensor) -> Tensor:
    """Keep the highest bits; the number is how many, in [1, 8]."""
    dropped = (8 - _magnitude(numbers)).to(torch.uint8)
    return images >> dropped << dropped


def solarize(images: Tensor, numbers: Tensor) -> Tensor:
    """Invert the grey levels from a threshold on, in [0, 256]."""
    return torch.where(images < _magnitude(numbers), images, ~images)


def invert(images: Tensor, numbers: Tensor) -> Tensor:
    """Invert all grey levels."""
    return ~images


def auto_contrast(images: Tensor, numbers: Tensor) -> Tensor:
    """Stretch each channel's grey levels to 0 … 255."""
    low, high = (edge(images.flatten(2), dim=2).double() for edge in (torch.amin, torch.amax))
    scale = (torch.full_like(low, 255) / (high - low))[..., None]  # 255 / tensor would round twice
    levels = torch.arange(256, device=images.device)
    table = (levels * scale + -low[..., None] * scale).clamp(0, 255)
    return _look_up(table.where((high > low)[..., None], levels), images)


def equalize(images: Tensor, numbers: Tensor) -> Tensor:
    """Spread each channel's grey levels evenly over the pixels."""
    flat = images.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(2, flat, torch.ones((), dtype=torch.int32, device=images.device).expand_as(flat))
    last = counts.gather(2, flat.amax(dim=2, keepdim=True))
    step = (flat.shape[2] - last) // 255
    table = (step // 2 + counts.cumsum(dim=2) - counts) // step.clamp(min=1)
    levels = torch.arange(256, device=images.device)
    return _look_up(table.clamp(max=255).where(step > 0, levels), images)


def color(images: Tensor, numbers: Tensor) -> Tensor:
    """Blend with the grey image, by a factor of at least 0; 1 changes nothing."""
    return _blend(_grey(images), images, numbers)


def contrast(images: Tensor, numbers: Tensor) -> Tensor:
    """Blend with the mean grey level, by a factor of at least 0; 1 changes nothing."""
    total, count = _grey(images).sum(dim=(1, 2, 3), keepdim=True), images[0, 0].numel()
    return _blend((2 * total + count) // (2 * count), images, numbers)  # the mean, rounded


def sharpness(images: Tensor, numbers: Tensor) -> Tensor:
    """Blend with the image smoothed, but for its outermost pixels, by a factor of at least 0; 1 changes nothing."""
    pixels = images.int()
    rows = pixels[..., :-2, :] + pixels[..., 1:-1, :] + pixels[..., 2:, :]
    inner = pixels[..., 1:-1, 1:-1]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner
    smooth = pixels.clone()
    smooth[..., 1:-1, 1:-1] = (2 * total + 13) // 26  # a thirteenth, rounded
    return _blend(smooth, images, numbers)


def affine(images: Tensor, numbers: Tensor) -> Tensor:
    """Take each pixel from where a matrix ``(a, b, c, d, e, f)`` says, bicubic; ``FILL`` where that is outside.

    The pixel at ``(x, y)`` comes from ``(a x + b y + c, d x + e y + f)``; a pixel's middle is half a pixel in.
    """
    size = images.shape[-1]
    a, b, c, d, e, f = numbers[..., None, None].unbind(1)  # [G, 1, 1] each
    x = torch.arange(size, device=images.device, dtype=torch.float64) + 0.5
    y = x[:, None]
    x, y = a * x + b * y + c, d * x + e * y + f  # [G, S, S]
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    columns, rows = ([(first.long() + i).clamp(0, size - 1) for i in range(-1, 3)] for first in (left, top))
    flat = images.flatten(2)

    def taps(row: Tensor) -> list[Tensor]:
        places = [(row * size + column).flatten(1)[:, None].expand(-1, 3, -1) for column in columns]
        return [flat.gather(2, place).reshape_as(images).double() for place in places]

    right, down = (x - 0.5 - left)[:, None], (y - 0.5 - top)[:, None]  # in [0, 1), [G, 1, S, S]
    value = _cubic([_cubic(taps(row), right) for row in rows], down).clamp(0, 255).to(torch.uint8)
    return torch.stack([channel.where(inside, fill) for channel, fill in zip(value.unbind(1), FILL, strict=True)], 1)


OPERATIONS = {
    operation.__name__: operation
    for operation in (affine, auto_contrast, color, contrast, equalize, invert, posterize, sharpness, solarize)
}


def _magnitude(numbers: Tensor) -> Tensor:
    return numbers[:, 0, None, None, None]


def _look_up(table: Tensor, images: Tensor) -> Tensor:
    """Replace grey levels by those of each channel's table ``[G, 3, 256]``, rounded down."""
    return table.to(torch.uint8).gather(2, images.flatten(2).long()).reshape_as(images)


def _grey(images: Tensor) -> Tensor:
    """Weigh the channels as ITU-R 601 does, ``[G, 1, S, S] int32``."""
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def _blend(base: Tensor, images: Tensor, numbers: Tensor) -> Tensor:
    """Go from ``base`` towards the images, and beyond, by a factor; round down."""
    base = base.float()
    return (base + _magnitude(numbers).float() * (images - base)).clamp(0, 255).to(torch.uint8)


def _cubic(taps: Sequence[Tensor], place: Tensor) -> Tensor:
    """Interpolate between the second and the third of four values (cubic convolution, a = -1)."""
    first, second, third, fourth = taps
    before, after = first - second, third - fourth
    slope = torch.add(after, before, alpha=2) - place * (before + after)
    return second + place * ((third - first) + place * slope)
