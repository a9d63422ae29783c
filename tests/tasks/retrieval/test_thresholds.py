"""Thresholds of scores and of margins: by hand, and against the whole matrix and every threshold there is."""

import numpy as np
import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.retrieval.metrics import RetrievalRecall
from zoo.tasks.retrieval.ranking import compressed_rows
from zoo.tasks.retrieval.thresholds import (
    MarginThreshold,
    ScoreThreshold,
    _true_and_highest,
    margin_thresholds,
    score_thresholds,
)

PRECISIONS = (2, 10, 30, 50, 66.6, 80, 95)


def pairs_of(scores):
    """Embeddings whose product is a matrix of scores."""
    scores = torch.tensor(scores)
    return scores, torch.eye(scores.shape[1])


def naive_scores(queries, images, positives, wanted):
    """Every score there is, tried as the threshold over the whole matrix."""
    scores = queries.numpy() @ images.numpy().T
    true = np.zeros(scores.shape, dtype=bool)
    for query, rows in enumerate(positives):
        true[query, rows] = True
    for threshold in np.unique(scores):  # rising: the least comes first
        taken = scores >= threshold
        precision = 100 * true[taken].sum() / taken.sum()
        if precision >= wanted:
            recall = 100 * true[taken].sum() / true.sum()
            return (wanted, threshold, precision, recall, taken.sum() / len(scores))
    return (wanted, None, None, None, None)


def naive_margins(margins, right, wanted):
    margins, right = margins.numpy(), right.numpy()
    for threshold in np.unique(margins):
        answered = margins >= threshold
        precision = 100 * right[answered].sum() / answered.sum()
        if precision >= wanted:
            return (wanted, threshold, precision, 100 * answered.sum() / len(margins))
    return (wanted, None, None, None)


def random_split(seed, *, queries=40, images=90, width=12):
    """Embeddings in quarters: products are exact and often equal, relevant images nearer, some queries have none."""
    generator = torch.Generator().manual_seed(seed)
    gallery = torch.randn(images, width, generator=generator)
    counts = torch.randint(0, 5, (queries,), generator=generator).tolist()
    positives = [torch.randint(images, (count,), generator=generator).tolist() for count in counts]
    asked = torch.randn(queries, width, generator=generator)
    for query, rows in enumerate(positives):
        asked[query] += 0.8 * gallery[rows].sum(0)
    return (asked * 4).round() / 4, (gallery * 4).round() / 4, positives


def test_scores_by_hand():
    queries, images = pairs_of([[0.9, 0.7, 0.1], [0.6, 0.8, 0.2]])
    positives = [[0, 1], [0]]  # falling: .9 true, .8 false, .7 true, .6 true, .2 false, .1 false
    found = score_thresholds(queries, images, positives, [50, 60, 75, 76, 99])
    score = {value: torch.tensor(value).item() for value in (0.1, 0.2, 0.6, 0.9)}  # as fp32 has them
    assert found == [
        ScoreThreshold(50.0, score[0.1], 50.0, 100.0, 3.0),
        ScoreThreshold(60.0, score[0.2], 60.0, 100.0, 2.5),
        ScoreThreshold(75.0, score[0.6], 75.0, 100.0, 2.0),
        ScoreThreshold(76.0, score[0.9], 100.0, 100 / 3, 0.5),
        ScoreThreshold(99.0, score[0.9], 100.0, 100 / 3, 0.5),
    ]


def test_equal_scores_lie_on_one_side():
    queries, images = pairs_of([[0.5, 0.5, 0.5, 0.25]])
    for true in ([0], [1], [2]):
        (low, high) = score_thresholds(queries, images, [true], [33, 34])
        assert low == ScoreThreshold(33.0, 0.5, 100 / 3, 100.0, 3.0)
        assert high == ScoreThreshold(34.0)


def test_a_precision_that_is_not_reached_is_none():
    queries, images = pairs_of([[0.9, 0.1], [0.8, 0.2]])
    assert score_thresholds(queries, images, [[1], [1]], [50, 80]) == [
        ScoreThreshold(50.0, torch.tensor(0.1).item(), 50.0, 100.0, 2.0),
        ScoreThreshold(80.0, None, None, None, None),
    ]
    assert score_thresholds(queries, images, [[], []], [50]) == [ScoreThreshold(50.0)]
    assert [found.score is None for found in score_thresholds(queries, images, [[1], [1]], [80, 50])] == [True, False]


def test_a_precision_reached_again_further_down_counts():
    queries, images = pairs_of([[0.9, 0.8, 0.7, 0.6, 0.5]])
    (found,) = score_thresholds(queries, images, [[1, 2, 3]], [75])  # 0, 1/2, 2/3, 3/4, 3/5
    assert found.score == torch.tensor(0.6).item()


def test_a_query_without_relevant_images_has_false_pairs():
    queries, images = pairs_of([[0.9, 0.1], [0.8, 0.2]])
    assert score_thresholds(queries[:1], images, [[0]], [60])[0].score == torch.tensor(0.9).item()
    assert score_thresholds(queries, images, [[0], []], [50])[0] == ScoreThreshold(
        50.0, torch.tensor(0.8).item(), 50.0, 100.0, 1.0
    )


def test_a_relevant_image_named_twice_counts_once():
    queries, images, positives = random_split(5)
    twice = [rows + rows for rows in positives]
    assert score_thresholds(queries, images, twice, PRECISIONS) == score_thresholds(
        queries, images, [sorted(set(rows)) for rows in positives], PRECISIONS
    )


@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_every_threshold_tried_on_the_whole_matrix(seed):
    queries, images, positives = random_split(seed)
    scores = queries @ images.T
    assert len(scores.unique()) < 0.5 * scores.numel()
    found = score_thresholds(queries, images, positives, PRECISIONS)
    for one, wanted in zip(found, PRECISIONS, strict=True):
        assert tuple(one) == naive_scores(queries, images, positives, wanted)
    assert found[0].score is not None
    assert sum(one.score is not None and one.recall < 100 for one in found) >= 3


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 39, 40, 1000])
def test_the_chunk_size_does_not_matter(chunk_size):
    queries, images, positives = random_split(7)
    expected = [naive_scores(queries, images, positives, wanted) for wanted in (30, 50, 90)]
    assert score_thresholds(queries, images, positives, (30, 50, 90), chunk_size) == expected
    assert score_thresholds(queries, images, compressed_rows(positives), (30, 50, 90), chunk_size) == expected
    assert score_thresholds(queries, images, positives, (90,), chunk_size) == expected[2:]  # fewer pairs are kept


def test_a_collapsed_model_has_no_threshold_above_the_share_of_true_pairs():
    queries, images = torch.ones(30, 4), torch.ones(50, 4)
    positives = [[row, row + 1] for row in range(30)]  # 4 percent of all pairs
    low, high = score_thresholds(queries, images, positives, [4, 5], chunk_size=4)
    assert low == ScoreThreshold(4.0, 4.0, 4.0, 100.0, 50.0)
    assert high == ScoreThreshold(5.0)


def test_every_pair_that_a_threshold_can_take_is_kept():
    rows = [[0.9, 0.8, *([0.7] * 98)] for _ in range(10)]  # each query: a false pair, its true one, 98 false ones
    queries, images = pairs_of(rows)
    for chunk_size in (1, 4, 10):
        (found,) = score_thresholds(queries, images, [[1]] * 10, [50], chunk_size)
        assert found == ScoreThreshold(50.0, torch.tensor(0.8).item(), 50.0, 100.0, 2.0)


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_a_precision_below_one_percent_takes_hundreds_of_pairs_for_a_true_one(chunk_size):
    scores = torch.arange(400, 0, -1.0).view(2, 200)
    found = score_thresholds(scores, torch.eye(200), [[199], []], [0.5], chunk_size)
    assert found == [ScoreThreshold(0.5, 201.0, 0.5, 100.0, 100.0)]


def test_memory_is_of_the_true_pairs_and_not_of_all():
    queries, images = torch.ones(200, 4), torch.ones(50, 4)
    pairs = torch.stack([torch.arange(200), torch.zeros(200, dtype=torch.int64)])
    for gallery in (images, torch.randn(50, 4, generator=torch.Generator().manual_seed(0))):
        true, highest = _true_and_highest(queries, gallery, pairs, most=300, chunk_size=4)
        assert len(true) == 200
        assert len(highest) <= 600  # of 10,000


def test_margins_by_hand():
    margins = torch.tensor([0.5, 0.25, 0.25, 0.0, 0.125])
    right = torch.tensor([True, True, False, False, True])
    assert margin_thresholds(margins, right, [50, 75, 80]) == [
        MarginThreshold(50.0, 0.0, 60.0, 100.0),
        MarginThreshold(75.0, 0.125, 75.0, 80.0),
        MarginThreshold(80.0, 0.5, 100.0, 20.0),
    ]
    assert margin_thresholds(margins, ~right, [70]) == [MarginThreshold(70.0, None, None, None)]
    assert [found.margin is None for found in margin_thresholds(margins, ~right, [70, 40])] == [True, False]
    assert margin_thresholds(margins[:0], right[:0], [70]) == [MarginThreshold(70.0)]


@pytest.mark.parametrize("seed", range(6))
def test_margins_equal_every_threshold_tried(seed):
    generator = torch.Generator().manual_seed(seed)
    margins = torch.randint(0, 12, (70,), generator=generator) / 8
    right = torch.rand(70, generator=generator) < 0.2 + margins / 2
    assert len(margins.unique()) < 20
    for one, wanted in zip(margin_thresholds(margins, right, PRECISIONS), PRECISIONS, strict=True):
        assert tuple(one) == naive_margins(margins, right, wanted)


def test_the_metric_finds_its_own_true_pairs_and_first_answers():
    queries, images, positives = random_split(8)
    query_ids, image_ids = range(100, 140), range(7, 97)
    metric = RetrievalRecall(
        query_ids=query_ids,
        image_ids=image_ids,
        positives=[[image_ids[row] for row in rows] + [999] for rows in positives],  # one is not in the gallery
    )
    metric.update(torch.tensor(query_ids).flip(0), queries.flip(0), side="query")
    metric.update(torch.tensor(image_ids).flip(0), images.flip(0), side="image")
    scores, margins = metric.thresholds(PRECISIONS)
    assert scores == score_thresholds(queries, images, positives, PRECISIONS)
    matrix = queries @ images.T
    best = [sorted(range(90), key=lambda row, own=own: (-own[row], row))[:2] for own in matrix.tolist()]
    leads = torch.stack([own[first] - own[second] for own, (first, second) in zip(matrix, best, strict=True)])
    right = torch.tensor([first in rows for (first, _), rows in zip(best, positives, strict=True)])
    assert (leads == 0).any()
    assert margins == [naive_margins(leads, right, wanted) for wanted in PRECISIONS]


def test_a_gallery_may_be_of_one_image():
    queries, images = pairs_of([[0.25], [0.5], [0.75], [0.125]])
    found = score_thresholds(queries, images, [[], [0], [0], [0]], [60, 90])
    assert found == [
        ScoreThreshold(60.0, 0.125, 75.0, 100.0, 1.0),
        ScoreThreshold(90.0, 0.5, 100.0, 100 * 2 / 3, 0.5),
    ]


def test_one_image_leads_no_other():
    metric = RetrievalRecall(query_ids=[1, 2], image_ids=[3], positives=[[3], []])
    metric.update(torch.tensor([1, 2]), torch.tensor([[0.5], [0.25]]), side="query")
    metric.update(torch.tensor([3]), torch.ones(1, 1), side="image")
    assert metric.thresholds([80]) == ([ScoreThreshold(80.0, 0.5, 100.0, 100.0, 0.5)], [MarginThreshold(80.0)])


def test_without_answers_there_are_no_thresholds():
    with pytest.raises(UserError, match="positives=None"):
        RetrievalRecall(query_ids=[1], image_ids=[3], positives=None).thresholds([80])


@pytest.mark.parametrize("precisions", [[0], [100], [50, -1], [float("nan")]])
def test_a_precision_out_of_range_is_named(precisions):
    with pytest.raises(UserError, match=r"precisions is \[.*\]: give percents above 0 and below 100"):
        score_thresholds(torch.ones(1, 1), torch.ones(1, 1), [[0]], precisions)
    with pytest.raises(UserError, match="precisions is"):
        margin_thresholds(torch.ones(1), torch.ones(1).bool(), precisions)


def test_no_precisions_and_a_faulty_chunk_size():
    assert score_thresholds(torch.ones(1, 1), torch.ones(1, 1), [[0]], []) == []
    assert margin_thresholds(torch.ones(1), torch.ones(1).bool(), []) == []
    with pytest.raises(ValueError, match="chunk_size is 0"):
        score_thresholds(torch.ones(1, 1), torch.ones(1, 1), [[0]], [50], 0)


# --- several processes ---------------------------------------------------------------------------------------------


def thresholds_of_share(rank, world_size, split):
    queries, images, positives = split
    metric = RetrievalRecall(query_ids=range(len(queries)), image_ids=range(len(images)), positives=positives)
    for side, embeddings in (("query", queries), ("image", images)):
        own = torch.arange(len(embeddings))[rank::world_size]
        metric.update(own, embeddings[own], side=side)
    metric.compute()
    return [tuple(one) for one in metric.thresholds(PRECISIONS)[0]] if rank == 0 else None  # alone; nobody waits


@pytest.mark.ddp
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_first_process_alone_finds_those_of_all(world_size, run_processes):
    queries, images, positives = split = random_split(9)
    scores, *_ = run_processes(world_size, thresholds_of_share, split)
    assert scores == [naive_scores(queries, images, positives, wanted) for wanted in PRECISIONS]


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_processor():
    queries, images, positives = random_split(10, queries=300, images=500)
    found = score_thresholds(queries.cuda(), images.cuda(), positives, PRECISIONS)
    assert found == score_thresholds(queries, images, positives, PRECISIONS)
