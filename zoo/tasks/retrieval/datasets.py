"""The files of one retrieval split, opened and checked, and the data sets that read them a whole batch at a time."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.core.datasets import TrainingImages
from zoo.core.loaders import broken_images, decode
from zoo.data.augment import auto_augment, degrade, draw_auto_augment
from zoo.data.augment_on_device import plan
from zoo.data.formats import Query, read_queries
from zoo.data.layouts import MULTIMODAL_RETRIEVAL
from zoo.data.tsv import ImageTsv, JoinedTsv
from zoo.errors import FileError, UserError, raise_or_list
from zoo.tasks.retrieval.contracts import ImageBatch, QueryBatch, RetrievalTargets

Split = Literal["train", "valid", "test"]


class PairDataset(TrainingImages):
    """Training pairs, a whole batch at a time: keys are ``(epoch, row)``, and augmentation is a function of those.

    Args:
        images: The images.
        queries: The queries.
        pairs: ``[P, 2] int64``: index of the query, row of the image.
        auto_augment: Where AutoAugment follows the crop: ``worker``, here; ``device``, where the batch's ``augment``
            says how; None: nowhere.
        degrade: Probability that an image is then made blurred and noisy, in [0, 1].
        **augmentation: As of ``TrainingImages``.
    """

    def __init__(
        self,
        images: ImageTsv | JoinedTsv,
        queries: list[Query],
        pairs: np.ndarray,
        *,
        auto_augment: Literal["worker", "device"] | None,
        degrade: float,
        **augmentation: Any,
    ) -> None:
        super().__init__(images, ratio=(3 / 4, 4 / 3), **augmentation)
        self.images = images
        self.queries = queries
        self.pairs = pairs
        self.by_query = pairs[np.argsort(pairs[:, 0], kind="stable")]
        self.most_positives = int(np.bincount(pairs[:, 0]).max(initial=0))  # images that a query names
        self.auto_augment = auto_augment
        self.degrade = degrade

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, row: int) -> np.ndarray:
        """Read the image of a pair as ``[H, W, 3] uint8``."""
        return decode(self.images, int(self.pairs[row, 1]))

    def alter(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Augment a cropped image ``[S, S, 3] uint8`` further, where that is asked for."""
        if self.auto_augment == "worker":
            image = auto_augment(image, int(generator.integers(1 << 32)))
        if self.degrade > 0 and generator.random() < self.degrade:  # drawn last: without it nothing else changes
            image = degrade(image, generator)
        return image

    def batch(self, rows: Sequence[int], generators: Sequence[np.random.Generator]) -> dict[str, Any]:
        """Give the queries and ids of some pairs, and how the device augments their images."""
        pairs = self.pairs[list(rows)]
        batch: dict[str, Any] = {
            "text": [self.queries[index].text for index in pairs[:, 0]],
            "image_id": torch.from_numpy(self.images.ids[pairs[:, 1]].astype(np.int64)),
            "query_id": torch.tensor([self.queries[index].query_id for index in pairs[:, 0]]),
        }
        if self.most_positives > 1:
            batch["positives"] = self._positives(pairs[:, 0])
        if self.auto_augment == "device":
            seeds = (int(generator.integers(1 << 32)) for generator in generators)  # as alter() draws them
            batch["augment"] = plan(draw_auto_augment(self.image_size, seeds), self.image_size)
        return batch

    def _positives(self, queries: np.ndarray) -> torch.Tensor:
        """Return the ids of all images that B queries name, ``[B, most_positives] int64``; -1 fills."""
        start, end = (np.searchsorted(self.by_query[:, 0], queries, side=side)[:, None] for side in ("left", "right"))
        positions = start + np.arange(self.most_positives)  # [B, P]
        rows = self.by_query[positions.clip(max=len(self.by_query) - 1), 1]
        return torch.from_numpy(np.where(positions < end, self.images.ids[rows].astype(np.int64), -1))


class QueryDataset(Dataset[QueryBatch]):
    """The queries of an evaluation, a whole batch at a time."""

    def __init__(self, queries: list[Query]) -> None:
        self.queries = queries

    def __len__(self) -> int:
        return len(self.queries)

    def __getitems__(self, rows: list[int]) -> QueryBatch:
        queries = [self.queries[row] for row in rows]
        return QueryBatch(
            text=[query.text for query in queries], query_id=torch.tensor([query.query_id for query in queries])
        )


class GalleryDataset(Dataset[ImageBatch]):
    """The images of an evaluation, a whole batch at a time.

    Args:
        images: The TSV.
        rows: Its rows that can be read.
        prepare: Turns an image ``[H, W, 3] uint8`` into the square that the model reads.
    """

    def __init__(
        self, images: ImageTsv | JoinedTsv, rows: np.ndarray, *, prepare: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.images = images
        self.rows = rows
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> ImageBatch:
        rows = self.rows[indices]
        pixels = np.stack([self.prepare(decode(self.images, int(row))) for row in rows])
        return ImageBatch(
            image=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            image_id=torch.from_numpy(self.images.ids[rows].astype(np.int64)),
        )


class RetrievalSplit:
    """The files of one split, opened and checked: queries, images, and the rows that can be used.

    Args:
        folder: A ``Multimodal_Retrieval`` folder.
        split: ``train``, ``valid`` or ``test``.
        on_error: ``raise`` at the first broken row, or ``skip``: read every image once beforehand, and leave out the
            broken ones and malformed and repeated lines; ``errors`` lists them.

    Raises:
        UserError: A file is missing or has nothing that can be used; at the first broken row, if ``on_error`` is
            ``raise``.
    """

    def __init__(self, folder: Path, split: Split, *, on_error: Literal["raise", "skip"]) -> None:
        images_path, queries_path, answers_path = MULTIMODAL_RETRIEVAL.files(folder, split)
        self.folder = folder.parent if folder.name == MULTIMODAL_RETRIEVAL.folder else folder
        self.split = split
        self.errors: list[FileError] = []
        errors = self.errors if on_error == "skip" else None
        self.images = ImageTsv(images_path, int, errors)
        self.queries = read_queries(queries_path, errors)
        broken = broken_images(self.images) if on_error == "skip" else {}
        self.errors += broken.values()
        self.rows = np.array([row for row in range(len(self.images)) if row not in broken], dtype=np.int64)
        self.answers = self.queries if answers_path is None else self._answers(answers_path, errors)
        self.labelled = any(query.item_ids for query in self.answers)
        self._check_items(answers_path or queries_path, {int(self.images.ids[row]) for row in broken}, errors)

    def _answers(self, path: Path, errors: list[FileError] | None) -> list[Query]:
        """Read the answer of each query, in their order; one without images where there is none."""
        answers = {query.query_id: query for query in read_queries(path, errors)}
        for query in self.queries:
            if query.query_id not in answers:
                error = FileError("no answer", file=path, id=query.query_id, noun="query", kind="no_answer")
                raise_or_list(error, errors)
                answers[query.query_id] = Query(query.query_id, query.text, kind=query.kind)
        return [answers[query.query_id] for query in self.queries]

    def _check_items(self, path: Path, broken: set[int], errors: list[FileError] | None) -> None:
        """See that the images that queries name are there."""
        row_of = self.row_of
        hint = ". Add the image, or leave such rows out with data.on_error=skip" if errors is None else ""
        for query in self.answers:
            where: dict[str, Any] = {"file": path, "line": query.line, "id": query.query_id, "noun": "query"}
            for item in query.item_ids:
                if item not in row_of and item not in broken:
                    message = f"names image {item}, which {self.images.path} lacks{hint}"
                    raise_or_list(FileError(message, kind="dangling_id", **where), errors)
            if errors is not None and self.labelled and query.line and not query.item_ids:
                message = "names no image: it is not trained on, and counts as missed"
                errors.append(FileError(message, kind="no_image", **where))

    @cached_property
    def row_of(self) -> dict[int, int]:
        """Map each usable image id to its TSV row."""
        ids = self.images.ids[self.rows]
        return {int(image_id): int(row) for image_id, row in zip(ids, self.rows, strict=True)}

    def targets(self) -> RetrievalTargets:
        """Return what an evaluation of this split is compared with."""
        digest = hashlib.sha256("\n".join(f"{answer}" for answer in self.answers).encode()).hexdigest()[:12]
        return RetrievalTargets(
            split=self.split,
            source=f"{self.folder.name}, queries {digest}",
            query_ids=[query.query_id for query in self.queries],
            texts=[query.text for query in self.queries],
            image_ids=[int(image_id) for image_id in self.images.ids[self.rows]],
            positives=[query.item_ids for query in self.answers] if self.labelled else None,
            kinds=[query.kind for query in self.answers],
        )


class TrainingPairs:
    """The queries and images of some splits, one split after the other, and which of them belong together.

    Args:
        splits: The opened splits.

    Raises:
        UserError: An id is in two of the splits, or a split has no pair.
    """

    def __init__(self, splits: Sequence[RetrievalSplit]) -> None:
        refuse_shared_ids(splits)
        self.splits = splits
        self.queries = [query for split in splits for query in split.queries]
        parts = [split.images for split in splits]
        self.images = parts[0] if len(parts) == 1 else JoinedTsv(parts)

    def pairs(self) -> np.ndarray:
        """List (query index, image row) of each query with each relevant image, ``[P, 2] int64``, in file order."""
        pairs, first_query, first_image = [], 0, 0
        for split in self.splits:
            own = [
                (first_query + index, first_image + split.row_of[item])
                for index, answer in enumerate(split.answers)
                for item in answer.item_ids
                if item in split.row_of
            ]
            if not own:
                raise UserError(
                    f"the {split.split} split at {split.images.path} has no (query, image) pair to train on"
                )
            pairs += own
            first_query += len(split.queries)
            first_image += len(split.images)
        return np.array(pairs, dtype=np.int64)

    def groups(self, pairs: np.ndarray) -> np.ndarray:
        """Return what each pair's image is related to, ``[P] int64``: the query with the most images that names it."""
        sizes = np.bincount(pairs[:, 0], minlength=len(self.queries))
        largest = np.full(len(self.images), -1)
        for index, row in pairs[np.argsort(sizes[pairs[:, 0]], kind="stable")]:
            largest[row] = index
        return largest[pairs[:, 1]]


def refuse_shared_ids(splits: Sequence[RetrievalSplit]) -> None:
    """Raise UserError where two splits have a query or an image id in common."""
    for one, other in combinations(splits, 2):
        for what in ("query", "image"):
            ids, others = (
                [query.query_id for query in split.queries] if what == "query" else split.images.ids
                for split in (one, other)
            )
            shared = np.intersect1d(ids, others)
            if shared.size:
                raise UserError(
                    f"data.train_splits: {what} {shared[0]} is in the {one.split} and in the {other.split} split (and "
                    f"{shared.size - 1} more): give splits that share no ids"
                )
