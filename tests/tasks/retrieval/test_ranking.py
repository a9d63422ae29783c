"""Exact ranks against the naive matrix: ties, negative scores, duplicates, several relevant images."""

import pytest
import torch
from torchmetrics.retrieval import RetrievalNormalizedDCG, RetrievalPrecision

from zoo.tasks.retrieval.ranking import (
    NEVER_RANKED,
    compressed_rows,
    first_positive_ranks,
    graded_at,
    recall_at,
    top_k,
)


def integers(rows, seed, low=-2, high=3, width=3):
    """Small integers: products are exact, so ties are many and real."""
    return torch.randint(low, high, (rows, width), generator=torch.Generator().manual_seed(seed)).float()


def naive_order(queries, images):
    """For each query the gallery rows by (score falling, row rising)."""
    scores = (queries.double() @ images.double().T).tolist()
    return [sorted(range(len(images)), key=lambda row: (-own[row], row)) for own in scores]


@pytest.mark.parametrize("chunk_size", [1, 3, 128])
@pytest.mark.parametrize("k", [1, 4, 10, 37, 50])
def test_top_k_equals_the_naive_matrix_with_ties(k, chunk_size):
    queries, images = integers(41, 0), integers(37, 1)
    scores, rows = top_k(queries, images, k, chunk_size)
    assert rows.tolist() == [order[:k] for order in naive_order(queries, images)]
    assert torch.equal(scores, (queries @ images.T).gather(1, rows))
    assert rows.dtype == torch.int64


def test_top_k_of_a_collapsed_model_is_the_order_of_the_file():
    _, rows = top_k(torch.ones(5, 4), torch.ones(30, 4), 10)
    assert rows.tolist() == [list(range(10))] * 5


def test_top_k_equals_a_stable_sort_on_random_embeddings():
    generator = torch.Generator().manual_seed(2)
    queries, images = torch.randn(300, 32, generator=generator), torch.randn(500, 32, generator=generator)
    images[250:] = images[:250]  # every image twice
    scores, rows = top_k(queries, images, 10, chunk_size=300)
    expected = (queries @ images.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(rows, expected.indices[:, :10])
    assert torch.equal(scores, expected.values[:, :10])


@pytest.mark.parametrize("chunk_size", [1, 7, 128])
def test_first_positive_ranks_equal_the_naive_matrix_with_ties(chunk_size):
    queries, images = integers(60, 3), integers(25, 4)
    generator = torch.Generator().manual_seed(5)
    positives = [
        torch.randint(25, (count,), generator=generator).tolist()  # also twice the same row, also none
        for count in torch.randint(0, 6, (60,), generator=generator).tolist()
    ]
    expected = [
        min((order.index(row) for row in rows), default=NEVER_RANKED)
        for order, rows in zip(naive_order(queries, images), positives, strict=True)
    ]
    assert first_positive_ranks(queries, images, positives, chunk_size).tolist() == expected
    assert first_positive_ranks(queries, images, compressed_rows(positives), chunk_size).tolist() == expected
    assert NEVER_RANKED in expected


def test_both_functions_share_one_rule():
    queries, images = integers(50, 6, low=0, high=2), integers(40, 7, low=0, high=2)
    _, rows = top_k(queries, images, 10)
    ranks = first_positive_ranks(queries, images, [[row % 40] for row in range(50)])
    for query, rank in enumerate(ranks.tolist()):
        place = rows[query].tolist().index(query % 40) if query % 40 in rows[query] else None
        assert place == (rank if rank < 10 else None)


def test_recall_counts_a_query_without_relevant_images_as_missed():
    recall = recall_at(torch.tensor([0, 4, 5, 9, 10, NEVER_RANKED, NEVER_RANKED, 0]))
    assert recall["recall@1"] == 100 * 2 / 8
    assert recall["recall@5"] == 100 * 3 / 8
    assert recall["recall@10"] == 100 * 5 / 8
    assert recall["mean_recall"] == pytest.approx((25 + 37.5 + 62.5) / 3, abs=1e-12)


def test_recall_of_no_queries_is_not_a_number():
    assert recall_at(torch.empty(0, dtype=torch.int64))["recall@1"].isnan()


def test_an_empty_gallery_and_no_queries():
    scores, rows = top_k(torch.ones(3, 2), torch.ones(0, 2), 10)
    assert scores.shape == rows.shape == (3, 0)
    assert first_positive_ranks(torch.ones(3, 2), torch.ones(0, 2), [[], [], []]).tolist() == [NEVER_RANKED] * 3
    assert top_k(torch.ones(0, 2), torch.ones(4, 2), 2)[1].shape == (0, 2)


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_scores_are_true_fp32_whatever_the_trainer_chose(precision):
    generator = torch.Generator().manual_seed(8)
    queries, images = torch.randn(64, 256, generator=generator), torch.randn(200, 256, generator=generator)
    expected = top_k(queries, images, 5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores, rows = top_k(queries, images, 5)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, expected[0])
    assert torch.equal(rows, expected[1])


def test_faulty_arguments_are_named():
    queries, images = torch.ones(2, 3), torch.ones(4, 3)
    with pytest.raises(ValueError, match=r"k is 0"):
        top_k(queries, images, 0)
    with pytest.raises(ValueError, match=r"chunk_size is 0"):
        top_k(queries, images, 1, 0)
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[4, 2\]"):
        top_k(queries, images[:, :2], 1)
    with pytest.raises(ValueError, match="1 of 4 image embeddings are not finite"):
        top_k(queries, images.index_fill(0, torch.tensor([2]), float("nan")), 1)
    with pytest.raises(ValueError, match="2 of 4 image embeddings are not finite"):
        top_k(queries, images.index_fill(0, torch.tensor([1, 3]), float("inf")), 1)
    with pytest.raises(ValueError, match="1 of 2 query embeddings are not finite"):
        top_k(queries.index_fill(0, torch.tensor([1]), float("nan")), images, 1)
    for gallery in (images[0], images[None]):
        with pytest.raises(ValueError, match=r"they must be \[Q, D\] and \[N, D\]"):
            top_k(queries, gallery, 1)
    for row in (4, -1):
        with pytest.raises(ValueError, match="outside the gallery of 4"):
            first_positive_ranks(queries, images, [[row], [0]])
    with pytest.raises(ValueError, match="describe 1 queries, but there are 2"):
        first_positive_ranks(queries, images, [[0]])


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_processor():
    queries, images = integers(300, 9), integers(500, 10)
    positives = [[row, (row * 7) % 500] for row in range(300)]
    torch.use_deterministic_algorithms(True)
    try:
        scores, rows = top_k(queries.cuda(), images.cuda(), 10)
        ranks = first_positive_ranks(queries.cuda(), images.cuda(), positives)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(rows.cpu(), top_k(queries, images, 10)[1])
    assert torch.equal(ranks.cpu(), first_positive_ranks(queries, images, positives))
    assert scores.is_cuda


def test_precision_and_ndcg_are_torchmetrics():
    generator = torch.Generator().manual_seed(3)
    queries, images = torch.randn(40, 8, generator=generator), torch.randn(60, 8, generator=generator)
    relevant = [
        torch.randperm(60, generator=generator)[: 1 + 20 * number // 40].sort()[0].tolist() for number in range(40)
    ]
    scores, targets = queries @ images.T, torch.zeros(40, 60, dtype=torch.bool)
    for number, rows in enumerate(relevant):
        targets[number, rows] = True
    indexes = torch.arange(40)[:, None].expand(40, 60)
    graded = graded_at(top_k(queries, images, 12)[1], relevant)
    for name, metric in (("precision@10", RetrievalPrecision(top_k=10)), ("ndcg@10", RetrievalNormalizedDCG(top_k=10))):
        expected = metric(scores.flatten(), targets.flatten(), indexes=indexes.flatten())
        assert graded[name].item() == pytest.approx(100 * expected.item(), rel=1e-5)


def test_precision_and_ndcg_at_their_ends():
    rows = torch.tensor([[0, 1, 2], [2, 1, 0]])
    assert graded_at(rows, [[0, 1, 2], [0, 1, 2]]) == {"precision@10": 100, "ndcg@10": 100}
    assert graded_at(rows, [[3], []]) == {"precision@10": 0, "ndcg@10": 0}
    assert all(value.isnan() for value in graded_at(rows[:0], []).values())
    first, last = graded_at(rows[:1], [[0]]), graded_at(rows[:1], [[2]])
    assert first["precision@10"] == last["precision@10"] == pytest.approx(100 / 3)
    assert (first["ndcg@10"], last["ndcg@10"]) == (100, pytest.approx(50))  # 1 / log2(4)
