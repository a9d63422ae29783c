"""What is asked of an index, and how its answers are ranked: by vector, by the words of titles, or by both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from zoo.core.command import CommandParser
from zoo.data.images import decode
from zoo.errors import UserError, invalid
from zoo.tasks.retrieval.search.contracts import Engine, Found
from zoo.tasks.retrieval.search.encoder import Encoder, encode_images, load_encoder
from zoo.tasks.retrieval.search.engines import open_engine
from zoo.tasks.retrieval.search.filters import Condition
from zoo.tasks.retrieval.search.images import ProductImages

if TYPE_CHECKING:  # it imports PyTorch, which searches by an exported model do without
    from zoo.tasks.retrieval.reranking import Reranker

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
        if self.by == "text" and (self.minus or self.image is not None or self.like is not None):
            raise invalid("by", self.by, "titles have nothing to do with an image, minus or like; leave them out")
        if not self.text and (self.by != "vector" or (self.image is None and self.like is None)):
            fix = "give a text, an image, or both" if self.by == "vector" else f"a search by {self.by} wants a text"
            raise UserError(f"There is nothing to search by: {fix}", argument="query", valid="a text or an image")


def add_effort(parser: CommandParser) -> None:
    """Add the option ``--effort`` of a command that searches."""
    parser.add_argument(
        "--effort",
        type=int,
        default=1,
        help="Look at so many times as many candidates: slower, and finds more of the exact best, as `index` counts"
        " them.",
    )


def check_effort(effort: int) -> None:
    """Raise UserError where ``--effort`` is out of its range."""
    if effort < 1:
        raise invalid("--effort", effort, "give 1 or more")


def open_index(address: str, model: str | None = None, *, effort: int = 1) -> tuple[Engine, Encoder]:
    """Open an index and the model that embedded it.

    Args:
        address: Of the index, as ``index --engine`` had it.
        model: The model, where it is not to be that which ``embed`` was given, because it was moved or exported.
        effort: As of ``Engine``.

    Raises:
        UserError: There is no such index, or the model is another.
    """
    check_effort(effort)
    engine = open_engine(address)
    engine.effort = effort
    source = model or engine.description.model
    encoder = load_encoder(source)
    if encoder.fingerprint != engine.description.fingerprint:
        raise UserError(
            f"--model {source} is not the model that embedded {address}, whose vectors mean nothing to it: give"
            f" {engine.description.model}, wherever it is now, or what `export --format onnx` wrote of it; or embed and"
            " index the products anew",
            argument="--model",
            value=source,
            valid=engine.description.model,
        )
    return engine, encoder


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


def rerank(found: Sequence[Found], text: str, reranker: "Reranker", images: ProductImages, *, top: int) -> list[Found]:
    """Order the first ``top`` products anew, by what a reranker says of their images; the others stay behind them.

    Args:
        found: What a search found, the best first.
        text: What was asked for.
        reranker: Gives an image a score for the text, greater is better; products of equal scores keep their order.
        images: Of the products; one that cannot be read comes last of the first.
        top: How many the reranker looks at.

    Returns:
        The same products; the scores of the first are the reranker's.

    Raises:
        UserError: There is no text.
    """
    if not text:
        raise UserError("--rerank compares images with a text: give one", argument="TEXT", valid="a text")
    readable, others = [], []
    for each in found[:top]:
        try:
            readable.append((each, Image.fromarray(decode(images.read(each.image)))))
        except UserError:
            others.append(each)
    scores = reranker.score(text, [image for _, image in readable]).tolist() if readable else []
    ordered = [each._replace(score=score) for (each, _), score in zip(readable, scores, strict=True)]
    return [*sorted(ordered, key=lambda each: -each.score), *others, *found[top:]]
