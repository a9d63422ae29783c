"""The file that ``--output`` names."""

from collections.abc import Iterable
from pathlib import Path

from zoo.errors import UserError


def check_output(path: str | None, inputs: Iterable[Path | str | None]) -> None:
    """See, before the work, that an output takes no input's place.

    Raises:
        UserError: It is one of the files that are read, or a folder.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise UserError(f"--output {path} is a folder; name a file in it.")
    if Path(path).resolve() in {Path(name).resolve() for name in inputs if name}:
        raise UserError(f"--output {path} is one of the files to score; give it a name of its own.")


def write_output(path: str, text: str) -> None:
    """Write what a command was asked to write, atomically.

    Raises:
        UserError: It cannot be written.
    """
    from zoo.io import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"--output {path} cannot be written: {error.strerror}. Give a path in a folder of yours."
        ) from error
