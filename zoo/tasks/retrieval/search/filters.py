"""Conditions on products' metadata: ``price < 200 and category in ('连衣裙', '半身裙')``."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from zoo.errors import UserError, invalid, nearest

Kind = Literal["text", "number", "boolean"]
Value = str | float | bool | None
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

LONGEST = 4000  # characters of a condition that is parsed
DEEPEST = 16  # parentheses and nots around each other

_TOKEN = re.compile(
    r"""\s*(?: (?P<string>'(?:[^']|'')*') | (?P<quoted>"(?:[^"]|"")*") | (?P<symbol>==|!=|<=|>=|[=<>(),])
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w)) | (?P<word>[^\W\d]\w*) | (?P<end>$) )""",
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in", "true", "false")
_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITE: dict[Operator, Operator] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_EXAMPLES: dict[Kind, str] = {"text": "'a text in single quotes'", "number": "199.9", "boolean": "true or false"}


def parse(text: str, fields: Mapping[str, Kind], argument: str = "where") -> Condition:
    """Read a condition: ``price < 200 and not (color = '红' or "on sale" = true)``.

    Comparisons are ``= == != < <= > >=``, ``in (…)`` and ``not in (…)``, joined by ``and``, ``or``, ``not`` and
    parentheses. Texts stand in single quotes, a quote in them is doubled; fields whose names are no identifiers
    stand in double quotes. ``not`` turns the comparisons behind it around, so that a product without a value of a
    field meets no comparison of it, negated or not.

    Args:
        text: The condition, at most 4,000 characters.
        fields: The kind of each field that there is.
        argument: What the user typed it as, for errors.

    Raises:
        UserError: It is too long, nested too deeply or no condition at all, names an unknown field, or compares a
            field with a value of another kind.
    """
    return _Parser(text, fields, argument).parse()


def holds(condition: Condition, metadata: Mapping[str, Value]) -> bool:
    """Tell whether a condition holds of a product's metadata; what the engines do is held to this."""
    if isinstance(condition, AllOf):
        return all(holds(part, metadata) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return any(holds(part, metadata) for part in condition.parts)
    value = metadata.get(condition.field)
    if value is None:
        return False
    if isinstance(condition, Membership):
        return (value in condition.values) != condition.negated
    return _COMPARE[condition.operator](value, condition.value)


def expression(
    condition: Condition,
    columns: Mapping[str, str],
    quote: Callable[[str], str],
    equal: str = "=",
    brackets: str = "()",
) -> str:
    """Write a condition as a database reads it; SQL unless said.

    Where a row has no value, ``not in`` holds in some databases.

    Args:
        condition: The condition.
        columns: The column of each field; they are written as they are.
        quote: Writes a text as a literal.
        equal: How equality is written.
        brackets: What stands around the values behind ``in``.
    """

    def literal(value: str | float | bool) -> str:
        if isinstance(value, str):
            return quote(value)
        return str(value).lower() if isinstance(value, bool) else repr(float(value))

    def write(condition: Condition) -> str:
        if isinstance(condition, AllOf | AnyOf):
            return "(" + (" and " if isinstance(condition, AllOf) else " or ").join(map(write, condition.parts)) + ")"
        column = columns[condition.field]
        if isinstance(condition, Membership):
            values = ", ".join(map(literal, condition.values))
            membership = f"in {brackets[0]}{values}{brackets[1]}"
            if condition.negated:
                return f"({column} is not null and {column} not {membership})"
            return f"{column} {membership}"
        return f"{column} {equal if condition.operator == '=' else condition.operator} {literal(condition.value)}"

    return write(condition)


class _Token(NamedTuple):
    kind: str  # of the groups of _TOKEN, or "keyword"
    text: str
    start: int


class _Parser:
    """Recursive descent; ``negated`` tells a rule whether an odd number of nots stands before it."""

    def __init__(self, text: str, fields: Mapping[str, Kind], argument: str) -> None:
        self.text, self.fields, self.argument = text, fields, argument
        if len(text) > LONGEST:
            raise invalid(argument, f"{len(text):,} characters long", f"give at most {LONGEST:,}")
        if not text.isascii() and (lost := re.search("[\ud800-\udfff]", text)):
            raise self.error(lost.start(), "half a character", "give valid UTF-8")
        self.depth = 0
        self.end = 0  # of the token that is next
        self.advance()

    def parse(self) -> Condition:
        condition = self.disjunction(negated=False)
        if self.next.kind != "end":
            raise self.unexpected("and, or, or the end" if self.next.text != ")" else "its opening parenthesis before")
        return condition

    def disjunction(self, negated: bool) -> Condition:
        return self.joined("or", self.conjunction, AllOf if negated else AnyOf, negated)

    def conjunction(self, negated: bool) -> Condition:
        return self.joined("and", self.negation, AnyOf if negated else AllOf, negated)

    def joined(
        self, word: str, rule: Callable[[bool], Condition], join: type[AllOf] | type[AnyOf], negated: bool
    ) -> Condition:
        parts = [rule(negated)]
        while self.accept(word):
            parts.append(rule(negated))
        return parts[0] if len(parts) == 1 else join(tuple(parts))

    def negation(self, negated: bool) -> Condition:
        start = self.next.start
        if not (opened := self.accept("(")) and not self.accept("not"):
            return self.comparison(negated)
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(start, f"more than {DEEPEST} parentheses and nots inside each other", "write it flatter")
        condition = self.disjunction(negated) if opened else self.negation(not negated)
        if opened and not self.accept(")"):
            raise self.unexpected(f"a closing parenthesis for that of character {start + 1}, and, or or")
        self.depth -= 1
        return condition

    def comparison(self, negated: bool) -> Condition:
        field, kind = self.field()
        symbol = self.next
        not_in = self.accept("not")
        if self.accept("in"):
            self.expect("(")
            values = [self.value(field, kind)]
            while self.accept(","):
                values.append(self.value(field, kind))
            self.expect(")")
            return Membership(field, tuple(values), negated=not_in != negated)
        name = cast(Operator, "=" if symbol.text == "==" else symbol.text)
        if not_in or name not in _OPPOSITE:
            raise self.unexpected("in" if not_in else f"one of {', '.join(_OPPOSITE)}, in, not in")
        if kind == "boolean" and name not in ("=", "!="):
            raise self.unexpected(f"= or !=, for {field} is true or false")
        self.advance()
        return Comparison(field, _OPPOSITE[name] if negated else name, self.value(field, kind))

    def field(self) -> tuple[str, Kind]:
        token = self.next
        if token.kind not in ("word", "quoted"):
            raise self.unexpected("the name of a field")
        name = token.text if token.kind == "word" else token.text[1:-1].replace('""', '"')
        if name not in self.fields:
            known = f"give one of {', '.join(self.fields)}" if self.fields else "the index has no fields"
            raise self.error(token.start, f"the unknown field {name}", known + "." + nearest(name, self.fields))
        self.advance()
        return name, self.fields[name]

    def value(self, field: str, kind: Kind) -> str | float | bool:
        token = self.next
        value: str | float | bool | None = None
        if token.kind == "string" and kind == "text":
            value = token.text[1:-1].replace("''", "'")
        elif token.kind == "number" and kind == "number" and math.isfinite(float(token.text)):
            value = float(token.text)
        elif token.text.lower() in ("true", "false") and kind == "boolean":
            value = token.text.lower() == "true"
        if value is None:
            raise self.unexpected(f"a {kind} for {field}: {_EXAMPLES[kind]}")
        self.advance()
        return value

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            start = self.end + len(self.text[self.end :]) - len(self.text[self.end :].lstrip())
            if self.text[start] in "'\"":
                raise self.error(start, "a quote that is not closed", "close it; double a quote inside of a text")
            raise self.error(start, self.text[start], "texts stand in single quotes, odd names in double ones")
        kind = str(match.lastgroup)
        text, start = match[kind], match.start(kind)
        if kind == "word" and text.lower() in _KEYWORDS:
            kind, text = "keyword", text.lower()
        self.next, self.end = _Token(kind, text, start), match.end()

    def accept(self, text: str) -> bool:
        found = self.next.kind in ("symbol", "keyword") and self.next.text == text
        if found:
            self.advance()
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.unexpected(text)

    def unexpected(self, valid: str) -> UserError:
        return self.error(self.next.start, self.next.text or "the end", f"expected {valid}")

    def error(self, start: int, found: str, valid: str) -> UserError:
        message = f"{self.argument}: at character {start + 1} is {found}: {valid}"
        return UserError(message, argument=self.argument, value=found, valid=valid)
