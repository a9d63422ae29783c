"""LPIPS, the perceptual distance of VQGANs: torchmetrics' heads on VGG-16's published weights."""

from pathlib import Path
from typing import Any

import torch

from zoo.core.hubs import first_line
from zoo.errors import UserError

VGG = "vgg16-397923af.pth"  # torchvision's file, trained on ImageNet


def find_vgg() -> Path | None:
    """The file of VGG-16's weights in torch's cache (``$TORCH_HOME``), where it lies there."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / VGG
    return file if file.is_file() else None


def load_lpips() -> Any:
    """The distance ``network(a, b)`` of images ``[B, 3, S, S]`` from -1 to 1: ``[B, 1, 1, 1]``, differentiable.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), arXiv:1801.03924.

    Raises:
        UserError: VGG-16 is not in torch's cache, or the file is damaged.
    """
    file = find_vgg()
    if file is None:
        raise UserError(
            f"LPIPS needs VGG-16, and torch's cache has no {VGG}: fetch https://download.pytorch.org/models/{VGG} to"
            f" {torch.hub.get_dir()}/checkpoints"
        )
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        return LearnedPerceptualImagePatchSimilarity(net_type="vgg").net.requires_grad_(False)
    except Exception as error:  # torch's readers raise many kinds for broken files
        raise UserError(f"{file}: these are no weights of VGG-16 ({first_line(error)}). Remove the file") from None
