"""The kernel distance: the naive estimate over the same subsets, no bias, and what is refused."""

import numpy as np
import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics import kernel_distance as module
from zoo.tasks.text_to_image.metrics.kernel_distance import kernel_distance


def random_features(rows, seed, width=16, shift=0.0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) + shift


def naive(a, b, size):
    """The unbiased estimate, written as its double sums, over subsets drawn in torch-fidelity's order."""
    random = np.random.RandomState(7)
    values = []
    for _ in range(5):
        x, y = (side.double().numpy()[random.choice(len(side), size, replace=False)] for side in (a, b))
        kernels = [(left @ right.T / 16 + 1) ** 3 for left, right in ((x, x), (y, y), (x, y))]
        unequal = ~np.eye(size, dtype=bool)
        values.append(kernels[0][unequal].mean() + kernels[1][unequal].mean() - 2 * kernels[2].mean())
    return np.mean(values), np.std(values)


@pytest.mark.parametrize("block", [1, 300, 1 << 21])
def test_it_is_the_naive_estimate_in_blocks_of_any_size(block, monkeypatch):
    monkeypatch.setattr(module, "PAIRS_PER_BLOCK", block)
    a, b = random_features(60, 0), random_features(45, 1, shift=0.4)
    result = kernel_distance(a, b, subsets=5, subset_size=20, seed=7)
    mean, deviation = naive(a, b, 20)
    assert result.mean == pytest.approx(mean, rel=1e-5)
    assert result.deviation == pytest.approx(deviation, rel=1e-5)


def test_small_sets_make_small_subsets():
    a, b = random_features(60, 0), random_features(45, 1)
    result = kernel_distance(a, b)
    assert result.subset_size == 45
    assert result == kernel_distance(a, b, subset_size=45)
    whole = kernel_distance(b, b.flip(0) + 1)
    assert whole.deviation == pytest.approx(0, abs=1e-9)  # every subset is the whole


def test_by_default_there_are_100_subsets_of_1000_images():
    a, b = random_features(30, 0), random_features(40, 1)
    assert kernel_distance(a, b, subset_size=20) == kernel_distance(a, b, subset_size=20, subsets=100, seed=2020)
    large = random_features(1001, 0, width=2)
    assert kernel_distance(large, large + 1, subsets=1).subset_size == 1000


def test_sets_of_one_distribution_are_around_zero():
    a, b = random_features(900, 0), random_features(900, 1)
    assert abs(kernel_distance(a, b, subset_size=300).mean) < 0.02
    assert kernel_distance(a, b + 0.5, subset_size=300).mean > 0.5


def test_it_is_symmetric_for_sets_drawn_whole():
    a, b = random_features(30, 0), random_features(30, 1)
    assert kernel_distance(a, b).mean == pytest.approx(kernel_distance(b, a).mean, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features_a": random_features(1, 0)}, "features_a .* is 1; a kernel distance needs 2"),
        ({"features_b": random_features(1, 0)}, "features_b .* is 1; a kernel distance needs 2"),
        ({"subsets": 0}, "subsets is 0; a kernel distance needs 1"),
        ({"subset_size": 1}, "subset_size is 1"),
    ],
)
def test_too_little_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        kernel_distance(**{"features_a": random_features(9, 0), "features_b": random_features(9, 1)} | changes)


def test_large_sums_keep_their_digits():
    """Of whole numbers, whose kernels fp32 still has, and whose sums it has no more."""
    a, b = (torch.randint(0, 16, (60, 1), generator=torch.Generator().manual_seed(seed)).float() for seed in (0, 1))
    kernels = [(left.double() @ right.double().T + 1) ** 3 for left, right in ((a, a), (b, b), (a, b))]
    within = sum((kernel.sum() - kernel.trace()) / (60 * 59) for kernel in kernels[:2])
    expected = (within - 2 * kernels[2].mean()).item()
    assert kernels[0].sum() > 1 << 28
    assert kernel_distance(a, b, subsets=1).mean == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_features_of_any_type_are_taken_as_fp32(dtype):
    a, b = random_features(30, 0).to(dtype), random_features(30, 1).to(dtype)
    assert kernel_distance(a, b, subset_size=20) == kernel_distance(a.float(), b.float(), subset_size=20)


def test_other_shapes_are_named():
    for one, other in (
        (random_features(9, 0)[0], random_features(9, 1)),
        (random_features(9, 0), random_features(9, 1)[0]),
    ):
        with pytest.raises(ValueError, match=r"they must be \[N, D\] and \[M, D\]"):
            kernel_distance(one, other)
    with pytest.raises(ValueError, match=r"\[9, 16\] and \[9, 4\]"):
        kernel_distance(random_features(9, 0), random_features(9, 1, width=4))


def test_two_images_a_side_and_one_subset_are_enough():
    assert kernel_distance(random_features(2, 0), random_features(2, 1), subsets=1, subset_size=2).subset_size == 2
