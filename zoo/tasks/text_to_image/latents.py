"""Latents or codes of a split's images on disk: written once by ``data encode``, read by training. Knows no model."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UserError, invalid
from zoo.io import read_json, write_text

ARRAY, METADATA, PARTIAL = "train.npy", "latents.json", "train.partial.npy"


@dataclass(frozen=True)
class LatentMetadata:
    """What latents are of.

    Args:
        source: The split: its data set's name and digest.
        image_size: Side of the square images that were encoded, in pixels.
        image_tokenizer: The registered name of what encoded them.
        weights: The hash of its weights.
        flipped: Whether every image was also encoded flipped.
    """

    source: str
    image_size: int
    image_tokenizer: str
    weights: str
    flipped: bool


class Latents:
    """The latents of the training images, in file order; of an image tokenizer with a codebook, their codes.

    Args:
        folder: What ``data encode`` wrote.

    Attributes:
        metadata: What they are of.
        mean: ``[C]``, measured on all of them; of codes, which have none, ``[]``.
        std: ``[C]``, measured on all of them; likewise.
        are_codes: Whether they are codes.

    Raises:
        UserError: There are none, or they are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            metadata = read_json(folder / METADATA)
            self.mean, self.std = np.array(metadata.pop("mean")), np.array(metadata.pop("std"))
            self.metadata = LatentMetadata(**metadata)
            self.are_codes = self.array.dtype.kind == "i"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise invalid(
                "data.latents",
                folder,
                f"no latents can be read there ({error}). `python -m zoo data encode` writes them",
            ) from None

    @cached_property
    def array(self) -> np.ndarray:
        """Mapped: ``[N, V, C, h, w] float16``, or codes ``[N, V, h, w] int32``; V is 2 with flipped ones, else 1."""
        return np.load(self.folder / ARRAY, mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Without the map: a loader's worker opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "array"}


class LatentsWriter:
    """Writes latents bit by bit; what an interruption left is taken up again.

    Args:
        folder: Where to.
        metadata: What they are of; what was begun of anything else is begun anew.
        shape: Of all of them, ``[N, V, C, h, w]``, or of codes ``[N, V, h, w]``.
    """

    def __init__(self, folder: Path, metadata: LatentMetadata, shape: tuple[int, ...]) -> None:
        self.folder, self.metadata = folder, metadata
        self.partial, self.progress = folder / PARTIAL, folder / "progress.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._begun = {"metadata": asdict(metadata), "shape": list(shape)}
        self.done = self._done_before()
        if self.done == 0:
            self.progress.unlink(missing_ok=True)  # before its rows go
        kind = np.float16 if len(shape) == 5 else np.int32
        mode = "r+" if self.done else "w+"
        self.array = np.lib.format.open_memmap(self.partial, mode, kind, None if self.done else shape)

    def _done_before(self) -> int:
        """Rows that an interrupted run of the same wrote; what cannot be read was not begun."""
        try:
            stored = read_json(self.progress)
            done = stored.pop("done")
            written = np.load(self.partial, mmap_mode="r").shape
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0
        return done if stored == self._begun and list(written) == self._begun["shape"] else 0

    def write(self, latents: np.ndarray) -> None:
        """Add the next rows, ``[n, V, …]``."""
        self.array[self.done : self.done + len(latents)] = latents
        self.array.flush()
        self.done += len(latents)
        write_text(self.progress, json.dumps({**self._begun, "done": self.done}))

    def finish(self) -> None:
        """Measure mean and deviation of each channel of latents, and put everything in its place.

        Raises:
            UserError: A channel is the same everywhere, or not finite: nothing can be learnt of it.
        """
        assert self.done == len(self.array), "not all rows were written"
        mean, std = self._measure() if self.array.ndim == 5 else ([], [])
        (self.folder / METADATA).unlink(missing_ok=True)
        self.progress.unlink()
        self.partial.replace(self.folder / ARRAY)
        metadata = {**asdict(self.metadata), "mean": mean, "std": std}
        write_text(self.folder / METADATA, json.dumps(metadata, indent=2) + "\n")

    def _measure(self) -> tuple[list[float], list[float]]:
        count, total, squares = 0, np.zeros(self.array.shape[2]), np.zeros(self.array.shape[2])
        for start in range(0, len(self.array), 256):
            part = self.array[start : start + 256].astype(np.float64)
            count += part[:, :, 0].size
            total += part.sum(axis=(0, 1, 3, 4))
            squares += (part**2).sum(axis=(0, 1, 3, 4))
        mean = total / count
        variance = squares / count - mean**2
        if not (np.isfinite(variance) & (variance > 0)).all():
            raise UserError(
                f"{self.folder}: the latents' channels have variances {variance.tolist()}: no image tokenizer"
            )
        return mean.tolist(), np.sqrt(variance).tolist()
