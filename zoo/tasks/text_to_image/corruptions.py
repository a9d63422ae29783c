"""Images corrupted on purpose: what scores are tried on, and what scorers of generated images have to bear."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from zoo.data.augment import degrade
from zoo.data.images import resize_batch

Corrupt = Callable[[Tensor, Tensor], Tensor]  # images [B, 3, S, S] uint8, their rows [B]


def blurred(images: Tensor, rows: Tensor) -> Tensor:
    """Made smaller to a quarter of the side, and blown up again."""
    size = images.shape[-1]
    return resize_batch(resize_batch(images, size // 4), size)


def noised(images: Tensor, rows: Tensor) -> Tensor:
    """With Gaussian noise of 40 grey levels, by the row."""
    noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(row)) for row in rows.tolist()]
    return (images + 40 * torch.stack(noise)).round().clamp(0, 255).to(torch.uint8)


def degraded(images: Tensor, rows: Tensor) -> Tensor:
    """Blurred and noisy to a degree drawn by the row; see ``zoo.data.augment.degrade``."""
    arrays = images.permute(0, 2, 3, 1).numpy()
    made = [degrade(array, np.random.default_rng(row)) for array, row in zip(arrays, rows.tolist(), strict=True)]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def noise_alone(images: Tensor, rows: Tensor) -> Tensor:
    """Nothing but uniform noise, by the row."""
    drawn = [
        torch.randint(256, images.shape[1:], generator=torch.Generator().manual_seed(row)) for row in rows.tolist()
    ]
    return torch.stack(drawn).to(torch.uint8)
