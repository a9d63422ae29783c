"""What is wrong with the user's input: the command line shows these messages without a traceback.

Both exceptions are built from their message alone where need be: so they travel between processes, and out of a
loader's workers.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

WORDS: dict[Any, str] = {  # for the values of simple types, as a person would say them
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}
SHOWN_ALIKE = 5  # errors alike that a terminal shows one by one


class UserError(ValueError):
    """A mistake in what the user gave: an argument, a file, a name.

    Args:
        message: The argument, the value that came, what is valid, and the fix, in words.
        argument: The argument's name, as the user types it: ``data.root``, ``--valid``.
        value: What came.
        valid: What is valid: the choices, or a description.
    """

    def __init__(self, message: str, *, argument: str | None = None, value: Any = None, valid: Any = None) -> None:
        super().__init__(message)
        self.argument = argument
        self.value = value
        self.valid = valid


def invalid(argument: str, value: Any, valid: str) -> UserError:
    """Give the error of a value that cannot be taken, in the words ``ARGUMENT is VALUE: VALID``.

    Args:
        argument: As of ``UserError``.
        value: As of ``UserError``.
        valid: What is valid, as advice: ``give 1 or more``.
    """
    return UserError(f"{argument} is {value}: {valid}", argument=argument, value=value, valid=valid)


class FileError(UserError):
    """A mistake in a file: raised where the first one ends the work, collected in a list where all are wanted.

    Args:
        message: What is wrong, and the fix.
        file: The file.
        line: The line, from 1; None: the file as a whole.
        id: The id that the line is about, where it tells one.
        noun: What the id stands for, such as ``query``.
        kind: The kind of mistake, one of ``zoo.data.lines.Kind``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        id: int | str | None = None,
        noun: str = "id",
        kind: str | None = None,
    ) -> None:
        self.message = message if id is None else f"{noun} {id}: {message}"
        self.file = None if file is None else str(file)
        self.line = line
        self.id = id
        self.kind = kind
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(place + self.message)


def raise_or_list(error: FileError, errors: list[FileError] | None) -> None:
    """Raise an error, or add it to the list where there is one."""
    if errors is None:
        raise error
    errors.append(error)


def summed_up(errors: Sequence[FileError]) -> Iterator[str]:
    """Give errors as lines for a terminal: of those alike the first few, then how many more there are.

    Errors of a file are alike where their fix is the same, which is what follows the last semicolon.
    """
    alike = [
        (error.file, error.message.rpartition("; ")[2] if "; " in error.message else error.kind) for error in errors
    ]
    total, seen = Counter(alike), Counter[tuple[str | None, str | None]]()
    for error, key in zip(errors, alike, strict=True):
        seen[key] += 1
        if seen[key] <= SHOWN_ALIKE:
            yield str(error)
        if seen[key] == SHOWN_ALIKE < total[key]:
            yield f"{error.file}: and {total[key] - SHOWN_ALIKE:,} more like this"


def nearest(name: str, valid: Iterable[str], *, limit: int = 3) -> str:
    """Give the valid names most like ``name``, as the tail of an error message.

    Returns:
        ``" Did you mean a, b?"``, or an empty string when nothing is near.
    """
    matches = difflib.get_close_matches(name, list(valid), n=limit, cutoff=0.5)
    return f" Did you mean {', '.join(matches)}?" if matches else ""


def last_line(error: Exception) -> str:
    """Give an error's own words, without the traceback that a loader's worker puts before them."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return re.split(rf"\b(?:{UserError.__name__}|{FileError.__name__}): ", text)[-1].strip()
