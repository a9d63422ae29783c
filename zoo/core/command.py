"""What plain commands share: a parser whose errors are one line, and the file that ``--output`` names."""

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser
from jsonargparse.typing import register_type

from zoo.errors import WORDS, UserError, nearest
from zoo.io import expanded, write_text

Value = TypeVar("Value")


class GivenPath(str):
    """A path among a command's options, with ``~`` and ``$NAME`` spelled out."""

    def __new__(cls, given: str) -> "GivenPath":
        """Spell it out."""
        return super().__new__(cls, expanded(given))


register_type(GivenPath, str)


class CommandParser(ArgumentParser):
    """An ``ArgumentParser`` that takes no abbreviations and whose errors are one line, without the usage.

    Args:
        kwargs: As for ``jsonargparse.ArgumentParser``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    @property
    def prog(self) -> str:
        """The command as it is typed: no options stand before a subcommand's name, where jsonargparse writes some."""
        return self._prog

    @prog.setter
    def prog(self, words: str) -> None:
        self._prog = words.replace(" [options]", "")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and leave with exit code 2."""
        mistyped = re.search(r"nrecognized arguments: (--[\w.-]+)", message)
        invalid = re.search(r"(?:argument (--\w+): )?invalid choice: '([^']*)' \(choose from (.*)\)", message)
        untaken = re.search(r'Parser key "(?:\w+\.)?(\w+)":\s+(.*)', message, re.DOTALL)
        if mistyped:
            message = f"there is no option {mistyped[1]}.{nearest(mistyped[1], self._option_string_actions)}"
        elif invalid:
            came = f"{invalid[1]} is" if invalid[1] else "there is no"
            message = f"{came} {invalid[2]!r}; choose from {invalid[3]}."
        elif untaken:
            message = f"--{untaken[1]}: {_in_words(untaken[2])}"
        print(f"{self.prog}: error: {message}\nThe options: {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def _in_words(message: str) -> str:
    """Say in one line why jsonargparse takes a value for none of an option's."""
    kind = re.search(r"Expected a <class '(\w+)'>\. Got value: (.*)", message)
    if kind:
        wanted = {known.__name__: words for known, words in WORDS.items()}
        return f"{kind[2]!r} came; give {wanted.get(kind[1], kind[1])}"
    return " ".join(message.split()).removeprefix(f"Not of type {GivenPath.__name__}: ")


def progress(values: Iterable[Value], what: str, *, total: int | None = None) -> Iterable[Value]:
    """Show on standard error how far a loop has come and when it will be done; nothing of that is left behind.

    Args:
        values: What is gone through.
        what: A word or two before the bar.
        total: How many values there are, where they do not say it.
    """
    from rich.console import Console
    from rich.progress import track

    return track(values, what, total=total, console=Console(stderr=True), transient=True)


def typed(*words: object) -> str:
    """Give a command as a user can type it: words that a shell would split, such as a folder's name, are quoted."""
    return shlex.join(["python", "-m", "zoo", *map(str, words)])


def add_precision(parser: CommandParser) -> None:
    """Add the option ``--precision`` of a command that computes, on a GPU where there is one."""
    parser.add_argument(
        "--precision",
        choices=["32-true", "bf16-mixed"],
        default="32-true",
        help="32-true: the same result in whatever batch; bf16-mixed: several times as fast on a GPU, nearly the same.",
    )


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
    path = expanded(path)
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"--output {path} cannot be written: {error.strerror}. Give a path in a folder of yours."
        ) from error
