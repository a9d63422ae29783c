"""A table and a folder of images into a task folder in MUGE's formats; no torch.

Images are read once, a few at a time, into one file beside the folder to come. When all are there, rows are assigned
to splits and the folder is written beside its place and renamed. An interrupted import resumes.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from zoo.data.convert.attributes import TableAttributes
from zoo.data.convert.columns import Row, choose_columns, read_rows
from zoo.data.convert.folders import refuse_filled
from zoo.data.convert.images import ImageStore, Source, read_images
from zoo.data.convert.splits import Pair, split_by_column, split_by_shares
from zoo.data.convert.tables import Table, open_table
from zoo.data.layouts import Layout
from zoo.errors import FileError, UserError, invalid
from zoo.io import expanded, write_json_lines

IDS = "ids.jsonl"  # what the images were called
SHARE = 0.1  # of the images that validate, and of those that test, where nothing else is said
Progress = Callable[[str, int, int], None]  # what is being done, with how many images so far, of how many


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What to import, and how.

    Args:
        layout: What is written.
        table: A row for each image and text of it.
        images: Where the paths in the table start; not needed where the table holds the images themselves.
        image_column: Of paths, or of images; None: as it is usually called.
        text_column: None as above.
        split_column: Of train, valid and test; None as above, and where there is none images are assigned.
        attributes: Further columns, of what an image shows; empty: what images show is not written.
        valid: The share of the images to validate on, 0 to 1; given, images are assigned whatever the table has.
        test: The share to test on; as above.
        seed: Of dealing out.
        max_size: The longest side allowed, in pixels; None: any.
        on_error: ``raise`` writes nothing when rows cannot be taken, ``skip`` leaves them out.
    """

    layout: Layout
    table: Path | str
    images: Path | str | None = None
    image_column: str | None = None
    text_column: str | None = None
    split_column: str | None = None
    attributes: Sequence[str] = ()
    valid: float | None = None
    test: float | None = None
    seed: int = 0
    max_size: int | None = None
    on_error: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            if not 0 <= share < 1:
                raise invalid(f"--{name}", share, "give 0 or more, below 1")
        if sum(self.shares.values()) >= 1:
            raise UserError(
                f"--valid is {self.shares['valid']} and --test {self.shares['test']}: together they must be below 1.",
                argument="--valid",
                value=self.shares["valid"],
                valid="below 1 with the other",
            )
        if self.by_shares and self.split_column is not None:
            raise UserError(
                "--split_column and --valid or --test are both given: splits come from one of the two.",
                argument="--split_column",
                value=self.split_column,
            )
        if self.max_size is not None and self.max_size < 1:
            raise invalid("--max_size", self.max_size, "give 1 pixel or more; MUGE's images have 224")

    @property
    def by_shares(self) -> bool:
        """Whether images are assigned to splits even where the table has a column of splits."""
        return self.valid is not None or self.test is not None

    @property
    def shares(self) -> dict[str, float]:
        """Of the images, by split."""
        return {"valid": SHARE if self.valid is None else self.valid, "test": SHARE if self.test is None else self.test}


@dataclass(frozen=True)
class ImportReport:
    """What came of an import.

    Attributes:
        folder: The task folder.
        errors: Rows that cannot be taken, in the order of the table.
        notes: What else a user should know.
        counts: Images, texts and pairs of each split; empty when nothing was written for the errors.
        can_skip: Whether rows would be left without those that cannot be taken.
    """

    folder: Path
    errors: list[FileError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    can_skip: bool = False


class _Images(NamedTuple):
    """The images of a table, to be read."""

    rows: list[tuple[str, Row]]  # with the key of its source
    sources: Iterable[Source]
    num_sources: int
    origin: dict[str, str]  # where they come from: images of another are not to be mixed with them


def import_folder(
    out: Path | str, options: ImportOptions, *, on_progress: Progress = lambda what, done, total: None
) -> ImportReport:
    """Write a task folder; whole, or not at all.

    Args:
        out: The folder, new or empty.
        options: What to import, and how.
        on_progress: Called after each image.

    Raises:
        UserError: The folder is there, the table cannot be read, or no row can be taken.
    """
    out, layout = Path(expanded(out)).absolute(), options.layout
    work = work_folder(out)
    try:
        refuse_filled(out)
    except UserError:
        shutil.rmtree(work, ignore_errors=True)  # what is left of an import that was stopped when all was in its place
        raise
    table = open_table(options.table)
    columns = choose_columns(
        table,
        image=options.image_column,
        text=options.text_column,
        split=options.split_column,
        attributes=options.attributes,
        by_shares=options.by_shares,
    )
    report = ImportReport(out, notes=table.notes)
    rows = read_rows(table, columns, report.errors)
    if table.holds_images(columns.image):
        images = _held_images(table, columns.image, rows)
    else:
        images = _image_files(table, rows, options.images, report.errors)
    shown = TableAttributes(columns.attributes)
    with ImageStore(work, {"version": 1, **images.origin, "max_size": options.max_size}) as store:
        pairs = _read(images, store, table, shown, report, max_size=options.max_size, on_progress=on_progress)
        splits: dict[str, list[Pair]] = {}
        if columns.split:
            splits = split_by_column(pairs, report.errors, joined=layout.joined, labels=layout.labels, table=table.path)
        report.errors.sort(key=lambda error: error.line or 0)
        if report.errors and options.on_error == "raise":
            return replace(report, can_skip=any(splits.values()) if columns.split else bool(pairs))
        if pairs and not columns.split:
            splits = split_by_shares(
                pairs, labels=layout.labels, **options.shares, seed=options.seed, notes=report.notes
            )
        if not any(splits.values()):
            first = f" {report.errors[0]}" if report.errors else ""
            raise UserError(
                f"{table.path} has no row that can be taken.{first}", argument="--table", value=str(table.path)
            )
        _write(out, layout, {name: part for name, part in splits.items() if part}, shown, store, on_progress)
    shutil.rmtree(work)
    report.counts.update({name: _count(part) for name, part in splits.items() if part})
    report.notes.extend(
        f"{name} has no rows, and no files{': the folder is for evaluation alone' if name == 'train' else ''}."
        for name, part in splits.items()
        if not part
    )
    report.notes.extend(_small_pools(report.counts, layout.least_images))
    return report


def work_folder(out: Path) -> Path:
    """Name the folder where an import keeps what it has read, until it is whole."""
    return out.parent / f".{out.name}.import"


# --- where images come from ----------------------------------------------------------------------------------


def _held_images(table: Table, column: str, rows: list[Row]) -> _Images:
    """Images that the table holds: a source for each row."""
    lines = {row.line for row in rows}

    def sources() -> Iterator[Source]:
        for line, data in table.images(column):
            if line in lines:
                yield Source(str(line), "", partial(bytes, data or b""))

    origin = {"table": str(table.path.absolute()), "column": column, "stamp": _stamp(table.path)}
    return _Images([(str(row.line), row) for row in rows], sources(), len(lines), origin)


def _image_files(table: Table, rows: list[Row], images: Path | str | None, errors: list[FileError]) -> _Images:
    """Images in files: a source for each file; rows whose file is not there become errors."""
    if images is None:
        raise UserError(
            f"--images is not given: name the folder that the paths in {table.path} start from.",
            argument="--images",
            valid="a folder",
        )
    folder = Path(expanded(images)).absolute()
    if not folder.is_dir():
        raise UserError(
            f"--images {images} is {'a file' if folder.exists() else 'not there'}: give a folder.",
            argument="--images",
            value=str(images),
            valid="a folder",
        )
    found: dict[str, Source | str] = {}  # by the name in the table; what is wrong with it
    kept: list[tuple[str, Row]] = []
    for row in rows:
        if row.image not in found:
            found[row.image] = _find(row.image, folder)
        source = found[row.image]
        if isinstance(source, Source):
            kept.append((source.key, row._replace(image=source.key)))
        else:
            errors.append(FileError(source, file=table.path, line=row.line))
    sources = {source.key: source for source in found.values() if isinstance(source, Source)}
    return _Images(kept, sources.values(), len(sources), {"images": str(folder)})


def _find(name: str, folder: Path) -> Source | str:
    """Find the file that a table means, or why there is none."""
    path = os.path.normpath(folder / name)
    if not os.path.exists(path) and "\\" in name:  # a table from Windows
        path = os.path.normpath(folder / name.replace("\\", "/"))
    key = Path(os.path.relpath(path, folder)).as_posix()
    if key == ".." or key.startswith("../"):
        return f"{name} is not below --images {folder}; name a folder above both"
    if os.path.isfile(path):
        return Source(key, _stamp(Path(path)), Path(path).read_bytes)
    if "://" in name:
        return f"{name} is an address, not a file; download it, and write its path below --images"
    if os.path.isfile(folder.parent / name):
        return f"no file {name} below --images, but below {folder.parent}; give that"
    return f"no file {name} below --images {folder}; add it, or take the line out"


def _stamp(path: Path) -> str:
    """Another one: the file has changed."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


# --- reading and writing ---------------------------------------------------------------------------------------


def _read(
    images: _Images,
    store: ImageStore,
    table: Table,
    shown: TableAttributes,
    report: ImportReport,
    *,
    max_size: int | None,
    on_progress: Progress,
) -> list[Pair]:
    """Bring the images into the store; the rows whose image is there and shows what they say, each pair once."""
    if len(store):
        report.notes.append(f"{len(store):,} images had been read before, and were kept.")
    broken: dict[str, str] = {}
    for done, (source, wrong) in enumerate(read_images(images.sources, store, max_size=max_size), start=1):
        if wrong:
            broken[source.key] = wrong
        on_progress("Reading images", done, images.num_sources)
    pairs: dict[tuple[str, str, str | None], Pair] = {}
    repeated = 0
    for key, row in images.rows:
        if key in broken:
            wrong = f"{row.image}: {broken[key]}; replace the image, or take the line out"
        else:
            wrong = shown.add(store.digest(key), row)
        if wrong:
            report.errors.append(FileError(wrong, file=table.path, line=row.line))
            continue
        pair = Pair(row.line, store.digest(key), row.image, row.text, row.split)
        repeated += pairs.setdefault((pair.image, pair.text, pair.split), pair) is not pair
    if repeated:
        report.notes.append(f"{repeated:,} rows repeat the image and text of others, and count once.")
    return list(pairs.values())


def _write(
    out: Path,
    layout: Layout,
    splits: dict[str, list[Pair]],
    shown: TableAttributes,
    store: ImageStore,
    on_progress: Progress,
) -> None:
    """Write the folder beside its place, and put it there."""
    total = sum(_count(part)["pairs" if layout.copies else "images"] for part in splits.values())
    done = 0

    def image(digest: str) -> bytes:
        nonlocal done
        done += 1
        on_progress("Writing images", done, total)
        return store[digest]

    written = work_folder(out) / "folder"
    shutil.rmtree(written, ignore_errors=True)
    names = _names([pair for part in splits.values() for pair in part])
    ids = list(layout.write(written, splits, names, image))
    write_json_lines(written / IDS, ({"image_id": id, "names": names[digest]} for id, digest in ids))
    if shown.kinds:
        shown.write(written, splits, ids)
    os.replace(written, out)


def _names(pairs: list[Pair]) -> dict[str, list[str]]:
    """List what each image is called, by digest; images in a table may share a name, and then get a number."""
    names: dict[str, dict[str, None]] = defaultdict(dict)
    owners: dict[str, str] = {}
    for pair in pairs:
        name, number = PurePosixPath(pair.name), 1
        while owners.setdefault(str(name), pair.image) != pair.image:
            number += 1
            name = PurePosixPath(pair.name).with_stem(f"{PurePosixPath(pair.name).stem}-{number}")
        names[pair.image][str(name)] = None
    return {digest: list(found) for digest, found in names.items()}


def _small_pools(counts: dict[str, dict[str, int]], least: int) -> Iterator[str]:
    """Say what there is to say of splits that have too few images for a submission."""
    for name in ("valid", "test"):
        if name in counts and (found := counts[name]["images"]) < least:
            more = f"give it more, by --{name} SHARE or in the column of splits"
            yield f"{name} has {found} images, and a submission names {least} a query: {more}."


def _count(pairs: list[Pair]) -> dict[str, int]:
    return {
        "images": len({pair.image for pair in pairs}),
        "texts": len({pair.text for pair in pairs}),
        "pairs": len(pairs),
    }
