"""The one reader of every file in MUGE's formats: line by line, whatever is in them; no torch.

Who trains, converts or scores wants the first mistake raised; who checks wants all of them listed, and reading
continues behind each. Little is said of what follows from another mistake: a line whose JSON is cut short still tells
its id.
"""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zoo.data.json_values import KeyTwiceError, json_type, no_json, read_value, shown
from zoo.errors import FileError, raise_or_list
from zoo.io import expanded

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
    "duplicate_key",  # of one object: the later value would silently win
    "missing_key",
    "wrong_type",
    "empty_text",
    "wrong_count",  # of the images that a submission names for a query
    "repeated_image",  # in one line of a submission
    "bad_base64",
    "bad_image",  # cannot be decoded, or is cut short; in a submission also of a wrong format or size
    "duplicate_id",
    "unknown_id",  # of a line of a submission
    "dangling_id",  # a query names an image that is not there
    "no_image",  # of a query, a description or a caption
    "no_text",  # of an image
    "no_attributes",  # of an image, where the others have some
    "no_answer",
    "no_query",  # of an answer
    "no_prediction",
    "id_in_two_splits",
    "text_in_two_splits",
]
Found = Iterable[tuple[Kind, str]]  # with messages

HARMLESS: frozenset[Kind] = frozenset({"byte_order_mark", "crlf", "blank_line"})  # to all but a check
MAX_DIGITS = 18  # of an image's id: every such number fits int64
_REPORTED_BYTES = 1 << 20  # read between two reports of progress
_BUFFER = 1 << 20
_GB18030 = "the file is GB18030, nothing of it is read; save it as UTF-8"
_ID_IN_BROKEN_JSON = re.compile(r'"(?:query_id|text_id|image_id)"\s*:\s*(?:(-?\d{1,18})\b|"([^"\\]+)")')


class Line(NamedTuple):
    """One line that holds something."""

    number: int  # from 1
    start: int  # of its first byte in the file
    data: bytes  # without its end


class ImageLine(NamedTuple):
    """One line of an id, a tab and a base64 image."""

    number: int
    id: Id | None  # None: it is no id
    start: int  # of the base64 text in the file
    encoded: bytes


class LineReader:
    """A file's lines, and what is wrong with them.

    Args:
        path: The file.
        noun: What its ids stand for, such as ``query``.
        accepted: The kinds of mistakes that are none here.
        errors: Where mistakes are listed; None: the first is raised.
        as_text: Whether lines are those of Python's text files, which a CR ends too, without Unicode's outer spaces.
        on_read: Called with the number of bytes read, now and then.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        noun: str,
        accepted: Collection[Kind] = HARMLESS,
        errors: list[FileError] | None = None,
        as_text: bool = False,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.path = Path(expanded(path))
        self.noun = noun
        self.accepted = accepted
        self.errors = errors
        self.as_text = as_text
        self.on_read = on_read
        self.num_lines = 0
        self.first_lines: dict[Id, int] = {}  # by the ids that were claimed
        self.carriage_returns: list[int] = []  # the lines that end in CRLF
        self._decode = json.loads if "duplicate_key" in accepted else read_value

    # --- mistakes ----------------------------------------------------------------------------------------------

    def report(self, kind: Kind, message: str, line: int | None = None, id: Id | None = None) -> bool:
        """Raise or list a mistake, unless it is an accepted one.

        Args:
            kind: The kind, such as ``bad_base64``.
            message: What is wrong, and the fix.
            line: The line, from 1; None: the file as a whole.
            id: The id that the line is about, where it is known.

        Returns:
            Whether it is a mistake here.
        """
        if kind in self.accepted:
            return False
        message = message.encode(errors="backslashreplace").decode()  # half characters cannot be printed
        if isinstance(id, str):
            id = id.encode(errors="backslashreplace").decode()
        error = FileError(message, file=self.path, line=line, id=id, noun=self.noun, kind=kind)
        raise_or_list(error, self.errors)
        return True

    def report_all(self, found: Found, line: int, id: Id | None) -> bool:
        """Raise or list the mistakes of one line; says whether there are any."""
        return any([self.report(kind, message, line, id) for kind, message in found])

    def claim(self, line: int, id: Id) -> bool:
        """Note the line of an id; says whether it is the first, and reports it where it is not."""
        first = self.first_lines.setdefault(id, line)
        if first != line:
            message = f"the id is already on line {first}; ids are unique: take one of the lines out"
            self.report("duplicate_id", message, line, id)
        return first == line

    def require(self, rows: Sized) -> None:
        """Raise FileError where a file gave no rows at all, whether or not mistakes are listed."""
        if not rows:
            first = f" ({self.errors[0]})" if self.errors else ""
            message = f"has no line that can be used{first}; give the file of the data set"
            raise FileError(message, file=self.path, kind="empty_file")

    def leave_out(self, line: int, id: Id | None) -> None:
        """Hear of a line that cannot be read, and of the id that it tells nevertheless; here nobody listens."""

    # --- lines -------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[Line]:
        """Read the lines that hold something."""
        try:
            file = self.path.open("rb", buffering=_BUFFER)
        except OSError as error:
            self.report("missing_file", f"cannot be read: {error.strerror}; give a file that is there")
            return
        holds_something, unreported, start = False, 0, 0
        with file:
            parts = (part for line in file for part in line.splitlines(keepends=True)) if self.as_text else file
            for number, line in enumerate(parts, start=1):
                self.num_lines, unreported, begin = number, unreported + len(line), start
                start += len(line)
                if unreported >= _REPORTED_BYTES:
                    self.on_read(unreported)
                    unreported = 0
                if number == 1 and line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                    self.report("not_utf8", "the file is UTF-16, nothing of it is read; save it as UTF-8", 1)
                    return
                if number == 1 and line.startswith(BOM_UTF8):
                    message = "begins with a byte order mark; save the file as UTF-8 without one"
                    self.report("byte_order_mark", message, 1)
                    line, begin = line.removeprefix(BOM_UTF8), len(BOM_UTF8)
                if line.endswith(b"\r\n"):
                    self.carriage_returns.append(number)
                line = line.rstrip(b"\r\n")
                if line.strip():
                    holds_something = True
                    yield Line(number, begin, line)
                else:
                    self.report("blank_line", "is blank; take it out", number)
        self.on_read(unreported)
        if self.carriage_returns:
            many = f"{len(self.carriage_returns):,} of {self.num_lines:,} lines end in CRLF, this is the first"
            self.report("crlf", f"{many}; save the file with LF line ends", self.carriage_returns[0])
        if not holds_something:
            self.report("empty_file", "holds no rows; copy the file again")

    def records(self) -> Iterator[tuple[int, Id | None, dict[str, Any]]]:
        """Read the JSON objects: the line, the id as it stands there, and the object."""
        for place, (number, _, data) in enumerate(self.lines()):
            try:
                text = data.decode()
                record = self._decode(text.strip() if self.as_text else text)
            except (ValueError, RecursionError) as error:
                twice = isinstance(error, KeyTwiceError)
                if place == 0 and not twice and self._is_of_another_kind(number):
                    return
                id = _id_in_broken_json(data)
                if isinstance(error, UnicodeDecodeError):
                    self._report_bytes(error, number, id)
                    continue
                kind: Kind = "duplicate_key" if twice else "malformed_json"
                self.report(kind, no_json(error, "write one object on the line"), number, id)
                self.leave_out(number, id)
            else:
                if isinstance(record, dict):
                    yield number, _told_id(record), record
                    continue
                message = f"{shown(record)} is a JSON {json_type(record)}; write an object, {{…}}, with its keys"
                self.report("wrong_type", message, number)

    def columns(self) -> Iterator[tuple[int, str, str]]:
        """Read the lines of a TSV of texts: the line, its first column, and what is behind the first tab."""
        for place, (number, _, data) in enumerate(self.lines()):
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                if place == 0 and self._is_of_another_kind(number):
                    return
                self._report_bytes(error, number, _decoded(data.partition(b"\t")[0]) if b"\t" in data else None)
                continue
            token, tab, rest = text.partition("\t")
            if tab:
                yield number, token, rest
            else:
                self.report("wrong_columns", f"no tab in {shown(text)}; write an id, a tab and a text", number)

    def image_lines(self, id_type: type[Id]) -> Iterator[ImageLine]:
        """Read the lines of a TSV of images; an id that is none is reported, and given as None."""
        for number, start, data in self.lines():
            token, tab, encoded = data.partition(b"\t")
            if not tab:
                begin = shown(data[:40].decode(errors="backslashreplace"))
                self.report("wrong_columns", f"no tab after {begin}; write an id, a tab and a base64 image", number)
                continue
            wrong = self.report_all(token_errors(token, id_type), number, _decoded(token) or None)
            yield ImageLine(number, None if wrong else id_type(token.decode()), start + len(token) + 1, encoded)

    def _is_of_another_kind(self, line: int) -> bool:
        """Report, once for the whole file, that it is none of this format's; its first line cannot be read."""
        kind, found = _file_kind(self.path.read_bytes())
        return bool(found) and self.report(kind, found, line)

    def _report_bytes(self, error: UnicodeDecodeError, line: int, id: Id | None) -> None:
        found = f"byte 0x{error.object[error.start]:02x} at byte {error.start + 1}"
        self.report("not_utf8", f"{found} is not UTF-8; save the file as UTF-8", line, id)
        self.leave_out(line, id)


def token_errors(token: bytes, id_type: type[Id]) -> Found:
    """Find what is wrong with an id in a TSV."""
    if id_type is int and (not token.isdigit() or len(token) > MAX_DIGITS):
        yield "wrong_type", f"the id is no integer of 1 to {MAX_DIGITS} digits; write the number alone"
    if id_type is str:
        try:
            if not token or len(token.decode()) > 128:
                yield "wrong_type", "the id is no text of 1 to 128 characters; write the image's MD5"
        except UnicodeDecodeError:
            yield "not_utf8", "the id is not UTF-8; write the image's MD5"


def as_id(told: Id | None, id_type: type[Id]) -> Id | None:
    """Give an id as it is meant, whatever its type in the file; None where that is none."""
    if told is None or id_type is str:
        return None if told is None else str(told)
    if isinstance(told, str):
        return int(told) if told.isdecimal() and len(told) <= MAX_DIGITS else None
    return told


def _decoded(token: bytes) -> str:
    return token.decode(errors="backslashreplace")


def _file_kind(data: bytes) -> tuple[Kind, str]:
    """Tell what a file is whose first line cannot be read; the words are empty where that line alone is wrong."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        if 10 * data.count(0) > len(data):
            return "not_utf8", "the file is UTF-16, nothing of it is read; save it as UTF-8"
        return "not_utf8", _GB18030 if _is_gb18030(data) else ""
    except (ValueError, RecursionError):
        return "malformed_json", ""
    message = f"the file is one JSON {json_type(value)} over several lines, nothing of it is read"
    return "malformed_json", f"{message}; write one object on each line"


def _is_gb18030(data: bytes) -> bool:
    """Tell whether a text of several Chinese lines is GB18030: most are not UTF-8, as a short one may be by chance."""
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        return False
    chinese = [line for line in data.splitlines() if not line.isascii()]
    return len(chinese) > 1 and 2 * sum(map(is_utf8, chinese)) < len(chinese)


def is_utf8(data: bytes) -> bool:
    """Tell whether bytes are a text in UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _id_in_broken_json(data: bytes) -> Id | None:
    found = _ID_IN_BROKEN_JSON.search(data.decode(errors="replace"))
    return (int(found[1]) if found[1] else found[2]) if found else None


def _told_id(record: dict[str, Any]) -> Id | None:
    """Give the id that an object tells, of whatever type it should be."""
    told = next((record[key] for key in ("query_id", "text_id", "image_id") if key in record), None)
    return told if isinstance(told, int | str) and not isinstance(told, bool) else None
