"""What is wrong with a folder of data in MUGE's formats: every fault, with file, line and id; no torch.

Each file is read once, in order and whole, and of its pictures only some hundreds are in memory at a time; then files
are held against each other. MUGE's own ways are no faults: a test split without answers, references or (text-to-image)
pictures, ``.txt.tsv`` or ``.text.tsv``, several queries a picture, both alphabets of base64, Chinese-CLIP's names.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.check_files import scan_captions, scan_descriptions, scan_pictures, scan_queries
from zoo.data.check_lines import DataFault, DataFile, Kind
from zoo.data.formats import find_task_folder


class TaskFiles(NamedTuple):
    """What a task's files are called, MUGE's name first."""

    splits: tuple[str, ...]
    pictures: tuple[str, ...]
    texts: tuple[str, ...]
    noun: str  # what a line of the texts is
    optional: tuple[str, ...] = ()  # files that the benchmark keeps to itself
    answers: str | None = None  # of the test split


FILES = {
    "retrieval": TaskFiles(
        splits=("train", "valid", "test"),
        pictures=("MR_{}_imgs.tsv", "{}_imgs.tsv"),
        texts=("MR_{}_queries.jsonl", "{}_texts.jsonl"),
        noun="query",
        answers="MR_test_answers.jsonl",
    ),
    "t2i": TaskFiles(
        splits=("train", "val", "test"),
        pictures=("T2I_{}.img.tsv",),
        texts=("T2I_{}.txt.tsv", "T2I_{}.text.tsv"),
        noun="description",
        optional=("T2I_test.img.tsv",),
    ),
    "caption": TaskFiles(
        splits=("train", "valid", "test"),
        pictures=("IC_{}.tsv",),
        texts=("IC_{}.jsonl",),
        noun="caption",
        answers="IC_test_answers.jsonl",
    ),
}


class SplitFiles(NamedTuple):
    """The files of one split."""

    name: str
    pictures: DataFile | None
    texts: DataFile
    answers: DataFile | None


@dataclass(frozen=True)
class Report:
    """What an examination found.

    Attributes:
        task: ``retrieval``, ``t2i`` or ``caption``.
        folder: The task's folder.
        files: What was read, or is missing.
    """

    task: str
    folder: Path
    files: list[DataFile]

    @property
    def faults(self) -> list[DataFault]:
        """Every fault, file by file in the order of the lines; what concerns a file as a whole comes first."""
        return [fault for file in self.files for fault in sorted(file.faults, key=lambda fault: fault.line or 0)]

    def summary(self) -> dict[str, Any]:
        """Counts by file and kind, also of the lines that are fine; of ``crlf``, which is listed once, the lines."""
        return {
            "task": self.task,
            "folder": str(self.folder),
            "faults": len(self.faults),
            "files": [
                {"file": file.path.name, "lines": file.num_lines, "fine": file.num_fine, "faults": file.counts}
                for file in self.files
            ],
        }


def check_folder(
    root: Path | str, task: str, *, on_read: Callable[[int, int], None] = lambda read, total: None
) -> Report:
    """Examine a task's folder.

    Args:
        root: The folder, or the one that holds it.
        task: ``retrieval``, ``t2i`` or ``caption``.
        on_read: Called now and then with the number of bytes just read, and of all files.

    Raises:
        UserError: The task is unknown, or ``root`` holds nothing of it.
    """
    folder = find_task_folder(root, task)
    splits = find_splits(folder, task)
    files = [file for split in splits for file in split[1:] if isinstance(file, DataFile)]
    total = sum(file.path.stat().st_size for file in files if file.path.is_file())
    for file in files:
        file.on_read = lambda read: on_read(read, total)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in splits:
            _scan(split, task, pool)
    for parts in ([split.pictures for split in splits], [split.texts for split in splits]):
        _check_across([file for file in parts if file is not None])
    return Report(task, folder, files)


def find_splits(folder: Path, task: str) -> list[SplitFiles]:
    """The files that a task's folder has or should have."""
    known = FILES[task]
    is_cn_clip = task == "retrieval" and not any(folder.glob("MR_*")) and any(folder.glob("*_imgs.tsv"))

    def find(names: tuple[str, ...], split: str, noun: str) -> DataFile:
        paths = [folder / name.format(split) for name in names]
        missing = paths[-1] if is_cn_clip else paths[0]
        return DataFile(next((path for path in paths if path.is_file()), missing), noun=noun)

    splits = []
    for split in known.splits:
        pictures: DataFile | None = find(known.pictures, split, "picture")
        if pictures and pictures.path.name in known.optional and not pictures.path.exists():
            pictures = None
        answers = None
        if split == "test" and known.answers and (folder / known.answers).exists():
            answers = DataFile(folder / known.answers, noun=known.noun)
        splits.append(SplitFiles(split, pictures, find(known.texts, split, known.noun), answers))
    return splits


def _scan(split: SplitFiles, task: str, pool: Executor) -> None:
    """Read a split's files, and hold them against each other."""
    if split.pictures:
        scan_pictures(split.pictures, id_type=int if task == "retrieval" else str, pool=pool)
    for file in (split.texts, split.answers):
        if file is None:
            continue
        labelled = split.name != "test" or file is split.answers
        if task == "retrieval":
            scan_queries(file, labelled=labelled)
        elif task == "caption":
            scan_captions(file, labelled=labelled)
        else:
            scan_descriptions(file)
        if split.pictures and split.pictures.rows and file.rows:  # a file without rows has a fault of its own
            if task == "retrieval":
                _check_items(file, split.pictures)
            else:
                _check_partners(file, split.pictures, "no_picture")
                _check_partners(split.pictures, file, "no_text")
    if task == "retrieval" and split.answers and split.answers.rows and split.texts.rows:
        _check_partners(split.texts, split.answers, "no_answer")
        _check_partners(split.answers, split.texts, "no_query")
    for part in split[1:]:
        if isinstance(part, DataFile):
            _check_ids(part)


# --- what lines and files have to do with each other -----------------------------------------------------------


def _check_ids(file: DataFile) -> None:
    """Each id once."""
    for row in file.rows:
        if row.id is not None and (first := file.first_lines[row.id]) != row.line:
            file.add("duplicate_id", f"the id is already on line {first}; take one of the lines out", row.line, row.id)


def _check_items(queries: DataFile, pictures: DataFile) -> None:
    """Each picture that a query names is there."""
    for row in queries.rows:
        missing = [str(item) for item in row.items if item not in pictures.first_lines]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            message = (
                f"names {', '.join(missing[:3])}{more}: no such pictures in {pictures.path.name}; "
                "add them, or take the ids out"
            )
            queries.add("dangling_id", message, row.line, row.id)


def _check_partners(file: DataFile, other: DataFile, kind: Kind) -> None:
    """Each id of a file is in the other too."""
    for row in file.rows:
        if row.id is not None and row.id not in other.first_lines:
            message = f"{other.path.name} has no line of this id; add it, or take this line out"
            file.add(kind, message, row.line, row.id)


def _check_across(files: Sequence[DataFile]) -> None:
    """No id and no text in two splits; of captions the whole list of references: one slogan fits several products.

    Args:
        files: One of each split, the first comes first.
    """
    ids = [file.first_lines for file in files]
    texts = [{row.text: row.line for row in reversed(file.rows) if row.text is not None} for file in files]
    for place, file in enumerate(files):
        earlier = range(place)
        for row in file.rows:
            there = next((split for split in earlier if row.id in ids[split]), None)
            if there is not None and row.id is not None:
                where = f"{files[there].path.name}:{ids[there][row.id]}"
                message = f"the id is also at {where}; give one of the two another, or take it out"
                file.add("id_in_two_splits", message, row.line, row.id)
            there = next((split for split in earlier if row.text in texts[split]), None)
            if there is not None and row.text is not None:
                where = f"{files[there].path.name}:{texts[there][row.text]}"
                message = f"the same text is at {where}; take one out: scores would be of what was trained on"
                file.add("text_in_two_splits", message, row.line, row.id)
