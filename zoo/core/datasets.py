"""The data set of training images that tasks share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.data import images


class TrainingImages(Dataset[Any]):
    """Images to train on, cropped and flipped: keys are ``(epoch, row)``, of which the augmentation is a function.

    Args:
        opened: A split: it has ``image(row)`` (``[H, W, 3] uint8``), ``batch(rows)`` and a length.
        image_size: Side of the square images in pixels.
        crop_scale: Least and greatest share of the image's area that a crop keeps, in (0, 1].
        flip: Probability of a horizontal flip, in [0, 1].
        seed: Seed of the augmentation.
        ratio: Least and greatest aspect ratio of a crop; None: the image's own.
    """

    def __init__(
        self,
        opened: Any,
        *,
        image_size: int,
        crop_scale: tuple[float, float],
        flip: float,
        seed: int,
        ratio: tuple[float, float] | None = None,
    ) -> None:
        self.opened = opened
        self.image_size = image_size
        self.crop_scale = crop_scale
        self.flip = flip
        self.seed = seed
        self.ratio = ratio

    def __len__(self) -> int:
        return len(self.opened)

    def read(self, row: int) -> np.ndarray:
        """Read the image of a row as ``[H, W, 3] uint8``."""
        return self.opened.image(row)

    def alter(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Augment a cropped image ``[S, S, 3] uint8`` further."""
        return image

    def batch(self, rows: Sequence[int], generators: Sequence[np.random.Generator]) -> Any:
        """Give what a batch has beside its images; each row has a generator for what is drawn."""
        return self.opened.batch(rows)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Any:
        pixels = np.empty((len(keys), self.image_size, self.image_size, 3), dtype=np.uint8)
        flip = torch.zeros(len(keys), dtype=torch.bool)
        generators = [np.random.default_rng((self.seed, epoch, row)) for epoch, row in keys]
        for index, ((_, row), generator) in enumerate(zip(keys, generators, strict=True)):
            cropped = images.random_crop_resize(
                self.read(row), self.image_size, scale=self.crop_scale, ratio=self.ratio, generator=generator
            )
            flip[index] = generator.random() < self.flip
            pixels[index] = self.alter(cropped, generator)
        batch = self.batch([row for _, row in keys], generators)
        batch["image"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if self.flip > 0:
            batch["flip"] = flip
        return batch
