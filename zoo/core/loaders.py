"""What the data modules share: finding the data, checking options, building loaders, flips on the device."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from zoo.data import images
from zoo.data.samplers import EvaluationBatchSampler, TrainingBatchSampler
from zoo.data.tsv import ImageTsv, JoinedTsv
from zoo.errors import FileError, UserError, invalid
from zoo.io import expanded

if TYPE_CHECKING:  # a loader's workers do without
    from lightning import Trainer

# --- options ---------------------------------------------------------------------------------------------------


def resolve_root(root: str) -> Path:
    """The folder that ``root`` means.

    Args:
        root: A path, or ``auto``: ``$MUGE_ROOT``, else ``data/MUGE``, else the embedded data set. ``auto/scorer`` is a
            folder in it: what the matchers that score are trained on.

    Raises:
        UserError: A folder was named, by ``root`` or ``$MUGE_ROOT``, and is not there.
    """
    if root.startswith("auto/"):
        folder = resolve_root("auto") / root.removeprefix("auto/")
        if not folder.is_dir():
            raise invalid("data.root", root, f"there is no folder {folder}; give one that is there")
        return folder
    named = root if root != "auto" else os.environ.get("MUGE_ROOT")
    folder = muge_root() if root == "auto" else Path(expanded(root, "data.root"))
    if folder.is_dir():
        return folder
    if named:
        source = "$MUGE_ROOT" if root == "auto" else "data.root"
        raise UserError(f"{source} is {named}: there is no such folder. Give MUGE's folder, or leave it out")
    from zoo.data.catalogue.demo import demo_root

    folder = demo_root()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"No MUGE data ($MUGE_ROOT, data/MUGE): using the embedded images at {folder}", file=sys.stderr)
    return folder


def muge_root() -> Path:
    """Give MUGE's folder, ``$MUGE_ROOT``, else ``data/MUGE``; it need not be there."""
    return Path(expanded(os.environ.get("MUGE_ROOT") or "data/MUGE"))


def resolve_image_size(image_size: int | str, trainer: "Trainer | None") -> int:
    """The side of the images in pixels; ``auto`` is what the trainer's task reads.

    Raises:
        UserError: It is ``auto`` and there is no trainer.
    """
    if image_size != "auto":
        if not str(image_size).isdecimal() or int(image_size) < 1:
            raise invalid("data.image_size", image_size, "give a number of pixels, or auto")
        return int(image_size)
    if trainer is None:
        raise UserError("data.image_size is auto and there is no trainer to ask: give a number of pixels")
    return int(trainer.lightning_module.image_size)  # type: ignore[arg-type]  # a task says what it reads


def resolve_seed(seed: int | None) -> int:
    """The seed, by default the one of ``seed_everything``."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed


def check_least(**least: tuple[int | None, int]) -> None:
    """Raise UserError where an option, given as ``name=(value, least)``, is less than its least value; None is not."""
    for name, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise UserError(f"data.{name} is {value}: give {smallest} or more")


def check_probabilities(**probabilities: float) -> None:
    """Raise UserError where an option is no probability."""
    for name, value in probabilities.items():
        if not 0 <= value <= 1:
            raise UserError(f"data.{name} is {value}: give a probability, 0 to 1")


def check_crop_scale(crop_scale: tuple[float, float]) -> None:
    """Raise UserError where the shares that a crop keeps are none."""
    if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
        raise invalid("data.crop_scale", list(crop_scale), "give two shares 0 < least <= most <= 1")


# --- rows ------------------------------------------------------------------------------------------------------


def decode(tsv: ImageTsv | JoinedTsv, row: int) -> np.ndarray:
    """One image of a TSV as ``[H, W, 3] uint8`` RGB; what is wrong with it names file, line and id."""
    try:
        return images.decode(tsv[row])
    except images.ImageError as error:
        hint = "Fix the row, or leave such rows out with data.on_error=skip"
        raise tsv.error(row, f"{str(error).rstrip('.')}. {hint}", kind="bad_image") from None


def broken_images(tsv: ImageTsv) -> dict[int, FileError]:
    """The rows of a TSV whose images cannot be decoded, and what is wrong with each; reads all of them."""
    broken = {}
    for row in range(len(tsv)):
        try:
            images.decode(tsv[row])
        except images.ImageError as error:
            broken[row] = tsv.error(row, str(error), kind="bad_image")
    return broken


def join_images(
    tsv: ImageTsv,
    image_ids: Sequence[str],
    lines: Sequence[int],
    *,
    path: Path,
    what: str,
    errors: list[FileError] | None,
) -> dict[int, int]:
    """Find the image of each line of a text file.

    Args:
        tsv: The split's images.
        image_ids: Of the text file's lines, each once.
        lines: Their line numbers.
        path: The text file.
        what: One of its lines, such as ``description``.
        errors: Where lines without an image, images without a line and images that cannot be decoded are listed,
            for which all are read; None: the first of the former two is an error.

    Returns:
        The image's row by the place among ``image_ids``, rising, of all that can be used.

    Raises:
        UserError: There is an error and no list for it, or nothing can be used.
    """
    row_of = {str(image_id): row for row, image_id in enumerate(tsv.ids)}
    known = set(image_ids)
    apart = [
        FileError(f"has no image in {tsv.path}", file=path, line=line, id=image_id, noun=what, kind="no_image")
        for image_id, line in zip(image_ids, lines, strict=True)
        if image_id not in row_of
    ]
    apart += [
        tsv.error(row, f"has no {what} in {path}", kind="no_text")
        for image_id, row in row_of.items()
        if image_id not in known
    ]
    if apart and errors is None:
        more = f" (and {len(apart) - 1} more such rows)" if len(apart) > 1 else ""
        first = apart[0]
        message = f"{first.message}{more}. Fix them, or leave such rows out with data.on_error=skip"
        raise FileError(message, file=first.file, line=first.line, kind=first.kind)
    broken = {} if errors is None else broken_images(tsv)
    if errors is not None:
        errors += [*apart, *broken.values()]
    found = {place: row_of[image_id] for place, image_id in enumerate(image_ids) if image_id in row_of}
    usable = {place: row for place, row in found.items() if row not in broken}
    if not usable:
        raise FileError(f"has no {what} with an image that can be used", file=path, kind="empty_file")
    return usable


def spread(total: int, count: int) -> np.ndarray:
    """``count`` places spread evenly over ``total``, rising, or all where there are no more."""
    count = min(count, total)
    return np.arange(count) * total // count


def report_faults(errors: Sequence[FileError], what: str, trainer: "Trainer | None") -> None:
    """Say, once for all processes, which broken rows are left out."""
    if errors and (trainer is None or trainer.is_global_zero):
        lines = "\n  ".join(map(str, errors))
        print(f"data.on_error=skip: {what}: {len(errors)} broken rows\n  {lines}", file=sys.stderr)


# --- loaders ---------------------------------------------------------------------------------------------------


class LateLoader(DataLoader):
    """Begins to read at the first ``next``, not at ``iter``.

    Lightning calls ``iter`` for a run's first epoch when it configures the optimiser, long before the epoch: workers
    that read ahead would have asked the sampler for its order by then.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


def training_loader(
    dataset: Dataset,
    trainer: "Trainer | None",
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    groups: np.ndarray | None = None,
    group_size: int = 1,
    regroup: Callable[[int], np.ndarray | None] | None = None,
) -> DataLoader:
    """Shuffled rows in equal batches; continues where the trainer stands.

    Args:
        dataset: Gives whole batches for lists of ``(epoch, row)``.
        trainer: Says which process this is and how far training has come; None: the only one, at the start.
        batch_size: Rows of a batch on each process.
        num_workers: Processes that read ahead.
        seed: Seed of the order.
        groups: What each row belongs to; see ``TrainingBatchSampler``.
        group_size: Rows of a group that are sampled together.
        regroup: Gives an epoch's own groups, when the epoch begins.
    """
    num_rows = len(dataset)  # type: ignore[arg-type]
    place = place_of(trainer)
    sampler = TrainingBatchSampler(
        num_rows,
        batch_size=batch_size,
        seed=seed,
        progress=partial(batches_trained, trainer),
        limit=trainer.limit_train_batches if trainer else 1.0,
        groups=groups,
        group_size=group_size,
        regroup=regroup,
        **place,
    )
    if sampler.batch_size < batch_size and place["rank"] == 0:
        print(
            f"data.batch_size {batch_size} is more than the {num_rows} training pairs allow: "
            f"training with {sampler.batch_size}",
            file=sys.stderr,
        )
    return _loader(dataset, sampler, trainer, num_workers=num_workers, persistent=True)


def evaluation_loader(dataset: Dataset, trainer: "Trainer | None", *, batch_size: int, num_workers: int) -> DataLoader:
    """This process's share of the rows, in file order.

    Args:
        dataset: Gives whole batches for lists of rows.
        trainer: Says which process this is; None: the only one.
        batch_size: Rows of a batch.
        num_workers: Processes that read ahead.
    """
    place = place_of(trainer)
    sampler = EvaluationBatchSampler(len(dataset), batch_size=batch_size, **place)  # type: ignore[arg-type]
    return _loader(dataset, sampler, trainer, num_workers=num_workers, persistent=False)


def _loader(
    dataset: Dataset, sampler: Any, trainer: "Trainer | None", *, num_workers: int, persistent: bool
) -> DataLoader:
    on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
    # Beside the threads of a process group or of CUDA a forked worker hangs, once in some hundreds (CPython waits for a
    # lock that such a thread held): a server without threads forks the workers then.
    server = num_workers > 0 and (place_of(trainer)["world_size"] > 1 or on_gpu)
    if server:
        multiprocessing.set_forkserver_preload([type(dataset).__module__])
    kind = LateLoader if persistent else DataLoader
    return kind(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        multiprocessing_context="forkserver" if server else None,
        persistent_workers=persistent and num_workers > 0,
        pin_memory=on_gpu,
        collate_fn=whole_batch,
        worker_init_fn=start_worker,
    )


def place_of(trainer: "Trainer | None") -> dict[str, int]:
    """Which process this is and of how many: ``rank`` and ``world_size``."""
    if trainer is None:
        return {"rank": 0, "world_size": 1}
    return {"rank": trainer.global_rank, "world_size": trainer.world_size}


def batches_trained(trainer: "Trainer | None") -> int:
    """Batches trained so far in the run."""
    if trainer is None:
        return 0
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return total.processed


def check_processes(num_rows: int, split: str, trainer: "Trainer | None") -> None:
    """Raise UserError where an evaluation has fewer rows than processes."""
    world_size = place_of(trainer)["world_size"]
    if num_rows < world_size:
        raise UserError(f"the {split} split is smaller than the {world_size} processes: use fewer")


def whole_batch(batch: Any) -> Any:
    """The collate function: our data sets already hand over whole batches."""
    return batch


def start_worker(worker: int) -> None:
    """Tie a loader's worker to the process that it works for: Ctrl-C is that one's, and the worker ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = multiprocessing.parent_process()
    if owner is not None and owner.pid != os.getppid():
        # A server forked it, which lives as long as its workers do, and PyTorch's worker as long as the server.
        threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: Any) -> None:
    owner.join()
    os._exit(1)


# --- batches ---------------------------------------------------------------------------------------------------


def flip_images(batch: Any) -> Any:
    """Flip the images that the worker drew for it, on the batch's device; a batch without draws stays as it is."""
    if "flip" in batch:
        flip, pixels = batch.pop("flip"), batch["image"]
        if pixels.device.type == "cpu":  # one by one each stays in the processor's cache: 30 times as fast
            for place in flip.nonzero().flatten().tolist():
                pixels[place] = pixels[place].flip(-1)
        else:
            batch["image"] = torch.where(flip[:, None, None, None], pixels.flip(-1), pixels)
    return batch
