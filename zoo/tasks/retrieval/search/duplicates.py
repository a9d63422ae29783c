"""Products whose images are the same, look the same, or are embedded nearly alike."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from zoo.tasks.retrieval.search.embeddings import Embeddings, vectors_of

NEIGHBOURS = 10  # of each product that are looked at, by cosine
FEW_BITS = 4  # of 64 in which the perceptual hashes of images that look the same may differ
ROWS = 4096  # of vectors compared with all at once
BANDS = 5  # of the 64 bits: where at most FEW_BITS differ, one band is equal
MOST_IN_BAND = 2000  # products of one band's bits that are compared; drawings in one colour have all the same


def find_duplicates(embeddings: Embeddings, *, similar: float) -> list[dict[str, Any]]:
    """Find groups of duplicates, the surest first.

    Every product is compared exactly with every other by the cosine of their images' embeddings: 10⁶ products of 512
    dimensions are 10¹⁵ operations, seconds on a GPU and hours on a CPU.

    Args:
        embeddings: The products, of which those without an image are none.
        similar: From which cosine similarity on two products are told.

    Returns:
        For each group ``kind`` and ``ids``. The kinds: ``content``, images of the same bytes; ``perceptual``, images
        whose perceptual hashes differ in at most 4 of 64 bits; ``cosine``. A group holds what is connected, by however
        many steps; of two groups of the same products only the surer is told.
    """
    ids: list[str] = []
    contents: list[str] = []
    hashes: list[int] = []
    vectors = []
    for table in embeddings.tables():
        own, valid = vectors_of(table, "image_vector")
        vectors.append(own[valid])
        own_ids, own_contents, own_hashes = (
            np.array(table[name].to_pylist(), dtype=object)[valid].tolist() for name in ("id", "sha256", "phash")
        )
        ids += own_ids
        contents += own_contents
        hashes += [int(digits, 16) for digits in own_hashes]
    found = [
        ("content", same_values(contents)),
        ("perceptual", similar_hashes(np.array(hashes, dtype=np.uint64))),
        ("cosine", similar_vectors(np.concatenate(vectors), similar)),
    ]
    told: set[frozenset[int]] = set()
    groups = []
    for kind, pairs in found:
        for group in connected(len(ids), pairs):
            if frozenset(group) not in told:
                told.add(frozenset(group))
                groups.append({"kind": kind, "ids": [ids[place] for place in group]})
    return groups


def same_values(values: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Give pairs of places with the same value, enough to connect all of them."""
    first: dict[str, int] = {}
    for place, value in enumerate(values):
        if first.setdefault(value, place) != place:
            yield first[value], place


def similar_hashes(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Give pairs of places whose ``[N] uint64`` hashes differ in at most ``FEW_BITS`` bits."""
    width = -(-64 // BANDS)
    for band in range(BANDS):
        bits = (hashes >> np.uint64(band * width)) & np.uint64((1 << width) - 1)
        order = np.argsort(bits, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(bits[order])) + 1):
            own = hashes[group[:MOST_IN_BAND]]
            near = np.bitwise_count(own[:, None] ^ own[None]) <= FEW_BITS
            yield from ((int(group[a]), int(group[b])) for a, b in np.argwhere(np.triu(near, 1)))


def similar_vectors(vectors: np.ndarray, similar: float) -> Iterator[tuple[int, int]]:
    """Give pairs of places whose vectors ``[N, D]`` have this cosine or more, among the ``NEIGHBOURS`` next of each."""
    import torch

    from zoo.tasks.retrieval.ranking import top_k

    device = "cuda" if torch.cuda.is_available() else "cpu"
    own = torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=-1).to(device)
    for start in range(0, len(own), ROWS):
        scores, rows = (side.cpu() for side in top_k(own[start : start + ROWS], own, NEIGHBOURS + 1))
        for place, rank in (scores >= similar).nonzero().tolist():
            if int(rows[place, rank]) != start + place:
                yield start + place, int(rows[place, rank])


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Give the groups of two or more of ``count`` places that pairs connect, each in order, by their first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    both = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(both), np.int8), (both[:, 0], both[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(place)
    return [group for group in groups.values() if len(group) > 1]
