"""A table's rows as an import takes them: which columns are meant, and an image and a text each; no torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.data.attributes import Attributes
from zoo.data.convert.tables import Table
from zoo.data.formats import is_unicode
from zoo.errors import FileError, UserError, nearest

# Names of columns and splits, in small letters; spaces and hyphens count as underscores.
IMAGE_NAMES = (
    *("image", "images", "img", "picture", "photo", "image_path", "img_path", "picture_path", "image_file"),
    *("image_name", "file", "filename", "file_name", "filepath", "file_path", "path"),
    *("图片", "图像", "照片", "主图", "图片路径", "图片地址", "图片名", "图片名称", "文件", "文件名", "路径"),
)
TEXT_NAMES = (
    *("text", "texts", "caption", "captions", "query", "query_text", "title", "description", "sentence"),
    *("文本", "文字", "标题", "商品标题", "描述", "商品描述", "文案", "查询", "查询词"),
)
SPLIT_NAMES = ("split", "subset", "划分", "数据划分", "数据集划分")
SPLITS = {
    "train": ("train", "training", "训练", "训练集"),
    "valid": ("valid", "val", "validation", "dev", "验证", "验证集"),
    "test": ("test", "testing", "测试", "测试集"),
}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}


class Row(NamedTuple):
    """An image and a text of it."""

    line: int  # of the table, from 1; of parquet the row
    image: str  # the image's path as the table has it
    text: str  # on one line, without outer white space
    split: str | None  # train, valid or test; None: the table does not say
    attributes: Attributes  # of the image; without those that the table leaves empty


@dataclass(frozen=True)
class Columns:
    """What the columns are called; ``split`` is None where the table has none."""

    image: str
    text: str
    split: str | None
    attributes: tuple[str, ...] = ()


def choose_columns(
    table: Table,
    *,
    image: str | None = None,
    text: str | None = None,
    split: str | None = None,
    attributes: Sequence[str] = (),
    by_shares: bool = False,
) -> Columns:
    """Find the columns of a table.

    Args:
        table: The table.
        image: The column of images; None: the one that is called as they usually are.
        text: The column of texts; None as above.
        split: The column of splits; None as above, and then there may be none.
        attributes: Further columns, of what an image shows.
        by_shares: No column of splits is looked for.

    Raises:
        UserError: A column is not there, or which one is meant cannot be told.
    """
    found_image = _choose(table, "image", image, IMAGE_NAMES)
    found_text = _choose(table, "text", text, TEXT_NAMES)
    found_split = None
    if split is not None or not by_shares:
        found_split = _choose(table, "split", split, SPLIT_NAMES, is_optional=True) or None
    taken = (found_image, found_text, found_split)
    others = tuple(name for name in table.columns if name not in taken and not table.holds_images(name))
    for place, name in enumerate(attributes):
        if name not in others or name in attributes[:place]:
            raise UserError(
                f"--attributes names {name!r}; it may name, each once, the columns that {table.path} has beside those"
                f" of images, texts and splits: {', '.join(others) or 'there are none'}.",
                argument="--attributes",
                value=name,
                valid=others,
            )
    return Columns(found_image, found_text, found_split, tuple(attributes))


def find_column(table: Table, usual: Sequence[str]) -> str | None:
    """Find the column that is called as usual, of several the one whose name comes first among the usual ones."""
    by_name = {_plain(name): name for name in reversed(table.columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.casefold())


def _choose(table: Table, what: str, given: str | None, usual: Sequence[str], *, is_optional: bool = False) -> str:
    """Choose the column that is given, else the one that is called as usual; empty where there need be none."""
    have = f"the columns of {table.path} are {', '.join(table.columns)}"
    if given is not None:
        if given not in table.columns:
            raise UserError(
                f"--{what}_column is {given!r}; {have}.{nearest(given, table.columns)}",
                argument=f"--{what}_column",
                value=given,
                valid=tuple(table.columns),
            )
        return given
    found = [name for name in table.columns if _plain(name) in usual]
    if len(found) == 1 or (is_optional and not found):
        return found[0] if found else ""
    if found:
        which = f"{' and '.join(found)} could each be the {what}"
        fix = " or ".join(f"--{what}_column {name}" for name in found)
    else:
        which, fix = f"none has a usual name of the {what} ({', '.join(usual[:3])}, …)", f"--{what}_column NAME"
    raise UserError(f"{have}: {which}. Say which it is: {fix}")


def read_rows(table: Table, columns: Columns, errors: list[FileError]) -> list[Row]:
    """Read images' paths, texts and attributes; a list of texts becomes as many rows.

    Args:
        table: The table.
        columns: Its columns.
        errors: Where rows are listed that lack an image or a text, whose split is unknown, or which hold no text where
            one belongs; those are left out.
    """
    rows: list[Row] = []
    holds_images = table.holds_images(columns.image)
    names = [name for name in (columns.image, columns.text, columns.split, *columns.attributes) if name]
    for line, record in table.records(names, errors):
        texts = record.get(columns.text)
        image = cell_text(record.get(columns.image)) or (f"row{line}" if holds_images else "")
        split = cell_text(record.get(columns.split)) if columns.split else ""
        cells = {kind: record.get(kind) for kind in columns.attributes}
        attributes = {kind: value for kind, cell in cells.items() if (value := cell_text(cell))}
        found = [
            Row(line, image, cell_text(text), _SPLIT_OF.get(split.casefold()), attributes) for text in _as_list(texts)
        ]
        wrong = ""
        of_texts = [*((columns.text, cell) for cell in _as_list(texts)), *cells.items()]
        strange = [(name, cell) for name, cell in of_texts if isinstance(cell, bool | dict | list | bytes)]
        if not image:
            wrong = f"no image under {columns.image!r}; write its path below --images"
        elif strange:
            wrong = f"{strange[0][0]!r} holds a {type(strange[0][1]).__name__}; write a text"
        elif not all(row.text for row in found):
            wrong = f"no text under {columns.text!r}; write it, or take the line out"
        elif not all(is_unicode("".join((row.text, image, *attributes.values()))) for row in found):
            wrong = "half of a surrogate pair (\\ud800 to \\udfff); write the whole character"
        elif columns.split and found[0].split is None:
            wrong = f"{columns.split!r} is {split!r}; write train, valid or test"
        if wrong:
            errors.append(FileError(wrong, file=table.path, line=line))
        else:
            rows += found
    return rows


def _as_list(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) and cell else [cell if cell != [] else None]


def cell_text(value: Any) -> str:
    """Give a cell as text, none of NaN; tabs and line ends, which MUGE's files cannot have, become a space."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return re.sub(r"\s*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*", " ", str(value)).strip()
