"""The Fréchet distance of two sets of features, each taken for a Gaussian.

It is called FID only where Inception made the features (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule",
arXiv:1706.08500). It is biased upward by few images, so it is printed with their number.
"""

import torch
from torch import Tensor

from zoo.core.precision import float64_device
from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.image_sets import Extract, ImageSetMetric

ROWS_PER_CHUNK = 1024


class FrechetDistance(ImageSetMetric):
    """The Fréchet distance of generated and true images: FID, where Inception is the extractor.

    ``compute`` gives a scalar, float64, at least 0, on every process the same.

    Args:
        extractor: ``inception``, an image tower with published weights (``timm:NAME``), or a function
            of images ``[B, 3, S, S] uint8``. None: features ``[B, D]`` come in the place of images.

    Raises:
        UserError: The extractor cannot be had.
    """

    higher_is_better = False

    def __init__(self, extractor: str | Extract | None = None) -> None:
        super().__init__(extractor)

    def compute(self) -> Tensor:
        """Give the distance; see ``frechet_distance_of``."""
        generated, true = self.sets.features("generated"), self.sets.features("true")
        return torch.tensor(frechet_distance_of(generated, true), dtype=torch.float64)


def frechet_distance_of(features_a: Tensor, features_b: Tensor) -> float:
    """The Fréchet distance of two sets of images, from their features.

    Args:
        features_a: ``[N, D] float32``, one row an image.
        features_b: ``[M, D] float32``, on the same device.

    Returns:
        At least 0; the same whatever the order of the rows.

    Raises:
        UserError: A set has no more images than dimensions, so that its covariance is no estimate of anything.
        ValueError: Shapes do not match, or a value is not finite.
    """
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        shapes = f"{list(features_a.shape)} and {list(features_b.shape)}"
        raise ValueError(f"features are {shapes}; they must be [N, D] and [M, D].")
    for name, features in (("features_a", features_a), ("features_b", features_b)):
        images, width = features.shape
        if images <= width:
            raise UserError(
                f"{name} has {images} images of {width} feature dimensions: a Fréchet distance from no more "
                f"images than feature dimensions is refused. Give {width + 1} or more, or take the kernel distance, "
                "which needs few."
            )
    return frechet_distance(*feature_statistics(features_a), *feature_statistics(features_b))


def feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance, summed in fp64 chunk by chunk: a few times ``D x D`` of memory, whatever N is.

    Args:
        features: ``[N, D]`` of any floating type, at least two rows.

    Returns:
        Mean ``[D] float64`` and unbiased covariance ``[D, D] float64``, on the device of the features, or on the CPU
        where it has no float64.

    Raises:
        ValueError: Another shape, or a value is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features are {list(features.shape)}; they must be [N, D], N at least 2.")
    device = float64_device(features.device)
    chunks = features.detach().split(min(ROWS_PER_CHUNK, max(1, features.shape[1])))
    mean = torch.stack([chunk.to(device, torch.float64).sum(dim=0) for chunk in chunks]).sum(dim=0) / len(features)
    if not mean.isfinite().all():
        raise ValueError("some features are not finite; they have no distance.")
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=device)
    for chunk in chunks:
        centred = chunk.to(device, torch.float64).sub_(mean)  # before it is squared, or the digits are lost
        scatter.addmm_(centred.T, centred)
    return mean, scatter.div_(len(features) - 1)


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """The Fréchet distance of two Gaussians: |mean_a − mean_b|² + trace(A + B − 2 (A½ B A½)½).

    Args:
        mean_a: ``[D] float64``.
        covariance_a: A, ``[D, D] float64``, symmetric, no eigenvalue below 0; it may be singular.
        mean_b: ``[D] float64``.
        covariance_b: B, ``[D, D] float64``, likewise.

    Returns:
        At least 0: what rounding leaves below it is cut off.

    Source: Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982.
    """
    factor = _square_factor(covariance_a)
    # Whatever the factor F of A = F Fᵀ, the eigenvalues of Fᵀ B F are those of A½ B A½.
    eigenvalues = torch.linalg.eigvalsh(factor.T @ covariance_b @ factor)
    overlap = eigenvalues.clamp_(min=0).sqrt_().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * overlap
    return max(0.0, distance.item())


def _square_factor(covariance: Tensor) -> Tensor:
    """Some F ``[D, D]`` with F Fᵀ = covariance: Cholesky's, or, of a singular one, from its eigenvectors (slower)."""
    factor, fault = torch.linalg.cholesky_ex(covariance)
    if not fault:
        return factor
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return vectors * eigenvalues.clamp_(min=0).sqrt_()
