"""The distributed engine: a collection of a Milvus server."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, Function, FunctionType, MilvusClient, MilvusException

from zoo.errors import UserError
from zoo.tasks.retrieval.search.contracts import Description, Found, Product
from zoo.tasks.retrieval.search.filters import Condition, expression
from zoo.tasks.retrieval.search.rows import (
    LONGEST_ID,
    LONGEST_TEXT,
    checked,
    columns,
    from_json,
    metadata,
    to_json,
)

COLLECTION = "products"
TOKEN = "ZOO_MILVUS_TOKEN"
PROPERTY = "zoo.description"  # of the collection
BATCH = 1000  # rows of a request, whose size a server limits
MOST = 16_384  # rows that a server gives at once
WIDE = 128  # candidates of a search of the graph, at least
_TYPES = {"text": DataType.VARCHAR, "number": DataType.DOUBLE, "boolean": DataType.BOOL}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each error with its traceback, and raises it too
logging.getLogger("jieba").setLevel(logging.WARNING)


class MilvusEngine:
    """An index in a collection of Milvus.

    Searches go by an HNSW graph; text is cut into words by jieba. An ``upsert`` of more than a thousand products is
    several requests: where one fails, those before it stay, and the same call again completes them.

    Args:
        client: The connection.
        collection: Name of the collection.
        address: The server's, and the collection's.
        description: What the index holds.
    """

    effort = 1

    def __init__(self, client: MilvusClient, collection: str, address: str, description: Description) -> None:
        self.client, self.collection, self.address, self.description = client, collection, address, description
        self._columns = columns(description)
        self._shown = ["id", "title", "image", *self._columns.values()]

    @classmethod
    def create(cls, address: str, description: Description) -> "MilvusEngine":
        """Make an empty collection."""
        with _errors(address):
            client, collection = _connect(address)
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=description.width)
            schema.add_field(
                "title",
                DataType.VARCHAR,
                max_length=LONGEST_TEXT,
                enable_analyzer=True,
                analyzer_params={"tokenizer": "jieba"},
            )
            schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(Function("bm25", FunctionType.BM25, ["title"], ["words"]))
            for name in ("image", "digest"):
                schema.add_field(name, DataType.VARCHAR, max_length=LONGEST_TEXT)
            for name, column in columns(description).items():
                kind = description.fields[name]
                length = {"max_length": LONGEST_TEXT} if kind == "text" else {}
                schema.add_field(column, _TYPES[kind], nullable=True, **length)
            index = client.prepare_index_params()
            index.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
            index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
            client.create_collection(
                collection,
                schema=schema,
                index_params=index,
                consistency_level="Strong",
                properties={PROPERTY: to_json(description)},
            )
        return cls(client, collection, address, description)

    @classmethod
    def open(cls, address: str) -> "MilvusEngine | None":
        """Open a collection; None where there is no such one."""
        if address.endswith(".db") and not Path(address).exists():
            return None
        with _errors(address):
            client, collection = _connect(address)
            if not client.has_collection(collection):
                return None
            client.load_collection(collection)
            text = client.describe_collection(collection)["properties"].get(PROPERTY)
        return cls(client, collection, address, from_json(text, address))

    def relocate(self, model: str, images: str) -> None:
        """See ``Engine.relocate``."""
        description = replace(self.description, model=model, images=images)
        with _errors(self.address):
            self.client.alter_collection_properties(self.collection, {PROPERTY: to_json(description)})
        self.description = description

    def upsert(self, products: Sequence[Product]) -> None:
        """See ``Engine.upsert``."""
        products = checked(products, self.description)
        for batch in _batches(products, BATCH):
            rows = [
                {name: getattr(product, name) for name in ("id", "title", "image", "digest")}
                | {"vector": np.asarray(product.vector, np.float32)}
                | {column: product.metadata.get(name) for name, column in self._columns.items()}
                for product in batch
            ]
            with _errors(self.address):
                self.client.upsert(self.collection, rows)

    def delete(self, ids: Sequence[str]) -> None:
        """See ``Engine.delete``."""
        for batch in _batches(ids, BATCH):
            with _errors(self.address):
                self.client.delete(self.collection, filter=_among(batch))

    def search(
        self,
        *,
        vector: np.ndarray | None = None,
        text: str | None = None,
        where: Condition | None = None,
        k: int = 20,
    ) -> list[Found]:
        """See ``Engine.search``."""
        k = min(k, MOST)
        data, field, options = (
            (
                [np.asarray(vector, np.float32)],
                "vector",
                {"metric_type": "COSINE", "params": {"ef": self.effort * max(WIDE, 2 * k)}},
            )
            if vector is not None
            else ([text or ""], "words", {"metric_type": "BM25"})
        )
        with _errors(self.address):
            (hits,) = self.client.search(
                self.collection,
                data=data,
                anns_field=field,
                filter="" if where is None else self._expression(where),
                limit=k,
                output_fields=self._shown,
                search_params=options,
            )
        return [self._found(hit["entity"], hit["distance"] if text is None else abs(hit["distance"])) for hit in hits]

    def get(self, ids: Sequence[str]) -> dict[str, Found]:
        """See ``Engine.get``."""
        return {row["id"]: self._found(row, 0.0) for row in self._rows(ids, self._shown)}

    def vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """See ``Engine.vectors``."""
        return {row["id"]: np.array(row["vector"], np.float32) for row in self._rows(ids, ["id", "vector"])}

    def count(self, where: Condition | None = None) -> int:
        """See ``Engine.count``."""
        condition = "" if where is None else self._expression(where)
        with _errors(self.address):
            return self.client.query(self.collection, filter=condition, output_fields=["count(*)"])[0]["count(*)"]

    def values(self, field: str, limit: int = 100) -> list[tuple[str, int]]:
        """See ``Engine.values``; the values come over the network one by one."""
        column = self._columns[field]
        counts = Counter(row[column] for row in self._all(column) if row[column] is not None)
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]

    def digests(self) -> Iterator[tuple[str, str]]:
        """See ``Engine.digests``."""
        return ((row["id"], row["digest"]) for row in self._all("digest"))

    def optimize(self) -> None:
        """See ``Engine.optimize``; Milvus merges segments and drops what is old by itself."""
        with _errors(self.address):
            self.client.flush(self.collection)

    def _rows(self, ids: Sequence[str], shown: list[str]) -> Iterator[dict[str, Any]]:
        for batch in _batches(ids, BATCH):
            with _errors(self.address):
                yield from self.client.query(self.collection, filter=_among(batch), output_fields=shown)

    def _all(self, column: str) -> Iterator[dict[str, Any]]:
        """Give all rows by their ids; ``query_iterator`` does the same, but for ids that hold quotes."""
        last = ""
        while True:
            with _errors(self.address):
                rows = self.client.query(
                    self.collection,
                    filter=f"id > {_quote(last)}",
                    output_fields=["id", column],
                    limit=MOST,
                    iterator="True",
                    reduce_stop_for_best="True",
                )
            if not rows:
                return
            yield from rows
            last = rows[-1]["id"]

    def _found(self, row: Mapping[str, Any], score: float) -> Found:
        return Found(row["id"], score, row["title"], row["image"], metadata(row, self.description))

    def _expression(self, where: Condition) -> str:
        return expression(where, self._columns, _quote, equal="==", brackets="[]")


def _connect(address: str) -> tuple[MilvusClient, str]:
    """Give a connection and the name of the collection; a ``.db`` file is one of Milvus Lite's, which tests use."""
    match = re.fullmatch(r"(https?://[^/]+)(?:/([A-Za-z_]\w*)?)?", address, re.ASCII)
    if match is None and not address.endswith(".db"):
        raise UserError(f"engine is {address}: give http://HOST:PORT[/COLLECTION]", argument="engine", value=address)
    server, collection = (match[1], match[2]) if match else (address, None)
    return MilvusClient(server, token=os.environ.get(TOKEN, "")), collection or COLLECTION


def _quote(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'


def _among(ids: Sequence[str]) -> str:
    return f"id in [{', '.join(map(_quote, ids))}]"


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Say in one line what Milvus could not do."""
    try:
        yield
    except MilvusException as error:
        reason = str(error.message).strip().partition("\n")[0][:300]
        raise UserError(f"{address}: {reason}", argument="engine", value=address) from error
