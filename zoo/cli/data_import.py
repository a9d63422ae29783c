"""``python -m zoo data import``: a table and a folder of images into a task folder in MUGE's formats."""

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from zoo.core.command import CommandParser
    from zoo.data.convert.importing import ImportReport

OPTIONS = (
    *("table", "images", "image_column", "text_column", "split_column", "attributes"),
    *("valid", "test", "seed", "max_size", "on_error"),
)


def import_parser() -> "CommandParser":
    """Make the parser of ``data import``."""
    from zoo.cli.data_layouts import add_layout
    from zoo.core.command import CommandParser

    parser = CommandParser(
        description="Write a folder in MUGE's formats from a table, with one row per image and text, and a folder of"
        " images. Several rows of one image become its references (ECommerce-IC), several queries"
        " (Multimodal_Retrieval, where rows with the same text are one query with several relevant images), or several"
        " descriptions, each with its own copy of the image (ECommerce-T2I). Equal files are one image, whatever their"
        " names. JPEG and PNG are kept byte for byte; other formats, and images that --max_size shrinks, are put on a"
        " white background, turned upright and written as PNG if they had a palette or transparency, else as JPEG of"
        " quality 95. Ids are new; ids.jsonl beside the files keeps the old names, which `data export` restores. If the"
        " import is interrupted, the same command resumes it; OUT appears once it is complete, and takes twice its size"
        " until then.",
    )
    add_layout(parser)
    parser.add_argument("out", type=str, metavar="OUT", help="The folder to write: new, or empty.")
    parser.add_argument(
        "--table",
        type=str,
        required=True,
        metavar="FILE",
        help="A .csv (quoted as spreadsheets do), .tsv (nothing quoted), .jsonl or .parquet file (needs pyarrow; may"
        " hold the images themselves). Text is UTF-8 or GB18030.",
    )
    parser.add_argument(
        "--images", type=str, default=None, metavar="DIR", help="The folder that the paths in the table start from."
    )
    _add_columns(parser)
    _add_split_options(parser)
    parser.add_argument(
        "--max_size",
        type=int,
        default=None,
        metavar="PIXELS",
        help="Shrink images whose longer side is larger; MUGE's have 224. By default none.",
    )
    parser.add_argument(
        "--on_error",
        choices=["raise", "skip"],
        default="raise",
        help="Rows with a broken or missing image or no text, rows whose image or text the split column puts into two"
        " splits, and rows whose attributes contradict an earlier row of the image are listed; raise then writes"
        " nothing and exits with 1, skip leaves them out.",
    )
    return parser


def _add_columns(parser: "CommandParser") -> None:
    for name, usual in (("image", "image, file, path, 图片, …"), ("text", "text, caption, query, title, 标题, …")):
        parser.add_argument(
            f"--{name}_column",
            type=str,
            default=None,
            metavar="NAME",
            help=f"The column's name; by default the one called {usual}",
        )
    parser.add_argument(
        "--attributes",
        type=str,
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="Further columns, each of which says one thing that an image shows, such as 颜色; OUT must stand before."
        " An empty cell says nothing. They become attributes_SPLIT.jsonl and attributes.json, by which models are"
        " scored too.",
    )


def _add_split_options(parser: "CommandParser") -> None:
    parser.add_argument(
        "--split_column",
        type=str,
        default=None,
        metavar="NAME",
        help="The column with train, valid (val, dev, …) or test; by default the one called split, subset or 划分. If"
        " there is none, images are split by a hash; those that share a text stay together.",
    )
    for name in ("valid", "test"):
        parser.add_argument(
            f"--{name}",
            type=float,
            default=None,
            metavar="SHARE",
            help=f"The share of the images for {name}, if they are split by a hash: 0.1 by default. If it is given, no"
            " column of splits is read.",
        )
    parser.add_argument("--seed", type=int, default=0, help="The seed of the hash that splits images.")


def import_data(options: "Namespace") -> int:
    """Import, print, and give the exit code; see ``import_parser`` for the options."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.data.convert.importing import ImportOptions, import_folder
    from zoo.data.layouts import find_layouts

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    layout = find_layouts()[options.task]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Reading the table", total=None)
        try:
            report = import_folder(
                options.out,
                ImportOptions(layout=layout, **{name: options[name] for name in OPTIONS}),
                on_progress=lambda what, done, total: progress.update(
                    bar, description=what, completed=done, total=total
                ),
            )
        except OSError as error:
            raise UserError(
                f"{options.out} cannot be written: {error.strerror or error}.", argument="OUT", value=options.out
            ) from error
    print_words(report, options.task, copies=layout.copies)
    return 0 if report.counts else 1


def print_words(report: "ImportReport", task: str, *, copies: bool) -> None:
    """Print one error per line, of many alike the first few, what was written, and what can be done.

    Args:
        report: The import's report.
        task: The task's name.
        copies: Whether each text of an image has a copy of it.
    """
    from zoo.core.command import typed
    from zoo.data.convert.importing import work_folder
    from zoo.errors import summed_up

    for line in summed_up(report.errors):
        print(line)
    if report.errors:
        print()
    for note in report.notes:
        print(f"note: {note}")
    if not report.counts:
        instead = ", or leave these rows out: --on_error skip" if report.can_skip else ""
        print(
            f"{len(report.errors):,} errors, nothing was written. Fix them{instead}."
            f" Images that were read are kept for that in {work_folder(report.folder)}."
        )
        return
    print(report.folder)
    for split, counts in report.counts.items():
        line = "{images:,} images, {texts:,} texts, {pairs:,} pairs".format(**counts)
        more = counts["pairs"] - counts["images"] if copies else 0
        print(f"  {split:<6} {line}" + (f"; {more:,} copies of images with several texts" * bool(more)))
    if report.errors:
        print(f"{len(report.errors):,} errors; these rows were left out.")
    print(f"Every image was decoded. To check all files: {typed('data', 'check', task, _short(report.folder))}")


def _short(folder: Path) -> str:
    """As it is seen from here."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
