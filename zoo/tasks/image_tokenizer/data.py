"""Images alone, of any of MUGE's folders: what an image tokenizer is trained and evaluated on."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from zoo.core.datamodule import MugeDataModule
from zoo.core.datasets import TrainingImages
from zoo.core.loaders import broken_images, check_least, decode, resolve_root, spread
from zoo.data.layouts import ECOMMERCE_T2I, Layout, find_layouts, find_task_folder
from zoo.data.tsv import ImageTsv
from zoo.errors import FileError, UserError
from zoo.tasks.image_tokenizer.contracts import ImageBatch
from zoo.tasks.text_to_image.contracts import GenerationTargets
from zoo.tasks.text_to_image.datasets import EvaluationRows, TextToImageSplit


class ImageSplit:
    """The images of one split, whatever texts belong to them; a row is an image that can be used, in file order.

    Args:
        folder: A folder of MUGE's.
        layout: The folder's layout.
        split: ``train``, ``valid`` or ``test``.
        on_error: ``raise`` at the first broken row, or ``skip``: read every image once beforehand, and leave out the
            broken ones and malformed and repeated lines; ``errors`` lists them.

    Raises:
        UserError: There is no such file, nothing in it can be used, or a line is malformed and ``on_error`` is
            ``raise``.
    """

    def __init__(self, folder: Path, layout: Layout, split: str, *, on_error: Literal["raise", "skip"]) -> None:
        self.split = split
        self.name = f"{folder.parent.name if folder.name == layout.folder else folder.name}, {layout.folder} images"
        self.errors: list[FileError] = []
        path = layout.find(folder, split).images
        self.images = ImageTsv(path, layout.id_type, self.errors if on_error == "skip" else None)
        broken = broken_images(self.images) if on_error == "skip" else {}
        self.errors += broken.values()
        self.rows = [row for row in range(len(self.images)) if row not in broken]
        if not self.rows:
            raise FileError("has no image that can be used", file=path, kind="empty_file")

    def __len__(self) -> int:
        return len(self.rows)

    def need_images(self) -> ImageTsv:
        """Give the images, which are always there."""
        return self.images

    def image(self, row: int) -> np.ndarray:
        """Read one image as ``[H, W, 3] uint8`` RGB."""
        return decode(self.images, self.rows[row])

    def batch(self, rows: Sequence[int]) -> ImageBatch:
        """Make a batch of some rows, without their images."""
        ids = [str(self.images.ids[self.rows[row]]) for row in rows]
        return ImageBatch(image_id=ids, row=torch.tensor(rows, dtype=torch.int64))

    def targets(self, count: int | None = None) -> GenerationTargets:
        """Give what an evaluation of this split is held against: its images, without texts.

        Args:
            count: Images to reconstruct, spread evenly over the file; None: all.
        """
        return GenerationTargets(
            split=self.split,
            source=f"{self.name} {self.digest}",
            image_ids=[str(self.images.ids[row]) for row in self.rows],
            texts=[],
            rows=list(range(len(self))) if count is None else spread(len(self), count).tolist(),
            has_images=True,
        )

    @cached_property
    def digest(self) -> str:
        """12 digits of the SHA-256 of the usable rows: ids and images as they stand in the file."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(f"{self.images.ids[row]}\t".encode() + self.images.base64(row))
        return digest.hexdigest()[:12]


class ImageTokenizerDataModule(MugeDataModule):
    """Images in any of MUGE's layouts.

    Images reach the model as ``uint8 [B, 3, S, S]``. ``ECommerce-T2I`` is read where a root holds several folders: each
    of its images has a description, which R-precision needs. A crop has the image's own shape.

    Args:
        root: A folder of MUGE's, or the parent of some. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the embedded
            data.
        valid_images: Images of the validation split that an evaluation reconstructs, spread evenly over the file; by
            default all.
        train_images: Training images, spread evenly, that evaluations reconstruct too, and score apart; or none.
        **shared: Options of every data module: see ``MugeDataModule``.

    Raises:
        UserError: A file is missing, or a row is broken and ``on_error`` is ``raise``.
    """

    def __init__(
        self, root: str = "auto", *, valid_images: int | None = None, train_images: int | None = None, **shared: Any
    ) -> None:
        super().__init__(root, **shared)
        check_least(
            valid_images=(valid_images, 1),
            train_images=(train_images, 1),
        )
        self.counts = {"valid": valid_images, "train": train_images}

    @cached_property
    def found(self) -> tuple[Path, Layout]:
        """The folder that ``root`` means, and its layout.

        Raises:
            UserError: It is none of MUGE's, and holds none.
        """
        root = resolve_root(self.root)
        layouts = sorted(find_layouts().values(), key=lambda layout: layout is not ECOMMERCE_T2I)
        for layout in layouts:
            try:
                return find_task_folder(root, layout), layout
            except UserError:
                continue
        folders = tuple(layout.folder for layout in layouts)
        raise UserError(
            f"data.root is {root}: it is none of {', '.join(folders)}, and holds none. Give one, or what contains it",
            argument="root",
            value=str(root),
            valid=folders,
        )

    @cached_property
    def folder(self) -> Path:
        """The folder that ``root`` means."""
        return self.found[0]

    def open_split(self, split: str) -> TextToImageSplit | ImageSplit:
        """Open the images of a split, with the description of each where the layout has them."""
        folder, layout = self.found
        if layout is ECOMMERCE_T2I:
            return TextToImageSplit(folder, split, on_error=self.on_error)
        return ImageSplit(folder, layout, split, on_error=self.on_error)

    def require_labels(self, opened: TextToImageSplit | ImageSplit) -> None:
        """See that the split has images."""
        opened.need_images()

    def targets(self, split: str) -> GenerationTargets:
        """Give the images of a split, and which of them an evaluation reconstructs."""
        return self.open(split).targets(self.counts.get(split))

    def evaluated_splits(self, split: str) -> list[str]:
        """Name the splits whose images an evaluation reconstructs, its own first."""
        return [split] if self.counts["train"] is None else [split, "train"]

    def image(self, split: str, row: int) -> np.ndarray:
        """Read one image as ``[H, W, 3] uint8`` RGB."""
        return self.open(split).image(row)

    def training_dataset(self) -> TrainingImages:
        """Make the data set of images."""
        return TrainingImages(self.open("train"), **self.augmentation)

    def evaluation_datasets(self, split: str) -> list[Any]:
        """Make the data set of the images that an evaluation reconstructs."""
        return [EvaluationRows(self.open(split), self.targets(split).rows, image_size=self.image_size)]

    def images_loader(self, split: str) -> DataLoader:
        """Give all images of a split, this process's share, in batches in file order."""
        opened = self.open(split)
        return self.in_file_order([EvaluationRows(opened, range(len(opened)), image_size=self.image_size)], split)[0]
