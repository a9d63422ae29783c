"""What is asked of an index, and how its answers are ranked: by vector, by the words of titles, or by both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zoo.errors import UserError, invalid
from zoo.tasks.retrieval.search.contracts import Engine, Found
from zoo.tasks.retrieval.search.encoder import Encoder, encode_images
from zoo.tasks.retrieval.search.filters import Condition

By = Literal["vector", "text", "hybrid"]
MINUS_WEIGHT = 0.5  # of what is not wanted
FUSED = 100  # the first of each ranking that are fused, or k where that is more
RRF_CONSTANT = 60  # Cormack et al. 2009, "Reciprocal rank fusion outperforms Condorcet"
MOST = 1000  # products that one query may find


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        text: Words for what is wanted.
        image: ``[H, W, 3] uint8``: what it should look like.
        minus: Words for what it should not be.
        like: Id of a product that it should be like.
        where: What holds of each product that is found.
        k: The most products to find, from 1 to ``MOST``.
        by: vector: by embeddings; text: by BM25 of the text over titles; hybrid: by both rankings, fused.

    Raises:
        UserError: There is nothing to search by, or k is out of its range.
    """

    text: str = ""
    image: np.ndarray | None = None
    minus: str = ""
    like: str | None = None
    where: Condition | None = None
    k: int = 20
    by: By = "vector"

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST:
            raise invalid("k", self.k, f"give 1 to {MOST}")
        if not self.text and (self.by != "vector" or (self.image is None and self.like is None)):
            fix = "give a text, an image, or both" if self.by == "vector" else f"a search by {self.by} wants a text"
            raise UserError(f"There is nothing to search by: {fix}", argument="query", valid="a text or an image")


def search(
    engine: Engine, encoder: Encoder, query: Query, *, encode_texts: Callable[[list[str]], np.ndarray] | None = None
) -> list[Found]:
    """Find products.

    Args:
        engine: The index.
        encoder: What embedded it.
        query: The query.
        encode_texts: In place of the encoder's own; it may put the texts of several callers together.

    Returns:
        The best first. Scores are cosine similarities, BM25's, or sums of reciprocal ranks, as ``by`` says.

    Raises:
        UserError: There is no product ``like``.
    """
    vector = None if query.by == "text" else query_vector(engine, encoder, query, encode_texts or encoder.encode_texts)
    if query.by == "vector":
        return engine.search(vector=vector, where=query.where, k=query.k)
    if query.by == "text":
        return engine.search(text=query.text, where=query.where, k=query.k)
    deep = max(query.k, FUSED)
    rankings = [engine.search(vector=vector, where=query.where, k=deep)]
    rankings.append(engine.search(text=query.text, where=query.where, k=deep))
    return fuse(rankings)[: query.k]


def query_vector(
    engine: Engine, encoder: Encoder, query: Query, encode_texts: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """Give the vector of a query, ``[D] float32``: the mean of what is wanted less half of what is not, of length 1."""
    texts = [text for text in (query.text, query.minus) if text]
    embedded = dict(zip(texts, encode_texts(texts), strict=True)) if texts else {}
    wanted = [embedded[query.text]] if query.text else []
    if query.image is not None:
        wanted.append(encode_images(encoder, [query.image])[0])
    if query.like is not None:
        found = engine.vectors([query.like])
        if not found:
            raise UserError(f"like is {query.like}: there is no such product", argument="like", value=query.like)
        wanted += found.values()
    vector = np.mean(wanted, axis=0)
    if query.minus:
        vector = vector - MINUS_WEIGHT * embedded[query.minus]
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def fuse(rankings: Sequence[Sequence[Found]]) -> list[Found]:
    """Fuse rankings by the sums of reciprocal ranks, 1 / (60 + rank); of equal sums the earlier ranking's is first."""
    products = {found.id: found for ranking in rankings for found in ranking}
    scores = dict.fromkeys(products, 0.0)
    for ranking in rankings:
        for rank, found in enumerate(ranking, start=1):
            scores[found.id] += 1 / (RRF_CONSTANT + rank)
    fused = [found._replace(score=scores[id_]) for id_, found in products.items()]
    return sorted(fused, key=lambda found: -found.score)
