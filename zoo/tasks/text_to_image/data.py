"""Text to image: MUGE's ``ECommerce-T2I`` files → batches of descriptions, pictures and ids."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset

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
from zoo.data.layouts import ECOMMERCE_T2I, find_task_folder
from zoo.errors import UserError
from zoo.tasks.text_to_image.contracts import GenerationGold
from zoo.tasks.text_to_image.datasets import Descriptions, TextToImageSplit, TrainingLatents, TrainingPictures
from zoo.tasks.text_to_image.latents import Latents


class TextToImageDataModule(L.LightningDataModule):
    """Product descriptions and their pictures in MUGE's ``ECommerce-T2I`` formats.

    Pictures reach the model as ``uint8 [B, 3, S, S]``, descriptions as strings. The splits are train, val and test.
    MUGE's test split has no pictures: it can only be predicted.

    Args:
        root: An ``ECommerce-T2I`` folder or its parent. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the
            embedded pictures.
        image_size: Side of the square pictures in pixels; ``auto``: what the task's generator draws.
        batch_size: Pairs of a training batch on each process.
        eval_batch_size: Descriptions of an evaluation batch.
        num_workers: Loader processes beside each training process.
        crop_scale: Share of a training picture's area that its random crop keeps, least and most; a crop has the
            picture's own shape; ``[1, 1]``: no crop.
        flip: Probability of mirroring a training picture, 0 to 1.
        val_pictures: Descriptions of the validation split that an evaluation draws, spread evenly over the file; by
            default all.
        train_pictures: Training descriptions, spread evenly, that evaluations draw too, and score apart; or none.
        latents: What training reads instead of pictures: a folder that ``data encode`` wrote, or its name in ``root``.
        predict_split: The split that ``predict`` writes a submission for.
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
        batch_size: int = 64,
        eval_batch_size: int = 64,
        num_workers: int = 2,
        crop_scale: tuple[float, float] = (1.0, 1.0),
        flip: float = 0.0,
        val_pictures: int | None = None,
        train_pictures: int | None = None,
        latents: str | None = None,
        predict_split: Literal["val", "test"] = "test",
        on_error: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_least(
            batch_size=(batch_size, 1),
            eval_batch_size=(eval_batch_size, 1),
            num_workers=(num_workers, 0),
            val_pictures=(1 if val_pictures is None else val_pictures, 1),
            train_pictures=(1 if train_pictures is None else train_pictures, 1),
        )
        check_probabilities(flip=flip)
        check_crop_scale(crop_scale)
        if latents is not None and tuple(crop_scale) != (1.0, 1.0):
            raise UserError(
                f"data.crop_scale is {list(crop_scale)} and data.latents {latents}: latents are not cropped"
            )
        self.root = root
        self.image_size: int = image_size  # type: ignore[assignment]  # a number from setup() on
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.crop_scale = tuple(crop_scale)
        self.flip = flip
        self.drawn = {"val": val_pictures, "train": train_pictures}
        self.latents_folder = latents
        self.predict_split: str = predict_split
        self.on_error: Literal["raise", "skip"] = on_error
        self.seed = resolve_seed(seed)
        self.skip_rows: set[int] = set()
        self._splits: dict[str, TextToImageSplit] = {}

    # --- files -------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the embedded data set where it is what ``root`` means; one process does it."""
        self.folder  # noqa: B018

    @cached_property
    def folder(self) -> Path:
        """The ``ECommerce-T2I`` folder that ``root`` means."""
        return find_task_folder(resolve_root(self.root), ECOMMERCE_T2I)

    def setup(self, stage: str) -> None:
        """Open the splits that the stage reads; ``image_size: auto`` becomes the generator's."""
        self.image_size = resolve_image_size(self.image_size, self.trainer)
        splits = {"fit": ["train", "val"], "validate": self.drawn_splits("val"), "test": self.drawn_splits("test")}
        for split in splits.get(stage, [self.predict_split]):
            opened = self.open(split)
            if stage in splits:
                opened.need_pictures()

    def open(self, split: str) -> TextToImageSplit:
        """A split's files, opened once."""
        if split not in self._splits:
            self._splits[split] = TextToImageSplit(self.folder, split, on_error=self.on_error)
            report_faults(self._splits[split].faults, f"leaving out of {split}", self.trainer)
        return self._splits[split]

    def gold(self, split: str) -> GenerationGold:
        """The descriptions of a split, and which of them an evaluation draws."""
        return self.open(split).gold(self.drawn.get(split))

    def drawn_splits(self, split: str) -> list[str]:
        """Whose descriptions an evaluation of ``val`` or ``test`` draws, a loader each: its own first."""
        return [split] if self.drawn["train"] is None else [split, "train"]

    @cached_property
    def latents(self) -> Latents | None:
        """The latents of the training pictures, where training reads them.

        Raises:
            UserError: They cannot be read, or are of other pictures.
        """
        if self.latents_folder is None:
            return None
        inside = self.folder / self.latents_folder
        latents = Latents(inside if inside.is_dir() else Path(self.latents_folder))
        source = self.gold("train").source
        if latents.facts.source != source:
            raise UserError(
                f"data.latents {latents.folder} are of {latents.facts.source}, and the training pictures are {source}:"
                " encode these"
            )
        if self.flip > 0 and not latents.facts.mirrored:
            raise UserError(
                f"data.flip is {self.flip} and the latents of {latents.folder} are not mirrored: `data encode"
                " --mirrored` makes both, or set data.flip=0"
            )
        return latents

    def picture(self, split: str, row: int) -> np.ndarray:
        """One true picture as ``[H, W, 3] uint8`` RGB."""
        return self.open(split).picture(row)

    def teardown(self, stage: str) -> None:
        """Say again, at the end, which rows were left out."""
        faults = [fault for split in self._splits.values() for fault in split.faults]
        report_faults(faults, "left out", self.trainer)

    # --- loaders -----------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """Shuffled pairs in equal batches; continues where the trainer stands."""
        opened, flip, seed = self.open("train"), self.flip, self.seed
        dataset: Dataset = TrainingPictures(
            opened,
            image_size=self.image_size,
            crop_scale=self.crop_scale,  # type: ignore[arg-type]
            flip=flip,
            seed=seed,
        )
        if self.latents is not None:
            dataset = TrainingLatents(opened, self.latents, flip=flip, seed=seed)
        return training_loader(
            dataset, self.trainer, batch_size=self.batch_size, num_workers=self.num_workers, seed=self.seed
        )

    def val_dataloader(self) -> list[DataLoader]:
        """The descriptions that a validation draws, with their pictures; those of the training split apart."""
        return [self._rows(split, self.gold(split).rows) for split in self.drawn_splits("val")]

    def test_dataloader(self) -> list[DataLoader]:
        """The descriptions of the test split, with their pictures; those of the training split apart."""
        return [self._rows(split, self.gold(split).rows) for split in self.drawn_splits("test")]

    def pictures_loader(self, split: str, *, first: int = 0) -> DataLoader:
        """All pictures of a split from row ``first`` on, this process's share, in batches in file order."""
        return self._rows(split, list(range(first, len(self.open(split)))))

    def predict_dataloader(self) -> DataLoader:
        """The descriptions of ``predict_split``, without ``skip_rows`` and without pictures."""
        opened = self.open(self.predict_split)
        rows = [row for row in range(len(opened.texts)) if row not in self.skip_rows]
        return self._evaluation(Descriptions(opened, rows, image_size=None))

    def _rows(self, split: str, rows: list[int]) -> DataLoader:
        check_processes(len(rows), split, self.trainer)
        return self._evaluation(Descriptions(self.open(split), rows, image_size=self.image_size))

    def _evaluation(self, dataset: Descriptions) -> DataLoader:
        return evaluation_loader(dataset, self.trainer, batch_size=self.eval_batch_size, num_workers=self.num_workers)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirror, on the device, the pictures that the worker drew for it."""
        return mirror(batch)
