"""Options that one decision sets: dataclasses in Python, plain dictionaries in YAML and checkpoints."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

import docstring_parser

from zoo.errors import UserError, invalid, nearest

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
    kinds = get_type_hints(kind)
    options: dict[str, Any] = dict(given or {})  # type: ignore[arg-type]
    for name, value in options.items():
        if name not in defaults:
            raise UserError(f"{what} has no {name!r}.{nearest(name, defaults)} It has {', '.join(defaults)}")
        default = defaults[name]
        if value is None and type(None) in get_args(kinds[name]):
            continue
        accepted = (int, float) if isinstance(default, float) else type(default)
        if isinstance(default, bool | int | float | str) and (
            not isinstance(value, accepted) or isinstance(value, bool) != isinstance(default, bool)
        ):
            raise UserError(f"{name} is {value!r}: give something like {default}")
    return kind(**options)


def check_heads(*, width: int, num_layers: int, num_heads: int, multiple: int = 1) -> None:
    """See that a transformer can have this shape.

    Args:
        width: Of the hidden states.
        num_layers: Its layers.
        num_heads: Its attention heads.
        multiple: What each head's share of the width must be a multiple of.

    Raises:
        UserError: It cannot.
    """
    for name, value in (("num_layers", num_layers), ("num_heads", num_heads)):
        if value < 1:
            raise invalid(name, value, "give 1 or more")
    if width < 1 or width % (multiple * num_heads):
        times = f"{multiple} times " if multiple > 1 else ""
        raise invalid("width", width, f"give a multiple of {multiple * num_heads}, {times}num_heads")


def idle_fields(options: Any, where: str) -> dict[str, str]:
    """Name the fields of a dataclass of options that were given for nothing: another makes them idle.

    Args:
        options: It may have a method ``idle()``, which gives the names of idle fields, and why each is.
        where: What stands before the names: ``model.finetuning``.

    Returns:
        The dotted name of each that has another value than its default, with the reason.
    """
    reasons: dict[str, str] = options.idle() if hasattr(options, "idle") else {}
    defaults = {field.name: field.default for field in fields(options)}
    return {f"{where}.{name}": why for name, why in reasons.items() if getattr(options, name) != defaults[name]}


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the dataclasses among some options into dictionaries, as checkpoints keep them."""
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in options.items()
    }


class Parameter(NamedTuple):
    """A parameter of a class, or a field of a dataclass that is one.

    Attributes:
        annotation: Its type.
        default: Its default, or ``inspect.Parameter.empty``.
        description: What its docstring says.
    """

    annotation: Any
    default: Any
    description: str


def takes_null(parameter: Parameter) -> bool:
    """Tell whether a parameter can be None."""
    kind = parameter.annotation
    return parameter.default is None or kind is Any or type(None) in get_args(kind)


def parameters_of(kind: type) -> dict[str, Parameter]:
    """Give the parameters of a class, those that it hands on to its base too; those in dataclasses are dotted."""
    if "__init__" not in vars(kind):
        return parameters_of(kind.__mro__[1])
    documented = docstring_parser.parse(inspect.getdoc(kind) or "").params
    descriptions = {entry.arg_name: entry.description or "" for entry in documented}
    found: dict[str, Parameter] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            base = parameters_of(kind.__mro__[1])
            found |= {inherited: each for inherited, each in base.items() if inherited not in found}
        elif is_dataclass(parameter.annotation):
            fields_of = parameters_of(parameter.annotation)  # type: ignore[arg-type]
            given = parameter.default
            for inner, each in fields_of.items():
                default = each.default if given is parameter.empty else getattr(given, inner)
                found[f"{name}.{inner}"] = each._replace(default=default)
        else:
            found[name] = Parameter(parameter.annotation, parameter.default, descriptions.get(name, ""))
    return found
