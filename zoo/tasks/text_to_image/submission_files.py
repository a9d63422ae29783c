"""A text-to-image submission, ``T2I_test.tsv``, anyone's: read in the gold's order, with every fault.

MUGE publishes no evaluator: the rules are those of its task page, one line of id, tab and base64 PNG or JPEG for every
description, and what a comparison of pictures needs: RGB, square, all of one size.
"""

import mmap
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from zoo.data import images
from zoo.data.faults import Fault
from zoo.errors import UserError
from zoo.tasks.text_to_image.contracts import GenerationGold, TextImageBatch

FORMATS = ("PNG", "JPEG")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
READ_AHEAD = 16  # pictures that wait for each thread


class Line(NamedTuple):
    """One line that has a tab."""

    number: int  # from 1
    image_id: str
    start: int  # of the base64 text, in bytes
    end: int


class T2ISubmission:
    """The pictures of a submission, and everything that is wrong with them.

    What lines, ids and the pictures' headers show is in ``faults`` at once; a picture that cannot be decoded is added
    when it is read, so the list is whole after ``pictures`` was read to its end, or after ``check``.

    Args:
        path: Lines of id, tab and base64 picture. Line ends may be CRLF and the last may be missing.
        gold: The descriptions that were drawn; a line is wanted for each.

    Raises:
        UserError: The file is not there.
    """

    def __init__(self, path: Path | str, gold: GenerationGold) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{str(path)!r} is {'a folder' if self.path.is_dir() else 'not there'}: give a .tsv file.")
        self.gold = gold
        self.row_of = {image_id: row for row, image_id in enumerate(gold.image_ids)}
        self._faults: dict[tuple[int, str], None] = {}  # by line and words, each once; 0: of no line
        self._data = map_file(self.path)
        lines = list(self._lines())
        first = self._match(lines)
        headers = {line: header for line in lines if (header := self._header(line)) is not None}
        self.image_size = most_common_side(headers.values())
        sound = [line for line, header in headers.items() if self._is_sound(line, header)]
        self._wanted = sorted(set(sound) & set(first), key=lambda line: self.row_of[line.image_id])
        self._others = sorted(set(headers) - set(self._wanted))  # read for their faults alone

    @property
    def faults(self) -> list[Fault]:
        """What is wrong, in the order of the lines; what concerns no line comes first."""
        return [
            Fault(f"{self.path}:{number}" if number else str(self.path), message)
            for number, message in sorted(self._faults, key=lambda fault: fault[0])
        ]

    def check(self) -> list[Fault]:
        """Decode every picture, and give all faults."""
        for _ in self.pictures():
            pass
        return self.faults

    def pictures(self, *, batch_size: int = 64, num_workers: int | None = None) -> Iterator[TextImageBatch]:
        """The pictures in the order of the gold's rows; those with faults are left out.

        Args:
            batch_size: Pictures of a batch.
            num_workers: Threads that decode; by default one a processor.

        Yields:
            Batches with ``image [B, 3, image_size, image_size] uint8``.
        """
        num_workers = num_workers or os.cpu_count() or 1
        waiting: list[tuple[int, np.ndarray]] = []  # row and pixels
        for line, pixels in self._decoded(self._wanted, num_workers):
            waiting.append((self.row_of[line.image_id], pixels))
            if len(waiting) == batch_size:
                yield self._batch(waiting)
                waiting = []
        if waiting:
            yield self._batch(waiting)
        for _ in self._decoded(self._others, num_workers):
            pass

    # --- lines and ids -----------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[Line]:
        """The lines that have a tab."""
        data, number, start = self._data, 0, 0
        if data[:3] == BYTE_ORDER_MARK:
            self._add(1, "begins with a byte order mark; save the file as UTF-8 without one")
            start = len(BYTE_ORDER_MARK)
        while start < len(data):
            number += 1
            newline = data.find(b"\n", start)
            end = len(data) if newline < 0 else newline
            tab = data.find(b"\t", start, end)
            if tab >= 0:
                image_id = data[start:tab].decode(errors="backslashreplace")
                yield Line(number, image_id, tab + 1, end)
            elif not data[start:end].strip():
                self._add(number, "is blank; remove it")
            else:
                begin = data[start : min(end, start + 40)]
                self._add(number, f"no tab after {begin!r}; a line is an id, a tab and a base64 picture")
            start = end + 1

    def _match(self, lines: list[Line]) -> list[Line]:
        """The first line of each id that is wanted; faults for the other lines and for the ids without one."""
        first: dict[str, Line] = {}
        for line in lines:
            if line.image_id not in self.row_of:
                self._add(line.number, f"picture {line.image_id}: no description of the {self.gold.split} split has it")
            elif first.setdefault(line.image_id, line) is not line:
                self._add(line.number, f"picture {line.image_id} is already on line {first[line.image_id].number}")
        if not len(self._data):
            self._add(0, f"is empty; {len(self.row_of)} lines of an id, a tab and a base64 picture are wanted")
            return []
        for image_id in self.row_of:
            if image_id not in first:
                self._add(0, f"picture {image_id} is missing")
        return list(first.values())

    # --- pictures ----------------------------------------------------------------------------------------------

    def _header(self, line: Line) -> images.Header | None:
        try:
            return images.read_header(self._encoded(line))
        except images.ImageError as error:
            self._add(line.number, f"picture {line.image_id}: {error}")
            return None

    def _is_sound(self, line: Line, header: images.Header) -> bool:
        """Whether a picture is of the right kind; a fault for each way in which it is not."""
        size, faults = f"{header.width} × {header.height} pixels", []
        if header.format not in FORMATS:
            faults.append(f"a {header.format}, not a {' or '.join(FORMATS)}")
        if header.mode != "RGB":
            faults.append(f"its mode is {header.mode}, not RGB")
        if header.height != header.width:
            faults.append(f"{size}, not square")
        elif header.width != self.image_size:
            faults.append(f"{size}; most of this file's pictures have {self.image_size} × {self.image_size}")
        for fault in faults:
            self._add(line.number, f"picture {line.image_id}: {fault}")
        return not faults

    def _decoded(self, lines: list[Line], num_workers: int) -> Iterator[tuple[Line, np.ndarray]]:
        """Pixels in the order of the lines, decoded ahead by threads (decoders let go of Python's lock)."""
        with ThreadPoolExecutor(num_workers) as pool:
            coming: deque[Future[np.ndarray]] = deque()
            for place, line in enumerate(lines):
                while place + len(coming) < len(lines) and len(coming) < READ_AHEAD * num_workers:
                    coming.append(pool.submit(self._decode, lines[place + len(coming)]))
                try:
                    yield line, coming.popleft().result()
                except images.ImageError as error:
                    self._add(line.number, f"picture {line.image_id}: {error}")

    def _decode(self, line: Line) -> np.ndarray:
        return images.decode(self._encoded(line))

    def _encoded(self, line: Line) -> bytes:
        return images.decode_base64(self._data[line.start : line.end])

    def _batch(self, pictures: list[tuple[int, np.ndarray]]) -> TextImageBatch:
        rows = [row for row, _ in pictures]
        return TextImageBatch(
            text=[self.gold.texts[row] for row in rows],
            image_id=[self.gold.image_ids[row] for row in rows],
            row=torch.tensor(rows),
            image=torch.from_numpy(np.stack([pixels for _, pixels in pictures])).permute(0, 3, 1, 2),
        )

    def _add(self, number: int, message: str) -> None:
        self._faults[number, message] = None


def map_file(path: Path) -> bytes | mmap.mmap:
    """A file's bytes, mapped; an empty file cannot be."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def most_common_side(headers: Iterable[images.Header]) -> int | None:
    """The side in pixels of most of the square pictures, the first of equals; None if there are none."""
    sides = Counter(header.width for header in headers if header.width == header.height)
    return sides.most_common(1)[0][0] if sides else None
