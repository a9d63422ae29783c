"""Conditions on products' metadata: ``price < 200 and category in ('连衣裙', '半身裙')``."""

from dataclasses import dataclass
from typing import Literal

Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Comparison:
    """``price < 200``; a product without a value of the field meets none, ``!=`` included.

    Attributes:
        field: Name of the field.
        operator: The operator; of booleans ``=`` and ``!=`` alone.
        value: What is compared with, of the field's kind.
    """

    field: str
    operator: Operator
    value: str | float | bool


@dataclass(frozen=True)
class Membership:
    """``category in ('连衣裙', '半身裙')``, or ``not in``; a product without a value of the field meets neither.

    Attributes:
        field: Name of the field.
        values: Values of the field's kind, at least one.
        negated: Whether it is ``not in``.
    """

    field: str
    values: tuple[str | float | bool, ...]
    negated: bool = False


@dataclass(frozen=True)
class AllOf:
    """What holds where all of its parts do.

    Attributes:
        parts: The conditions, two or more.
    """

    parts: "tuple[Condition, ...]"


@dataclass(frozen=True)
class AnyOf:
    """What holds where one of its parts does.

    Attributes:
        parts: The conditions, two or more.
    """

    parts: "tuple[Condition, ...]"


Condition = Comparison | Membership | AllOf | AnyOf
