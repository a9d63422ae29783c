"""Text-to-image retrieval: MUGE's ``Multimodal_Retrieval`` files → batches of queries, images and ids."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from zoo.core.datamodule import MugeDataModule
from zoo.core.loaders import check_least, check_probabilities, decode
from zoo.data.augment_on_device import auto_augment_batch
from zoo.data.formats import Schema
from zoo.data.images import resize
from zoo.data.layouts import MULTIMODAL_RETRIEVAL
from zoo.errors import invalid
from zoo.tasks.retrieval.contracts import RetrievalTargets
from zoo.tasks.retrieval.datasets import GalleryDataset, PairDataset, QueryDataset, RetrievalSplit, Split, TrainingPairs


class RetrievalDataModule(MugeDataModule):
    """Queries and product images in MUGE's ``Multimodal_Retrieval`` formats (or Chinese-CLIP's variant of them).

    Images reach the model as ``uint8 [B, 3, S, S]``, texts as strings; validation, test and prediction are two
    loaders, the queries and the gallery.

    Args:
        root: A ``Multimodal_Retrieval`` folder or its parent. ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the
            embedded data.
        batch_size: Pairs of a training batch on each process.
        eval_batch_size: Queries or images of an evaluation batch.
        crop_scale: Least and most of an image's area that a crop keeps; ``[1, 1]``: no crop.
        auto_augment: Whether AutoAugment's original ImageNet policy by timm is applied after the crop; with ``flip``
            0.5 and the default ``crop_scale`` it is CN-CLIP's fine-tuning recipe.
        augment_on: Where: ``worker``; ``device``, to the same images; ``auto``: on a GPU, unless ``degrade`` follows.
        degrade: Probability that a training image is made blurred and noisy, as early generated images are, in [0, 1].
        train_splits: Splits whose pairs are trained on, such as train and valid for a last submission; test, where its
            answers lie beside it.
        group_size: Training pairs of related images, true for one query, that are sampled together, so that they are
            each other's negatives; 1 samples pairs singly.
        submission_schema: Keys and file name of the submission: MUGE's, or Chinese-CLIP's (``text_id, text,
            image_ids``).
        **shared: Options of every data module: see ``MugeDataModule``.

    Raises:
        UserError: A file is missing, or a row is broken and ``on_error`` is ``raise``.
    """

    layout = MULTIMODAL_RETRIEVAL

    def __init__(
        self,
        root: str = "auto",
        *,
        batch_size: int = 128,
        eval_batch_size: int = 128,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        auto_augment: bool = False,
        augment_on: Literal["auto", "device", "worker"] = "auto",
        degrade: float = 0.0,
        train_splits: tuple[Split, ...] = ("train",),
        group_size: int = 1,
        submission_schema: Schema = "muge",
        **shared: Any,
    ) -> None:
        super().__init__(root, batch_size=batch_size, eval_batch_size=eval_batch_size, crop_scale=crop_scale, **shared)
        check_probabilities(degrade=degrade)
        check_least(group_size=(group_size, 1))
        if augment_on not in ("auto", "device", "worker"):
            raise invalid("data.augment_on", augment_on, "give auto, device or worker")
        if augment_on == "device" and degrade > 0:
            raise invalid("data.augment_on", augment_on, "give auto or worker, where data.degrade can follow")
        if not train_splits or len(set(train_splits)) < len(train_splits):
            raise invalid("data.train_splits", list(train_splits), "give one split or several, each once")
        self.auto_augment = auto_augment
        self.augment_on: Literal["auto", "device", "worker"] = augment_on
        self.degrade = degrade
        self.train_splits = tuple(train_splits)
        self.group_size = group_size
        self.submission_schema = submission_schema
        self._regroup: Callable[[int], np.ndarray | None] | None = None

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others or on this data; see the base class."""
        idle = {} if self.auto_augment else {"data.augment_on": "auto_augment is false"}
        groups = self._training[2]
        if len(np.unique(groups)) == len(groups):
            idle["data.group_size"] = "the data label no groups: no query is of two training pairs"
        return idle

    def training_texts(self) -> list[str]:
        """Give the queries that are trained on."""
        training, pairs, _ = self._training
        return [training.queries[index].text for index in np.unique(pairs[:, 0])]

    # --- files -------------------------------------------------------------------------------------------------

    def open_split(self, split: str) -> RetrievalSplit:
        """Open the queries and the gallery of a split."""
        return RetrievalSplit(self.folder, split, on_error=self.on_error)  # type: ignore[arg-type]

    def training_splits(self) -> tuple[str, ...]:
        """Name the splits that are trained on."""
        return self.train_splits

    def targets(self, split: str) -> RetrievalTargets:
        """Return the queries, gallery and answers of a split."""
        return self.open(split).targets()

    def image(self, split: str, image_id: int) -> np.ndarray:
        """Return one gallery image as ``[H, W, 3] uint8`` RGB."""
        opened = self.open(split)
        return decode(opened.images, opened.row_of[image_id])

    @cached_property
    def _training(self) -> tuple[TrainingPairs, np.ndarray, np.ndarray]:
        """Return what is trained on: queries and images, ``[P, 2]`` indices of the pairs, ``[P]`` what is related."""
        training = TrainingPairs([self.open(split) for split in self.train_splits])
        pairs = training.pairs()
        return training, pairs, training.groups(pairs)

    def training_pairs(self) -> np.ndarray:
        """Return query id and image id of each pair that is trained on, ``[P, 2] int64``, in the order of the rows."""
        training, pairs, _ = self._training
        query_ids = np.array([query.query_id for query in training.queries])
        return np.stack([query_ids[pairs[:, 0]], training.images.ids[pairs[:, 1]].astype(np.int64)], axis=1)

    # --- loaders -----------------------------------------------------------------------------------------------

    def training_dataset(self) -> PairDataset:
        """Make the data set of pairs."""
        training, pairs, _ = self._training
        return PairDataset(
            training.images,
            training.queries,
            pairs,
            auto_augment=self._augmenter() if self.auto_augment else None,
            degrade=self.degrade,
            **self.augmentation,
        )

    def _augmenter(self) -> Literal["device", "worker"]:
        """Say where AutoAugment is applied."""
        if self.augment_on != "auto":
            return self.augment_on
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return "device" if on_gpu and self.degrade == 0 else "worker"

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply, on the device, the AutoAugment and the flips that the worker drew."""
        if "augment" in batch:
            batch["image"] = auto_augment_batch(batch["image"], batch.pop("augment"))
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def grouping(self) -> dict[str, Any]:
        """Say which pairs are sampled together."""
        return {"groups": self._training[2], "group_size": self.group_size, "regroup": self._regroup}

    def regroup(self, groups: Callable[[int], np.ndarray | None]) -> None:
        """Ask ``groups``, as each epoch begins, which of its rows are sampled together; before the loader is built.

        Args:
            groups: Called on every process with the epoch, when its first batch is asked for. It gives ``[P]``
                integers, the same on every process, whole groups of which are sampled in a run; or None for the data's
                own groups and ``group_size``.
        """
        self._regroup = groups

    def training_loaders(self, prepare: Callable[[np.ndarray], np.ndarray] | None = None) -> list[DataLoader]:
        """Load all queries, then all images that are trained on, each once, not augmented: this process's share.

        Args:
            prepare: Makes a square of an image ``[H, W, 3] uint8``; None: as for an evaluation.
        """
        training, pairs, _ = self._training
        queries, rows = (np.unique(column) for column in pairs.T)
        return self.in_file_order(
            [
                QueryDataset([training.queries[index] for index in queries]),
                GalleryDataset(training.images, rows, prepare=prepare or self.prepare_image),
            ]
        )

    def training_files(self) -> list[Any]:
        """Tell the files that are trained on from others: what their queries are, size and time of their images."""
        splits = [self.open(split) for split in self.train_splits]
        statuses = [split.images.path.stat() for split in splits]
        return [
            [split.targets().source, status.st_size, status.st_mtime_ns]
            for split, status in zip(splits, statuses, strict=True)
        ]

    def evaluation_datasets(self, split: str) -> list[Any]:
        """Make the data sets of the queries and of the gallery."""
        opened = self.open(split)
        return [QueryDataset(opened.queries), GalleryDataset(opened.images, opened.rows, prepare=self.prepare_image)]

    @property
    def prepare_image(self) -> Callable[[np.ndarray], np.ndarray]:
        """What makes a square of an image of an evaluation: the model's own way where it has one, else a resize."""
        task: Any = getattr(self.trainer, "lightning_module", None)
        own = getattr(task, "prepare_image", None)
        if own is not None and self.image_size == task.image_size:
            return own
        return partial(resize, size=self.image_size)
