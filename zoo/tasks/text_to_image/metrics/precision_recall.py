"""Improved precision and recall of generated images (Kynkäänniemi et al., arXiv:1904.06991)."""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.core.precision import full_float32
from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.image_sets import Extract, ImageSetMetric

ROWS_PER_BLOCK = 4096


class PrecisionRecallResult(NamedTuple):
    """Two shares, 0 to 1."""

    precision: float  # of the generated images that lie where true ones are
    recall: float  # of the true images that lie where generated ones are


class PrecisionRecall(ImageSetMetric):
    """Improved precision and recall of generated images.

    ``compute`` gives ``precision`` and ``recall``, float64, in [0, 1], on every process the same.

    Args:
        extractor: ``inception``, an image tower with published weights (``timm:NAME``), or a function
            of images ``[B, 3, S, S] uint8``. None: features ``[B, D]`` come in the place of images.
        neighbours: The neighbour that an image's ball reaches to, at least 1.

    Raises:
        UserError: The extractor cannot be had.
    """

    def __init__(self, extractor: str | Extract | None = None, *, neighbours: int = 3) -> None:
        super().__init__(extractor)
        self.neighbours = neighbours

    def compute(self) -> dict[str, Tensor]:
        """Give both shares; see ``precision_recall``."""
        generated, true = self.sets.features("generated"), self.sets.features("true")
        found = precision_recall(generated, true, neighbours=self.neighbours)._asdict()
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


def precision_recall(
    generated: Tensor, real: Tensor, *, neighbours: int = 3, block_size: int = ROWS_PER_BLOCK
) -> PrecisionRecallResult:
    """Which share of each set lies within the other, a set being balls around its images.

    An image's ball reaches to its ``neighbours``-th nearest image of the same set. Distances are Euclidean, in fp32.

    Args:
        generated: ``[N, D] float32``, one row an image.
        real: ``[M, D] float32``, on the same device.
        neighbours: k, at least 1.
        block_size: Rows of a block: ``block_size x block_size`` distances are held in memory, never N x N.

    Raises:
        UserError: A set has no more than ``neighbours`` images, or an argument is below 1.
        ValueError: Shapes do not match.

    Source: https://github.com/kynkaat/improved-precision-and-recall-metric, and torch-fidelity's choice of a ball's
    edge: it belongs to the ball.
    """
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        shapes = f"{list(generated.shape)} and {list(real.shape)}"
        raise ValueError(f"generated and real are {shapes}; they must be [N, D] and [M, D].")
    for name, value in (("neighbours", neighbours), ("block_size", block_size)):
        if value < 1:
            raise UserError(f"{name} is {value}; give 1 or more.")
    for name, features in (("generated", generated), ("real", real)):
        if len(features) <= neighbours:
            raise UserError(
                f"{name} has {len(features)} images, too few for neighbours={neighbours}; give {neighbours + 1}."
            )
    with torch.no_grad(), full_float32(generated.device):
        generated, real = generated.float(), real.float()
        generated_radii, real_radii = (_radii(features, neighbours, block_size) for features in (generated, real))
        inside_real = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
        inside_generated = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        for row in range(0, len(generated), block_size):
            rows = slice(row, row + block_size)
            for column in range(0, len(real), block_size):
                columns = slice(column, column + block_size)
                distances = torch.cdist(generated[rows], real[columns])
                inside_real[rows] |= (distances <= real_radii[columns]).any(dim=1)
                inside_generated[columns] |= (distances <= generated_radii[rows, None]).any(dim=0)
    return PrecisionRecallResult(inside_real.double().mean().item(), inside_generated.double().mean().item())


def _radii(features: Tensor, neighbours: int, block_size: int) -> Tensor:
    """``[N]``: how far each image's ``neighbours``-th nearest is; the image itself comes first and is not one."""
    radii = []
    for rows in features.split(block_size):
        nearest = torch.empty(len(rows), 0, device=features.device)
        for columns in features.split(block_size):
            distances = torch.cdist(rows, columns)
            best = distances.topk(min(neighbours + 1, len(columns)), dim=1, largest=False).values
            nearest = torch.cat([nearest, best], dim=1)
            nearest = nearest.topk(min(neighbours + 1, nearest.shape[1]), dim=1, largest=False).values
        radii.append(nearest.max(dim=1).values)
    return torch.cat(radii)
