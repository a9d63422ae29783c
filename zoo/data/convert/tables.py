"""Tables of images and texts as people have them: CSV, TSV, JSON lines, parquet; no torch.

Text files are UTF-8 (with or without a byte order mark) or UTF-16 with one; else they are read as GB18030, which is
noted. Parquet needs pyarrow, which is imported when such a table is opened.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zoo.data.json_values import json_type, no_json, read_value, shown
from zoo.data.lines import is_utf8
from zoo.errors import FileError, UserError
from zoo.io import expanded

Record = tuple[int, dict[str, Any]]  # line from 1, and the cells by column


class Table:
    """A table whose rows are read one after the other.

    Args:
        path: The file.

    Attributes:
        columns: What its columns are called.
        notes: What a user should know of how it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.notes: list[str] = []

    def records(self, columns: Sequence[str], errors: list[FileError]) -> Iterator[Record]:
        """Read line and cells of each row with something in these columns; rows that cannot be read become errors."""
        raise NotImplementedError

    def holds_images(self, column: str) -> bool:
        """Tell whether this column holds images themselves, not their paths."""
        return False

    def images(self, column: str) -> Iterator[tuple[int, bytes | None]]:
        """Read line and encoded image of each row, of a column that holds images; few are in memory at a time."""
        raise NotImplementedError


class DelimitedTable(Table):
    """CSV, quoted as spreadsheets do, or TSV, of which each line is a row and nothing is quoted."""

    def __init__(self, path: Path, *, is_tsv: bool) -> None:
        super().__init__(path)
        self._encoding = _encoding(path, self.notes)
        with path.open(encoding=self._encoding, newline="") as file:
            first = next((line for line in file if line.strip()), "")
        usual, others = ("\t", "") if is_tsv else (",;\t", "|，")
        delimiter = max(usual if any(map(first.count, usual)) else usual + others, key=first.count)
        self._read = partial(csv.reader, delimiter=delimiter, strict=True)
        if is_tsv:
            self._read = partial(csv.reader, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        csv.field_size_limit(1 << 24)  # characters of a cell
        self.columns = [name.strip() for name in next(self._lines(), (1, []))[1]]
        _check_columns(path, self.columns)
        if len(self.columns) == 1:
            separators = "tab" if is_tsv else "comma, semicolon or tab"
            raise UserError(
                f"--table {path} has one column, {shown(self.columns[0])}: there is no {separators} in its first line."
                f" Separate an image's path and its text by {'a tab' if is_tsv else 'a comma'}.",
                argument="--table",
                value=str(path),
                valid="two columns or more",
            )

    def records(self, columns: Sequence[str], errors: list[FileError]) -> Iterator[Record]:
        """Read the rows, each by the line it begins on; blank ones are passed over."""
        lines = self._lines()
        next(lines)
        for number, cells in lines:
            if len(cells) == len(self.columns):
                yield number, dict(zip(self.columns, cells, strict=True))
                continue
            message = (
                f"{len(cells)} cells under {len(self.columns)} columns; give each column one, in quotes if need be"
            )
            errors.append(FileError(message, file=self.path, line=number))

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Read line and cells of each row that holds something, that of the column names first."""
        with self.path.open(encoding=self._encoding, newline="") as file:
            reader = self._read(file)
            number = 1
            try:
                for cells in reader:
                    if any(cell.strip() for cell in cells):
                        yield number, cells
                    number = reader.line_num + 1
            except csv.Error as error:
                raise UserError(
                    f'{self.path}:{number}: {error}. Quote a cell as "…", and a quote in it twice.'
                ) from None


class JsonTable(Table):
    """JSON lines, an object a line, or an array of objects; a list of texts where an image has several."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._encoding = _encoding(path, self.notes)
        names: dict[str, None] = {}
        errors: list[FileError] = []
        for number, record in self.records((), errors):
            names |= dict.fromkeys(record)
            if number >= 1000:  # later lines bring no new columns
                break
        if errors and not names:
            raise errors[0]
        self.columns = list(names)
        _check_columns(path, self.columns)

    def records(self, columns: Sequence[str], errors: list[FileError]) -> Iterator[Record]:
        """Read the objects, each by the line it begins on; blank lines are passed over."""
        for number, record in self._values(errors):
            if isinstance(record, dict):
                yield number, record
            else:
                message = f"JSON, but a {json_type(record)}; write an object a line"
                errors.append(FileError(message, file=self.path, line=number))

    def _values(self, errors: list[FileError]) -> Iterator[tuple[int, Any]]:
        """Read the one JSON value that the file is, an array's elements each, or what every line holds."""
        with self.path.open(encoding=self._encoding, newline="\n") as file:
            text = file.read()
        try:
            value = read_value(text)
        except (ValueError, RecursionError) as error:
            if text.lstrip().startswith("[") and not _is_json(text.lstrip().partition("\n")[0]):
                place = error.lineno if isinstance(error, json.JSONDecodeError) else 1
                raise FileError(no_json(error, "write an array of objects"), file=self.path, line=place) from None
        else:
            yield from _elements(text) if isinstance(value, list) else [(1, value)]
            return
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                if line.strip():
                    yield number, read_value(line)
            except (ValueError, RecursionError) as error:
                errors.append(FileError(no_json(error, "write an object a line"), file=self.path, line=number))


class ParquetTable(Table):
    """Parquet: paths of images, or images themselves as Hugging Face's data sets have them (bytes and path)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            from pyarrow import lib, parquet
        except ImportError:
            raise UserError(
                f"--table {path} is parquet, which needs pyarrow: pip install pyarrow",
                argument="--table",
                value=str(path),
            ) from None
        try:
            self._file = parquet.ParquetFile(path)
        except (lib.ArrowException, OSError) as error:
            raise UserError(
                f"--table {path} cannot be read as parquet: {error}", argument="--table", value=str(path)
            ) from None
        self._fields = {field.name: field for field in self._file.schema_arrow}
        self.columns = list(self._fields)
        _check_columns(path, self.columns)

    def records(self, columns: Sequence[str], errors: list[FileError]) -> Iterator[Record]:
        """Read the rows, counted from 1; of images only their paths are read."""
        wanted = [f"{name}.path" if self._is_struct(name) else name for name in columns if not self._is_plain(name)]
        number = 0
        for batch in self._file.iter_batches(batch_size=4096, columns=wanted):
            for record in batch.to_pylist():
                number += 1
                paths = {name: (record[name] or {}).get("path") for name in columns if self._is_struct(name)}
                yield number, {**record, **paths}

    def holds_images(self, column: str) -> bool:
        """Tell whether the column is of bytes, alone or beside a path."""
        return self._is_plain(column) or self._is_struct(column)

    def images(self, column: str) -> Iterator[tuple[int, bytes | None]]:
        """Read row, from 1, and encoded image."""
        number = 0
        wanted = f"{column}.bytes" if self._is_struct(column) else column
        for batch in self._file.iter_batches(batch_size=16, columns=[wanted]):
            for cell in batch.column(0).to_pylist():
                number += 1
                yield number, cell["bytes"] if isinstance(cell, dict) else cell

    def _is_plain(self, column: str) -> bool:
        return str(self._fields[column].type) in ("binary", "large_binary")

    def _is_struct(self, column: str) -> bool:
        return str(self._fields[column].type).startswith("struct<bytes: ")


def open_table(path: Path | str) -> Table:
    """Open a table by the end of its name.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file.

    Raises:
        UserError: It is not there, of another kind, empty, or its encoding or header cannot be read.
    """
    path = Path(expanded(path))
    if not path.is_file():
        raise UserError(
            f"--table {path} is {'a folder' if path.is_dir() else 'not there'}: give a file.",
            argument="--table",
            value=str(path),
            valid="a file",
        )
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return DelimitedTable(path, is_tsv=suffix == ".tsv")
    if suffix in (".jsonl", ".ndjson"):
        return JsonTable(path)
    if suffix in (".parquet", ".pq"):
        return ParquetTable(path)
    raise UserError(
        f"--table {path} ends in {suffix or 'nothing'!r}: give .csv, .tsv, .jsonl or .parquet.",
        argument="--table",
        value=str(path),
        valid=(".csv", ".tsv", ".jsonl", ".parquet"),
    )


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not columns or columns == [""]:
        raise UserError(
            f"--table {path} is empty: give a table with a line of column names, and rows.",
            argument="--table",
            value=str(path),
        )
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise UserError(
            f"--table {path} has two columns called {twice!r}: give each a name of its own.",
            argument="--table",
            value=str(path),
        )


def _elements(text: str) -> Iterator[tuple[int, Any]]:
    """Read line and value of each element of a JSON array."""
    decoder, line, counted = json.JSONDecoder(), 1, 0
    place = text.index("[") + 1
    while text[place := re.compile(r"[\s,]*").match(text, place).end()] != "]":  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, place), place
        value, place = decoder.raw_decode(text, place)
        yield line, value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _encoding(path: Path, notes: list[str]) -> str:
    """Find how a text file is encoded, by reading all of it."""
    with path.open("rb") as file:
        begin = file.read(2)
    if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        notes.append(f"{path} is read as UTF-16, as its first bytes say.")
        return "utf-16"
    wrong = _first_error(path, "utf-8-sig")
    if not wrong:
        return "utf-8-sig"
    if _first_error(path, "gb18030") or _is_mostly_utf8(path):
        raise UserError(
            f"--table {path} is neither UTF-8 ({wrong}) nor GB18030: save it as UTF-8.",
            argument="--table",
            value=str(path),
            valid=("UTF-8", "GB18030"),
        )
    notes.append(f"{path} is not UTF-8 and is read as GB18030: see whether its texts come out right.")
    return "gb18030"


def _is_mostly_utf8(path: Path) -> bool:
    """Tell whether half of the lines with Chinese are UTF-8: with a broken byte they may be GB18030 too, gibberish."""
    with path.open("rb") as file:
        are_utf8 = [is_utf8(line) for line in file if not line.isascii()]
    return 2 * sum(are_utf8) >= len(are_utf8)


def _first_error(path: Path, encoding: str) -> str:
    decoder = codecs.getincrementaldecoder(encoding)()
    position = 0
    with path.open("rb") as file:
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
                position += len(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return f"{error.reason} near byte {position + error.start}"
    return ""
