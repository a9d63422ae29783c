"""Text-to-image retrieval: MUGE's ``Multimodal_Retrieval`` files → batches of queries, pictures and ids."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from zoo.core.loading import (
    check_crop_scale,
    check_least,
    check_probabilities,
    check_processes,
    decode,
    evaluation_loader,
    mirror,
    report_faults,
    resolve_image_size,
    resolve_root,
    resolve_seed,
    training_loader,
)
from zoo.data.formats import Schema
from zoo.data.layouts import MULTIMODAL_RETRIEVAL, find_task_folder
from zoo.errors import UserError
from zoo.tasks.retrieval.contracts import RetrievalGold
from zoo.tasks.retrieval.datasets import GalleryDataset, PairDataset, QueryDataset, RetrievalSplit, Split, TrainingPairs


class RetrievalDataModule(L.LightningDataModule):
    """Queries and product pictures in MUGE's ``Multimodal_Retrieval`` formats (or Chinese-CLIP's variant of them).

    Pictures reach the model as ``uint8 [B, 3, S, S]``, texts as strings; validation, test and prediction are two
    loaders, the queries and the gallery.

    Args:
        root: A ``Multimodal_Retrieval`` folder or its parent. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the
            embedded pictures.
        image_size: Side of the square pictures in pixels; ``auto``: what the task's image tower reads.
        batch_size: Pairs of a training batch on each process.
        eval_batch_size: Queries or pictures of an evaluation batch.
        num_workers: Loader processes beside each training process.
        crop_scale: Share of a training picture's area that its random crop keeps, least and most; ``[1, 1]``: no crop.
        flip: Probability of mirroring a training picture, 0 to 1.
        auto_augment: AutoAugment's original ImageNet policy by timm, in the workers, after the crop; with ``flip`` 0.5
            and the default ``crop_scale`` it is CN-CLIP's fine-tuning recipe.
        degrade: Probability that a training picture is made blurred and noisy, as early generated pictures are, 0 to 1.
        train_splits: Splits whose pairs are trained on; a judge of generated pictures may take all, those of the test
            split where its answers lie beside it.
        train_kinds: The kinds of queries to train on, where the file labels them (``kind``); by default all.
        group_size: Training pairs of related pictures, true for one query, that are dealt together, so that they are
            each other's negatives; 1 deals pairs singly.
        predict_split: The split that ``predict`` writes a submission for.
        submission_schema: Its keys and file name: MUGE's, or Chinese-CLIP's (``text_id, text, image_ids``).
        on_error: A broken row: ``raise`` names its file, line and id; ``skip`` reads every picture once beforehand,
            leaves out broken ones and malformed lines and lists them.
        seed: Seed of shuffling and augmentation; by default ``seed_everything``.

    Raises:
        UserError: A file is missing, or a row is broken and ``on_error`` is ``raise``.
    """

    def __init__(
        self,
        root: str = "auto",
        *,
        image_size: int | Literal["auto"] = "auto",
        batch_size: int = 128,
        eval_batch_size: int = 128,
        num_workers: int = 2,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        flip: float = 0.0,
        auto_augment: bool = False,
        degrade: float = 0.0,
        train_splits: tuple[Split, ...] = ("train",),
        train_kinds: list[str] | None = None,
        group_size: int = 1,
        predict_split: Literal["valid", "test"] = "test",
        submission_schema: Schema = "muge",
        on_error: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_least(batch_size=(batch_size, 1), eval_batch_size=(eval_batch_size, 1), num_workers=(num_workers, 0))
        check_probabilities(flip=flip, degrade=degrade)
        check_crop_scale(crop_scale)
        if not train_splits or len(set(train_splits)) < len(train_splits):
            raise UserError(f"data.train_splits is {list(train_splits)}: give one split or several, each once")
        self.root = root
        self.image_size: int = image_size  # type: ignore[assignment]  # a number from setup() on
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.crop_scale = tuple(crop_scale)
        self.flip = flip
        self.auto_augment = auto_augment
        self.degrade = degrade
        self.train_splits = tuple(train_splits)
        self.train_kinds = train_kinds
        self.group_size = group_size
        self.predict_split = predict_split
        self.submission_schema = submission_schema
        self.on_error = on_error
        self.seed = resolve_seed(seed)
        self._splits: dict[str, RetrievalSplit] = {}
        self._regroup: Callable[[int], np.ndarray | None] | None = None

    # --- files -------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the embedded data set where it is what ``root`` means; one process does it."""
        self.folder  # noqa: B018

    @cached_property
    def folder(self) -> Path:
        """The ``Multimodal_Retrieval`` folder that ``root`` means."""
        return find_task_folder(resolve_root(self.root), MULTIMODAL_RETRIEVAL)

    def setup(self, stage: str) -> None:
        """Open the splits that the stage reads; ``image_size: auto`` becomes the tower's."""
        self.image_size = resolve_image_size(self.image_size, self.trainer)
        splits: dict[str, tuple[str, ...]] = {
            "fit": (*self.train_splits, "valid"),
            "validate": ("valid",),
            "test": ("test",),
        }
        for split in splits.get(stage, (self.predict_split,)):
            self.open(split)

    def open(self, split: str) -> RetrievalSplit:
        """A split's files, opened once."""
        if split not in self._splits:
            self._splits[split] = RetrievalSplit(self.folder, split, on_error=self.on_error)  # type: ignore[arg-type]
            report_faults(self._splits[split].faults, f"leaving out of {split}", self.trainer)
        return self._splits[split]

    def gold(self, split: str) -> RetrievalGold:
        """The queries, gallery and answers of a split."""
        return self.open(split).gold()

    def picture(self, split: str, image_id: int) -> np.ndarray:
        """One gallery picture as ``[H, W, 3] uint8`` RGB."""
        opened = self.open(split)
        return decode(opened.pictures, opened.row_of[image_id])

    @cached_property
    def _training(self) -> tuple[TrainingPairs, np.ndarray, np.ndarray]:
        """What is trained on: queries and pictures, ``[P, 2]`` the pairs' places there, ``[P]`` what is related."""
        training = TrainingPairs([self.open(split) for split in self.train_splits])
        pairs = training.pairs()
        groups = training.groups(pairs)  # of all pairs: queries that are not trained on tell what is related too
        if self.train_kinds is not None:
            chosen = training.of_kinds(pairs, self.train_kinds)
            pairs, groups = pairs[chosen], groups[chosen]
        return training, pairs, groups

    def training_pairs(self) -> np.ndarray:
        """``[P, 2] int64``: query id and picture id of each pair that is trained on, in the order of the rows."""
        training, pairs, _ = self._training
        query_ids = np.array([query.query_id for query in training.queries])
        return np.stack([query_ids[pairs[:, 0]], training.pictures.ids[pairs[:, 1]].astype(np.int64)], axis=1)

    def teardown(self, stage: str) -> None:
        """Say again, at the end, which rows were left out."""
        faults = [fault for split in self._splits.values() for fault in split.faults]
        report_faults(faults, "left out", self.trainer)

    # --- loaders -----------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """Shuffled pairs in equal batches; continues where the trainer stands."""
        training, pairs, groups = self._training
        dataset = PairDataset(
            training.pictures,
            training.queries,
            pairs,
            image_size=self.image_size,
            crop_scale=self.crop_scale,  # type: ignore[arg-type]
            flip=self.flip,
            auto_augment=self.auto_augment,
            degrade=self.degrade,
            seed=self.seed,
        )
        return training_loader(
            dataset,
            self.trainer,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            seed=self.seed,
            groups=groups,
            group_size=self.group_size,
            regroup=self._regroup,
        )

    def deal(self, groups: Callable[[int], np.ndarray | None]) -> None:
        """Ask ``groups``, as each epoch begins, which of its rows are dealt together; before the loader is built.

        Args:
            groups: Called on every process with the epoch, when its first batch is asked for. It gives ``[P]``
                integers, the same on every process, whole groups of which are dealt in a run; or None for the data's
                own groups and ``group_size``.
        """
        self._regroup = groups

    def training_loaders(self) -> list[DataLoader]:
        """All queries, then all pictures that are trained on, each once, not augmented: this process's share."""
        training, pairs, _ = self._training
        queries, rows = (np.unique(column) for column in pairs.T)
        return self._in_file_order(
            QueryDataset([training.queries[index] for index in queries]),
            GalleryDataset(training.pictures, rows, image_size=self.image_size),
        )

    def val_dataloader(self) -> list[DataLoader]:
        """The validation queries and gallery."""
        return self._evaluation("valid")

    def test_dataloader(self) -> list[DataLoader]:
        """The test queries and gallery."""
        return self._evaluation("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """The queries and gallery of ``predict_split``."""
        return self._evaluation(self.predict_split)

    def _evaluation(self, split: str) -> list[DataLoader]:
        opened = self.open(split)
        datasets: list[Any] = [
            QueryDataset(opened.queries),
            GalleryDataset(opened.pictures, opened.rows, image_size=self.image_size),
        ]
        check_processes(max(map(len, datasets)), split, self.trainer)
        return self._in_file_order(*datasets)

    def _in_file_order(self, *datasets: Any) -> list[DataLoader]:
        return [
            evaluation_loader(dataset, self.trainer, batch_size=self.eval_batch_size, num_workers=self.num_workers)
            for dataset in datasets
        ]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirror, on the device, the pictures that the worker drew for it."""
        return mirror(batch)
