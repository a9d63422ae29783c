"""The files of one text-to-image split, joined and checked, and the data sets that read them in whole batches."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.core.loaders import decode, join_images, spread
from zoo.data import images
from zoo.data.attributes import Shown, read_shown
from zoo.data.formats import read_text_tsv
from zoo.data.layouts import ECOMMERCE_T2I
from zoo.data.tsv import ImageTsv
from zoo.errors import FileError, UserError
from zoo.tasks.text_to_image.contracts import GenerationTargets, ImageRows, TextImageBatch
from zoo.tasks.text_to_image.latents import Latents


class TextToImageSplit:
    """The files of one split: prompts, and the image of each, joined by id.

    A row is a place among the prompts that can be used, in the order of the text file: all of it, but for those
    that ``skip`` leaves out.

    Args:
        folder: An ``ECommerce-T2I`` folder.
        split: ``train``, ``valid`` or ``test``.
        on_error: ``raise`` at the first broken row, or ``skip``: read every image once beforehand, and leave out the
            broken ones and malformed and repeated lines; ``errors`` lists them.

    Raises:
        UserError: With file, line and id, if a line is malformed, or a prompt has no image or an image no
            prompt and ``on_error`` is ``raise``.
    """

    def __init__(self, folder: Path, split: str, *, on_error: Literal["raise", "skip"]) -> None:
        files = ECOMMERCE_T2I.files(folder, split, need_images=False)
        self.texts_path = files.texts
        self.images_path = files.images
        self.task_folder = folder
        self.folder = folder.parent if folder.name == ECOMMERCE_T2I.folder else folder
        self.split = split
        self.errors: list[FileError] = []
        errors = self.errors if on_error == "skip" else None
        descriptions = read_text_tsv(self.texts_path, errors)
        self.image_ids = [description.image_id for description in descriptions]
        self.texts = [description.text for description in descriptions]
        has_images = self.images_path.is_file()
        self.images = ImageTsv(self.images_path, str, errors) if has_images else None
        if self.images is not None:
            lines = [description.line for description in descriptions]
            usable = join_images(
                self.images, self.image_ids, lines, path=self.texts_path, what="description", errors=errors
            )
            self.image_rows = list(usable.values())
            self.image_ids = [self.image_ids[place] for place in usable]
            self.texts = [self.texts[place] for place in usable]

    def __len__(self) -> int:
        return len(self.texts)

    def need_images(self) -> ImageTsv:
        """The images.

        Raises:
            UserError: The split has none.
        """
        if self.images is None:
            raise UserError(
                f"the {self.split} split has no images ({self.images_path} is not there): it can only be predicted"
            )
        return self.images

    def image(self, row: int) -> np.ndarray:
        """One prompt's image as ``[H, W, 3] uint8`` RGB."""
        return decode(self.need_images(), self.image_rows[row])

    def batch(self, rows: Sequence[int]) -> TextImageBatch:
        """The prompts of some rows."""
        return TextImageBatch(
            text=[self.texts[row] for row in rows],
            image_id=[self.image_ids[row] for row in rows],
            row=torch.tensor(rows, dtype=torch.int64),
        )

    def targets(self, count: int | None = None) -> GenerationTargets:
        """What an evaluation of this split is held against.

        Args:
            count: Prompts to generate images of, spread evenly over the file; None: all.
        """
        rows = range(len(self)) if count is None else spread(len(self), count).tolist()
        return GenerationTargets(
            split=self.split,
            source=f"{self.folder.name}, t2i {self.digest}",
            image_ids=self.image_ids,
            texts=self.texts,
            rows=list(rows),
            has_images=self.images is not None,
            shown=self.shown,
        )

    @cached_property
    def shown(self) -> Shown | None:
        """What is to be seen in each row's image, where the folder says it.

        Raises:
            FileError: It says it of some images alone, or a file is not as it must be.
        """
        return read_shown(self.task_folder, self.split, self.image_ids)

    @cached_property
    def digest(self) -> str:
        """12 digits of the SHA-256 of the usable rows: ids, texts and images as they stand in the files."""
        digest = hashlib.sha256()
        for row in range(len(self)):
            digest.update(f"{self.image_ids[row]}\t{self.texts[row]}\n".encode())
            if self.images is not None:
                digest.update(self.images.base64(self.image_rows[row]))
        return digest.hexdigest()[:12]


class TrainingLatents(Dataset[TextImageBatch]):
    """Prompts and latents, or codes, to train on: keys are ``(epoch, row)``, which say whether it is flipped.

    Args:
        opened: The split.
        latents: Those of its images.
        flip: Probability of the flipped one.
        seed: Seed of the choice.
    """

    def __init__(self, opened: TextToImageSplit, latents: Latents, *, flip: float, seed: int) -> None:
        self.opened = opened
        self.latents = latents
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return len(self.opened)

    def __getitems__(self, keys: list[tuple[int, int]]) -> TextImageBatch:
        rows = [row for _, row in keys]
        views = [int(np.random.default_rng((self.seed, *key)).random() < self.flip) for key in keys]
        batch = self.opened.batch(rows)
        read = self.latents.array[rows, views]
        if self.latents.are_codes:
            batch["codes"] = torch.from_numpy(read.astype(np.int64))
        else:
            batch["latent"] = torch.from_numpy(read.astype(np.float32))
        return batch


class EvaluationRows(Dataset[Any]):
    """Some rows of a split as they are, a whole batch at a time.

    Args:
        opened: The split.
        rows: Which of its rows.
        image_size: Side of the square images in pixels; None: prompts without images.
    """

    def __init__(self, opened: ImageRows, rows: Sequence[int], *, image_size: int | None) -> None:
        if image_size is not None:
            opened.need_images()
        self.opened = opened
        self.rows = rows
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, places: list[int]) -> Any:
        rows = [self.rows[place] for place in places]
        batch = self.opened.batch(rows)
        if self.image_size is not None:
            pixels = np.stack([images.resize(self.opened.image(row), self.image_size) for row in rows])
            batch["image"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return batch
