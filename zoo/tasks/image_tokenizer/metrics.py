"""PSNR and SSIM of reconstructions, image by image, and their means as metrics."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_WINDOW = 11  # pixels, the usual one; smaller images have no SSIM


def image_similarity(images: Tensor, true_images: Tensor) -> dict[str, Tensor]:
    """Compare each image with its true one, by torchmetrics.

    Args:
        images: ``[B, 3, S, S] uint8``.
        true_images: ``[B, 3, S, S] uint8``.

    Returns:
        ``psnr [B]`` in decibels, 100 at most (equal images have none), and ``ssim [B]`` in percent, where images are as
        large as its window.
    """
    found = {"psnr": psnr(images, true_images)}
    if images.shape[-1] >= SSIM_WINDOW:
        found["ssim"] = ssim(images, true_images)
    return found


def psnr(images: Tensor, true_images: Tensor) -> Tensor:
    """Give the PSNR ``[B]`` of each of B ``uint8`` images in decibels, 100 at most."""
    a, b = images.float(), true_images.float()
    return peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3)).clamp(max=100)


def ssim(images: Tensor, true_images: Tensor) -> Tensor:
    """Give the SSIM ``[B]`` of each of B ``uint8`` images, of 11 pixels or more, in percent."""
    found = structural_similarity_index_measure(images.float(), true_images.float(), data_range=255.0, reduction="none")
    return 100 * found.reshape(len(images))  # type: ignore[union-attr]


class _ImageMean(Metric):
    """The mean over images of what ``score`` gives each."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    score: Callable[[Tensor, Tensor], Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor
        self.count: Tensor
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Tensor, true_images: Tensor) -> None:
        """Take B images ``[B, 3, S, S] uint8`` and their true ones."""
        self.total += self.score(images, true_images).double().sum()
        self.count += len(images)

    def compute(self) -> Tensor:
        """Give the mean, float64."""
        return self.total / self.count


class PSNR(_ImageMean):
    """The mean over images of their PSNR in decibels, at 8 bits, 100 at most each."""

    score = staticmethod(psnr)


class SSIM(_ImageMean):
    """The mean over images, of 11 pixels or more, of their SSIM in percent, at 8 bits."""

    score = staticmethod(ssim)
