"""What jsonargparse lets through to the classes that options are of, and they do not look at: null, NaN, ranges."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
from jsonargparse import Namespace

from zoo.cli.errors import load_class, where
from zoo.cli.help import in_words
from zoo.core.options import parameters_of, takes_null
from zoo.errors import UserError, invalid

# The least of options that nobody behind looks at, or names.
LEAST = {
    "seed_everything": 0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.gradient_clip_val": 0,
    "trainer.log_every_n_steps": 0,
    "trainer.num_sanity_val_steps": -1,
}


def check_options(given: Namespace, words: Sequence[str]) -> None:
    """See to null, NaN, what is no mapping for options that belong together, and ranges.

    Args:
        given: All options of a training command.
        words: The command line behind its verb, in which an option's place is told.

    Raises:
        UserError: An option is none of what it may be.
    """

    def refused(option: str, value: Any, valid: str) -> UserError:
        error = invalid(option, "null" if value is None else repr(value), f"give {valid}")
        return UserError(f"{where(option, '', list(words))}{error}", argument=option, value=value, valid=valid)

    parts = [("trainer", L.Trainer, given.trainer)]
    for group in ("model", "data"):
        if given[group] is None:
            raise UserError(f"no configuration names the {group}: it needs `{group}: {{class_path: …}}`")
        parts.append((group, load_class(given[group].class_path), given[group].init_args))
    for group, kind, values in parts:
        for option, parameter in parameters_of(kind).items():
            name, _, inner = option.partition(".")
            value = values.get(name)
            if inner and not isinstance(value, Namespace):
                raise refused(f"{group}.{name}", value, "a mapping, `name: value`")
            if (value.get(inner) if inner else value) is None and not takes_null(parameter):
                raise refused(f"{group}.{option}", None, in_words(parameter.annotation))
        for option, number in numbers_in(values, group):
            if not math.isfinite(number):
                raise refused(option, number, "a finite number")
    for option, least in LEAST.items():
        value = given[option]
        if value is not None and value < least:
            raise refused(option, value, f"{least} or more")
    if given.seed_everything is not None and given.seed_everything >> 32:
        raise refused("seed_everything", given.seed_everything, "less than 2 ** 32")


def numbers_in(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Give the fractional numbers among options, with dotted names, but for those that a class of its own is given."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from numbers_in(each, name)
    elif isinstance(value, Namespace | dict) and "class_path" not in value:
        for key, each in (vars(value) if isinstance(value, Namespace) else value).items():
            yield from numbers_in(each, f"{name}.{key}")
