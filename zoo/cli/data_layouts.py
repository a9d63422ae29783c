"""The argument that names the layout of a folder, as the tasks' specs have them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.core.command import CommandParser


def add_layout(parser: "CommandParser") -> None:
    """Add ``TASK``, one of the tasks that have files of their own."""
    from zoo.data.layouts import find_layouts

    choices = list(find_layouts())
    parser.add_argument("task", choices=choices, metavar="TASK", help=f"{'|'.join(choices)}.")
