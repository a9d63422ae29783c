"""Captioning: MUGE's ``ECommerce-IC`` files → batches of images, references and ids."""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from zoo.core.datamodule import MugeDataModule
from zoo.core.loaders import check_least
from zoo.data.layouts import ECOMMERCE_IC
from zoo.tasks.captioning.contracts import CaptionTargets
from zoo.tasks.captioning.datasets import CaptionedImages, CaptioningSplit, TrainingCaptions


class CaptioningDataModule(MugeDataModule):
    """Product images and their copy in MUGE's ``ECommerce-IC`` formats.

    Images reach the model as ``uint8 [B, 3, S, S]``, references as strings. MUGE's test split has no references: it can
    only be predicted. A crop has the image's own shape.

    Args:
        root: An ``ECommerce-IC`` folder or its parent. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the
            embedded data.
        captions_per_image: References that a training batch has of each image, sampled anew each epoch; the image is
            encoded once for all of them. ``null``: all.
        max_references: The most references of an image that are used at all, the first ones; by default all.
        valid_images: Images of the validation split that an evaluation describes, spread evenly over the file; by
            default all.
        **shared: Options of every data module: see ``MugeDataModule``.

    Raises:
        UserError: A file is missing, or a row is broken and ``on_error`` is ``raise``.
    """

    layout = ECOMMERCE_IC

    def __init__(
        self,
        root: str = "auto",
        *,
        captions_per_image: int | None = 1,
        max_references: int | None = None,
        valid_images: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(root, **shared)
        check_least(
            captions_per_image=(captions_per_image, 1),
            max_references=(max_references, 1),
            valid_images=(valid_images, 1),
        )
        self.captions_per_image = captions_per_image
        self.max_references = max_references
        self.valid_images = valid_images

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others or on this data; see the base class."""
        most = max(map(len, self.open("train").references))
        return {"data.captions_per_image": "no image has more than one reference"} if most <= 1 else {}

    def training_texts(self) -> list[str]:
        """Give the references that are trained on."""
        return [text for references in self.open("train").references for text in references]

    def open_split(self, split: str) -> CaptioningSplit:
        """Open the images of a split and the references of each."""
        return CaptioningSplit(self.folder, split, max_references=self.max_references, on_error=self.on_error)

    def require_labels(self, opened: CaptioningSplit) -> None:
        """See that the split has references."""
        opened.need_references()

    def targets(self, split: str) -> CaptionTargets:
        """Give the images of a split, their references, and which of them an evaluation describes."""
        return self.open(split).targets(self.valid_images if split == "valid" else None)

    def image(self, split: str, row: int) -> np.ndarray:
        """Decode one image: ``[H, W, 3] uint8`` RGB."""
        return self.open(split).image(row)

    def training_dataset(self) -> TrainingCaptions:
        """Make the data set of images and the references sampled for each."""
        return TrainingCaptions(self.open("train"), captions_per_image=self.captions_per_image, **self.augmentation)

    def evaluation_datasets(self, split: str) -> list[Any]:
        """Make the data set of the images that an evaluation describes, with their references."""
        return [self._images(split, self.targets(split).rows)]

    def prediction_datasets(self) -> list[Any]:
        """Make the data set of all images of ``predict_split``."""
        return [self._images(self.predict_split, list(range(len(self.open(self.predict_split)))))]

    def images_loader(self, split: str) -> DataLoader:
        """Load all images of a split, this process's share, in batches in file order."""
        return self.in_file_order([self._images(split, list(range(len(self.open(split)))))], split)[0]

    def _images(self, split: str, rows: list[int]) -> CaptionedImages:
        return CaptionedImages(self.open(split), rows, image_size=self.image_size)
