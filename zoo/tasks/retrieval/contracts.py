"""What the parts of the retrieval task hand each other: batches, the answers of a split, what is asked of its data."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from torch import Tensor, nn

from zoo.data.augment_on_device import Plan

Labels = str | Sequence[str] | None  # by which a query is also scored with its like alone: one, several, none


class PairBatch(TypedDict):
    """One training batch of retrieval: B (query, image) pairs."""

    image: Tensor  # [B, 3, H, W] uint8, RGB
    text: list[str]  # B queries
    image_id: Tensor  # [B] int64
    query_id: Tensor  # [B] int64
    positives: NotRequired[Tensor]  # [B, P] int64, the ids of all images that each query names, -1 fills; P > 1
    augment: NotRequired[Plan]  # of AutoAugment, drawn by the worker, applied and taken out on the device
    flip: NotRequired[Tensor]  # [B] bool, drawn by the worker, flipped and taken out on the device


class RetrievalLoss(Protocol):
    """A loss of pairs of embeddings, an ``nn.Module`` that owns what it learns.

    ``loss(images, texts, image_ids=…, query_ids=…, positives=…)`` gives the mean over the pairs, a scalar; the last is
    left out where each query names one image. Images and texts are unit vectors ``[N, D]`` of all processes.
    """

    logit_scale: nn.Parameter  # logarithm of the factor of the cosines, logged; the task keeps it in [0, ln 100]
    sharded: bool  # True: called with this process's images [B, D], all texts, and ``first_row``, their index in them

    def __call__(self, images: Tensor, texts: Tensor, **ids: Any) -> Tensor:
        """Compute the loss."""


class QueryBatch(TypedDict):
    """One evaluation batch of queries."""

    text: list[str]  # B queries
    query_id: Tensor  # [B] int64


class ImageBatch(TypedDict):
    """One evaluation batch of gallery images."""

    image: Tensor  # [B, 3, H, W] uint8, RGB
    image_id: Tensor  # [B] int64


@dataclass(frozen=True)
class RetrievalTargets:
    """What a retrieval evaluation is compared with: the queries and the gallery of one split, both in file order."""

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

    folder: Path  # what images show is read from there, where it is said
    image_size: int
    predict_split: str
    submission_schema: str

    def targets(self, split: str) -> RetrievalTargets:
        """Return the queries, gallery and answers of a split."""

    def image(self, split: str, image_id: int) -> np.ndarray:
        """Return one gallery image as ``[H, W, 3] uint8`` RGB."""

    def training_pairs(self) -> np.ndarray:
        """Return query id and image id of each pair that is trained on, ``[P, 2] int64``, in the order of the rows."""

    def training_loaders(
        self, prepare: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> Sequence[Iterable[QueryBatch | ImageBatch]]:
        """Load all queries, then all images that are trained on, each once, not augmented: this process's share.

        ``prepare`` makes a square of an image ``[H, W, 3] uint8``; None: as for an evaluation.
        """

    def training_files(self) -> list[Any]:
        """Tell the files that are trained on from others, in plain values."""

    def regroup(self, groups: Callable[[int], np.ndarray | None]) -> None:
        """Ask ``groups``, as each epoch begins, which of its rows are sampled together: ``[P]`` integers, or None."""
