"""The folder that an import or an export writes."""

from pathlib import Path

from zoo.errors import UserError


def refuse_filled(folder: Path) -> None:
    """See that nothing is written over.

    Raises:
        UserError: There is a file, or a folder that is not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(
            f"{folder} is there already: give a new or empty folder, or remove it.",
            argument="OUT",
            value=str(folder),
            valid="a new or empty folder",
        )
