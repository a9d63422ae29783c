"""One file under examination: its rows, held against other files later, and its images, decoded whole; no torch."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from zoo.data import images
from zoo.data.attributes import attributes_errors
from zoo.data.layouts import Layout
from zoo.data.lines import Id, ImageLine, Kind, LineReader, as_id
from zoo.errors import FileError

_CHUNK = 64  # images that a thread decodes at once
_READ_AHEAD = 8  # chunks that wait or are being decoded: what memory holds of the images

Broken = tuple[ImageLine, Kind, str]  # kind and message


class Row(NamedTuple):
    """What other lines and files are held against."""

    line: int
    id: Id | None
    text: bytes | None = None  # a digest; None where there is no text, or a label
    image_ids: tuple[Id, ...] = ()


class DataFile(LineReader):
    """A file under examination: its rows and its errors, empty before it is scanned.

    Args:
        path: The file.
        noun: What its ids stand for, such as ``query``.
        id_type: The type of its ids.
        on_read: Called with the number of bytes read, now and then.
    """

    def __init__(
        self, path: Path, *, noun: str, id_type: type[Id], on_read: Callable[[int], None] = lambda _: None
    ) -> None:
        self.listed: list[FileError] = []
        super().__init__(path, noun=noun, accepted=(), errors=self.listed, on_read=on_read)
        self.id_type = id_type
        self.on_texts: Callable[[tuple[str, ...]], None] = lambda _: None  # called with the texts of each line
        self.rows: list[Row] = []
        self.can_skip = True  # whether a training can leave out lines of it

    @property
    def num_fine(self) -> int:
        """Lines without any error but their end or a byte order mark, which every reader passes over."""
        wrong = {error.line for error in self.listed if error.line and error.kind not in ("crlf", "byte_order_mark")}
        return self.num_lines - len(wrong)

    @property
    def counts(self) -> dict[str, int]:
        """Errors by their kind; of ``crlf``, which is listed once, the lines."""
        counts = Counter(str(error.kind) for error in self.listed)
        if self.carriage_returns:
            counts["crlf"] = len(self.carriage_returns)
        return dict(sorted(counts.items()))

    def leave_out(self, line: int, id: Id | None) -> None:
        """Keep the id that an unreadable line tells: its image is not without a text."""
        id = as_id(id, self.id_type)
        if id is not None:
            self.claim(line, id)
        self.rows.append(Row(line, id))

    def scan_texts(self, layout: Layout, *, labelled: bool) -> None:
        """Read a file of texts.

        Args:
            layout: The layout that says what a line is.
            labelled: Whether texts must have their images, and images their texts.
        """
        for row in layout.rows(self, labelled=labelled):
            if self.path.suffix == ".tsv" and (tabs := "".join(row.texts).count("\t")):
                self.report("wrong_columns", f"{tabs + 1} tabs; write an id, one tab and a text", row.line, row.id)
            self.on_texts(row.texts)
            digest = None if layout.labels else _digest(row.texts)
            self.rows.append(Row(row.line, row.id, digest, row.image_ids))

    def scan_attributes(self) -> None:
        """Read a file of what images show."""
        self.can_skip = False
        for line, told, record in self.records():
            self.report_all(attributes_errors(record, self.id_type), line, told)
            id = as_id(told, self.id_type)
            if id is not None:
                self.claim(line, id)
            self.rows.append(Row(line, id))

    def scan_images(self, pool: Executor) -> None:
        """Read a file of images, and decode every one whole.

        Args:
            pool: Threads that decode (decoders let go of Python's lock).
        """
        encoded = self._encoded_images()
        waiting: deque[Future[list[Broken]]] = deque()
        while chunk := list(islice(encoded, _CHUNK)):
            waiting.append(pool.submit(_broken_images, chunk))
            if len(waiting) >= _READ_AHEAD:
                self._report_broken(waiting.popleft())
        while waiting:
            self._report_broken(waiting.popleft())

    def _encoded_images(self) -> Iterator[ImageLine]:
        for line in self.image_lines(self.id_type):
            if line.id is not None:
                self.claim(line.number, line.id)
            self.rows.append(Row(line.number, line.id))
            if tabs := line.encoded.count(b"\t"):
                message = f"{tabs + 1} tabs; write an id, one tab and a base64 image"
                self.report("wrong_columns", message, line.number, line.id)
            else:
                yield line

    def _report_broken(self, future: Future[list[Broken]]) -> None:
        for line, kind, message in future.result():
            self.report(kind, message, line.number, line.id)


def _broken_images(chunk: list[ImageLine]) -> list[Broken]:
    """Find what is wrong with each image that cannot be read."""
    broken: list[Broken] = []
    for line in chunk:
        kind: Kind = "bad_base64"
        try:
            data = images.decode_base64(line.encoded)
            kind = "bad_image"
            images.decode(data)
        except Exception as error:  # whatever a decoder raises would end a training too
            broken.append((line, kind, f"{str(error).rstrip('.')}; encode the image again, or take its rows out"))
    return broken


def _digest(texts: tuple[str, ...]) -> bytes | None:
    """Give what equal texts have in common, in any order; None where there is none."""
    words = sorted({text.strip() for text in texts if text.strip()})
    if not words:
        return None
    return hashlib.blake2b("\n".join(words).encode(errors="backslashreplace"), digest_size=16).digest()
