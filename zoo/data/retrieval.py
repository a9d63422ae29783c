"""Text-to-image retrieval: MUGE's ``Multimodal_Retrieval`` files → batches of queries, pictures and ids."""

import hashlib
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

from zoo import images
from zoo.data.formats import TASK_FOLDERS, Query, Schema, find_task_folder, read_queries, retrieval_files
from zoo.data.samplers import EvaluationBatchSampler, TrainingBatchSampler
from zoo.data.tsv import ImageTsv
from zoo.errors import UserError
from zoo.interfaces import ImageBatch, PairBatch, QueryBatch, RetrievalGold

Split = Literal["train", "valid", "test"]


class PairDataset(Dataset[PairBatch]):
    """Training pairs, a whole batch at a time: keys are ``(epoch, row)``; crop and flip are a function of those two."""

    def __init__(
        self,
        pictures: ImageTsv,
        queries: list[Query],
        pairs: np.ndarray,
        *,
        image_size: int,
        crop_scale: tuple[float, float],
        flip: float,
        seed: int,
    ) -> None:
        self.pictures = pictures
        self.queries = queries
        self.pairs = pairs  # [P, 2] int64: index of the query, row of the picture
        self.image_size = image_size
        self.crop_scale = crop_scale
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, keys: list[tuple[int, int]]) -> PairBatch:
        pixels = np.empty((len(keys), self.image_size, self.image_size, 3), dtype=np.uint8)
        flip = torch.zeros(len(keys), dtype=torch.bool)
        pairs = self.pairs[[row for _, row in keys]]
        for place, ((epoch, row), (_, picture_row)) in enumerate(zip(keys, pairs, strict=True)):
            generator = np.random.default_rng((self.seed, epoch, row))
            image = decode(self.pictures, int(picture_row))
            if self.crop_scale == (1.0, 1.0):
                pixels[place] = images.resize(image, self.image_size)
            else:
                height, width = image.shape[:2]
                box = images.random_crop_box(height, width, self.crop_scale, (3 / 4, 4 / 3), generator)
                pixels[place] = images.crop_resize(image, box, self.image_size)
            flip[place] = generator.random() < self.flip
        batch = PairBatch(
            image=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            text=[self.queries[index].text for index in pairs[:, 0]],
            image_id=torch.from_numpy(self.pictures.ids[pairs[:, 1]].astype(np.int64)),
            query_id=torch.tensor([self.queries[index].query_id for index in pairs[:, 0]]),
        )
        if self.flip > 0:
            batch["flip"] = flip
        return batch


class QueryDataset(Dataset[QueryBatch]):
    """The queries of an evaluation, a whole batch at a time."""

    def __init__(self, queries: list[Query]) -> None:
        self.queries = queries

    def __len__(self) -> int:
        return len(self.queries)

    def __getitems__(self, rows: list[int]) -> QueryBatch:
        queries = [self.queries[row] for row in rows]
        return QueryBatch(
            text=[query.text for query in queries], query_id=torch.tensor([query.query_id for query in queries])
        )


class GalleryDataset(Dataset[ImageBatch]):
    """The pictures of an evaluation, a whole batch at a time."""

    def __init__(self, pictures: ImageTsv, rows: np.ndarray, *, image_size: int) -> None:
        self.pictures = pictures
        self.rows = rows  # rows of the TSV that can be read
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, places: list[int]) -> ImageBatch:
        rows = self.rows[places]
        pixels = np.empty((len(rows), self.image_size, self.image_size, 3), dtype=np.uint8)
        for place, row in enumerate(rows):
            pixels[place] = images.resize(decode(self.pictures, int(row)), self.image_size)
        return ImageBatch(
            image=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            image_id=torch.from_numpy(self.pictures.ids[rows].astype(np.int64)),
        )


class RetrievalSplit:
    """The files of one split, opened and checked: queries, pictures, and the rows that can be used.

    Args:
        folder: A ``Multimodal_Retrieval`` folder.
        split: ``train``, ``valid`` or ``test``.
        on_error: ``raise`` at the first broken row, or ``skip``: read every picture once beforehand and leave the
            broken ones out.
    """

    def __init__(self, folder: Path, split: Split, *, on_error: Literal["raise", "skip"]) -> None:
        images_path, queries_path, answers_path = retrieval_files(folder, split)
        self.folder = folder.parent if folder.name == TASK_FOLDERS["retrieval"] else folder
        self.split = split
        self.pictures = ImageTsv(images_path, id_type=int)
        self.queries = read_queries(queries_path)
        self.faults: list[str] = []
        broken = self._broken_pictures() if on_error == "skip" else {}
        self.rows = np.array([row for row in range(len(self.pictures)) if row not in broken], dtype=np.int64)
        self.answers = self.queries
        if answers_path is not None:
            answers = {query.query_id: query for query in read_queries(answers_path)}
            missing = [query.query_id for query in self.queries if query.query_id not in answers]
            if missing:
                raise UserError(f"{answers_path}: no answer for query {missing[0]} (and {len(missing) - 1} more)")
            self.answers = [answers[query.query_id] for query in self.queries]
        self.labelled = any(query.item_ids for query in self.answers)
        self._check_items(answers_path or queries_path, broken, on_error)

    def _broken_pictures(self) -> dict[int, str]:
        broken = {}
        for row in range(len(self.pictures)):
            try:
                images.decode(self.pictures[row])
            except images.ImageError as error:
                broken[row] = f"{self.pictures.where(row)}: {error}"
        self.faults += broken.values()
        return broken

    def _check_items(self, path: Path, broken: dict[int, str], on_error: str) -> None:
        row_of = self.row_of
        left_out = {int(self.pictures.ids[row]) for row in broken}
        for query in self.answers:
            for item in query.item_ids:
                if item not in row_of and item not in left_out:
                    fault = f"{path}: query {query.query_id} names picture {item}, which {self.pictures.path} lacks"
                    if on_error == "raise":
                        raise UserError(f"{fault}. Add the picture, or leave such rows out with data.on_error=skip")
                    self.faults.append(fault)

    @cached_property
    def row_of(self) -> dict[int, int]:
        """The TSV row of each usable picture id."""
        ids = self.pictures.ids[self.rows]
        return {int(image_id): int(row) for image_id, row in zip(ids, self.rows, strict=True)}

    def pairs(self) -> np.ndarray:
        """``[P, 2] int64``: one row a (query, true picture) pair, in file order: query index, picture row."""
        rows = [
            (index, self.row_of[item])
            for index, query in enumerate(self.queries)
            for item in query.item_ids
            if item in self.row_of
        ]
        if not rows:
            raise UserError(f"the {self.split} split at {self.pictures.path} has no (query, picture) pair to train on")
        return np.array(rows, dtype=np.int64)

    def gold(self) -> RetrievalGold:
        """What an evaluation of this split is held against."""
        digest = hashlib.sha256("\n".join(f"{answer}" for answer in self.answers).encode()).hexdigest()[:12]
        return RetrievalGold(
            split=self.split,
            source=f"{self.folder.name}, queries {digest}",
            query_ids=[query.query_id for query in self.queries],
            texts=[query.text for query in self.queries],
            image_ids=[int(image_id) for image_id in self.pictures.ids[self.rows]],
            positives=[query.item_ids for query in self.answers] if self.labelled else None,
            kinds=[query.kind for query in self.answers],
        )


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
        dataset = PairDataset(
            opened.pictures,
            opened.queries,
            opened.pairs(),
            image_size=self.image_size,
            crop_scale=self.crop_scale,  # type: ignore[arg-type]
            flip=self.flip,
            seed=self.seed,
        )
        sampler = TrainingBatchSampler(
            len(dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            progress=self._progress,
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
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=persistent and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=whole_batch,
        )

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _progress(self) -> tuple[int, int | None]:
        if self.trainer is None:
            return 0, None
        limit = self.trainer.num_training_batches
        done: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return done.processed, int(limit) if limit != float("inf") else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirror, on the device, the pictures that the worker drew for it."""
        if "flip" in batch:
            flip = batch.pop("flip")
            batch["image"] = torch.where(flip[:, None, None, None], batch["image"].flip(-1), batch["image"])
        return batch


def decode(pictures: ImageTsv, row: int) -> np.ndarray:
    """One picture of a TSV as ``[H, W, 3] uint8`` RGB; what is wrong with it names file, line and id."""
    try:
        return images.decode(pictures[row])
    except images.ImageError as error:
        hint = "Mend the row, or leave such rows out with data.on_error=skip"
        raise UserError(f"{pictures.where(row)}: {str(error).rstrip('.')}. {hint}") from None


def whole_batch(batch: Any) -> Any:
    """The collate function: the data sets above already hand over whole batches."""
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
