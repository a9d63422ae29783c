"""A text-to-image submission, ``T2I_test.tsv``, anyone's: read in the targets's order, with every error.

MUGE publishes no evaluator: the rules are those of its task page, one line of id, tab and base64 PNG or JPEG for every
prompt, and what a comparison of images needs: RGB, square, all of one size.
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
from zoo.data.lines import Kind, LineReader
from zoo.errors import FileError
from zoo.tasks.text_to_image.contracts import GenerationTargets, TextImageBatch

FORMATS = ("PNG", "JPEG")
ACCEPTED: tuple[Kind, ...] = ("crlf",)
READ_AHEAD = 16  # images that wait for each thread


class Line(NamedTuple):
    """One line that has a tab."""

    number: int  # from 1
    image_id: str
    start: int  # of the base64 text, in bytes
    end: int


class T2ISubmission:
    """The images of a submission, and everything that is wrong with them.

    What lines, ids and the images' headers show is in ``errors`` at once; an image that cannot be decoded is added
    when it is read, so the list is whole after ``batches`` was read to its end, or after ``check``.

    Args:
        path: Lines of id, tab and base64 image. Line ends may be CRLF and the last may be missing.
        targets: The prompts that were generated; a line is wanted for each.

    Raises:
        FileError: The file is not there.
    """

    def __init__(self, path: Path | str, targets: GenerationTargets) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            message = f"is {'a folder' if self.path.is_dir() else 'not there'}; give a .tsv file"
            raise FileError(message, file=path, kind="missing_file")
        self.targets = targets
        self.row_of = {image_id: row for row, image_id in enumerate(targets.image_ids)}
        self._errors: list[FileError] = []
        self._reader = LineReader(self.path, noun="image", accepted=ACCEPTED, errors=self._errors)
        self._data = map_file(self.path)
        lines = [
            Line(line.number, line.id, line.start, line.start + len(line.encoded))
            for line in self._reader.image_lines(str)
            if isinstance(line.id, str)
        ]
        first = self._match(lines)
        headers = {line: header for line in lines if (header := self._header(line)) is not None}
        self.image_size = most_common_side(headers.values())
        sound = [line for line, header in headers.items() if self._is_sound(line, header)]
        self._wanted = sorted(set(sound) & set(first), key=lambda line: self.row_of[line.image_id])
        self._others = sorted(set(headers) - set(self._wanted))  # read for their errors alone

    @property
    def errors(self) -> list[FileError]:
        """What is wrong, each thing once, in the order of the lines; what concerns no line comes first."""
        once = {str(error): error for error in self._errors}
        return sorted(once.values(), key=lambda error: error.line or 0)

    def check(self) -> list[FileError]:
        """Decode every image, and give all errors."""
        for _ in self.batches():
            pass
        return self.errors

    def batches(self, *, batch_size: int = 64, num_workers: int | None = None) -> Iterator[TextImageBatch]:
        """The images in the order of the targets's rows; those with errors are left out.

        Args:
            batch_size: Images of a batch.
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

    def _match(self, lines: list[Line]) -> list[Line]:
        """The first line of each id that is wanted; errors for the other lines and for the ids without one."""
        first = []
        for line in lines:
            if line.image_id not in self.row_of:
                self._report("unknown_id", f"no prompt of the {self.targets.split} split has this id", line)
            elif self._reader.claim(line.number, line.image_id):
                first.append(line)
        if not lines:  # the file's own errors tell why
            return []
        for image_id in self.row_of:
            if image_id not in self._reader.first_lines:
                self._reader.report("no_prediction", "is missing; add a line for it", id=image_id)
        return first

    # --- images ----------------------------------------------------------------------------------------------

    def _header(self, line: Line) -> images.Header | None:
        if tabs := self._data[line.start : line.end].count(b"\t"):
            self._report("wrong_columns", f"{tabs + 1} tabs; write an id, one tab and a base64 image", line)
            return None
        try:
            return images.read_header(self._encoded(line))
        except images.ImageError as error:
            self._report("bad_image", str(error), line)
            return None

    def _is_sound(self, line: Line, header: images.Header) -> bool:
        """Whether an image is of the right kind; an error for each way in which it is not."""
        size, errors = f"{header.width} × {header.height} pixels", list[str]()
        if header.format not in FORMATS:
            errors.append(f"a {header.format}, not a {' or '.join(FORMATS)}")
        if header.mode != "RGB":
            errors.append(f"its mode is {header.mode}, not RGB")
        if header.height != header.width:
            errors.append(f"{size}, not square")
        elif header.width != self.image_size:
            errors.append(f"{size}; most of this file's images have {self.image_size} × {self.image_size}")
        for error in errors:
            self._report("bad_image", error, line)
        return not errors

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
                    self._report("bad_image", str(error), line)

    def _decode(self, line: Line) -> np.ndarray:
        return images.decode(self._encoded(line))

    def _encoded(self, line: Line) -> bytes:
        return images.decode_base64(self._data[line.start : line.end])

    def _batch(self, decoded: list[tuple[int, np.ndarray]]) -> TextImageBatch:
        rows = [row for row, _ in decoded]
        return TextImageBatch(
            text=[self.targets.texts[row] for row in rows],
            image_id=[self.targets.image_ids[row] for row in rows],
            row=torch.tensor(rows),
            image=torch.from_numpy(np.stack([pixels for _, pixels in decoded])).permute(0, 3, 1, 2),
        )

    def _report(self, kind: Kind, message: str, line: Line) -> None:
        self._reader.report(kind, message, line.number, line.image_id)


def map_file(path: Path) -> bytes | mmap.mmap:
    """A file's bytes, mapped; an empty file cannot be."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def most_common_side(headers: Iterable[images.Header]) -> int | None:
    """The side in pixels of most of the square images, the first of equals; None if there are none."""
    sides = Counter(header.width for header in headers if header.width == header.height)
    return sides.most_common(1)[0][0] if sides else None
