"""What the engines share: which products they take, how columns are called, how a description is kept."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from zoo.errors import UserError, invalid
from zoo.tasks.retrieval.search.contracts import Description, Product
from zoo.tasks.retrieval.search.filters import Kind, Value

LONGEST_ID = 512  # bytes of UTF-8
LONGEST_TEXT = 65_535  # bytes of UTF-8 of a title or a value; Milvus takes no more
GREATEST = 1.7e308  # number
_KINDS: dict[Kind, type | tuple[type, ...]] = {"text": str, "number": (int, float), "boolean": bool}


def columns(description: Description) -> dict[str, str]:
    """Give the column of each field: databases do not take every name, and ``id`` or ``title`` are taken."""
    return {name: f"field_{i}" for i, name in enumerate(description.fields)}


def checked(products: Sequence[Product], description: Description) -> list[Product]:
    """See that products can be kept; of those of one id the last stays.

    Raises:
        UserError: An id, a text, a vector or a value is not as ``Product`` says.
    """
    for product in products:
        _check_text("id", product.id, LONGEST_ID)
        if not product.id:
            raise invalid("id", product.id, "give at least one character")
        for name in ("title", "image", "digest"):
            _check_text(f"{name} of {product.id!r}", getattr(product, name), LONGEST_TEXT)
        shape = np.shape(product.vector)
        if shape != (description.width,):
            raise invalid(f"vector of {product.id!r}", list(shape), f"the index holds [{description.width}]")
        norm = float(np.linalg.norm(product.vector))
        if not abs(norm - 1) < 1e-2:
            raise invalid(f"vector of {product.id!r}", f"of length {norm:.4g}", "give a unit vector")
        for name, value in product.metadata.items():
            _check_value(f"{name} of {product.id!r}", value, description.fields.get(name))
    return list({product.id: product for product in products}.values())


def to_json(description: Description) -> str:
    """Write a description as JSON, on one line."""
    return json.dumps(asdict(description) | {"fields": dict(description.fields)}, ensure_ascii=False)


def from_json(text: str | None, address: str) -> Description:
    """Read what ``to_json`` wrote.

    Raises:
        UserError: It is none, or of a format of later versions.
    """
    try:
        values = json.loads(text or "")
        if values["format"] == Description.format:
            return Description(**{field.name: values[field.name] for field in fields(Description)})
        reason = f"an index of format {values['format']}, and this version reads {Description.format}"
    except (ValueError, KeyError, TypeError):
        reason = "no index of products"
    raise UserError(
        f"{address} is {reason}; name another, or make one by python -m zoo index",
        argument="engine",
        value=address,
        valid=f"an index of format {Description.format}",
    )


def metadata(row: Mapping[str, Any], description: Description) -> dict[str, Value]:
    """Give the value of each field of a row of a database."""
    return {name: row[column] for name, column in columns(description).items()}


def _check_text(what: str, text: str, longest: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise invalid(what, repr(text), "give valid UTF-8") from None
    if size > longest:
        raise invalid(what, f"{size:,} bytes long", f"give at most {longest:,}")


def _check_value(what: str, value: Value, kind: Kind | None) -> None:
    if kind is None:
        raise invalid(what, value, "the index has no such field")
    if value is None:
        return
    if not isinstance(value, _KINDS[kind]) or (kind == "number" and isinstance(value, bool)):
        raise invalid(what, repr(value), f"give a {kind}, or null")
    if isinstance(value, str):
        _check_text(what, value, LONGEST_TEXT)
    elif not abs(value) <= GREATEST:
        raise invalid(what, value, "give a finite number")
