"""The embedded engine: LanceDB, a folder of columnar files, by one process that writes and any that read."""

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.io import atomic_folder, read_json, write_text
from zoo.tasks.retrieval.search.contracts import Description, Found, Product
from zoo.tasks.retrieval.search.filters import Condition, expression
from zoo.tasks.retrieval.search.rows import checked, columns, from_json, metadata, to_json

os.environ.setdefault("LANCEDB_LOG", "error")  # read when lancedb is imported

import lancedb  # noqa: E402
import pyarrow as pa  # noqa: E402
from lancedb.index import FTS, Bitmap, BTree, IvfRq  # noqa: E402

TABLE = "products"
PLACES = "places.json"  # where the model and the images lie, if they were moved
EXACT_ROWS = 10_000  # below, every search compares with all vectors
PARTITION_ROWS = 4096  # rows of a partition of the index; LanceDB splits those that have grown much larger
BITS = 4  # of a dimension, in the index
PROBES = 20  # partitions that a search without a condition looks into
REFINE = 3  # so many times k candidates are compared by their exact vectors
SEGMENTS = 8  # each optimize() adds one to the index of vectors; from more on it is made anew, which merges fragments
GROWTH = 4  # the partitions are made anew where there are so many times as many rows as when they were made
FEW = 1000  # values of a field, at most, that are indexed by a bitmap each: broad conditions are answered faster
GRACE = timedelta(minutes=1)  # a reader may use a version for so long after the next was written
_TYPES = {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}


class LanceEngine:
    """An index in a folder of this machine.

    Searches compare with all vectors up to some thousand products, and where the width is no multiple of 8; from there
    on with those of the nearest partitions of an IVF index of RaBitQ's 4-bit codes, and the best anew with the vectors.
    Text is cut into words by ICU's dictionaries. Every read looks whether another process wrote.

    Args:
        table: The table of products, opened so that each read sees the newest version.
        address: Its folder.
        description: What the index holds.
    """

    effort = 1

    def __init__(self, table: Any, address: str, description: Description) -> None:
        self.table, self.address, self.description = table, address, description
        self._columns = columns(description)
        self._shown = ["id", "title", "image", *self._columns.values()]
        self._writing = threading.Lock()

    @classmethod
    def create(cls, address: str, description: Description) -> "LanceEngine":
        """Make an empty index in a folder that is not there, or empty."""
        with _errors(address), atomic_folder(Path(address)) as folder:
            table = _connect(folder).create_table(TABLE, schema=_schema(description))
            for column in ("id", *columns(description).values()):
                table.create_index(column, config=BTree())
            words = FTS(base_tokenizer="icu", stem=False, remove_stop_words=False, ascii_folding=False)
            table.create_index("title", config=words)
        return cls(_connect(address).open_table(TABLE), address, description)

    @classmethod
    def open(cls, address: str) -> "LanceEngine | None":
        """Open the index of a folder; None where there is nothing."""
        if not Path(address).exists() or (Path(address).is_dir() and not any(Path(address).iterdir())):
            return None
        text = table = None
        if Path(address, f"{TABLE}.lance").is_dir():
            with _errors(address):
                table = _connect(address).open_table(TABLE)
                text = (table.schema.metadata or {}).get(b"description", b"").decode()
                if Path(address, PLACES).is_file():
                    text = json.dumps({**json.loads(text), **read_json(Path(address, PLACES))})
        return cls(table, address, from_json(text, address))

    def relocate(self, model: str, images: str) -> None:
        """See ``Engine.relocate``; a table's own description stays as it was made."""
        with _errors(self.address):
            write_text(Path(self.address, PLACES), json.dumps({"model": model, "images": images}, ensure_ascii=False))
        self.description = replace(self.description, model=model, images=images)

    def upsert(self, products: Sequence[Product]) -> None:
        """See ``Engine.upsert``."""
        products = checked(products, self.description)
        if not products:
            return
        vectors = np.stack([np.asarray(product.vector, dtype=np.float32) for product in products])
        arrays = [
            pa.array([product.id for product in products], pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.description.width),
            *(pa.array([getattr(p, name) for p in products], pa.string()) for name in ("title", "image", "digest")),
            *(
                pa.array([product.metadata.get(name) for product in products], _TYPES[kind])
                for name, kind in self.description.fields.items()
            ),
        ]
        rows = pa.Table.from_arrays(arrays, schema=_schema(self.description))
        with self._writing, _errors(self.address):
            self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def delete(self, ids: Sequence[str]) -> None:
        """See ``Engine.delete``."""
        if ids:
            with self._writing, _errors(self.address):
                self.table.delete(_among(ids))

    def search(
        self,
        *,
        vector: np.ndarray | None = None,
        text: str | None = None,
        where: Condition | None = None,
        k: int = 20,
    ) -> list[Found]:
        """See ``Engine.search``."""
        with _errors(self.address):
            if vector is not None:
                query = self.table.search(np.asarray(vector, dtype=np.float32)).distance_type("cosine")
                query = query.nprobes(PROBES * self.effort).refine_factor(REFINE * self.effort)
            else:
                query = self.table.search(text or "", query_type="fts", fts_columns="title")
            if where is not None:
                query = query.where(self._sql(where))
                if vector is not None:
                    query = query.maximum_nprobes(0)  # all: what meets a condition may lie far away
            score = "_score" if vector is None else "_distance"
            rows = query.select([*self._shown, score]).limit(k).to_list()
        return [self._found(row, row[score] if vector is None else 1 - row[score]) for row in rows]

    def get(self, ids: Sequence[str]) -> dict[str, Found]:
        """See ``Engine.get``."""
        return {row["id"]: self._found(row, 0.0) for row in self._rows(ids, self._shown)}

    def vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """See ``Engine.vectors``."""
        return {row["id"]: np.array(row["vector"], np.float32) for row in self._rows(ids, ["id", "vector"])}

    def count(self, where: Condition | None = None) -> int:
        """See ``Engine.count``."""
        with _errors(self.address):
            return self.table.count_rows(None if where is None else self._sql(where))

    def values(self, field: str, limit: int = 100) -> list[tuple[str, int]]:
        """See ``Engine.values``."""
        column, counts = self._columns[field], Counter[str]()
        with _errors(self.address):
            for batch in self.table.search().where(f"{column} is not null").select([column]).to_batches():
                for pair in batch[column].value_counts().to_pylist():
                    counts[pair["values"]] += pair["counts"]
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]

    def digests(self) -> Iterator[tuple[str, str]]:
        """See ``Engine.digests``."""
        with _errors(self.address):
            for batch in self.table.search().select(["id", "digest"]).to_batches():
                yield from zip(batch["id"].to_pylist(), batch["digest"].to_pylist(), strict=True)

    def optimize(self) -> None:
        """See ``Engine.optimize``."""
        with self._writing, _errors(self.address):
            self.table.optimize()
            if self._partition():
                self.table.optimize()  # fragments that the old index kept apart
            self._drop_versions()

    def _partition(self) -> bool:
        """Build the index of vectors where there is none, or it is of much fewer rows, or in many parts by now.

        Indices of fields follow what is there by then.
        """
        rows = self.table.count_rows()
        old = [index for index in self.table.list_indices() if index.columns == ["vector"]]
        if (
            rows < EXACT_ROWS
            or self.description.width % 8
            or any(
                index.num_segments <= SEGMENTS and rows < GROWTH * int(index.name.rpartition("_")[2]) for index in old
            )
        ):
            return False
        config = IvfRq(distance_type="cosine", num_bits=BITS, num_partitions=max(1, rows // PARTITION_ROWS))
        name = f"vector_{rows}"
        self.table.create_index("vector", config=config, name=name)
        for index in old:
            if index.name != name:
                self.table.drop_index(index.name)
        for field, column in self._columns.items():
            if self.description.fields[field] != "number" and len(self.values(field, FEW + 1)) <= FEW:
                self.table.create_index(column, config=Bitmap(), name=f"{column}_idx")  # in the place of the tree
        return True

    def _drop_versions(self) -> None:
        """Drop the versions whose next one was written some time ago: nobody is reading them."""
        now = datetime.now()
        written = [version["timestamp"] for version in self.table.list_versions()]
        if settled := [time for time in written if now - time > GRACE]:
            self.table.optimize(cleanup_older_than=now - max(settled) + GRACE / 2)  # counted when it gets there

    def _rows(self, ids: Sequence[str], shown: list[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        with _errors(self.address):
            return self.table.search().where(_among(ids)).select(shown).to_list()

    def _found(self, row: Mapping[str, Any], score: float) -> Found:
        return Found(row["id"], score, row["title"], row["image"], metadata(row, self.description))

    def _sql(self, where: Condition) -> str:
        return expression(where, self._columns, _quote)


def _connect(address: str | Path) -> Any:
    return lancedb.connect(address, read_consistency_interval=timedelta(0))


def _schema(description: Description) -> pa.Schema:
    texts = [pa.field(name, pa.string(), nullable=False) for name in ("title", "image", "digest")]
    values = zip(columns(description).values(), description.fields.values(), strict=True)
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), description.width), nullable=False),
            *texts,
            *(pa.field(column, _TYPES[kind]) for column, kind in values),
        ],
        metadata={"description": to_json(description)},
    )


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _among(ids: Sequence[str]) -> str:
    return f"id in ({', '.join(map(_quote, ids))})"


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Say in one line what Lance could not do."""
    try:
        yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        reason = re.sub(r"^.*LanceError\(\w+\): |, \S+\.rs:\d+:\d+.*", "", str(error).strip().partition("\n")[0])[:300]
        raise UserError(f"{address}: {reason}", argument="engine", value=address) from error
