"""What the parts of the captioning task hand each other: batches, a split's references, a captioner, its data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from torch import Tensor


class CaptionBatch(TypedDict):
    """One batch of captioning: B images and, where the split has them, C references of theirs."""

    image: NotRequired[Tensor]  # [B, 3, H, W] uint8, RGB; every loader gives it
    image_id: list[str]  # B ids
    row: Tensor  # [B] int64, the image's index among the split's, in file order
    text: NotRequired[list[str]]  # C references to learn from: those of the first image, then of the second, …
    image_index: NotRequired[Tensor]  # [C] int64, index in the batch of the image that each is of, rising
    flip: NotRequired[Tensor]  # [B] bool, chosen by the worker, flipped and taken out on the device


@runtime_checkable
class Captioner(Protocol):
    """A writer of captions, an ``nn.Module``. It owns its image tower, its vocabulary and how it decodes."""

    image_size: int  # the square side in pixels of what it reads
    end_token: int  # closes every whole caption
    decoding: Any  # how captions are written by default: a ``zoo.tasks.captioning.captioners.decoding.Decoding``

    def encode(self, images: Tensor) -> Tensor:
        """Encode images ``[B, 3, S, S] uint8`` for the language side: ``[B, N, width]``."""

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Turn captions into ids ``[B, T] int64``, start and end token included, and a mask ``[B, T] bool``.

        It is true where a token is to be learnt: padding is not, nor what the captioner never writes. Both are on the
        CPU: what is to be learnt is chosen there, and no GPU is waited for.
        """

    def losses(self, encoded: Tensor, ids: Tensor, places: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Compute the cross-entropies of some tokens, given their images and the tokens before them.

        Args:
            encoded: ``[B, N, width]``, as of ``encode``.
            ids: ``[B, T] int64``, start token included.
            places: ``[M] int64``, indices of ``ids[:, 1:]``, flattened, where the mask of ``tokenize`` is true.
            label_smoothing: As of ``zoo.tasks.captioning.loss.token_losses``.

        Returns:
            ``[M] float32``, nats.
        """

    def write(self, encoded: Tensor, decoding: Any = None) -> list[str]:
        """Write a caption of each of B images, a function of the weights and its image alone."""

    def sample(self, encoded: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Sample ``count`` captions of each of B images, ids and mask ``[B * count, T]``, where the weights are."""

    def spell(self, ids: Tensor) -> list[str]:
        """Turn ids ``[B, T]`` into texts, up to the end token."""


@dataclass(frozen=True)
class CaptionTargets:
    """What captions are held against: a split's images in file order; a row is an index among them."""

    split: str
    source: str  # the data set: its folder's name and a hash of its ids, references and encoded images
    image_ids: list[str]
    references: list[tuple[str, ...]] | None  # of each image, one or more; None where the split has none
    rows: list[int]  # the rows that an evaluation writes a caption for, in file order
    max_references: int | None = None  # the most that are used of an image, the first ones; None: all


@runtime_checkable
class CaptionData(Protocol):
    """What the captioning callbacks ask of a data module beside its batches."""

    image_size: int
    predict_split: str

    def targets(self, split: str) -> CaptionTargets:
        """Give the images of a split and their references."""

    def image(self, split: str, row: int) -> np.ndarray:
        """Decode one image: ``[H, W, 3] uint8`` RGB."""

    def images_loader(self, split: str) -> Iterable[CaptionBatch]:
        """Load all images of a split, this process's share, in batches in file order and at ``image_size``."""
