"""The argument parser of the plain commands: one short error, with the nearest valid option."""

import re
import sys
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from zoo.errors import nearest


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
        invalid = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if mistyped:
            message = f"there is no option {mistyped[1]}.{nearest(mistyped[1], self._option_string_actions)}"
        elif invalid:
            message = f"there is no {invalid[1]!r}; choose from {invalid[2]}."
        print(f"{self.prog}: error: {message}\nThe options: {self.prog} --help", file=sys.stderr)
        sys.exit(2)
