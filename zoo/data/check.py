"""What is wrong with a folder of data in MUGE's formats: every error, with file, line and id; no torch.

Each file is read once, in order and whole, and of its images only some hundreds are in memory at a time; then files
are held against each other. MUGE's own ways are no errors: a test split without answers, references or (text-to-image)
images, ``.txt.tsv`` or ``.text.tsv``, several queries an image, both alphabets of base64, Chinese-CLIP's names.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.attributes import WORDS, attributes_path, read_vocabulary
from zoo.data.check_files import DataFile
from zoo.data.layouts import SPLITS, Layout, find_task_folder
from zoo.data.lines import HARMLESS, Kind
from zoo.errors import FileError


class CheckedSplit(NamedTuple):
    """The files of one split."""

    name: str
    images: DataFile | None
    texts: DataFile
    answers: DataFile | None
    attributes: DataFile | None

    @property
    def files(self) -> list[DataFile]:
        """Those that there are or should be."""
        return [file for file in (self.images, self.texts, self.answers, self.attributes) if file is not None]


@dataclass(frozen=True)
class Report:
    """What an examination found.

    Attributes:
        layout: The layout.
        folder: The folder.
        files: What was read, or is missing.
    """

    layout: Layout
    folder: Path
    files: list[DataFile]

    @property
    def errors(self) -> list[FileError]:
        """Every error, file by file in the order of the lines; what concerns a file as a whole comes first."""
        return [error for file in self.files for error in sorted(file.listed, key=lambda error: error.line or 0)]

    @property
    def can_skip(self) -> bool:
        """Whether rows are wrong that a training could leave out, and others left of each file."""
        skipped = any(error.line and error.kind not in HARMLESS for error in self.errors)
        left = all(file.num_fine for file in self.files if file.num_lines)
        return skipped and left and all(file.can_skip or not file.listed for file in self.files)

    def summary(self) -> dict[str, Any]:
        """Count by file and kind, also the lines that are fine; of ``crlf``, which is listed once, its lines."""
        return {
            "layout": self.layout.folder,
            "folder": str(self.folder),
            "errors": len(self.errors),
            "files": [
                {"file": file.path.name, "lines": file.num_lines, "fine": file.num_fine, "errors": file.counts}
                for file in self.files
            ],
        }


def check_folder(
    root: Path | str,
    layout: Layout,
    *,
    on_read: Callable[[int, int], None] = lambda read, total: None,
    on_texts: Callable[[str, Sequence[str]], None] = lambda file, texts: None,
) -> Report:
    """Examine a folder.

    Args:
        root: The folder, or the one that holds it.
        layout: Its layout.
        on_read: Called now and then with the number of bytes just read, and of all files.
        on_texts: Called with each file's name and the texts of each of its lines.

    Raises:
        UserError: ``root`` holds nothing of the layout.
    """
    folder = find_task_folder(root, layout)
    splits = [_open(folder, layout, split) for split in SPLITS]
    files = [file for split in splits for file in split.files]
    total = sum(file.path.stat().st_size for file in files if file.path.is_file())
    for file in files:
        file.on_read = lambda read: on_read(read, total)
        file.on_texts = partial(on_texts, file.path.name)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in splits:
            _scan(split, layout, pool)
    if any(split.attributes for split in splits):
        files.append(_scan_vocabulary(folder))
    for parts in ([split.images for split in splits], [split.texts for split in splits]):
        _check_across([file for file in parts if file is not None])
    return Report(layout, folder, files)


def _open(folder: Path, layout: Layout, split: str) -> CheckedSplit:
    images, texts, answers = layout.find(folder, split)
    attributes = attributes_path(folder, split)
    has_images = images.exists() or split not in layout.without_images
    return CheckedSplit(
        split,
        DataFile(images, noun="image", id_type=layout.id_type) if has_images else None,
        DataFile(texts, noun=layout.noun, id_type=layout.id_type),
        DataFile(answers, noun=layout.noun, id_type=layout.id_type) if answers else None,
        DataFile(attributes, noun="image", id_type=layout.id_type) if attributes.is_file() else None,
    )


def _scan(split: CheckedSplit, layout: Layout, pool: Executor) -> None:
    """Read a split's files, and hold them against each other."""
    images, texts, answers, attributes = split.images, split.texts, split.answers, split.attributes
    if images:
        images.scan_images(pool)
    for file in filter(None, (texts, answers)):
        file.scan_texts(layout, labelled=split.name != "test" or file is answers)
        if images and images.rows and file.rows:  # a file without rows has an error of its own
            if layout.names_images:
                _check_items(file, images)
            else:
                _check_partners(file, images, "no_image")
                _check_partners(images, file, "no_text")
    if layout.names_images and answers and answers.rows and texts.rows:
        _check_partners(texts, answers, "no_answer")
        _check_partners(answers, texts, "no_query")
    if attributes:
        attributes.scan_attributes()
        if images and images.rows and attributes.rows:
            _check_partners(attributes, images, "no_image")
            for id in images.first_lines:
                if id not in attributes.first_lines:
                    attributes.report("no_attributes", "has no line; write one, {} where it shows nothing", id=id)


def _scan_vocabulary(folder: Path) -> DataFile:
    """See that the words for the values of attributes can be read."""
    words = DataFile(folder / WORDS, noun="word", id_type=str)
    words.can_skip = False
    try:
        read_vocabulary(folder)
    except FileError as error:
        words.listed.append(error)
    return words


# --- what lines and files have to do with each other -----------------------------------------------------------


def _check_items(queries: DataFile, images: DataFile) -> None:
    """See that each image that a query names is there."""
    for row in queries.rows:
        missing = [str(image_id) for image_id in row.image_ids if image_id not in images.first_lines]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            message = (
                f"names {', '.join(missing[:3])}{more}: no such images in {images.path.name}; "
                "add them, or take the ids out"
            )
            queries.report("dangling_id", message, row.line, row.id)


def _check_partners(file: DataFile, other: DataFile, kind: Kind) -> None:
    """See that each id of a file is in the other too."""
    for row in file.rows:
        if row.id is not None and row.id not in other.first_lines:
            message = f"{other.path.name} has no line of this id; add it, or take this line out"
            file.report(kind, message, row.line, row.id)


def _check_across(files: Sequence[DataFile]) -> None:
    """See that no id and no text is in two splits, of captions no whole list of references.

    One slogan fits several products.

    Args:
        files: One of each split, the first comes first.
    """
    ids = [file.first_lines for file in files]
    texts = [{row.text: row.line for row in reversed(file.rows) if row.text is not None} for file in files]
    for index, file in enumerate(files):
        earlier = range(index)
        for row in file.rows:
            there = next((split for split in earlier if row.id in ids[split]), None)
            if there is not None and row.id is not None:
                where = f"{files[there].path.name}:{ids[there][row.id]}"
                message = f"the id is also at {where}; give one of the two another, or take it out"
                file.report("id_in_two_splits", message, row.line, row.id)
            there = next((split for split in earlier if row.text in texts[split]), None)
            if there is not None and row.text is not None:
                where = f"{files[there].path.name}:{texts[there][row.text]}"
                message = f"the same text is at {where}; take one out: scores would be of what was trained on"
                file.report("text_in_two_splits", message, row.line, row.id)
