"""Improved precision and recall: the naive definition in blocks of any size, its extremes, and what is refused."""

import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.precision_recall import precision_recall


def random_features(rows, seed, shift=0.0):
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)) + shift


def naive_share(inside, of, neighbours):
    """The share of ``inside`` that lies in a ball around a row of ``of``."""
    distance = lambda a, b: (a.double() - b.double()).square().sum().sqrt().item()  # noqa: E731
    radii = [sorted(distance(row, other) for other in of)[neighbours] for row in of]
    hits = [any(distance(row, centre) <= radius for centre, radius in zip(of, radii, strict=True)) for row in inside]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("block_size", [1, 7, 4096])
@pytest.mark.parametrize("neighbours", [1, 3])
def test_it_is_the_definition_in_blocks_of_any_size(block_size, neighbours):
    generated, real = random_features(31, 0, shift=0.7), random_features(43, 1)
    result = precision_recall(generated, real, neighbours=neighbours, block_size=block_size)
    assert result.precision == pytest.approx(naive_share(generated, real, neighbours))
    assert result.recall == pytest.approx(naive_share(real, generated, neighbours))
    assert 0 < result.precision < 1


def test_equal_sets_and_distant_ones():
    real = random_features(50, 0)
    assert precision_recall(real.flip(0), real) == (1, 1)
    assert precision_recall(real + 100, real) == (0, 0)


def test_one_good_picture_over_and_over_is_precise_but_recalls_little():
    real = random_features(200, 0)
    collapsed = real[:1] + 1e-3 * random_features(50, 1)
    assert precision_recall(collapsed, real).precision == 1
    assert precision_recall(collapsed, real).recall < 0.05


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ((3, 9), {}, "generated has 3 images, too few for neighbours=3; give 4"),
        ((9, 2), {"neighbours": 2}, "real has 2 images"),
        ((9, 9), {"neighbours": 0}, "neighbours is 0"),
        ((9, 9), {"block_size": 0}, "block_size is 0"),
    ],
)
def test_too_little_is_refused(rows, options, message):
    with pytest.raises(UserError, match=message):
        precision_recall(*(random_features(count, 0) for count in rows), **options)


def test_other_shapes_are_named():
    features = random_features(9, 0)
    for one, other in ((features[0], features), (features, features[0]), (features, features[:, :2])):
        with pytest.raises(ValueError, match=r"they must be \[N, D\] and \[M, D\]") as caught:
            precision_recall(one, other)
        assert f"{list(one.shape)} and {list(other.shape)}" in str(caught.value)


def test_one_image_more_than_neighbours_is_enough():
    assert precision_recall(random_features(2, 0), random_features(2, 0), neighbours=1) == (1, 1)


def test_the_edge_of_a_ball_belongs_to_it():
    one, other = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [5.0]])  # balls of 1, and of 3
    assert precision_recall(one, other, neighbours=1) == (1, 0.5)
    assert precision_recall(other, one, neighbours=1) == (0.5, 1)
    assert precision_recall(one, other + 2, neighbours=1) == (0.5, 0)  # 1 is 3 from 4
