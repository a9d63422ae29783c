"""Options that come as a dictionary, from YAML or the command line, as the dataclass that checks them."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

from zoo.errors import UserError, nearest

Options = TypeVar("Options")


def options_of(kind: type[Options], options: dict[str, Any] | None, *, what: str) -> Options:
    """What a dictionary of options says.

    Args:
        kind: A dataclass whose fields all have defaults; numbers, texts, or None for none.
        options: Some of its fields.
        what: What they are of, for errors (``"sampling"``).

    Raises:
        UserError: It names others than there are, or a value is of another kind.
    """
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    assert MISSING not in defaults.values()
    for name, value in (options or {}).items():
        if name not in defaults:
            raise UserError(f"{what} has no {name!r}.{nearest(name, defaults)} It has {', '.join(defaults)}")
        accepted = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise UserError(f"{name} is {value!r}: give something like {defaults[name]}")
    return kind(**(options or {}))
