"""Valid inputs of zoo's commands, and mutators that spoil them and say what has to come of it.

An area is a command: ``folders`` (``data check``), ``tables`` (``data import``), ``submissions`` (``score`` of each
task), ``configs`` (``fit``). ``changes``, ``records`` and ``encoded`` spoil what several read: text files, lines of
JSON, images in base64. ``running`` runs inputs; ``tests/end_to_end/bad_inputs.py`` is its command line.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple


@dataclass
class Input:
    """What is typed, and the folder that it is typed in.

    Attributes:
        words: The words behind ``python -m zoo``.
        files: The contents of the folder's files by their path; None: a folder.
    """

    words: list[str]
    files: dict[str, bytes | None]

    def copy(self):
        return Input(list(self.words), dict(self.files))


class Verdict(NamedTuple):
    """What has to come of an input.

    Attributes:
        outcome: ``refused``: with exit code 1 or 2, naming what is wrong; ``same``: taken, with the outcome of the
            valid input; ``accepted``: taken, with another outcome; ``either``: nobody can say, but no traceback.
        named: What a refusal names: file and line, or an argument.
        result: What the outcome of an accepted input is; None: nothing is said of it.
    """

    outcome: Literal["refused", "same", "accepted", "either"]
    named: tuple[str, ...] = ()
    result: Any = None


SAME, ACCEPTED, EITHER = Verdict("same"), Verdict("accepted"), Verdict("either")


def refused(*named):
    """An input that is refused with a message in which all of these stand."""
    return Verdict("refused", tuple(map(str, named)))


def at(name, line):
    """The place of a mistake as errors tell it."""
    return Path(name).name if line is None else f"{Path(name).name}:{line}:"


class Mutator(NamedTuple):
    """Spoils an input in place, and gives the verdict; None: it has nothing to spoil there."""

    name: str
    spoil: Callable[[Input, Random], Verdict | None]
    bases: Collection[str]  # the valid inputs that it spoils; empty: any


@dataclass
class Area:
    """A command's valid inputs and their mutators.

    Attributes:
        name: The area's name.
        share: How many of a hundred inputs are of it.
        bases: The valid inputs, by name.
        mutators: What spoils them.
        outcome: Gives what a run's printed output and folder come to, to be compared with the valid input's.
        leaves: Whether a file that is new in the folder may be: ``leaves(name, accepted)``.
        said: Gives what was said, in which a refusal's names are looked for, of what was printed.
        scratch: How the names of files begin that a command may take for its own.
        afterwards: Gives what is wrong with the folder after an input that was taken; empty: nothing.
    """

    name: str
    share: int
    outcome: Callable[[Path, str, str], Any]
    leaves: Callable[[str, bool], bool] = lambda name, accepted: False
    said: Callable[[str, str], str] = lambda out, err: out + err
    afterwards: Callable[[Path, Input], str] = lambda place, given: ""
    scratch: str = ""
    bases: dict[str, Input] = field(default_factory=dict)
    mutators: list[Mutator] = field(default_factory=list)

    def spoils(self, *bases):
        """Register a function as a mutator of these valid inputs, or of all."""

        def register(spoil):
            self.add(spoil.__name__, spoil, bases)
            return spoil

        return register

    def add(self, name, spoil, bases=()):
        """Register a mutator."""
        self.mutators.append(Mutator(name, spoil, bases))
