"""``python -m zoo data check``: every fault of a folder of data, and what is fine."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from rich.table import Table

    from zoo.core.command import CommandParser
    from zoo.data.check import Report


def check_parser() -> "CommandParser":
    """The options of ``data check``."""
    from zoo.core.command import CommandParser

    parser = CommandParser(
        description="List every fault of a folder in MUGE's formats (retrieval: or Chinese-CLIP's), with file, line and"
        " id, and count them by file and kind. Every picture is decoded whole. The exit code is 0 when nothing is"
        " wrong, 1 when there are faults. MUGE's own ways are none: a test split without answers, references or"
        " (t2i) pictures, .txt.tsv or .text.tsv, several queries a picture, both alphabets of base64.",
    )
    parser.add_argument("task", choices=["retrieval", "t2i", "caption"], metavar="TASK", help="retrieval|t2i|caption.")
    parser.add_argument("root", type=str, metavar="DIR", help="The task's folder, or the one that contains it.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of words: faults and summary.")
    return parser


def check(options: "Namespace") -> int:
    """Examine, print, and give the exit code; see ``check_parser`` for the options."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.data.check import check_folder

    columns = (TextColumn("Reading files, decoding pictures"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        report = check_folder(
            options.root, options.task, on_read=lambda read, total: progress.update(bar, advance=read, total=total)
        )
    if options.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        print_words(report)
    return 1 if report.faults else 0


def as_json(report: "Report") -> dict[str, Any]:
    """``faults``, a list of ``file``, ``line``, ``id``, ``kind`` and ``message``, and the report's ``summary``."""
    faults = [
        {"file": fault.file, "line": fault.line, "id": fault.id, "kind": fault.kind, "message": fault.message}
        for fault in report.faults
    ]
    return {"faults": faults, "summary": report.summary()}


def print_words(report: "Report") -> None:
    """Print a line a fault, the summary, and what can be done."""
    from rich.console import Console

    for fault in report.faults:
        print(fault)
    if report.faults:
        print()
    Console().print(summary_table(report))
    if report.faults:
        print(f"{len(report.faults):,} faults. Mend them, or train without those rows: --data.on_error skip.")
    else:
        print(f"Nothing is wrong with {report.folder}.")


def summary_table(report: "Report") -> "Table":
    """Lines by file: those that are fine, then those with faults, by kind."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("File")
    table.add_column("")
    table.add_column("Lines", justify="right")
    for file in report.summary()["files"]:
        rows = {"fine": file["fine"]} if file["lines"] else {}
        for place, (kind, count) in enumerate((rows | file["faults"]).items()):
            table.add_row("" if place else file["file"], kind.replace("_", " "), f"{count:,}")
    return table
