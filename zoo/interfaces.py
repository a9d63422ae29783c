"""The vocabulary of the zoo: what the rooms hand each other. Shapes: B batch, D embedding, H×W pixels, N positions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from PIL.Image import Image
from torch import Tensor


class PairBatch(TypedDict):
    """One training batch of retrieval: B (query, picture) pairs."""

    image: Tensor  # [B, 3, H, W] uint8, RGB
    text: list[str]  # B queries
    image_id: Tensor  # [B] int64
    query_id: Tensor  # [B] int64
    positives: NotRequired[Tensor]  # [B, P] int64, the ids of all pictures that each query names, -1 fills; P > 1
    flip: NotRequired[Tensor]  # [B] bool, drawn by the worker, mirrored and taken out on the device


class QueryBatch(TypedDict):
    """One evaluation batch of queries."""

    text: list[str]  # B queries
    query_id: Tensor  # [B] int64


class ImageBatch(TypedDict):
    """One evaluation batch of gallery pictures."""

    image: Tensor  # [B, 3, H, W] uint8, RGB
    image_id: Tensor  # [B] int64


class TextImageBatch(TypedDict):
    """One batch of text to image: B descriptions, with their pictures where the split has them."""

    text: list[str]  # B descriptions
    image_id: list[str]  # B ids
    row: Tensor  # [B] int64, the description's place among the split's, in file order
    image: NotRequired[Tensor]  # [B, 3, S, S] uint8, RGB
    latent: NotRequired[Tensor]  # [B, C, h, w] float32: what a first stage made of the picture, instead of it
    codes: NotRequired[Tensor]  # [B, h, w] int64: what a first stage with a codebook made of it
    flip: NotRequired[Tensor]  # [B] bool, drawn by the worker, mirrored and taken out on the device


class CaptionBatch(TypedDict):
    """One batch of captioning: B pictures and, where the split has them, C references of theirs."""

    image: Tensor  # [B, 3, H, W] uint8, RGB
    image_id: list[str]  # B ids
    row: Tensor  # [B] int64, the picture's place among the split's, in file order
    text: NotRequired[list[str]]  # C references to learn from: those of the first picture, then of the second, …
    picture: NotRequired[Tensor]  # [C] int64, place in the batch of the picture that each is of, rising
    flip: NotRequired[Tensor]  # [B] bool, drawn by the worker, mirrored and taken out on the device


@runtime_checkable
class ImageTower(Protocol):
    """A picture encoder. It owns its mean, standard deviation and size; callers hand it raw pixels."""

    width: int  # of the pooled output and of the sequence
    image_size: int  # the square side in pixels it was built for

    def __call__(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into pooled ``[B, width]``."""

    def sequence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``[B, 3, H, W] uint8`` into ``[B, N, width]`` and its mask ``[B, N] bool`` (true = real)."""

    def preprocess(self, images: list[Image]) -> Tensor:
        """Turn PIL pictures into the ``[B, 3, image_size, image_size] uint8`` the tower reads."""


@runtime_checkable
class TextTower(Protocol):
    """A text encoder. It owns its tokenizer; callers hand it strings."""

    width: int

    def __call__(self, texts: list[str]) -> Tensor:
        """Encode B texts into pooled ``[B, width]``."""

    def sequence(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode B texts into ``[B, N, width]`` and its mask ``[B, N] bool`` (true = a real token)."""


@runtime_checkable
class FirstStage(Protocol):
    """An autoencoder between pictures and latents, an ``nn.Module``. It owns its pixel range."""

    channels: int  # of a latent
    factor: int  # pixels of a side for each of a latent's

    def encode(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as latents ``[B, channels, S / factor, S / factor] float32``."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as ``[B, 3, S, S] uint8``."""


@runtime_checkable
class Codebook(Protocol):
    """An autoencoder between pictures and grids of codes, an ``nn.Module``. It owns its pixel range."""

    num_codes: int  # that a place of the grid can have
    factor: int  # pixels of a side for each code
    published: str | None  # where its trained weights are: a run, a file

    def encode(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as codes ``[B, S / factor, S / factor] int64``."""

    def decode(self, codes: Tensor) -> Tensor:
        """Codes as ``[B, 3, S, S] uint8``."""


@runtime_checkable
class Generator(Protocol):
    """A text-to-image generator, an ``nn.Module``. It owns its text encoder, its noise and its pixel range.

    ``generate`` may take further keywords, which say how to draw; ``sampling``, a dictionary, says how by default.
    """

    image_size: int  # the square side in pixels of what it draws and learns from

    def loss(self, batch: TextImageBatch) -> dict[str, Tensor]:
        """What training lowers: ``loss``, and whatever else is to be logged, scalars; draws from torch's own noise."""

    def generate(self, texts: list[str], *, seeds: list[int]) -> Tensor:
        """Draw a picture of each of B texts, ``[B, 3, S, S] uint8``, a function of its text and its seed alone."""


@runtime_checkable
class Captioner(Protocol):
    """A writer of captions, an ``nn.Module``. It owns its image tower, its vocabulary and how it decodes."""

    image_size: int  # the square side in pixels of what it reads
    end_token: int  # closes every whole caption
    decoding: Any  # how captions are written by default: a ``zoo.captioners.decoding.Decoding``

    def encode(self, images: Tensor) -> Tensor:
        """What ``[B, 3, S, S] uint8`` are to the language side: ``[B, N, width]``."""

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Captions as ids ``[B, T] int64``, with a start and an end token, and their mask ``[B, T] bool``."""

    def logits(self, encoded: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Of the token after each of ``ids [B, T]`` where ``places [B, T] bool``: ``[places, vocabulary]``."""

    def write(self, encoded: Tensor, decoding: Any = None) -> list[str]:
        """A caption of each of B pictures, a function of the weights and its picture alone."""

    def sample(self, encoded: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """``count`` random captions of each of B pictures, as ``tokenize`` gives them: ``[B * count, T]``."""

    def spell(self, ids: Tensor) -> list[str]:
        """The texts of ids ``[B, T]``, up to the end token."""


@dataclass(frozen=True)
class RetrievalGold:
    """What a retrieval evaluation is held against: the queries and the gallery of one split, both in file order."""

    split: str
    source: str  # the data set: its folder's name and a hash of its queries and answers
    query_ids: list[int]
    texts: list[str]
    image_ids: list[int]
    positives: list[tuple[int, ...]] | None  # the true image ids of each query; None where the split has no answers
    kinds: list[str | None]  # a label by which queries are also scored alone


@runtime_checkable
class RetrievalData(Protocol):
    """What the retrieval callbacks ask of a data module beside its batches."""

    image_size: int
    predict_split: str
    submission_schema: str

    def gold(self, split: str) -> RetrievalGold:
        """The queries, gallery and answers of a split."""

    def picture(self, split: str, image_id: int) -> np.ndarray:
        """One gallery picture as ``[H, W, 3] uint8`` RGB."""

    def training_pairs(self) -> np.ndarray:
        """``[P, 2] int64``: query id and picture id of each pair that is trained on, in the order of the rows."""

    def training_loaders(self) -> Sequence[Iterable[QueryBatch | ImageBatch]]:
        """All queries, then all pictures that are trained on, each once, not augmented: this process's share."""

    def deal(self, groups: Callable[[int], np.ndarray | None]) -> None:
        """Ask ``groups``, as each epoch begins, which of its rows are dealt together: ``[P]`` integers, or None."""


@dataclass(frozen=True)
class GenerationGold:
    """What generated pictures are held against: a split's descriptions in file order; a row is a place among them."""

    split: str
    source: str  # the data set: its folder's name and a hash of its ids, descriptions and encoded pictures
    image_ids: list[str]
    texts: list[str]
    rows: list[int]  # the rows that an evaluation draws, in file order: all, or some spread evenly
    has_pictures: bool  # MUGE's test split has none


@runtime_checkable
class GenerationData(Protocol):
    """What the text-to-image callbacks ask of a data module beside its batches."""

    image_size: int
    predict_split: str
    skip_rows: set[int]  # rows of ``predict_split`` that ``predict`` leaves out: they are drawn already

    def gold(self, split: str) -> GenerationGold:
        """The descriptions of a split, and which of them an evaluation draws."""

    def drawn_splits(self, split: str) -> list[str]:
        """Whose descriptions an evaluation of ``val`` or ``test`` draws, a loader each: its own first."""

    def picture(self, split: str, row: int) -> np.ndarray:
        """One true picture as ``[H, W, 3] uint8`` RGB."""

    def pictures_loader(self, split: str) -> Iterable[TextImageBatch]:
        """All pictures of a split, this process's share, in batches in file order and at ``image_size``."""


@dataclass(frozen=True)
class CaptionGold:
    """What captions are held against: a split's pictures in file order; a row is a place among them."""

    split: str
    source: str  # the data set: its folder's name and a hash of its ids, references and encoded pictures
    image_ids: list[str]
    references: list[tuple[str, ...]] | None  # of each picture, one or more; None where the split has none
    rows: list[int]  # the rows that an evaluation writes a caption for, in file order
    max_references: int | None = None  # the most that are used of a picture, the first ones; None: all


@runtime_checkable
class CaptionData(Protocol):
    """What the captioning callbacks ask of a data module beside its batches."""

    image_size: int
    predict_split: str

    def gold(self, split: str) -> CaptionGold:
        """The pictures of a split and their references."""

    def picture(self, split: str, row: int) -> np.ndarray:
        """One picture as ``[H, W, 3] uint8`` RGB."""

    def pictures_loader(self, split: str) -> Iterable[CaptionBatch]:
        """All pictures of a split, this process's share, in batches in file order and at ``image_size``."""
