"""The file that ``--output`` names."""

from zoo.errors import UserError


def write_output(path: str, text: str) -> None:
    """Write what a command was asked to write, atomically.

    Raises:
        UserError: It cannot be written.
    """
    from zoo.data.formats import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"--output {path} cannot be written: {error.strerror}. Give a path in a folder of yours."
        ) from error
