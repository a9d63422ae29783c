"""Options that one decision sets: dataclasses in Python, plain dictionaries in YAML and checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

from zoo.errors import UserError, nearest

Options = TypeVar("Options")


def options_of(kind: type[Options], given: Options | Mapping[str, Any] | None, *, what: str) -> Options:
    """Give the options that a dictionary says, or that are given as they are.

    Args:
        kind: A dataclass whose fields all have defaults.
        given: Some of its fields, or the whole; None: the defaults.
        what: What they are of, for errors (``"sampling"``).

    Raises:
        UserError: It names others than there are, or a value is of another kind.
    """
    if isinstance(given, kind):
        return given
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    options: dict[str, Any] = dict(given or {})  # type: ignore[arg-type]
    for name, value in options.items():
        if name not in defaults:
            raise UserError(f"{what} has no {name!r}.{nearest(name, defaults)} It has {', '.join(defaults)}")
        default = defaults[name]
        accepted = (int, float) if isinstance(default, float) else type(default)
        if isinstance(default, bool | int | float | str) and (
            not isinstance(value, accepted) or isinstance(value, bool) != isinstance(default, bool)
        ):
            raise UserError(f"{name} is {value!r}: give something like {default}")
    return kind(**options)


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the dataclasses among some options into dictionaries, as checkpoints keep them."""
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in options.items()
    }
