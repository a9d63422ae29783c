"""Random access straight into a TSV of ids and base64 pictures, by byte offsets over the mapped file; no conversion.

The index (id and place of every line) is made by one pass that looks for line ends and first tabs only, and kept in the
cache folder, keyed by the file's path, size and time of change. Workers map the file and its index, and copy neither.
"""

import hashlib
import mmap
import os
import sys
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from zoo.data.faults import raise_or_list
from zoo.data.images import decode_base64
from zoo.errors import UserError
from zoo.io import atomic_write, cache_folder

_CHUNK = 1 << 24  # bytes read at once while indexing
_ANNOUNCED_SIZE = 1 << 29  # bytes from which indexing is announced: it takes a noticeable time
MAX_DIGITS = 18  # every such number fits int64
_INDEX_VERSION = 2
_INDEX_FIELDS = ("id", "line", "start", "length", "order", "sorted_id")


class ImageTsv:
    """The pictures of one TSV: ``tsv[row]`` is the encoded picture, ``tsv.ids[row]`` its id.

    Args:
        path: A file of lines of id, tab and base64, without header. Line ends may be CRLF and the last may be missing;
            a byte order mark is passed over.
        id_type: ``int`` for ``MR_*_imgs.tsv``, ``str`` for the files with md5 ids.
        faults: Where malformed and repeated lines are listed, which are left out; None: the first is an error.

    Raises:
        UserError: With file and line, if the file is not there or empty, a line has no tab or a wrong id, or an id
            comes twice.
    """

    def __init__(self, path: Path | str, id_type: type[int] | type[str] = int, faults: list[str] | None = None) -> None:
        self.path = Path(path).absolute()
        self.id_type: Literal["int", "str"] = "int" if id_type is int else "str"
        if not self.path.is_file():
            raise UserError(f"{str(path)!r} is {'a folder' if self.path.is_dir() else 'not there'}: give a .tsv file.")
        self._mapped: mmap.mmap | None = None
        self._index_path = _index_path(self.path, self.id_type)
        self._index = self._load_index(faults)

    @property
    def ids(self) -> np.ndarray:
        """``[N]`` ids in the order of the file: int64, or strings."""
        return np.asarray(self._index["id"])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> bytes:
        """The encoded picture (JPEG, PNG, …) of a row; ImageError if it is not base64.

        Who decodes the picture names file, line and id, of this error as of those of the pixels: :meth:`where`.
        """
        return decode_base64(self.base64(row))

    def base64(self, row: int) -> bytes:
        """The text of a row's picture, as it stands in the file."""
        entry = self._index[row]
        start, length = int(entry["start"]), int(entry["length"])
        return self._map()[start : start + length]

    def row_of(self, image_id: int | str) -> int:
        """The row of an id; UserError if the file does not have it."""
        return int(self.rows_of([image_id])[0])

    def rows_of(self, image_ids: ArrayLike) -> np.ndarray:
        """``[N]`` rows of N ids; UserError naming the first that the file does not have."""
        wanted = np.asarray(image_ids, dtype=None if np.size(image_ids) else self.ids.dtype)
        order, ids = self._index["order"], self._index["sorted_id"]
        places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        missing = np.flatnonzero(ids[places] != wanted)
        if missing.size:
            raise UserError(f"Picture {wanted[missing[0]]} is not in {str(self.path)!r} ({len(self)} pictures).")
        return order[places]

    def line_number(self, row: int) -> int:
        """The line of a row, from 1."""
        return int(self._index["line"][row])

    def where(self, row: int) -> str:
        """File, line and id of a row, as error messages begin: ``…/MR_valid_imgs.tsv:4: picture 77``."""
        return f"{self.path}:{self.line_number(row)}: picture {self.ids[row]}"

    def __getstate__(self) -> dict[str, Any]:
        """The path, and the index itself only where it could not be cached."""
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

    def _load_index(self, faults: list[str] | None) -> np.ndarray:
        """The index; cached where the file has no faults."""
        index = self._read_cached()
        if index is not None:
            return index
        found: list[str] | None = None if faults is None else []
        index = build_index(self.path, self.id_type, found)
        if faults is not None and found:
            faults += found
            return index
        with suppress(OSError):  # a cache folder that cannot be written: index again next time
            _write_cached(self._index_path, index)
        cached = self._read_cached()
        return index if cached is None else cached

    def _read_cached(self) -> np.ndarray | None:
        """The mapped index, or None if there is none or it does not fit the file."""
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
        """The encoded picture of a row."""
        part, own_row = self._find(row)
        return part[own_row]

    def where(self, row: int) -> str:
        """File, line and id of a row."""
        part, own_row = self._find(row)
        return part.where(own_row)

    def _find(self, row: int) -> tuple[ImageTsv, int]:
        place = int(np.searchsorted(self.ends, row, side="right"))
        return self.parts[place], row - int(self.ends[place - 1] if place else 0)


def build_index(path: Path, id_type: Literal["int", "str"], faults: list[str] | None = None) -> np.ndarray:
    """Find every line of a TSV.

    Args:
        path: The file.
        id_type: What the ids are.
        faults: Where malformed and repeated lines are listed, which are left out; None: the first is an error.

    Returns:
        A structured array, one entry a line in file order: ``id``; ``line``, its number; ``start`` and ``length`` of
        the base64 text, in bytes; and, by place in the order of the ids, ``sorted_id`` and ``order``, the row it is
        from.

    Raises:
        UserError: With file and line, if the file is empty, a line is malformed or an id comes twice.
    """
    size = path.stat().st_size
    if size >= _ANNOUNCED_SIZE:
        print(f"Indexing {path.name} ({size / 1e9:.1f} GB), once …", file=sys.stderr)
    ids, lines, starts, lengths = _scan(path, id_type, faults)
    if not ids:
        none = "is empty" if not faults else f"has no line that can be used ({faults[0]})"
        raise UserError(f"{str(path)!r} {none}; expected lines of an id, a tab and a base64 picture.")
    columns = [np.array(ids, dtype=np.int64 if id_type == "int" else None), *map(np.array, (lines, starts, lengths))]
    order = np.argsort(columns[0], kind="stable")
    repeated = _repeated(columns[0], order)
    for row, earlier in repeated:
        message = f"picture id {ids[row]} is already on line {lines[earlier]}; ids are unique."
        raise_or_list(UserError(f"{path}:{lines[row]}: {message}"), faults)
    if repeated:
        columns = [np.delete(column, [row for row, _ in repeated]) for column in columns]
        order = np.argsort(columns[0], kind="stable")
    columns += [order, columns[0][order]]
    fields = [(name, column.dtype) for name, column in zip(_INDEX_FIELDS, columns, strict=True)]
    index = np.empty(len(order), dtype=fields)
    for name, column in zip(_INDEX_FIELDS, columns, strict=True):
        index[name] = column
    return index


def _repeated(ids: np.ndarray, order: np.ndarray) -> list[tuple[int, int]]:
    """The rows whose id an earlier row has, rising, each with the last of those."""
    sorted_ids = ids[order]
    twice = np.flatnonzero(sorted_ids[1:] == sorted_ids[:-1])
    return sorted(zip(order[twice + 1].tolist(), order[twice].tolist(), strict=True))


def _scan(path: Path, id_type: str, faults: list[str] | None) -> tuple[list[Any], list[int], list[int], list[int]]:
    """Id, line, start and length of the base64 text of every line. ``bytes.find`` runs at the speed of memory."""
    ids: list[Any] = []
    lines: list[int] = []
    starts: list[int] = []
    lengths: list[int] = []
    number = 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        position = len(BOM_UTF8) if _read(file, 0, len(BOM_UTF8)) == BOM_UTF8 else 0  # of the first line not read yet
        chunk_size = _CHUNK
        while chunk := _read(file, position, chunk_size):
            at_end = position + len(chunk) >= size
            if at_end and not chunk.endswith(b"\n"):
                chunk += b"\n"
            begin = 0
            while (end := chunk.find(b"\n", begin)) >= 0:
                number += 1
                tab = chunk.find(b"\t", begin, end)
                stop = end - 1 if end > begin and chunk[end - 1] == 13 else end  # without the CR of a CRLF
                if at_end and stop == begin and not chunk[end + 1 :].strip():
                    return ids, lines, starts, lengths  # nothing but empty lines follows
                try:
                    ids.append(_parse_id(chunk[begin:tab] if tab >= 0 else None, id_type, f"{path}:{number}"))
                    lines.append(number)
                    starts.append(position + tab + 1)
                    lengths.append(stop - tab - 1)
                except UserError as fault:
                    raise_or_list(fault, faults)
                begin = end + 1
            position += begin
            chunk_size = _CHUNK if begin else chunk_size * 2  # a line longer than the chunk: read more of it
    return ids, lines, starts, lengths


def _read(file: Any, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _parse_id(token: bytes | None, id_type: str, where: str) -> int | str:
    if token is None:
        raise UserError(f"{where}: no tab; a line is an id, a tab and a base64 picture.")
    if id_type == "int":
        if not token.isdigit() or len(token) > MAX_DIGITS:
            raise UserError(f"{where}: picture id {token[:40]!r} is not an integer of 1 to {MAX_DIGITS} digits.")
        return int(token)
    try:
        text = token.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > 128:
        raise UserError(f"{where}: picture id {token[:40]!r} is not a text of 1 to 128 characters in UTF-8.")
    return text


def _index_path(path: Path, id_type: str) -> Path:
    """Where the index is cached; the name holds what it depends on, so that a changed file has another."""
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
