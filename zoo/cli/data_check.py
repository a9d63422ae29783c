"""``python -m zoo data check``: every error in a folder of data, and what is fine."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.core.texts import TextCounts

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from rich.table import Table

    from zoo.core.command import CommandParser
    from zoo.data.check import Report

CONTEXT_LENGTH = 52  # tokens that text towers read by default


def check_parser() -> "CommandParser":
    """Make the parser of ``data check``."""
    from zoo.cli.data_layouts import add_layout
    from zoo.core.command import CommandParser

    parser = CommandParser(
        description="List the errors in a folder in MUGE's formats (or Chinese-CLIP's), with their file, line and id,"
        " and count them by file and kind; of many alike the first five are listed, with --json all. Every image is"
        " decoded completely. The exit code is 0 when nothing is wrong, 1 when there are errors. MUGE's own habits are"
        " not errors: a test split without answers, references or images, .txt.tsv or .text.tsv, several queries per"
        " image, both alphabets of base64.",
    )
    add_layout(parser)
    parser.add_argument("root", type=str, metavar="DIR", help="The task's folder, or the one that contains it.")
    parser.add_argument("--json", action="store_true", help="Print the errors and the summary as JSON.")
    return parser


def check(options: "Namespace") -> int:
    """Examine, print, and give the exit code; see ``check_parser`` for the options."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.data.check import check_folder
    from zoo.data.layouts import find_layouts

    texts = TextCounter()
    columns = (TextColumn("Reading files, decoding images"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        report = check_folder(
            options.root,
            find_layouts()[options.task],
            on_read=lambda read, total: progress.update(bar, advance=read, total=total),
            on_texts=texts.count,
        )
    if options.json:
        print(json.dumps({**as_json(report), "texts": texts.files}, indent=2))
    else:
        print_words(report)
        print_texts(texts)
    return 1 if report.errors else 0


class TextCounter:
    """Counts, file by file, what the Chinese BERT that most models read with would cut, or not know.

    Attributes:
        files: By the file's name, the numbers of ``texts``, ``too_long`` ones, ``characters`` and ``unknown`` ones.
    """

    def __init__(self) -> None:
        from zoo.models.tokenizer import BertChineseTokenizer

        self.files: dict[str, dict[str, int]] = {}
        self._measure = BertChineseTokenizer().measure

    def count(self, file: str, texts: Sequence[str]) -> None:
        """Count a line's texts."""
        measured = self._measure([text.encode(errors="replace").decode() for text in texts])
        found = TextCounts.of(*measured, CONTEXT_LENGTH)
        counts = self.files.setdefault(file, dict.fromkeys(("texts", "too_long", "characters", "unknown"), 0))
        counts["texts"] += len(texts)
        counts["too_long"] += found.cut
        counts["characters"] += sum(map(len, texts))
        counts["unknown"] += found.unknown


def print_texts(texts: TextCounter) -> None:
    """Print of each file what models cut, or do not know, where there is any."""
    for file, counts in texts.files.items():
        for count, of, what in (
            ("too_long", "texts", f"are longer than {CONTEXT_LENGTH} tokens, where text towers cut them by default"),
            ("unknown", "characters", "are not in BERT's vocabulary: models read [UNK]"),
        ):
            if counts[count]:
                share = f"{counts[count]:,} of {counts[of]:,} {of} ({counts[count] / counts[of]:.2%})"
                print(f"{file}: {share} {what}")


def as_json(report: "Report") -> dict[str, Any]:
    """Give ``errors``, a list of ``file``, ``line``, ``id``, ``kind`` and ``message``, and the ``summary``."""
    errors = [
        {"file": error.file, "line": error.line, "id": error.id, "kind": error.kind, "message": error.message}
        for error in report.errors
    ]
    return {"errors": errors, "summary": report.summary()}


def print_words(report: "Report") -> None:
    """Print one error per line, of many alike the first few, the summary, and what can be done."""
    from rich.console import Console

    from zoo.errors import summed_up

    for line in summed_up(report.errors):
        print(line)
    if report.errors:
        print()
    Console().print(summary_table(report))
    if report.errors:
        instead = ", or train without those rows: --data.on_error skip" if report.can_skip else ""
        print(f"{len(report.errors):,} errors. Fix them{instead}.")
    else:
        print(f"Nothing is wrong with {report.folder}.")


def summary_table(report: "Report") -> "Table":
    """Make a table of the lines by file: those that are fine, then those with errors, by kind."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("File")
    table.add_column("")
    table.add_column("Lines", justify="right")
    for file in report.summary()["files"]:
        rows = {"fine": file["fine"]} if file["lines"] else {}
        for place, (kind, count) in enumerate((rows | file["errors"]).items()):
            table.add_row("" if place else file["file"], kind.replace("_", " "), f"{count:,}")
    return table
