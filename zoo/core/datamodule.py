"""The base of every data module: finding the files, opening splits, loaders that resume, flips on the device."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
from torch.utils.data import DataLoader

from zoo.core.loaders import (
    check_crop_scale,
    check_least,
    check_probabilities,
    check_processes,
    evaluation_loader,
    flip_images,
    report_faults,
    resolve_image_size,
    resolve_root,
    resolve_seed,
    training_loader,
)
from zoo.data.layouts import Layout, find_task_folder


class MugeDataModule(L.LightningDataModule):
    """Images and texts in one of MUGE's formats.

    Images reach the model as ``uint8 [B, 3, S, S]``, texts as strings. The splits are train, valid and test.

    Args:
        root: The task's folder in MUGE's layout, or its parent. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the
            embedded data.
        image_size: Side of the square images in pixels; ``auto``: what the task's model reads or draws.
        batch_size: Examples of a training batch on each process.
        eval_batch_size: Examples of an evaluation batch.
        num_workers: Loader processes beside each training process.
        crop_scale: Least and most of an image's area that a crop keeps; ``[1, 1]``: no crop.
        flip: Probability of flipping a training image horizontally, in [0, 1].
        predict_split: The split that ``predict`` writes a submission for.
        on_error: A broken row: ``raise`` names its file, line and id; ``skip`` reads every image once beforehand,
            leaves out broken ones and malformed lines and lists them.
        seed: Seed of shuffling and augmentation; by default ``seed_everything``.

    Raises:
        UserError: A file is missing, or a row is broken and ``on_error`` is ``raise``.
    """

    layout: ClassVar[Layout]  # which of MUGE's folders it reads

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
        predict_split: Literal["valid", "test"] = "test",
        on_error: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_least(batch_size=(batch_size, 1), eval_batch_size=(eval_batch_size, 1), num_workers=(num_workers, 0))
        check_probabilities(flip=flip)
        check_crop_scale(crop_scale)
        self.root = root
        self.image_size: int = image_size  # type: ignore[assignment]  # a number from setup() on
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.crop_scale = (crop_scale[0], crop_scale[1])
        self.flip = flip
        self.predict_split: str = predict_split
        self.on_error: Literal["raise", "skip"] = on_error
        self.seed = resolve_seed(seed)
        check_least(seed=(self.seed, 0))
        self._splits: dict[str, Any] = {}

    # --- what a task's data module says ------------------------------------------------------------------------

    def open_split(self, split: str) -> Any:
        """Open the files of a split; what is left out of them is listed in its ``errors``."""
        raise NotImplementedError

    def require_labels(self, opened: Any) -> None:
        """See that an opened split can be trained on or scored; raise UserError where it can only be predicted."""

    def targets(self, split: str) -> Any:
        """Give what an evaluation of a split compares with, and where it comes from, its ``source``."""
        return self.open(split)

    def training_splits(self) -> Sequence[str]:
        """Name the splits that are trained on."""
        return ["train"]

    def evaluated_splits(self, split: str) -> list[str]:
        """Name the splits that an evaluation of ``valid`` or ``test`` goes over, its own first."""
        return [split]

    def training_dataset(self) -> Any:
        """Make the data set of training examples: whole batches for lists of ``(epoch, row)``."""
        raise NotImplementedError

    def evaluation_datasets(self, split: str) -> list[Any]:
        """Make the data sets of one split that an evaluation goes over, a loader each."""
        raise NotImplementedError

    def prediction_datasets(self) -> list[Any]:
        """Make the data sets of ``predict_split``, a loader each."""
        return self.evaluation_datasets(self.predict_split)

    @property
    def augmentation(self) -> dict[str, Any]:
        """What ``zoo.core.datasets.TrainingImages`` does to images."""
        return {
            "image_size": self.image_size,
            "crop_scale": self.crop_scale,
            "flip": self.flip,
            "seed": self.seed,
        }

    def grouping(self) -> dict[str, Any]:
        """Say which training rows are sampled together, as arguments of ``training_loader``."""
        return {}

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others or on this data, ``data.NAME``, and say why."""
        return {}

    def training_texts(self) -> Sequence[str]:
        """Give the texts that are trained on, each once or as often as it comes."""
        return ()

    # --- files -------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the embedded data set where it is what ``root`` means; one process does it."""
        self.folder  # noqa: B018

    @cached_property
    def folder(self) -> Path:
        """The task's folder that ``root`` means."""
        return find_task_folder(resolve_root(self.root), self.layout)

    def setup(self, stage: str) -> None:
        """Open the splits that the stage reads; ``image_size: auto`` becomes the model's."""
        self.image_size = resolve_image_size(self.image_size, self.trainer)
        if stage == "predict":
            self.open(self.predict_split)
            return
        splits = {"validate": self.evaluated_splits("valid"), "test": self.evaluated_splits("test")}
        validates = self.trainer is None or self.trainer.limit_val_batches != 0
        for split in splits.get(stage, [*self.training_splits(), *(["valid"] if validates else [])]):
            self.require_labels(self.open(split))

    def open(self, split: str) -> Any:
        """Open a split's files, once; say which broken rows are left out."""
        if split not in self._splits:
            opened = self.open_split(split)
            report_faults(opened.errors, f"leaving out of {split}", self.trainer)
            self._splits[split] = opened
        return self._splits[split]

    def teardown(self, stage: str) -> None:
        """Say again, at the end, which rows were left out."""
        errors = [fault for opened in self._splits.values() for fault in opened.errors]
        report_faults(errors, "left out", self.trainer)

    # --- loaders -----------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """Shuffled examples in equal batches; continues where the trainer stands."""
        return training_loader(
            self.training_dataset(),
            self.trainer,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            seed=self.seed,
            **self.grouping(),
        )

    def val_dataloader(self) -> list[DataLoader]:
        """This process's share of the validation split."""
        return self._evaluation("valid")

    def test_dataloader(self) -> list[DataLoader]:
        """This process's share of the test split."""
        return self._evaluation("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """This process's share of ``predict_split``."""
        return self.in_file_order(self.prediction_datasets(), self.predict_split)

    def _evaluation(self, split: str) -> list[DataLoader]:
        splits = self.evaluated_splits(split)
        return [loader for each in splits for loader in self.in_file_order(self.evaluation_datasets(each), each)]

    def in_file_order(self, datasets: list[Any], split: str | None = None) -> list[DataLoader]:
        """Make a loader of each data set: this process's share, in file order.

        Args:
            datasets: Each gives whole batches for lists of rows.
            split: The split that they are of, where each process must have a row of it.
        """
        if split is not None:
            check_processes(max(map(len, datasets)), split, self.trainer)
        return [
            evaluation_loader(dataset, self.trainer, batch_size=self.eval_batch_size, num_workers=self.num_workers)
            for dataset in datasets
        ]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Flip, on the device, the images that the worker chose."""
        return flip_images(batch)
