"""Images on their way into MUGE's files: read, checked, re-encoded where need be, kept if interrupted; no torch."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data import images
from zoo.io import read_json, write_text

_READ_AHEAD = 4  # images a processor that wait or are being read: what memory holds of them
_KEPT_KINDS = ("JPEG", "MPO", "PNG")  # as Pillow calls them; MPO is a JPEG that has others behind it
_DRAWN_MODES = ("1", "P", "PA", "LA", "La", "RGBA", "RGBa")  # few colours or transparency: drawings more than photos


class Source(NamedTuple):
    """Where an image comes from."""

    key: str  # tells it from others
    stamp: str  # another one: the image has changed
    read: Callable[[], bytes]


class _Entry(NamedTuple):
    stamp: str
    digest: str
    start: int
    length: int


class ImageStore:
    """Images as they are to be written, in one file that an interruption leaves whole but for its last line.

    Args:
        folder: Where the file lies.
        metadata: What images are made of and how; what was begun of anything else is begun anew.
    """

    def __init__(self, folder: Path, metadata: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path, metadata_path = folder / "images.part", folder / "metadata.json"
        if _read(metadata_path) != metadata:
            path.unlink(missing_ok=True)
            write_text(metadata_path, json.dumps(metadata))
        self._entries: dict[str, _Entry] = {}
        self._by_digest: dict[str, _Entry] = {}
        self._file = path.open("a+b")
        self._file.truncate(self._scan())

    def __enter__(self) -> "ImageStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._entries)

    def holds(self, source: Source) -> bool:
        """Tell whether the image is there, as it is now."""
        entry = self._entries.get(source.key)
        return entry is not None and entry.stamp == source.stamp

    def digest(self, key: str) -> str:
        """Give the MD5 of the image's own file."""
        return self._entries[key].digest

    def add(self, source: Source, digest: str, data: bytes) -> None:
        """Keep an image."""
        header = json.dumps([source.key, source.stamp, digest]).encode()
        encoded = images.encode_base64(data)
        start = self._file.seek(0, os.SEEK_END) + len(header) + 1
        self._file.write(b"%s\t%s\n" % (header, encoded))
        self._file.flush()
        self._note(source.key, _Entry(source.stamp, digest, start, len(encoded)))

    def __getitem__(self, digest: str) -> bytes:
        """Give the image as it is to be written, by its digest."""
        entry = self._by_digest[digest]
        self._file.seek(entry.start)
        return images.decode_base64(self._file.read(entry.length))

    def _note(self, key: str, entry: _Entry) -> None:
        self._entries[key] = entry
        self._by_digest.setdefault(entry.digest, entry)

    def _scan(self) -> int:
        """Find what is there; gives the length of the whole lines."""
        position = 0
        self._file.seek(0)
        for line in self._file:
            header, _, encoded = line.partition(b"\t")
            try:
                key, stamp, digest = json.loads(header)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self._note(key, _Entry(stamp, digest, position + len(header) + 1, len(encoded) - 1))
            position += len(line)
        return position


def read_images(sources: Iterable[Source], store: ImageStore, *, max_size: int | None) -> Iterator[tuple[Source, str]]:
    """Bring images into the store, several at a time.

    Args:
        sources: The images; those that the store holds are passed over.
        store: Where to.
        max_size: The longest side allowed, in pixels; None: any.

    Yields:
        Each image once it is there, and what is wrong with it; an empty text where nothing is.
    """
    num_threads = os.cpu_count() or 1
    waiting: deque[tuple[Source, Future[tuple[str, bytes]] | None]] = deque()

    def finish() -> tuple[Source, str]:
        source, future = waiting.popleft()
        if future is None:
            return source, ""
        try:
            store.add(source, *future.result())
        except OSError as error:
            if future.exception() is None:  # the store's disk, not the image's
                raise
            return source, f"cannot be read ({error.strerror})"
        except Exception as error:  # whatever a decoder raises
            return source, str(error).rstrip(".")
        return source, ""

    with ThreadPoolExecutor(num_threads) as pool:
        for source in sources:
            future = None if store.holds(source) else pool.submit(_prepare_source, source, max_size)
            waiting.append((source, future))
            if len(waiting) >= _READ_AHEAD * num_threads:
                yield finish()
        while waiting:
            yield finish()


def prepare(data: bytes, max_size: int | None) -> bytes:
    """Prepare an image as it is to be written.

    Args:
        data: The file's bytes.
        max_size: The longest side allowed, in pixels; None: any.

    Returns:
        ``data`` itself, of a JPEG or PNG that is not too large. Else the image over white, upright and no larger: as
        PNG where it had a palette or transparency, which drawings have, as JPEG of quality 95 where it had not.

    Raises:
        ImageError: It cannot be decoded whole.
    """
    header = images.read_header(data)
    pixels = images.decode(data)  # all of it: an image that is cut short shows only so
    is_small = max_size is None or max(header.height, header.width) <= max_size
    if is_small and header.format in _KEPT_KINDS:
        return data
    from PIL import Image

    image = Image.fromarray(pixels)
    if not is_small and max_size is not None:
        image.thumbnail((max_size, max_size), Image.Resampling.BICUBIC)
    buffer = BytesIO()
    if header.mode in _DRAWN_MODES:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _read(path: Path) -> Any:
    """Read what was begun; None where nothing was, or where that cannot be read."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


def _prepare_source(source: Source, max_size: int | None) -> tuple[str, bytes]:
    data = source.read()
    return hashlib.md5(data, usedforsecurity=False).hexdigest(), prepare(data, max_size)
