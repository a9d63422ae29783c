"""An index by its address: which engine it is, whether it holds what it is asked to."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError
from zoo.io import expanded
from zoo.tasks.retrieval.search.contracts import Description, Engine

if TYPE_CHECKING:
    from zoo.tasks.retrieval.search.lance import LanceEngine
    from zoo.tasks.retrieval.search.milvus import MilvusEngine

ADDRESSES = "a folder, or http://HOST:PORT[/COLLECTION] of Milvus"


def create_engine(address: str | Path, description: Description) -> Engine:
    """Open the index of an address to write to, or make it where there is none.

    Args:
        address: A folder of LanceDB's, or ``http[s]://HOST:PORT[/COLLECTION]`` of a Milvus server, whose token is
            ``$ZOO_MILVUS_TOKEN``.
        description: What it is to hold.

    Returns:
        The index. One that was there before keeps its own fields, which may be more, and learns where the model and
        the images lie now.

    Raises:
        UserError: The index there holds embeddings of another model, width or share of titles, or its products have
            no such fields.
    """
    name, engine = _engine(address)
    found = engine.open(name)
    if found is None:
        return engine.create(name, description)
    for what in ("fingerprint", "width", "title_weight"):
        old, new = getattr(found.description, what), getattr(description, what)
        if old != new:
            raise UserError(
                f"the index {name} holds embeddings of {found.description.model} with the {what} {old}, and these are"
                f" of {description.model} with {new}; "
                + ("give the same --title_weight" if what == "title_weight" else "embed by the same model")
                + ", or name another index by --engine",
                argument=what,
                value=new,
                valid=old,
            )
    for field, kind in description.fields.items():
        if found.description.fields.get(field) != kind:
            there = found.description.fields.get(field, "missing")
            raise UserError(
                f"the field {field} is a {kind}, and {there} in the index {name}, whose fields were settled when it"
                " was made; name another index by --engine, or remove this one and run index again",
                argument=f"fields.{field}",
                value=kind,
                valid=dict(found.description.fields),
            )
    if (found.description.model, found.description.images) != (description.model, description.images):
        found.relocate(description.model, description.images)
    return found


def open_engine(address: str | Path) -> Engine:
    """Open the index of an address.

    Args:
        address: As of ``create_engine``.

    Raises:
        UserError: There is none.
    """
    name, engine = _engine(address)
    found = engine.open(name)
    if found is None:
        raise UserError(
            f"there is no index at {name}; make it by python -m zoo index",
            argument="engine",
            value=name,
            valid=ADDRESSES,
        )
    return found


def _engine(address: str | Path) -> "tuple[str, type[LanceEngine] | type[MilvusEngine]]":
    """Give an address spelled out, and the class of its engine, whose library is imported here and nowhere before."""
    name = os.fspath(address)
    server = re.match(r"https?://", name)
    if not server and "://" in name:
        raise UserError(f"engine is {name}: give {ADDRESSES}", argument="engine", value=name, valid=ADDRESSES)
    name = name if server else expanded(name, "engine")
    try:
        if server or name.endswith(".db"):
            from zoo.tasks.retrieval.search.milvus import MilvusEngine

            return name, MilvusEngine
        from zoo.tasks.retrieval.search.lance import LanceEngine

        return name, LanceEngine
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, which the index {name} needs: pip install 'muge-zoo[search]'",
            argument="engine",
            value=name,
        ) from None
