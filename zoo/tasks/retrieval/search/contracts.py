"""What the parts of product search hand each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from zoo.tasks.retrieval.search.filters import Condition, Kind, Value


@dataclass(frozen=True)
class Description:
    """What an index holds, kept inside it.

    Attributes:
        model: The checkpoint, run or exported folder that embedded the products, as it was given.
        fingerprint: Tells the model, with all that it computes, from others; see ``encoder.fingerprint``.
        width: Size of the vectors.
        images: Folder that the products' images lie below.
        fields: The kind of each field of the products' metadata, by its name.
        title_weight: Share of the titles' embeddings in the vectors, in [0, 1].
        format: Of the index; raised when older ones cannot be read any more.
    """

    model: str
    fingerprint: str
    width: int
    images: str
    fields: Mapping[str, Kind]
    title_weight: float = 0.0
    format: int = 1


@dataclass(frozen=True)
class Product:
    """A row of an index.

    Attributes:
        id: Its own among all; at most 512 bytes of UTF-8.
        vector: ``[D] float32``, a unit vector.
        title: Its title; empty where it has none.
        image: Where its image lies, below the folder of images.
        metadata: Its value of each field; None, or no key, where it has none.
        digest: Changes with whatever else of the row changes.
    """

    id: str
    vector: np.ndarray
    title: str
    image: str
    metadata: Mapping[str, Value]
    digest: str


class Found(NamedTuple):
    """A product that a search found.

    Attributes:
        id: Its id.
        score: Cosine similarity in [-1, 1] of a search by vector, the BM25 score of one by text; greater is better.
        title: Its title.
        image: Where its image lies, below the folder of images.
        metadata: Its value of each field; None where it has none.
    """

    id: str
    score: float
    title: str
    image: str
    metadata: Mapping[str, Value]


class Engine(Protocol):
    """An index in some database: LanceDB, Milvus.

    What ``upsert`` and ``delete`` were given is found, or gone, by every search that begins after they return, also
    in other processes. All may be called from several threads.

    Attributes:
        address: Where the index is, as ``open_engine`` takes it.
        description: What the index holds.
        effort: How many times as many candidates as usual a search by vector looks at, 1 or more: it takes longer, and
            finds more of the best.
    """

    address: str
    description: Description
    effort: int

    def relocate(self, model: str, images: str) -> None:
        """Keep where the model and the images lie now, in the place of where they lay."""

    def upsert(self, products: Sequence[Product]) -> None:
        """Write products, in the place of those of the same ids; each thousand of them whole or not at all."""

    def delete(self, ids: Sequence[str]) -> None:
        """Remove the products of these ids; ids that are not there do no harm."""

    def search(
        self,
        *,
        vector: np.ndarray | None = None,
        text: str | None = None,
        where: Condition | None = None,
        k: int = 20,
    ) -> list[Found]:
        """Find the best k products by one of the two: a vector's cosine similarity, or BM25 of a text over titles.

        Args:
            vector: ``[D] float32``, a unit vector.
            text: A query; products that share no word with it are not found.
            where: What holds of each product that is found.
            k: The most to find.

        Returns:
            The best first; fewer than k where there are no more.
        """

    def get(self, ids: Sequence[str]) -> dict[str, Found]:
        """Give the products of these ids that are there, by id; their score is 0."""

    def vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Give the vectors ``[D] float32`` of the products of these ids that are there, by id."""

    def count(self, where: Condition | None = None) -> int:
        """Count the products of which a condition holds, or all."""

    def values(self, field: str, limit: int = 100) -> list[tuple[str, int]]:
        """Count the products by their value of a field of kind ``text``: the most frequent first, at most ``limit``."""

    def digests(self) -> Iterator[tuple[str, str]]:
        """Give id and digest of each product, in any order."""

    def optimize(self) -> None:
        """Build what makes searches fast of all that is there, merge fragments, and drop old versions."""
