"""``python -m zoo data export``: a task folder in MUGE's formats into image files and a CSV table."""

from typing import TYPE_CHECKING

from zoo.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from zoo.core.command import CommandParser


def export_parser() -> "CommandParser":
    """Make the parser of ``data export``."""
    from zoo.cli.data_layouts import add_layout
    from zoo.core.command import CommandParser

    parser = CommandParser(
        description="Write the images of a folder in MUGE's formats (or Chinese-CLIP's) as files, OUT/images, and a"
        " table with split, image and text, OUT/pairs.csv, which `data import` reads; where the folder says what images"
        " show, with a column for each kind of attribute too. Images of an imported folder get their old names back,"
        " even those that the import re-encoded; others are named by split and id. What a test split lacks, the images"
        " of a text or the texts of an image, is left empty in the table.",
    )
    add_layout(parser)
    parser.add_argument("root", type=str, metavar="DIR", help="The task's folder, or the one that contains it.")
    parser.add_argument("out", type=str, metavar="OUT", help="The folder to write: new, or empty.")
    return parser


def export_data(options: "Namespace") -> int:
    """Export, print, and give the exit code; see ``export_parser`` for the options."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.core.command import typed
    from zoo.data.convert.exporting import IMAGES, TABLE, export_folder
    from zoo.data.layouts import find_layouts

    columns = (TextColumn("Writing images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        try:
            report = export_folder(
                options.root,
                options.out,
                layout=find_layouts()[options.task],
                on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
            )
        except OSError as error:
            raise UserError(
                f"{options.out} cannot be written: {error.strerror or error}.", argument="OUT", value=options.out
            ) from error
    print(report.folder)
    for split, counts in report.counts.items():
        lacks = [f"{counts[key]:,} {key.replace('_', ' ')}" for key in ("without_text", "without_image") if counts[key]]
        print(f"  {split:<6} " + ", ".join([f"{counts['rows']:,} rows", *lacks]))
    words = ["--images", f"{options.out}/{IMAGES}", "--table", f"{options.out}/{TABLE}", "NEW_FOLDER"]
    if report.attributes:
        words += ["--attributes", *report.attributes]
    print(f"To import it again: {typed('data', 'import', options.task, *words)}")
    return 0
