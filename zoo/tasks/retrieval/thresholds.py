"""Which score means *relevant*, and which margin *right*, at a wanted precision: pure functions, exact with ties.

Values that are equal lie on the same side of a threshold. A pair that the labels do not name counts as false: where
labels are incomplete, as MUGE's are, the precision told is a lower bound of the true one. A threshold is of the
embeddings and of the size of the gallery that it was found on: choose it on the validation split, not on test.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.core.precision import full_float32
from zoo.errors import invalid
from zoo.tasks.retrieval.ranking import QUERIES_PER_CHUNK, compressed_rows


class ScoreThreshold(NamedTuple):
    """The least score from which on enough of all (query, image) pairs are true ones; None where there is none."""

    wanted: float  # percent, above 0 and below 100
    score: float | None = None  # pairs with this score or a higher one are taken for relevant
    precision: float | None = None  # percent: how many of them are true
    recall: float | None = None  # percent: how many of all true pairs are among them
    pairs_per_query: float | None = None  # how many of them a query has, on average over all queries


class MarginThreshold(NamedTuple):
    """The least margin of the first answer's score over the second's from which on enough first answers are true."""

    wanted: float  # percent, above 0 and below 100
    margin: float | None = None  # queries with this margin or a larger one are answered; None where there is none
    precision: float | None = None  # percent: how many of their first answers are true
    answered: float | None = None  # percent: how many of all queries they are


def check_precisions(precisions: Sequence[float]) -> None:
    """Raise UserError where a precision is no percentage that could be wanted."""
    if not all(0 < precision < 100 for precision in precisions):
        raise invalid(
            "precisions", list(precisions), "give percents above 0 and below 100, such as [80, 95], or none at all"
        )


def score_thresholds(
    query_embeddings: Tensor,
    image_embeddings: Tensor,
    positives: Sequence[Sequence[int]] | tuple[Tensor, Tensor],
    precisions: Sequence[float],
    chunk_size: int = QUERIES_PER_CHUNK,
) -> list[ScoreThreshold]:
    """Find, for each wanted precision, the least score at which the pairs of all queries with all images reach it.

    With P true pairs, no more than ``100 P / precision`` pairs can be taken at a threshold that reaches it. So only
    that many of the highest scores are kept, and the false pairs below them, nearly all, are never sorted.

    Args:
        query_embeddings: ``[Q, D]``, finite; any floating type, scored in fp32 as an inner product.
        image_embeddings: ``[N, D]``, finite, on the same device.
        positives: Q lists of gallery rows in ``[0, N)``, or ``compressed_rows`` of them. A list may be empty: all pairs
            of that query are false. A row that comes twice in a list counts once.
        precisions: Wanted, percent, above 0 and below 100.
        chunk_size: Queries scored at once; ``chunk_size x N`` scores are held in memory.

    Returns:
        One a wanted precision, in their order.

    Raises:
        UserError: A precision is out of its range.
        ValueError: ``chunk_size`` is below 1.
    """
    check_precisions(precisions)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1.")
    if not precisions:
        return []
    pairs = _true_pairs(positives, len(image_embeddings)).to(query_embeddings.device)
    most = int(100 * pairs.shape[1] / min(precisions)) + 1
    true, highest = _true_and_highest(query_embeddings, image_embeddings, pairs, most, chunk_size)
    true, highest = true.cpu().sort().values, highest.cpu().sort(descending=True).values
    true_counts = len(true) - torch.searchsorted(true, highest)  # of the pairs with at least this score
    found = []
    for wanted in precisions:
        count = _most_taken(highest, true_counts, wanted)
        if not count:
            found.append(ScoreThreshold(float(wanted)))
            continue
        hits = int(true_counts[count - 1])
        found.append(
            ScoreThreshold(
                float(wanted),
                score=highest[count - 1].item(),
                precision=100 * hits / count,
                recall=100 * hits / len(true),
                pairs_per_query=count / len(query_embeddings),
            )
        )
    return found


def margin_thresholds(margins: Tensor, right: Tensor, precisions: Sequence[float]) -> list[MarginThreshold]:
    """Find, for each wanted precision, the least margin at which the first answers reach it.

    Args:
        margins: ``[Q]``: each query's highest score less its second highest, at least 0.
        right: ``[Q] bool``: whether its first answer is a relevant image; false of a query that has none.
        precisions: Wanted, percent, above 0 and below 100.

    Returns:
        One a wanted precision, in their order.

    Raises:
        UserError: A precision is out of its range.
    """
    check_precisions(precisions)
    falling, order = margins.cpu().sort(descending=True)
    hits = right.cpu().long()[order].cumsum(0)
    found = []
    for wanted in precisions:
        count = _most_taken(falling, hits, wanted)
        if not count:
            found.append(MarginThreshold(float(wanted)))
            continue
        margin, precision = falling[count - 1].item(), 100 * int(hits[count - 1]) / count
        found.append(
            MarginThreshold(float(wanted), margin=margin, precision=precision, answered=100 * count / len(falling))
        )
    return found


def _true_pairs(positives: Sequence[Sequence[int]] | tuple[Tensor, Tensor], images: int) -> Tensor:
    """List the true pairs ``[2, P] int64``, query and row, each once, by rising query."""
    offsets, rows = positives if isinstance(positives, tuple) else compressed_rows(positives)
    owners = torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff().cpu())
    pairs = (owners * images + rows.cpu()).unique()
    return torch.stack([pairs // max(1, images), pairs % max(1, images)])


def _true_and_highest(
    query_embeddings: Tensor, image_embeddings: Tensor, pairs: Tensor, most: int, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Compute the scores ``[P]`` of the true pairs and, in any order, all above the ``most + 1`` highest, or more.

    A score that is not above that one has more than ``most`` pairs at or above it, however many are equal to it.
    """
    queries, gallery = query_embeddings.float(), image_embeddings.float().T
    owners, rows = pairs
    true = torch.empty(len(rows), device=queries.device)
    highest, floor = torch.empty(0, device=queries.device), torch.tensor(-torch.inf, device=queries.device)
    with torch.no_grad(), full_float32(queries.device):
        for start in range(0, len(queries), chunk_size):
            scores = torch.mm(queries[start : start + chunk_size], gallery)  # [C, N]
            own = (owners >= start) & (owners < start + chunk_size)
            true[own] = scores[owners[own] - start, rows[own]]
            highest = torch.cat([highest, scores[scores > floor]])
            if len(highest) > 2 * most:
                floor = highest.topk(most + 1).values[-1]
                highest = highest[highest > floor]
    return true, highest


def _most_taken(falling: Tensor, true_counts: Tensor, wanted: float) -> int:
    """Count how many of the values ``[M]`` lie at or above the least one that reaches a precision; 0 where none does.

    Args:
        falling: Values, the highest first.
        true_counts: ``[M] int64``: how many true ones are among those that are at least as high.
        wanted: Percent.
    """
    counts = torch.arange(1, len(falling) + 1)
    last = torch.ones(len(falling), dtype=torch.bool)
    last[:-1] = falling[1:] < falling[:-1]  # the last of equal values
    reached = (last & (100 * true_counts.double() >= wanted * counts.double())).nonzero()
    return int(reached[-1]) + 1 if len(reached) else 0
