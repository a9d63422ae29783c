"""``python -m zoo data import``: a table and a folder of pictures into a task folder in MUGE's formats."""

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from zoo.core.command import CommandParser
    from zoo.data.convert.importing import ImportReport

TASKS = ["retrieval", "t2i", "caption"]
OPTIONS = (
    *("task", "table", "images", "image_column", "text_column", "split_column"),
    *("valid", "test", "seed", "max_size", "on_error"),
)


def import_parser() -> "CommandParser":
    """The options of ``data import``."""
    from zoo.core.command import CommandParser

    parser = CommandParser(
        description="Write a task folder in MUGE's formats from a table, with a row for each picture and text of it,"
        " and a folder of pictures. Several rows of a picture are its references (caption), several queries"
        " (retrieval; rows of one text are one query with several true pictures), or descriptions, each with a copy of"
        " the picture (t2i: MUGE has one a picture). Equal files are one picture whatever their names. JPEG and PNG"
        " are kept byte for byte; other kinds, and what --max_size makes smaller, are laid over white, turned upright"
        " and written as PNG where they had a palette or transparency, else as JPEG of quality 95. Ids are new;"
        " ids.jsonl beside the files has the old names, which `data export` gives back. Stopped in the middle, the same"
        " command goes on where it was; OUT appears when it is whole, and until then takes its room twice.",
    )
    parser.add_argument("task", choices=TASKS, metavar="TASK", help="retrieval|t2i|caption.")
    parser.add_argument("out", type=str, metavar="OUT", help="The folder to write: new, or empty.")
    parser.add_argument(
        "--table",
        type=str,
        required=True,
        metavar="FILE",
        help="A .csv (quoted as spreadsheets do), .tsv (nothing quoted), .jsonl or .parquet file (needs pyarrow; may"
        " hold the pictures themselves). Text is UTF-8, or GB18030.",
    )
    parser.add_argument("--images", type=str, default=None, metavar="DIR", help="Where the table's paths start.")
    for name, usual in (("image", "image, file, path, 图片, …"), ("text", "text, caption, query, title, 标题, …")):
        parser.add_argument(
            f"--{name}_column", type=str, default=None, metavar="NAME", help=f"Left out: the one called {usual}"
        )
    _add_split_options(parser)
    parser.add_argument(
        "--max_size",
        type=int,
        default=None,
        metavar="PIXELS",
        help="Make pictures smaller whose longer side has more; MUGE's have 224. Left out: none is.",
    )
    parser.add_argument(
        "--on_error",
        choices=["raise", "skip"],
        default="raise",
        help="Rows with a broken or missing picture or no text, and rows whose picture or text the split column puts"
        " into two splits, are listed; then raise writes nothing and exits with 1, skip leaves them out.",
    )
    return parser


def _add_split_options(parser: "CommandParser") -> None:
    parser.add_argument(
        "--split_column",
        type=str,
        default=None,
        metavar="NAME",
        help="Of train, valid (val, dev, …) and test. Left out: the one called split, subset or 划分; where there is"
        " none, pictures are dealt out by a hash, those that share a text together.",
    )
    for name in ("valid", "test"):
        parser.add_argument(
            f"--{name}",
            type=float,
            default=None,
            metavar="SHARE",
            help=f"Of the pictures, for {name}, where they are dealt out: 0.1 when left out. Given, no column of splits"
            " is read.",
        )
    parser.add_argument("--seed", type=int, default=0, help="Another one deals pictures out otherwise.")


def import_data(options: "Namespace") -> int:
    """Import, print, and give the exit code; see ``import_parser`` for the options."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.data.convert.importing import ImportOptions, import_folder

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Reading the table", total=None)
        try:
            report = import_folder(
                options.out,
                ImportOptions(**{name: options[name] for name in OPTIONS}),
                on_progress=lambda what, done, total: progress.update(
                    bar, description=what, completed=done, total=total
                ),
            )
        except OSError as error:
            raise UserError(f"{options.out} cannot be written: {error.strerror or error}.") from error
    print_words(report, options.task)
    return 0 if report.counts else 1


def print_words(report: "ImportReport", task: str) -> None:
    """Print a line a fault, what was written, and what can be done."""
    from zoo.data.convert.importing import work_folder

    for fault in report.faults:
        print(fault)
    if report.faults:
        print()
    for note in report.notes:
        print(f"note: {note}")
    if not report.counts:
        print(
            f"{len(report.faults):,} faults, nothing was written. Mend them, or leave these rows out: --on_error skip."
            f" Pictures that were read are kept for that in {work_folder(report.folder)}."
        )
        return
    print(report.folder)
    for split, counts in report.counts.items():
        line = "{pictures:,} pictures, {texts:,} texts, {pairs:,} pairs".format(**counts)
        copies = counts["pairs"] - counts["pictures"] if task == "t2i" else 0
        print(f"  {split:<6} {line}" + (f"; {copies:,} copies of pictures with several texts" * bool(copies)))
    if report.faults:
        print(f"{len(report.faults):,} faults; what they concern was left out.")
    print(f"Every picture was decoded. To check all files: python -m zoo data check {task} {_short(report.folder)}")


def _short(folder: Path) -> str:
    """As it is seen from here."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
