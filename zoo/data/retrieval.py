"""Text-to-image retrieval: MUGE's ``Multimodal_Retrieval`` files → batches of queries, pictures and ids."""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from zoo.data.formats import Schema, find_task_folder
from zoo.data.retrieval_datasets import (
    GalleryDataset,
    PairDataset,
    QueryDataset,
    RetrievalSplit,
    decode,
    start_worker,
    whole_batch,
)
from zoo.data.samplers import EvaluationBatchSampler, TrainingBatchSampler
from zoo.errors import UserError
from zoo.interfaces import RetrievalGold


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
        train_kinds: The kinds of queries to train on, where the file labels them (``kind``); by default all.
        group_size: Training pairs of related pictures, true for one query, that are dealt together, so that they are
            each other's negatives; 1 deals pairs singly.
        predict_split: The split that ``predict`` writes a submission for.
        submission_schema: Its keys and file name: MUGE's, or Chinese-CLIP's (``text_id, text, image_ids``).
        on_error: A broken row: ``raise`` names its file, line and id; ``skip`` reads every picture once beforehand,
            leaves the broken ones out and lists them.
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
        train_kinds: list[str] | None = None,
        group_size: int = 1,
        predict_split: Literal["valid", "test"] = "test",
        submission_schema: Schema = "muge",
        on_error: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        least = {
            "batch_size": (batch_size, 1),
            "eval_batch_size": (eval_batch_size, 1),
            "num_workers": (num_workers, 0),
        }
        for name, (value, smallest) in least.items():
            if value < smallest:
                raise UserError(f"data.{name} is {value}: give {smallest} or more")
        if not 0 <= flip <= 1:
            raise UserError(f"data.flip is {flip}: give a probability, 0 to 1")
        if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise UserError(f"data.crop_scale is {list(crop_scale)}: give two shares 0 < least <= most <= 1")
        self.root = root
        self.image_size: int = image_size  # type: ignore[assignment]  # a number from setup() on
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.crop_scale = tuple(crop_scale)
        self.flip = flip
        self.auto_augment = auto_augment
        self.train_kinds = train_kinds
        self.group_size = group_size
        self.predict_split = predict_split
        self.submission_schema = submission_schema
        self.on_error = on_error
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self._splits: dict[str, RetrievalSplit] = {}

    # --- files -------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the embedded data set where it is what ``root`` means; one process does it."""
        self.folder  # noqa: B018

    @cached_property
    def folder(self) -> Path:
        """The ``Multimodal_Retrieval`` folder that ``root`` means."""
        return find_task_folder(resolve_root(self.root), "retrieval")

    def setup(self, stage: str) -> None:
        """Open the splits that the stage reads; ``image_size: auto`` becomes the tower's."""
        if self.image_size == "auto":
            task = self.trainer.lightning_module if self.trainer else None
            if task is None:
                raise UserError("data.image_size is auto and there is no trainer to ask: give a number of pixels")
            self.image_size = int(task.image_size)  # type: ignore[arg-type]  # a task says what its tower reads
        for split in {"fit": ("train", "valid"), "validate": ("valid",), "test": ("test",)}.get(
            stage, (self.predict_split,)
        ):
            self.open(split)

    def open(self, split: str) -> RetrievalSplit:
        """A split's files, opened once."""
        if split not in self._splits:
            self._splits[split] = RetrievalSplit(self.folder, split, on_error=self.on_error)  # type: ignore[arg-type]
            self._report(self._splits[split].faults, f"leaving out of {split}")
        return self._splits[split]

    def gold(self, split: str) -> RetrievalGold:
        """The queries, gallery and answers of a split."""
        return self.open(split).gold()

    def picture(self, split: str, image_id: int) -> np.ndarray:
        """One gallery picture as ``[H, W, 3] uint8`` RGB."""
        opened = self.open(split)
        return decode(opened.pictures, opened.row_of[image_id])

    def teardown(self, stage: str) -> None:
        """Say again, at the end, which rows were left out."""
        faults = [fault for split in self._splits.values() for fault in split.faults]
        self._report(faults, "left out")

    def _report(self, faults: Sequence[str], what: str) -> None:
        if faults and (self.trainer is None or self.trainer.is_global_zero):
            lines = "\n  ".join(faults)
            print(f"data.on_error=skip: {what}: {len(faults)} broken rows\n  {lines}", file=sys.stderr)

    # --- loaders -----------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """Shuffled pairs in equal batches; continues where the trainer stands."""
        opened = self.open("train")
        pairs = opened.pairs()
        groups = opened.groups(pairs)  # of all pairs: queries that are not trained on tell what is related too
        if self.train_kinds is not None:
            chosen = opened.of_kinds(pairs, self.train_kinds)
            pairs, groups = pairs[chosen], groups[chosen]
        dataset = PairDataset(
            opened.pictures,
            opened.queries,
            pairs,
            image_size=self.image_size,
            crop_scale=self.crop_scale,  # type: ignore[arg-type]
            flip=self.flip,
            auto_augment=self.auto_augment,
            seed=self.seed,
        )
        sampler = TrainingBatchSampler(
            len(dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            progress=self._progress,
            limit=self.trainer.limit_train_batches if self.trainer else 1.0,
            groups=groups,
            group_size=self.group_size,
            **self._place(),
        )
        if sampler.batch_size < self.batch_size and self._place()["rank"] == 0:
            print(
                f"data.batch_size {self.batch_size} is more than the {len(dataset)} training pairs allow: "
                f"training with {sampler.batch_size}",
                file=sys.stderr,
            )
        return self._loader(dataset, sampler, persistent=True)

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
        place = self._place()
        if max(len(dataset) for dataset in datasets) < place["world_size"]:
            raise UserError(f"the {split} split is smaller than the {place['world_size']} processes: use fewer")
        return [
            self._loader(
                dataset,
                EvaluationBatchSampler(len(dataset), batch_size=self.eval_batch_size, **place),
                persistent=False,
            )
            for dataset in datasets
        ]

    def _loader(self, dataset: Dataset, sampler: Any, *, persistent: bool) -> DataLoader:
        # Beside a process group's threads a forked worker hangs, once in some hundreds (CPython waits for a lock that
        # such a thread held): a server without threads forks the workers then.
        server = self.num_workers > 0 and self._place()["world_size"] > 1
        if server:
            multiprocessing.set_forkserver_preload([PairDataset.__module__])
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=self.num_workers,
            multiprocessing_context="forkserver" if server else None,
            persistent_workers=persistent and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=whole_batch,
            worker_init_fn=start_worker,
        )

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _progress(self) -> int:
        if self.trainer is None:
            return 0
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return total.processed

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirror, on the device, the pictures that the worker drew for it."""
        if "flip" in batch:
            flip, pixels = batch.pop("flip"), batch["image"]
            if pixels.device.type == "cpu":  # one by one each stays in the processor's cache: 30 times as fast
                for place in flip.nonzero().flatten().tolist():
                    pixels[place] = pixels[place].flip(-1)
            else:
                batch["image"] = torch.where(flip[:, None, None, None], pixels.flip(-1), pixels)
        return batch


def resolve_root(root: str) -> Path:
    """The folder that ``root`` means.

    Args:
        root: A path, or ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the embedded data set.

    Raises:
        UserError: A folder was named, by ``root`` or ``$MUGE_ROOT``, and is not there.
    """
    named = os.environ.get("MUGE_ROOT") if root == "auto" else root
    if named:
        if not Path(named).is_dir():
            source = "$MUGE_ROOT" if root == "auto" else "data.root"
            raise UserError(f"{source} is {named}: there is no such folder. Give MUGE's folder, or leave it out")
        return Path(named)
    if Path("data/MUGE").is_dir():
        return Path("data/MUGE")
    from zoo.data.demo import demo_root

    folder = demo_root()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"No MUGE data ($MUGE_ROOT, data/MUGE): using the embedded pictures at {folder}", file=sys.stderr)
    return folder
