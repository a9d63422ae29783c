"""Captioning: MUGE's ``ECommerce-IC`` files → batches of pictures, references and ids."""

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
    evaluation_loader,
    mirror,
    report_faults,
    resolve_image_size,
    resolve_root,
    resolve_seed,
    training_loader,
)
from zoo.data.layouts import ECOMMERCE_IC, find_task_folder
from zoo.tasks.captioning.contracts import CaptionGold
from zoo.tasks.captioning.datasets import CaptionedPictures, CaptioningSplit, TrainingCaptions


class CaptioningDataModule(L.LightningDataModule):
    """Product pictures and their copy in MUGE's ``ECommerce-IC`` formats.

    Pictures reach the model as ``uint8 [B, 3, S, S]``, references as strings. The splits are train, valid and test.
    MUGE's test split has no references: it can only be predicted.

    Args:
        root: An ``ECommerce-IC`` folder or its parent. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the
            embedded pictures.
        image_size: Side of the square pictures in pixels; ``auto``: what the task's captioner reads.
        batch_size: Pictures of a training batch on each process.
        eval_batch_size: Pictures of an evaluation batch.
        num_workers: Loader processes beside each training process.
        crop_scale: Share of a training picture's area that its random crop keeps, least and most; a crop has the
            picture's own shape; ``[1, 1]``: no crop.
        flip: Probability of mirroring a training picture, 0 to 1.
        captions_per_picture: References that a training batch has of each picture, drawn anew each epoch; the picture
            is encoded once for all of them. ``null``: all.
        max_references: The most references of a picture that are used at all, the first ones; by default all.
        val_pictures: Pictures of the validation split that an evaluation describes, spread evenly over the file; by
            default all.
        predict_split: The split that ``predict`` writes a submission for.
        on_error: A broken row: ``raise`` names its file, line and id; ``skip`` reads every picture once beforehand,
            leaves out broken ones and malformed lines and lists them.
        seed: Seed of shuffling, augmentation and the choice of references; by default ``seed_everything``.

    Raises:
        UserError: A file is missing, or a row is broken and ``on_error`` is ``raise``.
    """

    def __init__(
        self,
        root: str = "auto",
        *,
        image_size: int | Literal["auto"] = "auto",
        batch_size: int = 64,
        eval_batch_size: int = 64,
        num_workers: int = 2,
        crop_scale: tuple[float, float] = (1.0, 1.0),
        flip: float = 0.0,
        captions_per_picture: int | None = 1,
        max_references: int | None = None,
        val_pictures: int | None = None,
        predict_split: Literal["valid", "test"] = "test",
        on_error: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_least(
            batch_size=(batch_size, 1),
            eval_batch_size=(eval_batch_size, 1),
            num_workers=(num_workers, 0),
            captions_per_picture=(1 if captions_per_picture is None else captions_per_picture, 1),
            max_references=(1 if max_references is None else max_references, 1),
            val_pictures=(1 if val_pictures is None else val_pictures, 1),
        )
        check_probabilities(flip=flip)
        check_crop_scale(crop_scale)
        self.root = root
        self.image_size: int = image_size  # type: ignore[assignment]  # a number from setup() on
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.crop_scale = tuple(crop_scale)
        self.flip = flip
        self.captions_per_picture = captions_per_picture
        self.max_references = max_references
        self.val_pictures = val_pictures
        self.predict_split: str = predict_split
        self.on_error: Literal["raise", "skip"] = on_error
        self.seed = resolve_seed(seed)
        self._splits: dict[str, CaptioningSplit] = {}

    # --- files -------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the embedded data set where it is what ``root`` means; one process does it."""
        self.folder  # noqa: B018

    @cached_property
    def folder(self) -> Path:
        """The ``ECommerce-IC`` folder that ``root`` means."""
        return find_task_folder(resolve_root(self.root), ECOMMERCE_IC)

    def setup(self, stage: str) -> None:
        """Open the splits that the stage reads; ``image_size: auto`` becomes the captioner's."""
        self.image_size = resolve_image_size(self.image_size, self.trainer)
        splits = {"fit": ["train", "valid"], "validate": ["valid"], "test": ["test"]}
        for split in splits.get(stage, [self.predict_split]):
            opened = self.open(split)
            if stage in splits:
                opened.need_references()

    def open(self, split: str) -> CaptioningSplit:
        """A split's files, opened once."""
        if split not in self._splits:
            opened = CaptioningSplit(self.folder, split, max_references=self.max_references, on_error=self.on_error)
            report_faults(opened.faults, f"leaving out of {split}", self.trainer)
            self._splits[split] = opened
        return self._splits[split]

    def gold(self, split: str) -> CaptionGold:
        """The pictures of a split, their references, and which of them an evaluation describes."""
        return self.open(split).gold(self.val_pictures if split == "valid" else None)

    def picture(self, split: str, row: int) -> np.ndarray:
        """One picture as ``[H, W, 3] uint8`` RGB."""
        return self.open(split).picture(row)

    def teardown(self, stage: str) -> None:
        """Say again, at the end, which rows were left out."""
        faults = [fault for split in self._splits.values() for fault in split.faults]
        report_faults(faults, "left out", self.trainer)

    # --- loaders -----------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """Shuffled pictures in equal batches; continues where the trainer stands."""
        dataset = TrainingCaptions(
            self.open("train"),
            image_size=self.image_size,
            crop_scale=self.crop_scale,  # type: ignore[arg-type]
            flip=self.flip,
            captions_per_picture=self.captions_per_picture,
            seed=self.seed,
        )
        return training_loader(
            dataset, self.trainer, batch_size=self.batch_size, num_workers=self.num_workers, seed=self.seed
        )

    def val_dataloader(self) -> DataLoader:
        """The pictures that a validation describes, with their references."""
        return self._rows("valid", self.gold("valid").rows)

    def test_dataloader(self) -> DataLoader:
        """The pictures of the test split, with their references."""
        return self._rows("test", self.gold("test").rows)

    def predict_dataloader(self) -> DataLoader:
        """The pictures of ``predict_split``."""
        return self.pictures_loader(self.predict_split)

    def pictures_loader(self, split: str) -> DataLoader:
        """All pictures of a split, this process's share, in batches in file order."""
        return self._rows(split, list(range(len(self.open(split)))))

    def _rows(self, split: str, rows: list[int]) -> DataLoader:
        check_processes(len(rows), split, self.trainer)
        dataset = CaptionedPictures(self.open(split), rows, image_size=self.image_size)
        return evaluation_loader(dataset, self.trainer, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirror, on the device, the pictures that the worker drew for it."""
        return mirror(batch)
