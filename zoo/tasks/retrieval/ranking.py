"""Exact ranking of a gallery by inner product: pure functions, one tie rule.

The rank of an image is the number of images with a higher score plus the number of images with an equal score that
come earlier in the file. Recall and submissions share this rule, so a score never depends on how ties happen to fall.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from zoo.core.precision import full_float32

NEVER_RANKED = torch.iinfo(torch.int64).max
"""The rank of a query that has no relevant image in the gallery: a miss at every k."""

QUERIES_PER_CHUNK = 128
"""Queries scored at once: 128 x 30,000 scores are 15 MB, which a processor's cache still holds."""

_EXACT_COUNT = 1 << 24  # up to here fp32 counts


def top_k(
    query_embeddings: Tensor, image_embeddings: Tensor, k: int, chunk_size: int = QUERIES_PER_CHUNK
) -> tuple[Tensor, Tensor]:
    """Find the k best images of every query, exact, ties by index in the file.

    Args:
        query_embeddings: ``[Q, D]``, finite; any floating type, scored in fp32.
        image_embeddings: ``[N, D]``, finite, in file order, on the same device.
        k: Images to keep, at least 1; all N when the gallery is smaller.
        chunk_size: Queries scored at once; ``chunk_size x N`` scores are held in memory.

    Returns:
        Scores ``[Q, min(k, N)] float32``, best first, and the rows of the images ``[Q, min(k, N)] int64``.

    Raises:
        ValueError: ``k`` or ``chunk_size`` is below 1, shapes do not match, or a value is not finite.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1.")
    k = min(k, len(image_embeddings))
    scores = torch.empty(len(query_embeddings), k, device=query_embeddings.device)
    rows = torch.empty(len(query_embeddings), k, dtype=torch.int64, device=query_embeddings.device)
    with torch.no_grad(), full_float32(query_embeddings.device):
        for start, block in _score_blocks(query_embeddings, image_embeddings, chunk_size):
            stop = start + len(block)
            scores[start:stop], rows[start:stop] = _block_top_k(block, k)
    return scores, rows


def first_positive_ranks(
    query_embeddings: Tensor,
    image_embeddings: Tensor,
    positives: Sequence[Sequence[int]] | tuple[Tensor, Tensor],
    chunk_size: int = QUERIES_PER_CHUNK,
) -> Tensor:
    """Compute the rank of each query's best-ranked relevant image.

    Args:
        query_embeddings: ``[Q, D]``, finite; any floating type, scored in fp32.
        image_embeddings: ``[N, D]``, finite, in file order, on the same device.
        positives: Q lists of gallery rows in ``[0, N)``, or the same as ``(offsets [Q + 1], rows [P])``, both int64:
            query q's rows are ``rows[offsets[q]:offsets[q + 1]]``. A list may be empty.
        chunk_size: Queries scored at once; ``chunk_size x N`` scores are held in memory.

    Returns:
        ``[Q] int64``: 0 for the best, ``NEVER_RANKED`` for a query without a relevant image in the gallery.

    Raises:
        ValueError: ``chunk_size`` is below 1, shapes do not match, a value is not finite, or a row is not in the
            gallery.
    """
    device = query_embeddings.device
    offsets, rows = positives if isinstance(positives, tuple) else compressed_rows(positives)
    if len(offsets) != len(query_embeddings) + 1:
        raise ValueError(f"positives describe {len(offsets) - 1} queries, but there are {len(query_embeddings)}.")
    if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(image_embeddings)):
        raise ValueError(f"positives name rows outside the gallery of {len(image_embeddings)} images.")
    counts = offsets.diff().to(device)
    owners = torch.arange(len(counts), device=device).repeat_interleave(counts)  # [P]: the query of each row
    bounds, rows = offsets.tolist(), rows.to(device)
    ranks = torch.full((len(counts),), NEVER_RANKED, dtype=torch.int64, device=device)
    shape = max(0, min(chunk_size, len(counts))), len(image_embeddings)
    ones = torch.empty(shape, dtype=torch.float32 if shape[1] <= _EXACT_COUNT else torch.float64, device=device)
    with torch.no_grad(), full_float32(device):
        for start, block in _score_blocks(query_embeddings, image_embeddings, chunk_size):
            stop = start + len(block)
            pairs = slice(bounds[start], bounds[stop])
            ranks[start:stop] = _block_first_ranks(block, owners[pairs] - start, rows[pairs], ones[: len(block)])
    return ranks


def reranked(rows: Tensor, scores: Tensor) -> Tensor:
    """Sort each query's images by other scores, ties by index in the file.

    Args:
        rows: ``[Q, k] int64``, the rows of images, from ``top_k``.
        scores: ``[Q, k]``, finite; higher is better.

    Returns:
        The same rows ``[Q, k] int64``, best first.

    Raises:
        ValueError: Shapes do not match, or a score is not finite.
    """
    if rows.shape != scores.shape or not scores.isfinite().all():
        raise ValueError(f"scores are {list(scores.shape)} and must be {list(rows.shape)}, all finite.")
    rows, order = rows.sort(dim=1)
    order = scores.gather(1, order).sort(dim=1, descending=True, stable=True).indices
    return rows.gather(1, order)


def compressed_rows(lists: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Compress lists of rows to ``(offsets [Q + 1] int64, rows [P] int64)``, the form that vectorises."""
    offsets = torch.tensor([0, *(len(rows) for rows in lists)], dtype=torch.int64).cumsum(0)
    return offsets, torch.tensor([row for rows in lists for row in rows], dtype=torch.int64)


def recall_at(ranks: Tensor, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Tensor]:
    """Compute MUGE's recall: the share of queries with at least one relevant image among the first k.

    Args:
        ranks: ``[Q]`` from ``first_positive_ranks``; all Q queries count, also those without a relevant image.
        ks: The cut-offs.

    Returns:
        ``recall@k`` for each k and ``mean_recall``, their mean: percent 0-100, float64 on the CPU, not a number when
        there are no queries.
    """
    hits = torch.stack([(ranks < k).sum() for k in ks]).cpu().double()  # MPS has no float64
    percent = 100 * hits / len(ranks)
    return {f"recall@{k}": value for k, value in zip(ks, percent, strict=True)} | {"mean_recall": percent.mean()}


def graded_at(rows: Tensor, relevant: Sequence[Sequence[int]], k: int = 10) -> dict[str, Tensor]:
    """Compute precision and nDCG of the first k images, which need every relevant image to be known.

    Args:
        rows: ``[Q, k]`` or wider, the rows of each query's images, best first, from ``top_k``.
        relevant: For each query the rows of all its relevant images.
        k: The cut-off; a smaller gallery has fewer.

    Returns:
        ``precision@k``, the share of the first k that is relevant, and ``ndcg@k``, which weighs a place by
        1 / log2(1 + its number) and holds the sum against the best that there is: means over queries in percent 0-100,
        float64 on the CPU, not a number when there are no queries.

    Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques".
    """
    rows = rows[:, :k].cpu()
    found = [[row in own for row in ranked] for ranked, own in zip(rows.tolist(), map(set, relevant), strict=True)]
    hits = torch.tensor(found, dtype=torch.float64).view(rows.shape)
    weights = 1 / torch.arange(2, hits.shape[1] + 2, dtype=torch.float64).log2()
    most = torch.tensor([min(len(own), hits.shape[1]) for own in relevant], dtype=torch.int64)
    best = torch.cat([weights.new_zeros(1), weights.cumsum(0)])[most]
    gains = torch.where(best > 0, hits @ weights / best, 0.0)
    return {f"precision@{k}": 100 * hits.mean(dim=1).mean(), f"ndcg@{k}": 100 * gains.mean()}


def _score_blocks(query_embeddings: Tensor, image_embeddings: Tensor, chunk_size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the first query and the scores ``[C, N] float32`` of each chunk; the buffer of the scores is used again."""
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1.")
    if (
        query_embeddings.ndim != 2
        or image_embeddings.ndim != 2
        or query_embeddings.shape[1] != image_embeddings.shape[1]
    ):
        shapes = f"{list(query_embeddings.shape)} and {list(image_embeddings.shape)}"
        raise ValueError(f"query and image embeddings are {shapes}; they must be [Q, D] and [N, D].")
    for name, embeddings in (("query", query_embeddings), ("image", image_embeddings)):
        broken = int((~embeddings.isfinite().all(dim=1)).sum())
        if broken:
            raise ValueError(f"{broken} of {len(embeddings)} {name} embeddings are not finite; they have no rank.")
    queries, gallery = query_embeddings.float(), image_embeddings.float().T
    buffer = torch.empty(min(chunk_size, len(queries)), gallery.shape[1], device=queries.device)
    for start in range(0, len(queries), chunk_size):
        chunk = queries[start : start + chunk_size]
        yield start, torch.mm(chunk, gallery, out=buffer[: len(chunk)])


def _block_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find ``top_k`` of scores ``[C, N]``: a fast selection, then an exact repair of rows with equal scores."""
    values, rows = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().squeeze(1)
    values, rows = values[:, :k], rows[:, :k]
    if len(tied):
        block, last = scores[tied], values[tied, -1:]  # [T, N], [T, 1]
        higher, equal = block > last, block == last
        room = k - higher.sum(dim=1, keepdim=True)
        chosen = higher | (equal & (equal.cumsum(dim=1) <= room))  # exactly k a row, in file order
        columns = chosen.nonzero()[:, 1].view(-1, k)
        values[tied], order = block.gather(1, columns).sort(dim=1, descending=True, stable=True)
        rows[tied] = columns.gather(1, order)
    return values, rows


def _block_first_ranks(scores: Tensor, owners: Tensor, rows: Tensor, ones: Tensor) -> Tensor:
    """Compute ``first_positive_ranks`` of scores ``[C, N]``: query ``owners[p]`` has the relevant row ``rows[p]``.

    ``ones`` ``[C, N]`` is written to: comparisons as floats, whose sums are exact and four times as fast as booleans'.
    """
    best = torch.full((len(scores),), -torch.inf, device=scores.device)
    best.scatter_reduce_(0, owners, scores[owners, rows], "amax")  # [C]: the highest true score
    leading = scores[owners, rows] == best[owners]
    first = torch.full_like(best, scores.shape[1], dtype=torch.int64)
    first.scatter_reduce_(0, owners[leading], rows[leading], "amin")  # [C]: the first row that has it
    higher = torch.gt(scores, best[:, None], out=ones).sum(dim=1).long()
    equal = torch.eq(scores, best[:, None], out=ones).sum(dim=1)
    tied = (equal > 1).nonzero().squeeze(1)
    if len(tied):
        earlier = torch.arange(scores.shape[1], device=scores.device) < first[tied, None]
        higher[tied] += (earlier & (scores[tied] == best[tied, None])).sum(dim=1)
    return higher.masked_fill(best.isneginf(), NEVER_RANKED)
