"""Text to image: MUGE's ``ECommerce-T2I`` files → batches of prompts, images and ids."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from zoo.core.datamodule import MugeDataModule
from zoo.core.datasets import TrainingImages
from zoo.core.loaders import check_least
from zoo.data.layouts import ECOMMERCE_T2I
from zoo.errors import UserError
from zoo.io import expanded
from zoo.tasks.text_to_image.contracts import GenerationTargets
from zoo.tasks.text_to_image.datasets import EvaluationRows, TextToImageSplit, TrainingLatents
from zoo.tasks.text_to_image.latents import Latents


class TextToImageDataModule(MugeDataModule):
    """Prompts and their images in MUGE's ``ECommerce-T2I`` formats.

    Images reach the model as ``uint8 [B, 3, S, S]``, prompts as strings. MUGE's test split has no images: it can
    only be predicted. A crop has the image's own shape.

    Args:
        root: An ``ECommerce-T2I`` folder or its parent. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the
            embedded data.
        valid_images: Prompts of the validation split that an evaluation generates images of, spread evenly over
            the file; by default all.
        test_images: Prompts of the test split, likewise.
        train_images: Training prompts, spread evenly, that evaluations generate images of too, and score apart;
            or none.
        latents: What training reads instead of images: a folder that ``data encode`` wrote, or its name in ``root``.
        **shared: Options of every data module: see ``MugeDataModule``.

    Raises:
        UserError: A file is missing, or a row is broken and ``on_error`` is ``raise``.
    """

    layout = ECOMMERCE_T2I

    def __init__(
        self,
        root: str = "auto",
        *,
        valid_images: int | None = None,
        test_images: int | None = None,
        train_images: int | None = None,
        latents: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(root, **shared)
        check_least(
            valid_images=(valid_images, 1),
            test_images=(test_images, 1),
            train_images=(train_images, 1),
        )
        if latents is not None and self.crop_scale != (1.0, 1.0):
            raise UserError(
                f"data.crop_scale is {list(self.crop_scale)} and data.latents {latents}: latents are not cropped"
            )
        self.counts = {"valid": valid_images, "test": test_images, "train": train_images}
        self.latents_folder = latents
        self.skip_rows: set[int] = set()

    def training_texts(self) -> list[str]:
        """Give the prompts that are trained on."""
        return self.open("train").texts

    def open_split(self, split: str) -> TextToImageSplit:
        """Open the prompts of a split and the image of each."""
        return TextToImageSplit(self.folder, split, on_error=self.on_error)

    def require_labels(self, opened: TextToImageSplit) -> None:
        """See that the split has images."""
        opened.need_images()

    def targets(self, split: str) -> GenerationTargets:
        """The prompts of a split, and which of them an evaluation generates images of."""
        return self.open(split).targets(self.counts.get(split))

    def evaluated_splits(self, split: str) -> list[str]:
        """Name the splits whose prompts an evaluation generates images of, its own first."""
        return [split] if self.counts["train"] is None else [split, "train"]

    @cached_property
    def latents(self) -> Latents | None:
        """The latents of the training images, where training reads them.

        Raises:
            UserError: They cannot be read, or are of other images.
        """
        if self.latents_folder is None:
            return None
        given = expanded(self.latents_folder, "data.latents")
        inside = self.folder / given
        latents = Latents(inside if inside.is_dir() else Path(given))
        source = self.targets("train").source
        if latents.metadata.source != source:
            raise UserError(
                f"data.latents {latents.folder} are of {latents.metadata.source}, and the training images are"
                f" {source}: encode these"
            )
        if self.flip > 0 and not latents.metadata.flipped:
            raise UserError(
                f"data.flip is {self.flip} and the latents of {latents.folder} are not flipped: `data encode"
                " --flipped` makes both, or set data.flip=0"
            )
        return latents

    def image(self, split: str, row: int) -> np.ndarray:
        """One true image as ``[H, W, 3] uint8`` RGB."""
        return self.open(split).image(row)

    def training_dataset(self) -> TrainingImages | TrainingLatents:
        """Make the data set of prompts and images, or of what stands for the images."""
        if self.latents is not None:
            return TrainingLatents(self.open("train"), self.latents, flip=self.flip, seed=self.seed)
        return TrainingImages(self.open("train"), **self.augmentation)

    def evaluation_datasets(self, split: str) -> list[Any]:
        """Make the data set of the prompts that an evaluation generates images of, with their true images."""
        return [self._rows(split, self.targets(split).rows)]

    def predict_dataloader(self) -> list[DataLoader]:
        """The prompts of ``predict_split``, without ``skip_rows`` and without images."""
        opened = self.open(self.predict_split)
        rows = [row for row in range(len(opened.texts)) if row not in self.skip_rows]
        return self.in_file_order([EvaluationRows(opened, rows, image_size=None)])

    def images_loader(self, split: str, *, first: int = 0) -> DataLoader:
        """All images of a split from row ``first`` on, this process's share, in batches in file order."""
        dataset = self._rows(split, list(range(first, len(self.open(split)))))
        return self.in_file_order([dataset], split)[0]

    def _rows(self, split: str, rows: list[int]) -> EvaluationRows:
        return EvaluationRows(self.open(split), rows, image_size=self.image_size)
