"""The lines of one file under examination, read one at a time, whatever is in them; no torch.

Readers elsewhere stop at the first fault. This one goes on behind each, and says as little as can be of what follows
from it: a line whose JSON is cut short still tells its id, so that its picture is not said to be without a text.
"""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zoo.data.faults import Fault
from zoo.data.tsv import MAX_DIGITS

Id = int | str
Kind = Literal[
    "missing_file",
    "empty_file",
    "not_utf8",
    "byte_order_mark",
    "crlf",  # once a file, at its first such line
    "blank_line",
    "wrong_columns",  # no tab, or more than one
    "malformed_json",
    "missing_key",
    "wrong_type",
    "empty_text",
    "bad_base64",
    "bad_picture",  # cannot be decoded, or is cut short
    "duplicate_id",
    "dangling_id",  # a query names a picture that is not there
    "no_picture",  # of a query, a description or a caption
    "no_text",  # of a picture
    "no_answer",
    "no_query",  # of an answer
    "id_in_two_splits",
    "text_in_two_splits",
]
Found = Iterable[tuple[Kind, str]]  # with messages

_REPORTED_BYTES = 1 << 20  # read between two reports of progress
_ID_IN_BROKEN_JSON = re.compile(r'"(?:query_id|text_id|image_id)"\s*:\s*(?:(-?\d{1,18})\b|"([^"\\]+)")')


@dataclass(frozen=True)
class DataFault(Fault):
    """A fault of a file of data."""

    file: str
    line: int | None  # from 1; None: the file as a whole
    id: Id | None  # the query's or picture's, where the line tells it
    kind: Kind


class Row(NamedTuple):
    """What other lines and files are held against."""

    line: int
    id: Id | None
    text: bytes | None = None  # a digest; None where there is no text
    items: tuple[int, ...] = ()  # a query's pictures


class DataFile:
    """A file under examination: its rows and its faults, empty before it is scanned.

    Args:
        path: The file.
        noun: What its ids stand for, such as ``query``.
        on_read: Called with the number of bytes read, now and then.
    """

    def __init__(self, path: Path, *, noun: str, on_read: Callable[[int], None] = lambda _: None) -> None:
        self.path = path
        self.noun = noun
        self.on_read = on_read
        self.rows: list[Row] = []
        self.faults: list[DataFault] = []
        self.num_lines = 0
        self._carriage_returns: list[int] = []  # the lines that end in them
        self._faulty: set[int] = set()

    @cached_property
    def first_lines(self) -> dict[Id, int]:
        """The first line of each id; to be read after the scan."""
        return {row.id: row.line for row in reversed(self.rows) if row.id is not None}

    @property
    def num_fine(self) -> int:
        """Lines without any fault."""
        return self.num_lines - len(self._faulty.union(self._carriage_returns))

    @property
    def counts(self) -> dict[str, int]:
        """Faults by their kind; of ``crlf``, which is told once, the lines."""
        counts = Counter[str](fault.kind for fault in self.faults)
        if self._carriage_returns:
            counts["crlf"] = len(self._carriage_returns)
        return dict(sorted(counts.items()))

    def add(self, kind: Kind, message: str, line: int | None = None, identity: Id | None = None) -> None:
        """Note a fault.

        Args:
            kind: What it is called, such as ``bad_base64``.
            message: What is wrong, and the fix.
            line: From 1; None: the file as a whole.
            identity: The query's or picture's id, where it is known.
        """
        place = str(self.path) if line is None else f"{self.path}:{line}"
        message = message if identity is None else f"{self.noun} {identity}: {message}"
        message = message.encode(errors="backslashreplace").decode()  # half characters cannot be printed
        self.faults.append(DataFault(place, message, file=str(self.path), line=line, id=identity, kind=kind))
        if line is not None:
            self._faulty.add(line)

    def add_all(self, found: Found, line: int, identity: Id | None) -> None:
        """Note faults of one line."""
        for kind, message in found:
            self.add(kind, message, line, identity)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each line that holds something, without its end; faults of the file's form are noted."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            self.add("missing_file", f"cannot be read ({error.strerror}); MUGE's folder has it: copy it here")
            return
        holds_something, unreported = False, 0
        with file:
            for number, line in enumerate(file, start=1):
                self.num_lines, unreported = number, unreported + len(line)
                if unreported >= _REPORTED_BYTES:
                    self.on_read(unreported)
                    unreported = 0
                if number == 1 and line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                    self.add("not_utf8", "the file is UTF-16, nothing of it is read; save it as UTF-8", 1)
                    return
                if number == 1 and line.startswith(BOM_UTF8):
                    self.add("byte_order_mark", "begins with a byte order mark; save the file as UTF-8 without one", 1)
                    line = line.removeprefix(BOM_UTF8)
                if line.endswith(b"\r\n"):
                    self._carriage_returns.append(number)
                line = line.rstrip(b"\r\n")
                if line.strip():
                    holds_something = True
                    yield number, line
                else:
                    self.add("blank_line", "is blank; take it out", number)
        self.on_read(unreported)
        if self._carriage_returns:
            many = f"{len(self._carriage_returns):,} of {self.num_lines:,} lines end in CRLF, this is the first"
            self.add("crlf", f"{many}; save the file with LF line ends", self._carriage_returns[0])
        if not holds_something:
            self.add("empty_file", "holds no rows; copy the file again")

    def texts(self) -> Iterator[tuple[int, str, str | None]]:
        """Number and text of each line, and what is wrong with its encoding; its bad bytes become U+FFFD."""
        for number, line in self.lines():
            try:
                yield number, line.decode(), None
            except UnicodeDecodeError as error:
                wrong = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} is not UTF-8; save the file as UTF-8"
                yield number, line.decode(errors="replace"), wrong

    def records(self, id_type: type[Id]) -> Iterator[tuple[Row, Id | None, dict[str, Any]]]:
        """A row with line and id, the id as it stands there, and the object, of each line that holds one.

        A line that is none becomes a row as far as its id can be told.
        """
        for number, text, wrong in self.texts():
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                found = _ID_IN_BROKEN_JSON.search(text)
                identity: Id | None = (int(found[1]) if found[1] else found[2]) if found else None
                message = wrong or f"not JSON ({error}); write one object on the line"
                self.add("not_utf8" if wrong else "malformed_json", message, number, identity)
                self.rows.append(Row(number, _as_id(identity, id_type)))
                continue
            identity = _told_id(record) if isinstance(record, dict) else None
            if wrong:
                self.add("not_utf8", wrong, number, identity)
            if isinstance(record, dict):
                yield Row(number, _as_id(identity, id_type)), identity, record
            else:
                self.add("wrong_type", f"{shown(record)} is JSON but no object; write {{…}} with its keys", number)


def shown(value: Any, limit: int = 60) -> str:
    """A value as it stands in JSON, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _told_id(record: dict[str, Any]) -> Id | None:
    """The id that an object tells, of whatever type it should be."""
    told = next((record[key] for key in ("query_id", "text_id", "image_id") if key in record), None)
    return told if isinstance(told, int | str) and not isinstance(told, bool) else None


def _as_id(identity: Id | None, id_type: type[Id]) -> Id | None:
    """An id as it is meant, whatever its type."""
    if identity is None or id_type is str:
        return None if identity is None else str(identity)
    if isinstance(identity, str):
        return int(identity) if identity.isdecimal() and len(identity) <= MAX_DIGITS else None
    return identity
