"""The files of one captioning split, joined and checked, and the data sets that read them in whole batches."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.core.datasets import TrainingImages
from zoo.core.loaders import decode, join_images, spread
from zoo.data import images
from zoo.data.formats import Caption, read_captions
from zoo.data.layouts import ECOMMERCE_IC
from zoo.data.tsv import ImageTsv
from zoo.errors import FileError, UserError, raise_or_list
from zoo.tasks.captioning.contracts import CaptionBatch, CaptionTargets


class CaptioningSplit:
    """The files of one split: images, and the references of each where the split has them, joined by id.

    A row is an index among the images that can be used, in the order of the ``.jsonl`` file: all of them, but for
    those that ``skip`` leaves out. The references of the test split, which MUGE keeps to itself, are those of
    ``IC_test_answers.jsonl`` where somebody has them.

    Args:
        folder: An ``ECommerce-IC`` folder.
        split: ``train``, ``valid`` or ``test``.
        max_references: The most references used of an image, the first ones; None: all.
        on_error: ``raise`` at the first broken row, or ``skip``: read every image once beforehand, and leave out the
            broken ones and malformed and repeated lines; ``errors`` lists them.

    Raises:
        UserError: With file, line and id, if a line is malformed, or a line has no image or an image no line and
            ``on_error`` is ``raise``.
    """

    def __init__(
        self, folder: Path, split: str, *, max_references: int | None, on_error: Literal["raise", "skip"]
    ) -> None:
        images_path, texts_path, answers_path = ECOMMERCE_IC.files(folder, split)
        self.captions_path = answers_path or texts_path
        self.folder = folder.parent if folder.name == ECOMMERCE_IC.folder else folder
        self.split = split
        self.max_references = max_references
        self.errors: list[FileError] = []
        errors = self.errors if on_error == "skip" else None
        captions = self._alike(read_captions(self.captions_path, errors), errors)
        self.images = ImageTsv(images_path, str, errors)
        usable = join_images(
            self.images,
            [caption.image_id for caption in captions],
            [caption.line for caption in captions],
            path=self.captions_path,
            what="line of references",
            errors=errors,
        )
        self.image_rows = list(usable.values())
        self.image_ids = [captions[index].image_id for index in usable]
        self.references = [captions[index].texts[:max_references] for index in usable]
        self.has_references = any(self.references)

    def _alike(self, captions: list[Caption], errors: list[FileError] | None) -> list[Caption]:
        """Keep those with references, unless none has any."""
        with_texts = [caption for caption in captions if caption.texts]
        for caption in captions if with_texts else []:
            if not caption.texts:
                error = FileError(
                    "has no text, and others have: give every image a list of references, or none",
                    file=self.captions_path,
                    line=caption.line,
                    id=caption.image_id,
                    noun="image",
                    kind="missing_key",
                )
                raise_or_list(error, errors)
        return with_texts or captions

    def __len__(self) -> int:
        return len(self.image_ids)

    def need_references(self) -> None:
        """See that there are references.

        Raises:
            UserError: There are none.
        """
        if not self.has_references:
            raise UserError(
                f"the {self.split} split has no references ({self.captions_path}): it can only be predicted"
            )

    def image(self, row: int) -> np.ndarray:
        """Decode one image: ``[H, W, 3] uint8`` RGB."""
        return decode(self.images, self.image_rows[row])

    def batch(self, rows: Sequence[int]) -> CaptionBatch:
        """Make a batch of some rows, without images and references."""
        return CaptionBatch(
            image_id=[self.image_ids[row] for row in rows],
            row=torch.tensor(rows, dtype=torch.int64),
        )

    def targets(self, count: int | None = None) -> CaptionTargets:
        """Give what an evaluation of this split is held against.

        Args:
            count: Images to write captions for, spread evenly over the file; None: all.
        """
        rows = range(len(self)) if count is None else spread(len(self), count).tolist()
        return CaptionTargets(
            split=self.split,
            source=f"{self.folder.name}, caption {self.digest}",
            image_ids=self.image_ids,
            references=self.references if self.has_references else None,
            rows=list(rows),
            max_references=self.max_references,
        )

    @cached_property
    def digest(self) -> str:
        """The first 12 digits of the SHA-256 of the usable rows: ids, references and images as in the files."""
        digest = hashlib.sha256()
        for row in range(len(self)):
            digest.update("\t".join([self.image_ids[row], *self.references[row], ""]).encode())
            digest.update(self.images.base64(self.image_rows[row]))
        return digest.hexdigest()[:12]


class TrainingCaptions(TrainingImages):
    """Images and references to train on: keys are ``(epoch, row)``, of which crop and choice are a function.

    Args:
        opened: The split.
        captions_per_image: References sampled of an image, all different; None: all of them.
        **augmentation: As of ``TrainingImages``.
    """

    def __init__(self, opened: CaptioningSplit, *, captions_per_image: int | None, **augmentation: Any) -> None:
        opened.need_references()
        super().__init__(opened, **augmentation)
        self.captions_per_image = captions_per_image

    def batch(self, rows: Sequence[int], generators: Sequence[np.random.Generator]) -> CaptionBatch:
        """Give ids and references, some of which are sampled for each image."""
        chosen = []
        for row, generator in zip(rows, generators, strict=True):
            references = self.opened.references[row]
            count = min(self.captions_per_image or len(references), len(references))
            chosen.append([references[number] for number in generator.permutation(len(references))[:count]])
        return with_references(self.opened.batch(rows), chosen)


class CaptionedImages(Dataset[CaptionBatch]):
    """Some rows as they are, with all their references where the split has them, a whole batch at a time.

    Args:
        opened: The split.
        rows: Which of its rows.
        image_size: Side of the square images in pixels.
    """

    def __init__(self, opened: CaptioningSplit, rows: list[int], *, image_size: int) -> None:
        self.opened = opened
        self.rows = rows
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> CaptionBatch:
        rows = [self.rows[index] for index in indices]
        pixels = np.stack([images.resize(self.opened.image(row), self.image_size) for row in rows])
        batch = self.opened.batch(rows)
        batch["image"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if self.opened.has_references:
            with_references(batch, [list(self.opened.references[row]) for row in rows])
        return batch


def with_references(batch: CaptionBatch, references: list[list[str]]) -> CaptionBatch:
    """Add to a batch the references of its B images, one list each."""
    batch["text"] = [text for texts in references for text in texts]
    batch["image_index"] = torch.tensor([index for index, texts in enumerate(references) for _ in texts])
    return batch
