"""How well a search finds what it should: on queries whose relevant products are known."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from zoo.core.command import progress
from zoo.data.convert.columns import TEXT_NAMES, find_column
from zoo.data.convert.tables import open_table
from zoo.errors import FileError, UserError
from zoo.tasks.retrieval.ranking import NEVER_RANKED, graded_at, recall_at
from zoo.tasks.retrieval.reranking import Reranker
from zoo.tasks.retrieval.search.contracts import Engine, Found
from zoo.tasks.retrieval.search.encoder import Encoder
from zoo.tasks.retrieval.search.filters import Condition
from zoo.tasks.retrieval.search.images import ProductImages
from zoo.tasks.retrieval.search.query import FUSED, Query, rerank, search

IDS_NAMES = ("item_ids", "ids", "relevant", "product_ids")
BATCH = 64  # texts embedded together
DEEP = 10  # ranks that count


class Labelled(NamedTuple):
    """A query and the ids of the products that are relevant to it."""

    text: str
    relevant: frozenset[str]


def read_queries(path: str) -> list[Labelled]:
    """Read labelled queries.

    Args:
        path: A table (.jsonl, .parquet) with columns ``query_text`` and ``item_ids``, a list of ids each.

    Raises:
        UserError: There is no such file, it lacks a column, or a row is not as it must be.
    """
    table = open_table(path)
    names = [find_column(table, usual) for usual in (("query_text", "query", *TEXT_NAMES), IDS_NAMES)]
    if None in names:
        raise UserError(
            f"--evaluate {path}: its columns are {', '.join(table.columns)}; it needs query_text and item_ids",
            argument="--evaluate",
            value=path,
            valid=("query_text", "item_ids"),
        )
    errors: list[FileError] = []
    queries = []
    for line, record in table.records([name for name in names if name], errors):
        text, ids = (record.get(name or "") for name in names)
        if not isinstance(text, str) or not text.strip() or not isinstance(ids, list) or not ids:
            raise FileError(f"{names[0]} must be a text, and {names[1]} a list of ids", file=path, line=line)
        queries.append(Labelled(text, frozenset(map(str, ids))))
    if errors or not queries:
        raise errors[0] if errors else UserError(f"--evaluate {path}: there is no query in it")
    return queries


def evaluate(
    engine: Engine,
    encoder: Encoder,
    path: str,
    *,
    where: Condition | None = None,
    reranker: Reranker | None = None,
    images: ProductImages | None = None,
    top: int = 50,
) -> dict[str, Any]:
    """Compare searches by vector, by text and by both, and reranked where there is a reranker.

    Args:
        engine: The index, asked as any search asks it.
        encoder: What embedded it.
        path: As of ``read_queries``.
        where: What holds of each product that is found.
        reranker: For one more row: the first ``top`` by vector, ordered by it.
        images: Those of the products, which it looks at.
        top: How many products the reranker looks at.

    Returns:
        ``rankings``: for each ``recall@1``, ``recall@5``, ``recall@10``, ``mean_recall`` and ``ndcg@10`` in percent,
        and ``milliseconds`` a query, without embedding it; how many ``queries`` and ``products`` there are, and
        relevant products that are ``unknown`` to the index.

    Raises:
        UserError: As ``read_queries``.
    """
    queries = read_queries(path)
    texts = list(dict.fromkeys(query.text for query in queries))
    vectors: dict[str, np.ndarray] = {}
    for start in range(0, len(texts), BATCH):
        some = texts[start : start + BATCH]
        vectors |= dict(zip(some, encoder.encode_texts(some), strict=True))

    def ranked(query: Labelled, by: Any, k: int) -> list[Found]:
        asked = Query(text=query.text, where=where, k=k, by=by)
        return search(engine, encoder, asked, encode_texts=lambda own: np.stack([vectors[text] for text in own]))

    ways: dict[str, Any] = {by: lambda query, by=by: ranked(query, by, DEEP) for by in ("vector", "text", "hybrid")}
    if reranker is not None and images is not None:
        ways["reranked"] = lambda query: rerank(ranked(query, "vector", top), query.text, reranker, images, top=top)
    named = sorted(frozenset().union(*(query.relevant for query in queries)))
    known = {id_ for start in range(0, len(named), FUSED) for id_ in engine.get(named[start : start + FUSED])}
    rankings = {}
    for name, way in ways.items():
        began = time.perf_counter()
        found = [[each.id for each in way(query)[:DEEP]] for query in progress(queries, name)]
        seconds = time.perf_counter() - began
        rankings[name] = {**scores_of(found, queries), "milliseconds": round(1000 * seconds / len(queries), 2)}
    counts = {"queries": len(queries), "products": engine.count(where), "unknown": len(named) - len(known)}
    return {"rankings": rankings, **counts}


def scores_of(found: Sequence[Sequence[str]], queries: Sequence[Labelled]) -> dict[str, float]:
    """Score rankings of ids, best first: recall and nDCG in percent."""
    places: dict[str, int] = {}
    for ids in [*found, *(query.relevant for query in queries)]:
        for id_ in ids:
            places.setdefault(id_, len(places))
    rows = torch.full((len(found), DEEP), -1)
    ranks = torch.full((len(found),), NEVER_RANKED)
    for place, (ids, query) in enumerate(zip(found, queries, strict=True)):
        rows[place, : len(ids)] = torch.tensor([places[id_] for id_ in ids], dtype=torch.int64)
        hits = [rank for rank, id_ in enumerate(ids) if id_ in query.relevant]
        ranks[place] = hits[0] if hits else NEVER_RANKED
    relevant = [[places[id_] for id_ in query.relevant] for query in queries]
    scores = recall_at(ranks) | {"ndcg@10": graded_at(rows, relevant, k=DEEP)["ndcg@10"]}
    return {name: round(float(value), 2) for name, value in scores.items()}
