"""All scores of generated images together: which there are, and that they move the right way."""

import pytest
import torch
from torch.nn.functional import normalize

from zoo.tasks.text_to_image.metrics.frechet import frechet_distance_of
from zoo.tasks.text_to_image.metrics.inception_score import inception_score
from zoo.tasks.text_to_image.metrics.kernel_distance import kernel_distance
from zoo.tasks.text_to_image.metrics.precision_recall import precision_recall
from zoo.tasks.text_to_image.metrics.r_precision import draw_distractors, hits, over_folds, shuffled_rows
from zoo.tasks.text_to_image.metrics.scores import distribution_scores, memorisation_scores, nearest, r_precision_scores


def features(number, width=8, shift=0.0, seed=0):
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_each_judge_has_its_own_names_and_only_inception_says_fid():
    drawn = {"inception": features(40), "logits": features(40, 20), "clip": features(40), "resnet10t": features(40)}
    true = {name: features(50, seed=1) for name in ("inception", "clip", "resnet10t")}
    scores = distribution_scores(drawn, true)
    judged = {f"{what}_{name}" for what in ("precision", "recall") for name in true}
    assert scores.keys() == {"fid", "kid", "kid_std", "is", "is_std", "fd_clip", "fd_resnet10t", *judged}


def test_a_frechet_distance_from_too_few_pictures_is_left_out():
    for drawn, true in ((8, 50), (50, 8)):
        assert "fd_clip" not in distribution_scores({"clip": features(drawn)}, {"clip": features(true, seed=1)})
    assert "fd_clip" in distribution_scores({"clip": features(9)}, {"clip": features(9, seed=1)})


@pytest.mark.parametrize(("number", "scored"), [(9, False), (10, True)])
def test_an_inception_score_takes_an_image_for_each_split(number, scored):
    scores = distribution_scores(
        {"inception": features(number), "logits": features(number)}, {"inception": features(9)}
    )
    assert ("is" in scores) is scored


@pytest.mark.parametrize(("number", "scored"), [(3, False), (4, True)])
def test_precision_and_recall_take_an_image_more_than_neighbours(number, scored):
    for drawn, true in ((number, 9), (9, number)):
        assert ("recall_clip" in distribution_scores({"clip": features(drawn)}, {"clip": features(true)})) is scored


def test_pictures_from_elsewhere_score_worse():
    true = {"inception": features(300)}
    near, far = ({"inception": features(300, shift=s, seed=1), "logits": features(300)} for s in (0.1, 2.0))
    near, far = distribution_scores(near, true), distribution_scores(far, true)
    assert near["fid"] < 1 < 10 < far["fid"]
    assert near["kid"] < far["kid"]
    assert near["precision_inception"] > 80 > 20 > far["precision_inception"]


def test_each_score_is_its_functions_in_the_usual_unit():
    drawn = {"inception": features(60, shift=0.5), "logits": features(60, 20)}
    true = {"inception": features(80, seed=1)}
    pair = drawn["inception"], true["inception"]
    kernel, (precision, recall) = kernel_distance(*pair), precision_recall(*pair, neighbours=3)
    inception = inception_score(drawn["logits"], splits=10)
    assert 0 < recall < 1
    assert distribution_scores(drawn, true) == {
        "fid": frechet_distance_of(*pair),
        "kid": kernel.mean,
        "kid_std": kernel.deviation,
        "is": inception.mean,
        "is_std": inception.deviation,
        "precision_inception": 100 * precision,
        "recall_inception": 100 * recall,
    }


def test_repeated_pictures_lose_recall_and_not_precision():
    true = features(400)
    repeated = true[torch.arange(400) // 40 * 40]
    scores = distribution_scores({"clip": repeated}, {"clip": true})
    assert scores["precision_clip"] == 100
    assert scores["recall_clip"] < 50


def test_r_precision_has_its_ceiling_its_control_and_chance():
    texts = [f"商品{place}" for place in range(200)]
    read = normalize(features(200, 32), dim=-1)
    true = normalize(read + 0.1 * features(200, 32, seed=1), dim=-1)
    rows = torch.arange(0, 200, 2)
    drawn = normalize(read[rows] + 0.6 * features(100, 32, seed=2), dim=-1)
    scores = r_precision_scores(drawn, rows, texts, read, true, draw_distractors(texts))
    assert scores["r_precision_true"] == 100
    assert 10 < scores["r_precision"] < 100
    assert scores["r_precision_shuffled"] < 5
    assert scores["r_precision_chance"] == 1
    assert 0 < scores["r_precision_std"] < 30
    assert "r_precision_true" not in r_precision_scores(drawn, rows, texts, read, None, draw_distractors(texts))


def test_the_nearest_training_picture_equals_a_naive_search():
    drawn, training = features(30), features(70, seed=1)
    likeness, places = nearest(drawn, training, block=7)
    naive = normalize(drawn, dim=-1) @ normalize(training, dim=-1).T
    assert torch.equal(places, naive.argmax(dim=1))
    assert torch.allclose(likeness, naive.max(dim=1).values)


def test_copies_are_told_from_images_like_the_true_ones():
    training, true = features(500, 16), features(500, 16, seed=1)
    bar = nearest(true, training)[0]
    fresh = memorisation_scores(nearest(features(500, 16, seed=2), training)[0], bar)
    half = torch.cat([training[:250], features(250, 16, seed=2)])
    copied = memorisation_scores(nearest(half, training)[0], bar)
    assert fresh["copied"] < 4
    assert copied["copied"] == pytest.approx(50, abs=3)
    assert fresh["nearest_training_true"] == bar.mean().item()
    assert copied["nearest_training"] > fresh["nearest_training"] == pytest.approx(bar.mean().item(), abs=0.05)


def test_copied_is_the_share_above_99_percent_of_the_true_ones():
    true = torch.arange(101.0)
    scores = memorisation_scores(torch.tensor([99.0, 99.5, 50.0, 100.0]), true)
    assert scores == {"nearest_training": 87.125, "nearest_training_true": 50.0, "copied": 50.0}


@pytest.mark.parametrize("seed", [0, 7])
def test_r_precision_is_of_its_seed_and_its_control_of_the_ten_from_there(seed):
    texts = [f"商品{place}" for place in range(60)]
    read, rows = normalize(features(60, 4), dim=-1), torch.arange(59, 9, -1)
    drawn = normalize(read[rows] + 0.3 * features(50, 4, seed=2), dim=-1)
    true = normalize(read + 0.2 * features(60, 4, seed=3), dim=-1)
    distractors = draw_distractors(texts)
    scores = r_precision_scores(drawn, rows, texts, read, true, distractors, **({"seed": seed} if seed else {}))
    mean, spread = over_folds(hits(drawn, read, rows, distractors), seed=seed)
    shuffles = [torch.tensor(shuffled_rows(texts, rows.tolist(), seed=seed + number)) for number in range(10)]
    shuffled = [hits(drawn, read, shuffle, distractors).double().mean().item() for shuffle in shuffles]
    assert scores == {
        "r_precision": mean,
        "r_precision_std": spread,
        "r_precision_shuffled": pytest.approx(10 * sum(shuffled)),
        "r_precision_true": over_folds(hits(true[rows], read, rows, distractors)).mean,
        "r_precision_chance": 100 / 60,
    }
    assert 0 < scores["r_precision"] < scores["r_precision_true"] < 100
