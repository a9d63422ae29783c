"""``python -m zoo data catalogue``: a shop's products, drawn by rule, for all tasks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from jsonargparse import Namespace

    from zoo.core.command import CommandParser


def catalogue_parser() -> "CommandParser":
    """Make the parser of ``data catalogue``."""
    from zoo.core.command import CommandParser

    parser = CommandParser(
        description="Draw a shop's products by rule, with queries, titles and copy in Chinese, and write them in MUGE's"
        " formats for all tasks. The test split asks for known words in combinations that no training image has. What"
        " an interrupted call has drawn is not drawn again."
    )
    parser.add_argument("directory", type=str, metavar="DIR", help="A folder: new, empty, or begun before.")
    parser.add_argument(
        "--size",
        type=str,
        default="demo",
        help="demo: 12,000 training images, 1,000 to validate, 3,000 to test; muge: MUGE's own numbers; or a number of"
        " training images.",
    )
    parser.add_argument("--image_size", type=int, default=128, help="Pixels of a side, 32 to 1,024.")
    return parser


def make_catalogue(options: "Namespace") -> int:
    """Make it, print what it holds, and give the exit code; see ``catalogue_parser`` for the options."""
    from zoo.data.catalogue.make import write_catalogue

    size = int(options.size) if options.size.isdecimal() else options.size
    made = write_catalogue(options.directory, size=size, image_size=options.image_size)
    print(described(options.directory, made))
    return 0


def described(folder: "Path | str", made: dict[str, Any]) -> str:
    """Say where a catalogue is and what it holds, as ``catalogue.json`` has it."""
    counts = [
        f"  {split:<13}" + ", ".join(f"{count:,} {noun}" for noun, count in each.items())
        for split, each in made["splits"].items()
    ]
    told = "What each image shows: catalogue_SPLIT.jsonl. Matchers that score are trained on scorer/."
    return "\n".join([str(folder), *counts, told])
