"""A task folder in MUGE's formats into images as files and one table; no torch. The way back of an import."""

import csv
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from urllib.parse import quote

from zoo.data import images
from zoo.data.attributes import Attributes, read_attributes
from zoo.data.convert.folders import refuse_filled
from zoo.data.convert.importing import IDS
from zoo.data.layouts import SPLITS, Layout, find_task_folder
from zoo.data.lines import Id, LineReader
from zoo.data.tsv import ImageTsv
from zoo.errors import FileError, UserError
from zoo.io import expanded

IMAGES, TABLE = "images", "pairs.csv"
COLUMNS = ("split", "image", "text")
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}  # of the others the kind's own name


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        folder: Where it is.
        attributes: The columns of what images show.
        counts: Of each split: ``rows`` of the table, and among them those ``without_text`` and ``without_image``.
    """

    folder: Path
    attributes: tuple[str, ...] = ()
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class _Texts:
    """A split's texts: by image, and those that name none."""

    by_image: dict[Id, list[str]]
    alone: list[str] = field(default_factory=list)


def export_folder(
    root: Path | str,
    out: Path | str,
    *,
    layout: Layout,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportReport:
    """Write ``images``, a folder of files, and ``pairs.csv`` with split, image and text; whole, or not at all.

    Images have the names that an import noted, else their split and id. An image without a text and a text without
    an image, as test splits have them, are rows with an empty cell. Where the folder says what images show, the table
    has a column more for each kind of attribute.

    Args:
        root: The folder, or its parent.
        out: The folder to write, new or empty.
        layout: The folder's layout.
        on_progress: Called after each image, with how many there were so far, of how many.

    Raises:
        UserError: ``out`` is there, or the data has an error that stands in the way.
    """
    folder, out = find_task_folder(root, layout), Path(expanded(out)).absolute()
    refuse_filled(out)
    found = {split: layout.find(folder, split) for split in SPLITS}
    splits = {split: files for split, files in found.items() if files.images.exists() or files.texts.exists()}
    if not splits:
        raise UserError(
            f"{folder} has no split whose files are there: `python -m zoo data check` lists them.",
            argument="DIR",
            value=str(folder),
            valid="a folder with the files of a split",
        )
    tsvs = {
        split: ImageTsv(files.images, layout.id_type)
        for split, files in splits.items()
        if files.images.exists() or split not in layout.without_images
    }
    total = sum(map(len, tsvs.values()))
    shown = {split: read_attributes(folder, split) or {} for split in splits}
    kinds = tuple(dict.fromkeys(kind for of in shown.values() for attributes in of.values() for kind in attributes))
    report = ExportReport(out, kinds)
    written = out.with_name(f".{out.name}.export")
    shutil.rmtree(written, ignore_errors=True)
    try:
        image_files = _Files(written / IMAGES, _old_names(folder), on_written=lambda done: on_progress(done, total))
        with (written / TABLE).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, (*COLUMNS, *kinds), lineterminator="\n")
            table.writeheader()
            for split, files in splits.items():
                texts = _read_texts(files.answers or files.texts, layout)
                report.counts[split] = _write_split(split, tsvs.get(split), texts, shown[split], image_files, table)
        os.replace(written, out)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return report


class _Files:
    """Images written as files, each name once."""

    def __init__(self, folder: Path, names: dict[Id, str], *, on_written: Callable[[int], None]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.names = names
        self.on_written = on_written
        self.num_written = 0
        self._digests: dict[str, bytes] = {}

    def write(self, image_id: Id, data: bytes, *, split: str) -> str:
        """Write an image; gives its path below the folder."""
        name = self.names.get(image_id)
        if name is None:
            kind = images.read_header(data).format
            name = f"{split}/{_file_name(image_id)}{_SUFFIXES.get(kind, f'.{kind.lower()}')}"
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        if name not in self._digests:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if self._digests.setdefault(name, digest) != digest:
            raise UserError(f"another image is called {name} too: give it another name in {IDS}")
        self.num_written += 1
        self.on_written(self.num_written)
        return name


def _write_split(
    split: str,
    tsv: ImageTsv | None,
    texts: _Texts,
    shown: Mapping[Id, Attributes],
    image_files: _Files,
    table: "csv.DictWriter[str]",
) -> dict[str, int]:
    """Write the images of a split, with a row for each text; gives the counts of rows."""
    counts = {"rows": 0, "without_text": 0, "without_image": 0}

    def add(image: str, text: str, attributes: Attributes) -> None:
        table.writerow({**attributes, "split": split, "image": image, "text": text})
        counts["rows"] += 1
        counts["without_text"] += not text
        counts["without_image"] += not image

    for row, image_id in enumerate([] if tsv is None else tsv.ids.tolist()):
        assert tsv is not None
        try:
            name = image_files.write(image_id, tsv[row], split=split)
        except UserError as error:
            raise tsv.error(row, str(error), kind="bad_image") from None
        for text in texts.by_image.pop(image_id, None) or [""]:
            add(name, text, shown.get(image_id, {}))
    if tsv is not None and texts.by_image:
        missing = next(iter(texts.by_image))
        message = "is not here, and a text is about it; `data check` lists all such"
        raise FileError(message, file=tsv.path, id=missing, noun="image", kind="no_image")
    for text in (text for found in texts.by_image.values() for text in found):
        add("", text, {})
    for text in texts.alone:
        add("", text, {})
    return counts


def _read_texts(path: Path, layout: Layout) -> _Texts:
    found = _Texts(defaultdict(list))
    reader = LineReader(path, noun=layout.noun)
    for row in layout.rows(reader):
        for image_id in row.image_ids:
            found.by_image[image_id].extend(row.texts)
        if not row.image_ids:
            found.alone.extend(row.texts)
    return found


def _old_names(folder: Path) -> dict[Id, str]:
    """Read what images were called before an import; nothing where there was none."""
    path = folder / IDS
    if not path.exists():
        return {}
    names: dict[Id, str] = {}
    for number, image_id, record in LineReader(path, noun="image").records():
        known = record.get("names")
        if image_id is None or not isinstance(known, list) or not known:
            message = 'expected {"image_id": …, "names": ["…"]}; remove the file to do without'
            raise FileError(message, file=path, line=number, id=image_id, noun="image", kind="wrong_type")
        name = PurePath(str(known[0]))
        parts = [part for part in name.parts if part not in (name.anchor, "..")]  # none leads out of the folder
        if parts:
            names[image_id] = PurePath(*parts).as_posix()
    return names


def _file_name(image_id: Id) -> str:
    """Turn an id into a file's name: as it is, unless it would lead into a folder."""
    name = str(image_id)
    return quote(name, safe="") if set(name) & set("/\\:\0") or name.startswith(".") else name
