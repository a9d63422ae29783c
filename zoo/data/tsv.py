"""Random access straight into a TSV of ids and base64 images, by byte offsets over the mapped file; no conversion.

The index (id and position of every line) is made by one pass over the lines, which decodes no image, and kept in the
cache folder, keyed by the file's path, size and time of change. Workers map the file and its index, and copy neither.
"""

import hashlib
import mmap
import os
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from zoo.data.images import decode_base64
from zoo.data.lines import Kind, LineReader
from zoo.errors import FileError
from zoo.io import atomic_write, cache_folder, expanded

_ANNOUNCED_SIZE = 1 << 29  # bytes from which indexing is announced: it takes a noticeable time
_INDEX_VERSION = 2
_INDEX_FIELDS = ("id", "line", "start", "length", "order", "sorted_id")


class ImageTsv:
    """The images of one TSV: ``tsv[row]`` is the encoded image, ``tsv.ids[row]`` its id.

    Args:
        path: A file of lines of id, tab and base64, without header. Line ends may be CRLF and the last may be missing;
            a byte order mark and blank lines are passed over.
        id_type: ``int`` for ``MR_*_imgs.tsv``, ``str`` for the files with md5 ids.
        errors: Where malformed and repeated lines are listed, which are left out; None: the first is an error.

    Raises:
        UserError: With file and line, if the file is not there or empty, a line has no tab or a wrong id, or an id
            comes twice.
    """

    def __init__(
        self, path: Path | str, id_type: type[int] | type[str] = int, errors: list[FileError] | None = None
    ) -> None:
        self.path = Path(expanded(path)).absolute()
        self.id_type: Literal["int", "str"] = "int" if id_type is int else "str"
        if not self.path.is_file():
            raise FileError(
                f"is {'a folder' if self.path.is_dir() else 'not there'}; give a .tsv file",
                file=path,
                kind="missing_file",
            )
        self._mapped: mmap.mmap | None = None
        self._index_path = _index_path(self.path, self.id_type)
        self._index = self._load_index(errors)

    @property
    def ids(self) -> np.ndarray:
        """``[N]`` ids in the order of the file: int64, or strings."""
        return np.asarray(self._index["id"])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> bytes:
        """Give the encoded image (JPEG, PNG, …) of a row; ImageError if it is not base64.

        Who decodes the image names file, line and id, of this error as of those of the pixels: :meth:`error`.
        """
        return decode_base64(self.base64(row))

    def base64(self, row: int) -> bytes:
        """Give the text of a row's image, as it stands in the file."""
        entry = self._index[row]
        start, length = int(entry["start"]), int(entry["length"])
        return self._map()[start : start + length]

    def row_of(self, image_id: int | str) -> int:
        """Find the row of an id; UserError if the file does not have it."""
        return int(self.rows_of([image_id])[0])

    def rows_of(self, image_ids: ArrayLike) -> np.ndarray:
        """Find the ``[N]`` rows of N ids; UserError naming the first that the file does not have."""
        wanted = np.asarray(image_ids, dtype=None if np.size(image_ids) else self.ids.dtype)
        order, ids = self._index["order"], self._index["sorted_id"]
        indices = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        missing = np.flatnonzero(ids[indices] != wanted)
        if missing.size:
            lacks = wanted[missing[0]].item()
            raise FileError(
                f"is not among the {len(self)} images", file=self.path, id=lacks, noun="image", kind="dangling_id"
            )
        return order[indices]

    def line_number(self, row: int) -> int:
        """Give the line of a row, from 1."""
        return int(self._index["line"][row])

    def error(self, row: int, message: str, *, kind: Kind) -> FileError:
        """Give an error about a row; it names file, line and id.

        Args:
            row: The row.
            message: What is wrong, and the fix.
            kind: The kind, such as ``bad_image``.
        """
        image_id = self.ids[row].item()
        return FileError(message, file=self.path, line=self.line_number(row), id=image_id, noun="image", kind=kind)

    def __getstate__(self) -> dict[str, Any]:
        """Give the path, and the index itself only where it could not be cached."""
        kept = None if isinstance(self._index, np.memmap) else self._index
        return {**self.__dict__, "_mapped": None, "_index": kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._index is None:
            self._index = self._load_index(None)

    def _map(self) -> mmap.mmap:
        if self._mapped is None:
            with self.path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._mapped

    def _load_index(self, errors: list[FileError] | None) -> np.ndarray:
        """Make the index; cached where nothing is wrong with the file."""
        index = self._read_cached()
        if index is not None:
            return index
        found: list[FileError] | None = None if errors is None else []
        index = build_index(self.path, self.id_type, found)
        if errors is not None and found:
            errors += found
            return index
        with suppress(OSError):  # a cache folder that cannot be written: index again next time
            _write_cached(self._index_path, index)
        cached = self._read_cached()
        return index if cached is None else cached

    def _read_cached(self) -> np.ndarray | None:
        """Map the cached index, or give None if there is none or it does not fit the file."""
        try:
            index = np.load(self._index_path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return None
        if index.dtype.names != _INDEX_FIELDS or not len(index):
            return None
        data = self._map()
        for row in {0, len(index) // 2, len(index) - 1}:
            start, end = int(index["start"][row]), int(index["start"][row] + index["length"][row])
            token = str(index["id"][row]).encode() + b"\t"
            if data[max(0, start - len(token)) : start] != token or data[end : end + 1] not in (b"\r", b"\n", b""):
                return None
        return index


class JoinedTsv:
    """Several TSVs as one: the rows of the first, then those of the second, and so on.

    Args:
        parts: The TSVs.
    """

    def __init__(self, parts: Sequence[ImageTsv]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.ids = np.concatenate([part.ids for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> bytes:
        """Give the encoded image of a row."""
        part, own_row = self._find(row)
        return part[own_row]

    def error(self, row: int, message: str, *, kind: Kind) -> FileError:
        """Give an error about a row."""
        part, own_row = self._find(row)
        return part.error(own_row, message, kind=kind)

    def _find(self, row: int) -> tuple[ImageTsv, int]:
        index = int(np.searchsorted(self.ends, row, side="right"))
        return self.parts[index], row - int(self.ends[index - 1] if index else 0)


def build_index(path: Path, id_type: Literal["int", "str"], errors: list[FileError] | None = None) -> np.ndarray:
    """Find every line of a TSV.

    Args:
        path: The file.
        id_type: What the ids are.
        errors: Where malformed and repeated lines are listed, which are left out; None: the first is an error.

    Returns:
        A structured array, one entry a line in file order: ``id``; ``line``, its number; ``start`` and ``length`` of
        the base64 text, in bytes; and, by position in the order of the ids, ``sorted_id`` and ``order``, the row it is
        from.

    Raises:
        UserError: With file and line, if the file is empty, a line is malformed or an id comes twice.
    """
    size = path.stat().st_size
    if size >= _ANNOUNCED_SIZE:
        print(f"Indexing {path.name} ({size / 1e9:.1f} GB), once …", file=sys.stderr)
    reader = LineReader(path, noun="image", errors=errors)
    ids: list[Any] = []
    lines, starts, lengths = array("q"), array("q"), array("q")
    for line, image_id, start, encoded in reader.image_lines(int if id_type == "int" else str):
        if image_id is not None and reader.claim(line, image_id):
            ids.append(image_id)
            lines.append(line)
            starts.append(start)
            lengths.append(len(encoded))
    reader.require(ids)
    columns = [np.array(ids, dtype=np.int64 if id_type == "int" else None), *map(np.array, (lines, starts, lengths))]
    order = np.argsort(columns[0], kind="stable")
    columns += [order, columns[0][order]]
    fields = [(name, column.dtype) for name, column in zip(_INDEX_FIELDS, columns, strict=True)]
    index = np.empty(len(order), dtype=fields)
    for name, column in zip(_INDEX_FIELDS, columns, strict=True):
        index[name] = column
    return index


def _index_path(path: Path, id_type: str) -> Path:
    """Find where the index is cached; the name holds what it depends on, so that a changed file has another."""
    status = path.stat()
    name = hashlib.sha256(str(path).encode()).hexdigest()[:20]
    return cache_folder() / "tsv" / f"{name}-{id_type}-{_INDEX_VERSION}-{status.st_size}-{status.st_mtime_ns}.npy"


def _write_cached(path: Path, index: np.ndarray) -> None:
    """Write the index and remove those of earlier states of the same file."""
    with atomic_write(path) as temporary:
        np.save(temporary, index)
    stem = "-".join(path.name.split("-")[:2])
    for old in path.parent.glob(f"{stem}-*.npy"):
        if old != path:
            with suppress(OSError):
                os.unlink(old)
