"""What the parts of the text-to-image task hand each other: batches, a split's prompts, a generator, its data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from torch import Tensor

from zoo.data.attributes import Shown


class TextImageBatch(TypedDict):
    """One batch of text to image: B prompts, with their images where the split has them."""

    text: list[str]  # B prompts
    image_id: list[str]  # B ids
    row: Tensor  # [B] int64, the prompt's place among the split's, in file order
    image: NotRequired[Tensor]  # [B, 3, S, S] uint8, RGB
    latent: NotRequired[Tensor]  # [B, C, h, w] float32: what an image tokenizer made of the image, instead of it
    codes: NotRequired[Tensor]  # [B, h, w] int64: what an image tokenizer with a codebook made of it
    flip: NotRequired[Tensor]  # [B] bool, drawn by the worker, flipped and taken out on the device


@runtime_checkable
class Generator(Protocol):
    """A text-to-image generator, an ``nn.Module``. It owns its text encoder, its noise and its pixel range.

    ``generate`` may take further keywords, which say how to sample; ``sampling``, a dictionary, says how by default.
    """

    image_size: int  # the square side in pixels of what it generates and learns from

    def loss(self, batch: TextImageBatch) -> dict[str, Tensor]:
        """What training lowers: ``loss``, and whatever else is to be logged, scalars; draws from torch's own noise."""

    def generate(self, texts: list[str], *, seeds: list[int]) -> Tensor:
        """Generate an image of each of B texts, ``[B, 3, S, S] uint8``, a function of its text and its seed alone."""


class ImageRows(Protocol):
    """An opened split, as its data sets read it: one image a row."""

    def __len__(self) -> int: ...

    def need_images(self) -> Any:
        """See that there are images; raise UserError where there are none."""

    def image(self, row: int) -> np.ndarray:
        """Read one image as ``[H, W, 3] uint8`` RGB."""

    def batch(self, rows: Sequence[int]) -> Any:
        """Make a batch of some rows, without their images: a dictionary."""


@dataclass(frozen=True)
class GenerationTargets:
    """What generated images are held against: a split's prompts in file order; a row is a place among them."""

    split: str
    source: str  # the data set: its folder's name and a hash of its ids, prompts and encoded images
    image_ids: list[str]
    texts: list[str]  # one an image; none where images have no prompts of their own
    rows: list[int]  # the rows that an evaluation generates images of, in file order: all, or some spread evenly
    has_images: bool  # MUGE's test split has none
    shown: Shown | None = None  # what each image shows, where the folder says it


@runtime_checkable
class GenerationData(Protocol):
    """What the text-to-image callbacks ask of a data module beside its batches."""

    image_size: int
    predict_split: str
    skip_rows: set[int]  # rows of ``predict_split`` that ``predict`` leaves out: they are generated already

    def targets(self, split: str) -> GenerationTargets:
        """The prompts of a split, and which of them an evaluation generates images of."""

    def evaluated_splits(self, split: str) -> list[str]:
        """Whose prompts an evaluation of ``valid`` or ``test`` is generated from, a loader each: its own first."""

    def image(self, split: str, row: int) -> np.ndarray:
        """One true image as ``[H, W, 3] uint8`` RGB."""

    def images_loader(self, split: str) -> Iterable[TextImageBatch]:
        """All images of a split, this process's share, in batches in file order and at ``image_size``."""
