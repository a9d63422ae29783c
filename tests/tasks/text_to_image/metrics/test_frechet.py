"""The Fréchet distance: closed forms, symmetry, singular covariances, memory, and what is refused."""

import numpy as np
import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.frechet import feature_statistics, frechet_distance, frechet_distance_of


def random_features(rows, width, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    return torch.randn(rows, width, generator=generator) @ mixing * scale + shift


def test_statistics_are_numpys():
    features = random_features(3000, 24)
    mean, covariance = feature_statistics(features)
    assert mean.dtype == covariance.dtype == torch.float64
    np.testing.assert_allclose(mean, features.double().mean(dim=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(features.double().numpy(), rowvar=False), rtol=1e-10, atol=1e-12)


def test_a_large_mean_costs_no_digits():
    features = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) + 4096
    expected = np.cov(features.double().numpy(), rowvar=False)
    np.testing.assert_allclose(feature_statistics(features)[1], expected, rtol=1e-11, atol=1e-12)


def test_equal_sets_are_at_distance_zero_whatever_their_order():
    features = random_features(500, 40)
    other = features[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    assert frechet_distance_of(features, other) == pytest.approx(0, abs=1e-8)


def test_it_is_symmetric_and_independent_of_the_order_of_rows():
    a, b = random_features(300, 30), random_features(400, 30, seed=1, shift=0.5)
    distance = frechet_distance_of(a, b)
    assert distance > 1
    assert frechet_distance_of(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance_of(a.flip(0), b.flip(0)) == pytest.approx(distance, rel=1e-9)


def test_gaussians_with_diagonal_covariances():
    generator = torch.Generator().manual_seed(0)
    mean_a, mean_b = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    deviation_a, deviation_b = torch.rand(2, 20, generator=generator, dtype=torch.float64)
    expected = (mean_a - mean_b).square().sum() + (deviation_a - deviation_b).square().sum()
    distance = frechet_distance(mean_a, deviation_a.square().diag(), mean_b, deviation_b.square().diag())
    assert distance == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("singular", [(True, False), (False, True), (True, True)])
def test_singular_covariances(singular):
    """Features that are always 0 have no Cholesky factor."""
    sets = [random_features(200, 12, seed=seed, shift=seed) for seed in (0, 1)]
    for features, dead in zip(sets, singular, strict=True):
        if dead:
            features[:, 3:6] = 0
    (mean_a, a), (mean_b, b) = map(feature_statistics, sets)
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    expected = (mean_a - mean_b).square().sum() + a.trace() + b.trace() - 2 * overlap
    assert frechet_distance_of(*sets) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("rows", "message"), [((8, 9), "features_a has 8"), ((9, 7), "features_b has 7")])
def test_no_more_pictures_than_dimensions_are_refused(rows, message):
    with pytest.raises(UserError, match=f"{message} images of 8 .* from no more images .* Give 9 or more"):
        frechet_distance_of(*(random_features(count, 8) for count in rows))


def test_faulty_features_are_named():
    features = random_features(20, 4)
    features[3, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance_of(features, random_features(20, 4))
    with pytest.raises(ValueError, match=r"\[20, 4\] and \[20, 3\]"):
        frechet_distance_of(features, features[:, :3])
    for one, other in ((features[0], features), (features, features[0])):
        with pytest.raises(ValueError, match=r"they must be \[N, D\] and \[M, D\]"):
            frechet_distance_of(one, other)
    with pytest.raises(ValueError, match=r"\[4\]; they must be \[N, D\]"):
        feature_statistics(features[0])
    assert feature_statistics(features[:2])[1].isfinite().all()
    with pytest.raises(ValueError, match=r"\[1, 4\]; they must be \[N, D\]"):
        feature_statistics(features[:1])
