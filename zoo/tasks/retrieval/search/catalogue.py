"""The products of a shop, from a table, a folder of MUGE's files, or a folder of images; no torch."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.attributes import read_attributes
from zoo.data.convert.columns import IMAGE_NAMES, TEXT_NAMES, cell_text, find_column
from zoo.data.convert.tables import JsonTable, Table, open_table
from zoo.data.formats import is_unicode
from zoo.data.layouts import MULTIMODAL_RETRIEVAL, SPLITS, find_task_folder
from zoo.data.tsv import ImageTsv
from zoo.errors import FileError, UserError
from zoo.io import expanded
from zoo.tasks.retrieval.search.filters import Kind, Value
from zoo.tasks.retrieval.search.rows import GREATEST, LONGEST_ID, LONGEST_TEXT

ID_NAMES = ("id", "product_id", "item_id", "image_id", "sku", "商品id", "商品编号", "编号")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class Item(NamedTuple):
    """A product as a catalogue has it."""

    id: str
    image: str  # where its image lies, as of ``images.ProductImages``
    title: str  # empty where it has none
    metadata: Mapping[str, Value]


@dataclass
class Catalogue:
    """What a source says of a shop's products.

    Attributes:
        items: The products, by id.
        images: The folder that their images lie below.
        fields: The kind of each field of their metadata.
        errors: What of the source could not be used.
        notes: What a user should know of how it is read.
    """

    images: Path
    items: dict[str, Item] = field(default_factory=dict)
    fields: dict[str, Kind] = field(default_factory=dict)
    errors: list[FileError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, rows: Iterable[tuple[int | None, Item]], file: Path) -> None:
        """Add products, each with its line in a file; those that are no products are listed in ``errors``."""
        for line, item in rows:
            wrong = ""
            if item.id in self.items:
                wrong = "comes twice; give each product an id of its own"
            elif not item.id:
                wrong = f"has no {'id' if item.image else 'id and no image'}; write one"
            elif _bytes(item.id) > LONGEST_ID:
                wrong = f"an id has at most {LONGEST_ID} bytes; shorten it"
            elif "\n" in item.id:
                wrong = "has a line break in its name; rename it"
            elif max(map(_bytes, (item.image, item.title, *item.metadata.values()))) > LONGEST_TEXT:
                wrong = f"a text has at most {LONGEST_TEXT:,} bytes; shorten it"
            elif not item.image:
                wrong = "has no image; write its path"
            elif not all(
                map(is_unicode, (item.id, item.image, item.title, *item.metadata, *map(str, item.metadata.values())))
            ):
                wrong = (
                    "is not UTF-8: rename the file, if its name is in another encoding; in JSON, write no half of a"
                    " surrogate pair (\\ud800 to \\udfff)"
                )
            if wrong:
                self.errors.append(FileError(wrong, file=file, line=line, id=item.id[:80], noun="product"))
            else:
                self.items[item.id] = item

    def settle(self) -> "Catalogue":
        """Find the kind of each field, and give each product a value of that kind for each, or None."""
        names = dict.fromkeys(name for item in self.items.values() for name in item.metadata)
        for name in names:
            found = [value for item in self.items.values() if (value := item.metadata.get(name)) is not None]
            self.fields[name] = kind_of(found)
            others = [value for value in found if isinstance(value, str)]
            numbers = len(found) - len(others)
            if 0 < len(others) < numbers:
                self.notes.append(
                    f"{name} is taken for texts: {len(others):,} of its values are no numbers, {others[0]!r} the first,"
                    f" and {numbers:,} are. To compare them by < and >, write numbers alone"
                )
        for id_, item in self.items.items():
            values = {name: as_kind(item.metadata.get(name), kind) for name, kind in self.fields.items()}
            self.items[id_] = item._replace(metadata=values)
        return self


def read_catalogue(source: str, *, images: str | None = None, split: str | None = None) -> Catalogue:
    """Read what products there are.

    Args:
        source: A table (.csv, .tsv, .jsonl, .parquet) of products, whose columns of ids, images and titles are called
            as they usually are, and whose other columns are metadata; a folder of MUGE's retrieval files, or of
            what ``data catalogue`` wrote; or any other folder: all images below it.
        images: The folder that a table's paths start from; None: the table's own.
        split: The one split of MUGE's files to read; None: all that are there.

    Raises:
        UserError: There is no such file or folder, it holds no product, or an option has nothing to say of it.
    """
    path = Path(expanded(source, "SOURCE"))
    is_table = path.suffix.lower() in TABLES
    is_muge = not is_table and _muge_folder(path) is not None
    if images is not None and not is_table:
        raise UserError("--images goes with a table; leave it out", argument="--images", value=images)
    if split is not None and not is_muge:
        raise UserError("--split goes with a folder of MUGE's files; leave it out", argument="--split", value=split)
    if split is not None and split not in SPLITS:
        raise UserError(f"--split is {split}: give one of {', '.join(SPLITS)}", argument="--split", valid=SPLITS)
    if is_table:
        found = _of_table(path, Path(expanded(images, "--images")) if images else path.absolute().parent)
    elif is_muge:
        found = _of_muge(_muge_folder(path), split)  # type: ignore[arg-type]
    elif path.is_dir():
        found = _of_folder(path)
    else:
        raise UserError(
            f"{source}: there is no such folder or table; give a folder of images, one of MUGE's files, or a table that"
            f" ends in {', '.join(TABLES)}",
            argument="SOURCE",
            value=source,
        )
    if not found.items:
        first = f", {found.errors[0]} the first" if found.errors else ""
        raise UserError(f"{source}: there is no product in it{first}", argument="SOURCE", value=source)
    return found.settle()


# --- sources ---------------------------------------------------------------------------------------------------


def _of_folder(folder: Path) -> Catalogue:
    paths = sorted(
        path.relative_to(folder).as_posix()
        for base, _, names in os.walk(folder, followlinks=True)
        for path in (Path(base, name) for name in names)
        if path.suffix.lower() in IMAGES
    )
    found = Catalogue(folder.absolute())
    found.add(((None, Item(path, path, "", {})) for path in paths), folder)
    return found


def _of_table(path: Path, images: Path) -> Catalogue:
    table = open_table(path)
    found = Catalogue(images.absolute())
    names = {what: find_column(table, usual) for what, usual in (("id", ID_NAMES), ("image", IMAGE_NAMES))}
    if names["image"] is None:
        raise UserError(
            f"{path}: none of its columns {', '.join(table.columns)} has a usual name of images"
            f" ({', '.join(IMAGE_NAMES[:3])}, …). Call the column of paths so",
            argument="SOURCE",
            value=str(path),
            valid=IMAGE_NAMES,
        )
    names["title"] = find_column(table, TEXT_NAMES)
    found.add(_rows(table, names, found.errors), path)
    return found


def _rows(table: Table, names: dict[str, str | None], errors: list[FileError]) -> Iterator[tuple[int, Item]]:
    taken = {name for name in names.values() if name}
    for line, record in table.records(table.columns, errors):
        image = cell_text(record.get(names["image"] or ""))
        id_ = cell_text(record.get(names["id"])) if names["id"] else image
        title = cell_text(record.get(names["title"])) if names["title"] else ""
        others = {name: value for name, value in record.items() if name not in taken}
        if not isinstance(table, JsonTable):
            others = {name: _number(value) if isinstance(value, str) else value for name, value in others.items()}
        yield line, Item(id_, image.replace("\\", "/").removeprefix("./"), title, flat(others))


def _of_muge(folder: Path, split: str | None) -> Catalogue:
    found = Catalogue(folder.absolute())
    for each in SPLITS if split is None else (split,):
        files = MULTIMODAL_RETRIEVAL.find(folder, each)
        if files.images.is_file():
            told = _told(folder, each)
            ids = ImageTsv(files.images, errors=found.errors).ids.tolist()
            rows = (Item(str(id_), f"{files.images.name}#{id_}", *told.get(id_, ("", {}))) for id_ in ids)
            found.add(((None, row) for row in rows), files.images)
    return found


def _told(folder: Path, split: str) -> dict[Any, tuple[str, dict[str, Value]]]:
    """Title and metadata of the images of a split, where files beside them tell some."""
    catalogue = folder.parent / f"catalogue_{split}.jsonl"
    if not catalogue.is_file():
        return {id_: ("", dict(shown)) for id_, shown in (read_attributes(folder, split) or {}).items()}
    told = {}
    for _, record in open_table(catalogue).records((), []):
        others = {name: value for name, value in record.items() if name not in ("image_id", "key", "new", "title")}
        told[record["image_id"]] = (record["title"], flat(others))
    return told


def _muge_folder(path: Path) -> Path | None:
    try:
        return find_task_folder(path, MULTIMODAL_RETRIEVAL)
    except UserError:
        return None


# --- cells -----------------------------------------------------------------------------------------------------


def flat(record: Mapping[str, Any]) -> dict[str, Value]:
    """Turn a record into fields: an object inside becomes its own fields, a list one text; what is empty is left out.

    A field whose name comes twice has the object's name before its own.
    """
    fields: dict[str, Value] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            inner = flat(value)
            fields |= {(key if key not in record else f"{name}.{key}"): each for key, each in inner.items()}
        elif isinstance(value, list | tuple):
            fields[name] = ", ".join(map(cell_text, value))
        elif isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= GREATEST):
            fields[name] = value
        elif cell_text(value):
            fields[name] = cell_text(value)
    return fields


def kind_of(values: Iterable[Value]) -> Kind:
    """Find the kind of a field: boolean or number where all of its values are that, else text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "boolean"
    return "number" if kinds and kinds <= {int, float} else "text"


def as_kind(value: Value, kind: Kind) -> Value:
    """Give a value the kind of its field."""
    if value is None:
        return None
    if kind == "number":
        return float(value)
    if kind == "text" and not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def _number(cell: str) -> Value:
    """The number that a cell of a CSV holds; a number that begins with 0, such as an article's, is a text."""
    return float(cell) if re.fullmatch(r"\s*-?(0|[1-9]\d{0,14})(\.\d+)?\s*", cell) else cell


def _bytes(value: Value) -> int:
    return len(str(value).encode(errors="replace"))
