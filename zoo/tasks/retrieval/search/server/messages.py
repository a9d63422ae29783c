"""What clients and server send each other, as OpenAPI describes it."""

from typing import Any, Self
from urllib.parse import quote

from pydantic import BaseModel, Field

from zoo.tasks.retrieval.search.contracts import Found, Kind, Value
from zoo.tasks.retrieval.search.filters import LONGEST
from zoo.tasks.retrieval.search.query import By
from zoo.tasks.retrieval.search.server.limits import ID_LENGTH, MOST, TEXT_LENGTH


class SearchParameters(BaseModel, extra="forbid"):
    """What is searched for."""

    q: str = Field("", max_length=TEXT_LENGTH, description="Words for what is wanted.")
    minus: str = Field("", max_length=TEXT_LENGTH, description="Words for what it should not be.")
    like: str | None = Field(None, max_length=ID_LENGTH, description="Id of a product that it should be like.")
    where: str = Field(
        "", max_length=LONGEST, description="What holds of each result: price < 200 and category = '连衣裙'."
    )
    by: By = Field("vector", description="vector: by embeddings; text: by the words of titles; hybrid: by both.")
    k: int = Field(20, ge=1, le=MOST, description="The most results to give.")
    offset: int = Field(0, ge=0, lt=MOST, description=f"The best results to pass over; with k at most {MOST}.")


class Item(BaseModel):
    """A product.

    Attributes:
        id: Its id.
        title: Its title; empty where it has none.
        image: The path of its image on this server.
        metadata: Its value of each field that it has one of.
    """

    id: str
    title: str
    image: str
    metadata: dict[str, Value]

    @classmethod
    def of(cls, found: Found, **others: Any) -> Self:
        """Tell what an index says of a product."""
        metadata: dict[str, Value] = {name: value for name, value in found.metadata.items() if value is not None}
        image = f"/images/{quote(found.id, safe='')}"
        return cls(id=found.id, title=found.title, image=image, metadata=metadata, **others)


class Result(Item):
    """A product that was found.

    Attributes:
        score: Cosine similarity of a search by vector, BM25 by text, the sum of reciprocal ranks by both.
    """

    score: float


class Answer(BaseModel):
    """What a search found.

    Attributes:
        results: The best first.
        more: Whether there are others behind them, which a larger offset gives.
        milliseconds: That the search took.
    """

    results: list[Result]
    more: bool
    milliseconds: float


class FieldValue(BaseModel):
    """A value of a field, and how many products have it."""

    value: str
    count: int


class MetadataField(BaseModel):
    """A field of the products' metadata.

    Attributes:
        name: Its name.
        kind: Its kind.
        values: The most frequent values, the most frequent first; of kind ``text`` alone.
    """

    name: str
    kind: Kind
    values: list[FieldValue]


class Fields(BaseModel):
    """What filters can say.

    Attributes:
        fields: All fields of the metadata.
        products: How many products there are.
    """

    fields: list[MetadataField]
    products: int


class Health(BaseModel):
    """That the server serves.

    Attributes:
        status: ok.
        products: How many products there are.
        fingerprint: Of the model that embedded them.
    """

    status: str
    products: int
    fingerprint: str
