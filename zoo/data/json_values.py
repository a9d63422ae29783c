"""Values of JSON: read so that none is lost, and told in words where they are none."""

import json
from collections import Counter
from typing import Any


class KeyTwiceError(ValueError):
    """An object of JSON that gives a key twice."""


def read_value(text: str) -> Any:
    """Read a value of JSON.

    Raises:
        ValueError: It is none; KeyTwiceError: it is one to a parser that does not look.
        RecursionError: Its brackets are nested too deeply.
    """
    return _DECODER.decode(text)


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise KeyTwiceError(f"{shown(key)} is given twice in one object")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_with_each_key_once)


def no_json(error: Exception, fix: str) -> str:
    """Say why a text is no JSON, what belongs there and what stands there; and the fix."""
    if isinstance(error, KeyTwiceError):
        return f"{error}; keep one of them"
    if not isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error}); {fix}"
    stands = error.doc[error.pos : error.pos + 1]
    there = f"{stands!r} is character {error.colno}" if stands else "the line ends there"
    return f"not JSON ({error.msg}: {there}); {fix}"


def shown(value: Any, limit: int = 60) -> str:
    """Give a value as it stands in JSON, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def json_type(value: Any) -> str:
    """Give the name that JSON has for a value's type."""
    names = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "boolean"}
    return names.get(type(value), "null")
