"""The Inception score: its extremes, and what is refused."""

import math

import numpy as np
import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.inception_score import inception_score


def test_pictures_that_are_all_alike_score_one():
    score = inception_score(torch.tensor([[3.0, 1.0, -2.0]]).repeat(40, 1))
    assert score == pytest.approx((1, 0), abs=1e-12)


def test_certain_classes_that_are_equally_frequent_score_their_number():
    logits = 1000 * torch.eye(5).repeat(8, 1)
    assert inception_score(logits, splits=1) == pytest.approx((5, 0))


def test_one_split_is_the_formula():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    shares = logits.double().softmax(dim=1)
    divergence = (shares * (shares / shares.mean(dim=0)).log()).sum(dim=1).mean()
    assert inception_score(logits, splits=1).mean == pytest.approx(math.exp(divergence), rel=1e-12)


def test_splits_that_do_not_divide_the_pictures_are_all_used():
    logits = torch.randn(53, 7, generator=torch.Generator().manual_seed(0))
    score = inception_score(logits)
    assert 1 < score.mean < 7
    assert score.deviation > 0
    assert inception_score(logits, seed=1) != score


@pytest.mark.parametrize("splits", [0, 10])
def test_fewer_pictures_than_splits_are_refused(splits):
    with pytest.raises(UserError, match=f"splits is {splits} for 9 images; give 1 to 9"):
        inception_score(torch.zeros(9, 3), splits=splits)


def test_other_shapes_are_named():
    with pytest.raises(ValueError, match=r"\[3\]; they must be \[N, C\]"):
        inception_score(torch.zeros(3))


def test_the_splits_are_those_of_a_seed_and_2020_by_default():
    logits = torch.randn(53, 7, generator=torch.Generator().manual_seed(0))
    order = np.random.RandomState(2020).permutation(53)
    scores = []
    for part in range(10):  # torch-fidelity's bounds
        shares = logits[order[part * 53 // 10 : (part + 1) * 53 // 10]].double().softmax(dim=1)
        scores.append(math.exp((shares * (shares / shares.mean(dim=0)).log()).sum(dim=1).mean()))
    assert inception_score(logits) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-12)
    assert inception_score(logits[:4], splits=4).mean == pytest.approx(1)  # each image alone
