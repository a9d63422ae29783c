"""A catalogue's embeddings on disk: parquet files, each written whole or not at all, that mirror the catalogue.

A product belongs to the file that its id's hash says, whatever else there is. So any number of processes share the
work without talking, an interrupted run goes on where it stopped, and a catalogue that changes costs what changed.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import UserError
from zoo.io import UNFINISHED, atomic_write, read_json, write_text
from zoo.tasks.retrieval.search.catalogue import Item
from zoo.tasks.retrieval.search.filters import Kind

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = "_embeddings.json"  # tools that read a folder of parquet pass over it
FORMAT = 1
PRODUCTS_A_FILE = 2048  # when a folder is begun; what a killed process loses at most


@dataclass(frozen=True)
class EmbeddingsMetadata:
    """What a folder of embeddings is of.

    Attributes:
        model: The checkpoint, run or exported folder, as it was given.
        fingerprint: Of the encoder.
        width: Size of the vectors.
        images: The folder that the images lie below.
        files: How many files there are when all is done.
        fields: The kind of each field of the products' metadata.
        format: Of the files.
    """

    model: str
    fingerprint: str
    width: int
    images: str
    files: int
    fields: dict[str, Kind]
    format: int = FORMAT


class Embeddings:
    """A folder of embeddings.

    Args:
        folder: The folder.
        metadata: What it is of; None: what it says itself.

    Raises:
        UserError: It holds no embeddings, or those of another model; or it cannot be written.
    """

    def __init__(self, folder: Path | str, metadata: EmbeddingsMetadata | None = None) -> None:
        self.folder = Path(folder)
        there = self._written()
        if metadata is None:
            if there is None:
                raise UserError(
                    f"{folder}: there are no embeddings: it has no {METADATA}. `python -m zoo embed` writes some",
                    argument="embeddings",
                    value=str(folder),
                )
            self.metadata = there
            return
        if there is not None:
            if there.fingerprint != metadata.fingerprint:
                raise UserError(
                    f"{folder} holds embeddings of another model, {there.model}. Give a new folder",
                    argument="OUT",
                    value=str(folder),
                    valid=there.model,
                )
            metadata = EmbeddingsMetadata(**{**asdict(metadata), "files": there.files})
        elif self.folder.exists() and not (self.folder.is_dir() and all(map(_is_begun, self.folder.iterdir()))):
            raise UserError(
                f"{folder} is there and holds something else. Give a new folder", argument="OUT", value=str(folder)
            )
        self.metadata = metadata
        if metadata != there:
            try:
                write_text(self.folder / METADATA, json.dumps(asdict(metadata), ensure_ascii=False, indent=2) + "\n")
            except OSError as error:
                raise UserError(
                    f"{folder} cannot be written: {error.strerror or error}. Give a path in a folder of yours",
                    argument="OUT",
                    value=str(folder),
                ) from None

    def _written(self) -> EmbeddingsMetadata | None:
        path = self.folder / METADATA
        if not path.is_file():
            return None
        try:
            found = EmbeddingsMetadata(**read_json(path))
        except (ValueError, TypeError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}). Give a new folder") from None
        if found.format != FORMAT:
            raise UserError(f"{path}: its format is {found.format}, and this zoo reads {FORMAT}. Give a new folder")
        return found

    def file_of(self, id_: str) -> int:
        """Give the number of the file that a product belongs to."""
        return int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8]) % self.metadata.files

    def path(self, number: int) -> Path:
        """Give the path of a file."""
        return self.folder / f"{number:05}-of-{self.metadata.files:05}.parquet"

    def read(self, number: int, columns: Sequence[str] | None = None) -> "pa.Table | None":
        """Read a file, or some of its columns; None where it is not written yet.

        Raises:
            UserError: It is damaged.
        """
        path = self.path(number)
        if not path.is_file():
            return None
        from pyarrow import ArrowInvalid, parquet

        try:
            return parquet.read_table(path, columns=columns)
        except (ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is damaged ({error}). Remove it, and embed again") from None

    def write(self, number: int, rows: Sequence["Row"]) -> None:
        """Write a file.

        Raises:
            UserError: It cannot be written.
        """
        from pyarrow import parquet

        try:
            with atomic_write(self.path(number)) as temporary:
                parquet.write_table(as_table(rows, self.metadata), temporary)
        except OSError as error:
            raise UserError(f"{self.path(number)} cannot be written: {error.strerror or error}") from None

    def tables(self) -> "Iterator[pa.Table]":
        """Read all files, which must be there.

        Raises:
            UserError: One is not there, or was written before the catalogue had the fields that it has.
        """
        schema = schema_of(self.metadata)
        for number in range(self.metadata.files):
            table = self.read(number)
            if table is None or not table.schema.equals(schema):
                raise UserError(
                    f"{self.folder}: {self.path(number).name} is {'not there' if table is None else 'not up to date'}:"
                    " `python -m zoo embed` did not finish. Run it again as before, and it goes on",
                    argument="embeddings",
                    value=str(self.folder),
                )
            yield table


def _is_begun(path: Path) -> bool:
    """Whether a file may be the first of another process, which began the same folder at the same moment."""
    return path.name == METADATA or UNFINISHED.fullmatch(path.name) is not None


@dataclass
class Row:
    """A product with its embeddings.

    Attributes:
        item: The product.
        stamp: Another one: the image's file has changed.
        sha256: Of the image's bytes, in hexadecimal digits.
        phash: Perceptual hash of the image, 16 hexadecimal digits.
        error: Why the image cannot be embedded; empty where it was.
        image_vector: ``[D] float16``; None where it cannot be.
        title_vector: ``[D] float16``; None where there is no title.
    """

    item: Item
    stamp: str
    sha256: str = ""
    phash: str = ""
    error: str = ""
    image_vector: np.ndarray | None = None
    title_vector: np.ndarray | None = None


def schema_of(metadata: EmbeddingsMetadata) -> "pa.Schema":
    """Give the columns of the files: ``pandas.read_parquet`` reads them."""
    import pyarrow as pa

    kinds: dict[Kind, Any] = {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}
    texts = [(name, pa.string()) for name in ("id", "image", "title", "stamp", "sha256", "phash", "error")]
    vectors = [(name, pa.list_(pa.float16(), metadata.width)) for name in ("image_vector", "title_vector")]
    fields = [(name, kinds[kind]) for name, kind in metadata.fields.items()]
    return pa.schema([*texts, *([("metadata", pa.struct(fields))] if fields else []), *vectors])


def as_table(rows: Sequence[Row], metadata: EmbeddingsMetadata) -> "pa.Table":
    """Give rows as a table, in the order of their ids."""
    import pyarrow as pa

    schema = schema_of(metadata)
    rows = sorted(rows, key=lambda row: row.item.id)
    columns: dict[str, Any] = {name: [getattr(row.item, name) for row in rows] for name in ("id", "image", "title")}
    columns |= {name: [getattr(row, name) for row in rows] for name in ("stamp", "sha256", "phash", "error")}
    if "metadata" in schema.names:
        columns["metadata"] = [{name: row.item.metadata.get(name) for name in metadata.fields} for row in rows]
    for name in ("image_vector", "title_vector"):
        columns[name] = [getattr(row, name) for row in rows]
    arrays = [pa.array(columns[name], type=schema.field(name).type) for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)


def as_rows(table: "pa.Table") -> dict[str, Row]:
    """Give a file's rows by id, without vectors where the table has none."""
    vectors = {name: vectors_of(table, name) for name in ("image_vector", "title_vector") if name in table.column_names}
    names = [name for name in table.column_names if name not in vectors]
    rows = {}
    for place, record in enumerate(table.select(names).to_pylist()):
        item = Item(record["id"], record["image"], record["title"], record.get("metadata") or {})
        own = {name: vector[place] for name, (vector, valid) in vectors.items() if valid[place]}
        rows[item.id] = Row(item, record["stamp"], record["sha256"], record["phash"], record["error"], **own)
    return rows


def vectors_of(table: "pa.Table", name: str) -> tuple[np.ndarray, np.ndarray]:
    """Give a column of vectors as ``[N, D] float16``, and which of them are there: ``[N] bool``."""
    column = table[name].combine_chunks()
    width = column.type.list_size
    valid = np.asarray(column.is_valid())
    values = np.zeros((len(column), width), np.float16)
    values[valid] = np.asarray(column.drop_null().flatten()).reshape(-1, width)
    return values, valid
