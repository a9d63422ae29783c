"""The kernel distance of two sets of features, which needs few images and has no bias.

It is called KID only where Inception made the features (Bińkowski et al., "Demystifying MMD GANs", arXiv:1801.01401).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.core.precision import float64_device, full_float32
from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.image_sets import Extract, ImageSetMetric

PAIRS_PER_BLOCK = 1 << 21


class KernelDistanceResult(NamedTuple):
    """What a kernel distance is printed with."""

    mean: float  # over the subsets; may lie a little below 0
    deviation: float  # standard deviation over the subsets, ddof 0
    subset_size: int  # images of each side in a subset


class KernelDistance(ImageSetMetric):
    """The kernel distance of generated and true images: KID, where Inception is the extractor.

    ``compute`` gives ``mean`` and ``std``, over the subsets, float64, on every process the same. Who is in which subset
    depends on the order of the images: give ``update`` their ``rows``.

    Args:
        extractor: ``inception``, an image tower with published weights (``timm:NAME``), or a function
            of images ``[B, 3, S, S] uint8``. None: features ``[B, D]`` come in the place of images.
        subsets: Number of subsets, at least 1.
        subset_size: Images of each side in a subset, at least 2; fewer, where a side has fewer.
        seed: Seed of the subsets.

    Raises:
        UserError: The extractor cannot be had.
    """

    higher_is_better = False

    def __init__(
        self, extractor: str | Extract | None = None, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
    ) -> None:
        super().__init__(extractor)
        self.options = {"subsets": subsets, "subset_size": subset_size, "seed": seed}

    def compute(self) -> dict[str, Tensor]:
        """Give the distance; see ``kernel_distance``."""
        found = kernel_distance(self.sets.features("generated"), self.sets.features("true"), **self.options)
        return {
            "mean": torch.tensor(found.mean, dtype=torch.float64),
            "std": torch.tensor(found.deviation, dtype=torch.float64),
        }


def kernel_distance(
    features_a: Tensor, features_b: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> KernelDistanceResult:
    """The unbiased squared maximum mean discrepancy under the kernel (a·b / D + 1)³, averaged over random subsets.

    The subsets are those that torch-fidelity 0.4 draws with the same seed. Products are computed in fp32 and summed in
    fp64, in blocks of memory.

    Args:
        features_a: ``[N, D] float32``, one row an image. The order of the rows decides who is in which subset.
        features_b: ``[M, D] float32``, on the same device.
        subsets: How many subsets, at least 1.
        subset_size: Images of each side in a subset; all N or M where a side has fewer: min(subset_size, N, M).
        seed: Of the draw.

    Raises:
        UserError: A side has fewer than two images, or ``subsets`` or ``subset_size`` is too small.
        ValueError: Shapes do not match.

    Source: torch-fidelity, https://github.com/toshas/torch-fidelity.
    """
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        shapes = f"{list(features_a.shape)} and {list(features_b.shape)}"
        raise ValueError(f"features are {shapes}; they must be [N, D] and [M, D].")
    for name, value, least in (
        ("features_a (its rows)", len(features_a), 2),
        ("features_b (its rows)", len(features_b), 2),
        ("subsets", subsets, 1),
        ("subset_size", subset_size, 2),
    ):
        if value < least:
            raise UserError(f"{name} is {value}; a kernel distance needs {least} or more.")
    size = min(subset_size, len(features_a), len(features_b))
    device = float64_device(features_a.device)
    a, b = (features.detach().to(device, torch.float32) for features in (features_a, features_b))
    in_a, in_b = (members.to(device) for members in _draw(len(a), len(b), subsets=subsets, size=size, seed=seed))
    with torch.no_grad(), full_float32(device):
        within = sum(_sums(x, x, members, members) - members @ _self_kernel(x) for x, members in ((a, in_a), (b, in_b)))
        distances = within / (size * (size - 1)) - 2 * _sums(a, b, in_a, in_b) / size**2  # [subsets]
    return KernelDistanceResult(distances.mean().item(), distances.std(correction=0).item(), size)


def _draw(images_a: int, images_b: int, *, subsets: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Who is in which subset, as ones: ``[subsets, N] float64`` and ``[subsets, M] float64``."""
    random = np.random.RandomState(seed)
    in_a, in_b = (torch.zeros(subsets, images, dtype=torch.float64) for images in (images_a, images_b))
    for place in range(subsets):
        for members in (in_a, in_b):  # in this order
            members[place, torch.from_numpy(random.choice(members.shape[1], size, replace=False))] = 1
    return in_a, in_b


def _sums(a: Tensor, b: Tensor, in_a: Tensor, in_b: Tensor) -> Tensor:
    """``[subsets] float64``: the kernel summed over all pairs of a subset's rows of a and its rows of b.

    Each pair of rows is computed once for all subsets: a quarter of the work, for 100 subsets of 1,000 out of 5,000.
    """
    sums = torch.zeros(len(in_a), dtype=torch.float64, device=a.device)
    block = max(1, PAIRS_PER_BLOCK // len(b))
    for rows, members in zip(a.split(block), in_a.split(block, dim=1), strict=True):
        kernel = _kernel((rows @ b.T).mul_(1 / a.shape[1]))  # [block, M]
        sums += (members @ kernel.double()).mul_(in_b).sum(dim=1)
    return sums


def _self_kernel(a: Tensor) -> Tensor:
    """``[N] float64``: the kernel of each row with itself."""
    norms = [torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64) for rows in a.split(1024)]
    return _kernel(torch.cat(norms).square() / a.shape[1])


def _kernel(products: Tensor) -> Tensor:
    base = products + 1
    return (base * base).mul_(base)
