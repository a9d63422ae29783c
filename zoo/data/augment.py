"""What the workers do to training images one by one: AutoAugment, and the look of early drafts.

AutoAugment (Cubuk et al. 2018, arXiv:1805.09501) is timm's.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain
from typing import Any

import numpy as np

from zoo.data.images import resize

Step = tuple[str, float]
"""An operation of AutoAugment, by the name of timm's function, and its magnitude, 0 where it has none."""

FILL = (123, 117, 104)
"""Grey levels where a rotation or a shift leaves nothing: CLIP's mean image colour, as in CN-CLIP's fine-tuning."""

NOISE = 40.0
"""Grey levels: the greatest standard deviation of the noise of a degraded image."""


def degrade(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Make an image as blurred and noisy as early generated ones: smaller and back, then Gaussian noise.

    Args:
        image: ``[S, S, 3]`` uint8.
        generator: Draws the smaller side, uniform from S / 4 to S pixels, and the noise, whose standard deviation is
            uniform from 0 to 40 grey levels.

    Returns:
        ``[S, S, 3]`` uint8.
    """
    size = len(image)
    smaller = int(generator.integers(max(1, size // 4), size + 1))
    sigma = generator.uniform(0, NOISE)
    noise = sigma * generator.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(resize(resize(image, smaller), size) + noise), 0, 255).astype(np.uint8)


def auto_augment(image: np.ndarray, seed: int) -> np.ndarray:
    """Apply a random pair of operations of AutoAugment's original ImageNet policy.

    Equal bit for bit to the step of this name in timm's ``create_transform(auto_augment="original",
    interpolation="bicubic")``, after ``random.seed(seed)`` and ``numpy.random.seed(seed)``.

    Args:
        image: ``[H, W, 3]`` uint8.
        seed: What the result depends on beside the image, in [0, 2**32). The global generators of ``random`` and
            NumPy, which timm draws from, are left as they were.

    Returns:
        ``[H, W, 3]`` uint8.
    """
    from PIL import Image

    with _generators_kept():
        _seed(seed)
        return np.asarray(_original_policy(min(image.shape[:2]))(Image.fromarray(image)))


def draw_auto_augment(size: int, seeds: Iterable[int]) -> list[list[Step]]:
    """Draw what ``auto_augment`` does after each seed: its operations, at most two, in order.

    Args:
        size: The images' smaller side in pixels.
        seeds: Each as of ``auto_augment``. The global generators are left as they were here too.
    """
    drawn = []
    with _generators_kept():
        for seed in seeds:
            _seed(seed)
            drawn.append(_original_policy(size, noting=True)([]))
    return drawn


@cache
def _original_policy(size: int, *, noting: bool = False) -> Any:
    """Build timm's policy of images; ``noting``, of lists to which it adds the steps that it would take."""
    from PIL import Image
    from timm.data.auto_augment import auto_augment_transform

    options = {"translate_const": int(size * 0.45), "img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    transform = auto_augment_transform("original", options)
    if noting:
        for operation in chain(*transform.policy):
            operation.aug_fn = partial(_note, operation.aug_fn.__name__)
    return transform


def _note(name: str, steps: list[Step], magnitude: float = 0.0, **_: Any) -> list[Step]:
    return [*steps, (name, magnitude)]


@contextmanager
def _generators_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
