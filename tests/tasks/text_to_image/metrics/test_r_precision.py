"""R-precision: its distractors, its hits against a naive loop, its controls."""

import hashlib

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.r_precision import (
    distractor_records,
    draw_distractors,
    hits,
    over_folds,
    shuffled_rows,
)


def test_distractors_differ_from_the_description_and_from_each_other():
    texts = [f"商品{place % 150}" for place in range(400)]  # most texts come two or three times
    drawn = draw_distractors(texts, seed=3)
    assert drawn.shape == (400, 99)
    for row, places in enumerate(drawn.tolist()):
        others = [texts[place] for place in places]
        assert texts[row] not in others
        assert len(set(others)) == 99


def test_every_other_description_is_drawn_about_as_often():
    drawn = draw_distractors([f"商品{place}" for place in range(200)])
    counts = np.bincount(drawn.flatten().numpy(), minlength=200)
    assert counts.min() > 60
    assert counts.max() < 140


def test_a_seed_draws_again_the_same_and_another_one_others():
    texts = [f"商品{place}" for place in range(120)]
    assert torch.equal(draw_distractors(texts, seed=1), draw_distractors(texts, seed=1))
    assert not torch.equal(draw_distractors(texts, seed=1), draw_distractors(texts, seed=2))


def test_the_draw_does_not_depend_on_the_order_of_the_file():
    texts = [f"商品{place % 150}" for place in range(180)]
    order = np.random.default_rng(0).permutation(180)
    moved = [texts[place] for place in order]
    before, after = draw_distractors(texts), draw_distractors(moved)
    for row, place in enumerate(order):
        assert [moved[other] for other in after[row]] == [texts[other] for other in before[place]]


def test_a_draw_is_of_the_others_in_their_order_by_the_seed_and_the_texts_digest():
    texts = [f"商品{place % 130}" for place in range(150)]
    drawn = draw_distractors(texts, seed=3)
    for row in (0, 64, 149):
        others = sorted(set(texts) - {texts[row]})
        digest = int.from_bytes(hashlib.sha256(texts[row].encode()).digest()[:8], "little")
        chosen = np.random.default_rng((3, digest)).choice(129, 99, replace=False)
        assert drawn[row].tolist() == [texts.index(others[place]) for place in chosen]


def test_where_there_are_few_descriptions_all_others_are_taken():
    assert sorted(draw_distractors(["红", "绿", "蓝", "红"])[3].tolist()) == [1, 2]
    assert draw_distractors(["红", "绿"]).tolist() == [[1], [0]]
    with pytest.raises(UserError, match="all 2 of these are the same"):
        draw_distractors(["红", "红"])


def test_hits_equal_a_naive_loop():
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(130, 8, generator=generator), dim=-1)
    images = normalize(texts + 0.4 * torch.randn(130, 8, generator=generator), dim=-1)
    distractors = draw_distractors([str(place) for place in range(130)])
    rows = torch.arange(129, 9, -1)  # not all, not in order
    naive = [bool(all(images[r] @ texts[r] > images[r] @ texts[d] for d in distractors[r])) for r in rows.tolist()]
    found = hits(images[rows], texts, rows, distractors, block=7)
    assert found.tolist() == naive
    assert 20 < sum(naive) < 110


def test_a_tie_is_a_miss_and_a_matcher_that_sees_nothing_scores_nothing():
    same = torch.ones(120, 4) / 2
    assert hits(same, same, torch.arange(120), draw_distractors([str(place) for place in range(120)])).sum() == 0


def test_chance_is_one_in_a_hundred():
    generator = torch.Generator().manual_seed(0)
    texts, images = torch.randn(2, 4000, 16, generator=generator)
    found = hits(images, texts, torch.arange(4000), draw_distractors([str(place) for place in range(4000)]))
    assert over_folds(found).mean == pytest.approx(1, abs=0.6)


def test_folds_have_the_mean_of_all_and_a_spread():
    hit = torch.zeros(1000, dtype=torch.bool)
    hit[:300] = True
    mean, spread = over_folds(hit)
    assert mean == pytest.approx(30)
    assert 1 < spread < 9  # of ten folds of 100: 4.6 in the mean
    order = np.random.default_rng(0).permutation(1000)
    means = [100 * np.mean([place < 300 for place in order[fold::10]]) for fold in range(10)]
    assert spread == pytest.approx(np.std(means))
    assert over_folds(hit, seed=1).standard_deviation != pytest.approx(spread)
    assert over_folds(hit[295:305]).standard_deviation == pytest.approx(50)  # folds of one image each
    assert over_folds(hit[:1000:500]).mean == 50
    assert np.isnan(over_folds(hit[:2]).standard_deviation)


def test_shuffled_texts_are_the_same_ones_and_nobody_keeps_their_own():
    texts = [f"商品{place % 40}" for place in range(100)]
    rows = list(range(0, 100, 2))
    shuffled = shuffled_rows(texts, rows, seed=5)
    assert sorted(shuffled) == rows
    assert not [1 for own, other in zip(rows, shuffled, strict=True) if texts[own] == texts[other]]
    different = [f"{place:03d}" for place in range(100)]
    drawn = shuffled_rows(different, range(100), seed=5)
    assert drawn != shuffled_rows(different, range(100), seed=6)
    assert sum(abs(own - other) == 1 for own, other in enumerate(drawn)) < 10  # not just the neighbour's


def test_distractors_are_written_by_their_ids():
    found = distractor_records(["a", "b", "c"], ["红", "绿", "蓝"], torch.tensor([[1, 2], [2, 0], [0, 1]]))
    assert found == [
        {"image_id": "a", "text": "红", "distractors": ["b", "c"]},
        {"image_id": "b", "text": "绿", "distractors": ["c", "a"]},
        {"image_id": "c", "text": "蓝", "distractors": ["a", "b"]},
    ]


def test_a_seed_is_0_where_none_is_given():
    texts = [f"商品{place}" for place in range(120)]
    hit = torch.arange(120) % 7 == 0
    assert torch.equal(draw_distractors(texts), draw_distractors(texts, seed=0))
    assert over_folds(hit) == over_folds(hit, seed=0) != over_folds(hit, seed=1)
    assert shuffled_rows(texts, range(50)) == shuffled_rows(texts, range(50), seed=0)
