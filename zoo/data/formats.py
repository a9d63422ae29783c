"""The rows of MUGE's text files, in both schemas: what is valid, read and written; no torch.

The files are described on MUGE's task pages and in Chinese-CLIP (OFA-Sys/Chinese-CLIP), whose schema differs in key and
file names only. Readers pass over a byte order mark, CRLF and blank lines. Where a list of ``errors`` is given,
malformed and repeated lines are listed there and left out; else the first is raised, as is a file without any row.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

from zoo.data.images import encode_base64
from zoo.data.json_values import shown
from zoo.data.lines import HARMLESS, Found, Id, LineReader
from zoo.errors import FileError, UserError, nearest
from zoo.io import atomic_write, write_json_lines

QUERY_KEYS = {"muge": ("query_id", "query_text", "item_ids"), "cn_clip": ("text_id", "text", "image_ids")}
Schema = Literal["muge", "cn_clip"]


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a query file or of a submission.

    Attributes:
        query_id: The number MUGE knows the query by.
        text: The query in Chinese.
        item_ids: The relevant images of a labelled query, the images found (best first) of a submission, else empty.
        kind: A label by which scores are also reported alone, or None.
        line: The line, from 1; 0: in no file. Queries that differ in nothing else are equal.
    """

    query_id: int
    text: str
    item_ids: tuple[int, ...] = ()
    kind: str | None = None
    line: int = field(default=0, compare=False, repr=False)


class Description(NamedTuple):
    """One line of a text-to-image text file."""

    image_id: str
    text: str
    line: int  # from 1


class Caption(NamedTuple):
    """One line of a caption file.

    Attributes:
        image_id: The image's id, as in ``IC_{split}.tsv``.
        texts: Its references in the order of the file; none in a split without answers.
        line: The line, from 1.
    """

    image_id: str
    texts: tuple[str, ...]
    line: int


# --- reading ---------------------------------------------------------------------------------------------------


def read_queries(path: Path | str, errors: list[FileError] | None = None) -> list[Query]:
    """Read a query file or a submission, in MUGE's schema or Chinese-CLIP's.

    Args:
        path: The ``.jsonl`` file.
        errors: See above.

    Raises:
        FileError: The file is not there or has no row, a line is malformed, or an id comes twice.
    """
    reader = LineReader(path, noun="query", accepted=HARMLESS | {"empty_text"}, errors=errors)
    queries = []
    for line, told, record in reader.records():
        if reader.report_all(query_errors(record), line, told):
            continue
        query_id, text, items = (record.get(key) for key in keys_of(record))
        if reader.claim(line, query_id):  # type: ignore[arg-type]  # an integer, as was seen
            queries.append(Query(query_id, text, tuple(items or ()), record.get("kind"), line))  # type: ignore[arg-type]
    reader.require(queries)
    return queries


def read_captions(path: Path | str, errors: list[FileError] | None = None) -> list[Caption]:
    """Read ``{"image_id": …, "text": [reference, …]}`` a line; without ``text`` the image has no references.

    Args:
        path: The ``.jsonl`` file.
        errors: See above.

    Raises:
        FileError: The file is not there or has no row, a line is malformed, a reference is blank, or an id comes twice.
    """
    reader = LineReader(path, noun="image", errors=errors)
    captions = []
    for line, told, record in reader.records():
        if not reader.report_all(caption_errors(record), line, told) and reader.claim(line, record["image_id"]):
            captions.append(Caption(record["image_id"], tuple(record.get("text", ())), line))
    reader.require(captions)
    return captions


def read_text_tsv(path: Path | str, errors: list[FileError] | None = None) -> list[Description]:
    """Read lines of id, tab, description; the description may hold tabs.

    Args:
        path: The ``.tsv`` file.
        errors: See above.

    Raises:
        FileError: The file is not there or has no row, a line is malformed, or an id comes twice.
    """
    reader = LineReader(path, noun="image", errors=errors)
    descriptions = []
    for line, image_id, text in reader.columns():
        if not reader.report_all(description_errors(image_id, text), line, image_id) and reader.claim(line, image_id):
            descriptions.append(Description(image_id, text.strip(), line))
    reader.require(descriptions)
    return descriptions


# --- what is valid ---------------------------------------------------------------------------------------------


def keys_of(record: dict[str, Any]) -> tuple[str, str, str]:
    """Give the keys of a query's id, text and images in the record's schema."""
    return QUERY_KEYS["cn_clip" if "text_id" in record else "muge"]


def query_errors(record: dict[str, Any], *, labelled: bool = False) -> Found:
    """Find what is wrong with a query.

    Args:
        record: The line's object.
        labelled: Whether it must name its images.
    """
    id_key, text_key, items_key = keys_of(record)
    yield from id_errors(record, id_key, int)
    yield from _text_errors(record, text_key)
    items, kind = record.get(items_key, []), record.get("kind")
    if labelled and items_key not in record:
        yield "missing_key", f"no {items_key} {_among(record)}; add the list of the query's images"
    elif not isinstance(items, list):
        yield "wrong_type", f"{items_key} is {shown(items)}; write a list of integers"
    elif wrong := [item for item in items if not is_integer(item)]:
        yield "wrong_type", f"{items_key} has {shown(wrong[0])}; write integers of 64 bits, without quotes"
    elif labelled and not items:
        yield "no_image", f"{items_key} is empty; name the query's images, or take the line out"
    if kind is not None and not isinstance(kind, str):
        yield "wrong_type", f"kind is {shown(kind)}; write a string, or leave it out"


def caption_errors(record: dict[str, Any], *, labelled: bool = False) -> Found:
    """Find what is wrong with an image's references.

    Args:
        record: The line's object.
        labelled: Whether it must have references.
    """
    yield from id_errors(record, "image_id", str)
    texts = record.get("text")
    if "text" not in record:
        if labelled:
            yield "missing_key", f"no text {_among(record)}; add the list of references"
    elif not isinstance(texts, list):
        yield "wrong_type", f"text is {shown(texts)}; write a list of strings"
    elif not texts:
        yield "empty_text", "text is empty; write one reference or more, or take line and image out"
    else:
        for number, text in enumerate(texts, start=1):
            for kind, message in _text_errors({"text": text}, "text"):
                yield kind, f"reference {number} of {len(texts)}: {message}"


def description_errors(image_id: str, text: str) -> Found:
    """Find what is wrong with a description."""
    if not 0 < len(image_id) <= 128:
        yield "wrong_type", "the id is no text of 1 to 128 characters; write the image's MD5"
    if not text.strip():
        yield "empty_text", "no text behind the tab; write it, or take line and image out"


def is_integer(value: Any) -> TypeGuard[int]:
    """Tell whether a JSON value is an integer that int64 holds."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def is_unicode(text: str) -> bool:
    """Tell whether a string has whole characters only: JSON's escapes can spell halves of them, which UTF-8 cannot."""
    return not re.search("[\ud800-\udfff]", text)


def id_errors(record: dict[str, Any], key: str, id_type: type[Id]) -> Found:
    """Find what is wrong with the id of a line."""
    if key not in record:
        yield "missing_key", f"no {key} {_among(record)}; add it"
    elif id_type is int and not is_integer(record[key]):
        yield "wrong_type", f"{key} is {shown(record[key])}; write an integer of 64 bits, without quotes"
    elif id_type is str and not (isinstance(record[key], str) and record[key]):
        yield "wrong_type", f"{key} is {shown(record[key])}; write the image's id as a string, in quotes"


def _text_errors(record: dict[str, Any], key: str) -> Found:
    if key not in record:
        yield "missing_key", f"no {key} {_among(record)}; add it"
    elif not isinstance(record[key], str):
        yield "wrong_type", f"{key} is {shown(record[key])}; write a string, in quotes"
    elif not record[key].strip():
        yield "empty_text", f"{key} is {shown(record[key])}; write the text, or take the line out"
    elif not is_unicode(record[key]):
        yield "not_utf8", f"{key} has half of a surrogate pair (\\ud800 to \\udfff); write the whole character"


def _among(record: dict[str, Any]) -> str:
    return f"among {', '.join(record)}" if record else "in an empty object"


# --- writing ---------------------------------------------------------------------------------------------------


def write_queries(path: Path | str, queries: Iterable[Query], *, schema: Schema = "muge") -> None:
    """Write queries or a submission, atomically.

    Args:
        path: The ``.jsonl`` file.
        queries: The queries. Those without ``item_ids`` are written as the test files have them: MUGE leaves the key
            out, Chinese-CLIP writes an empty list.
        schema: ``muge`` or ``cn_clip``.

    Raises:
        UserError: There is no such schema.
    """
    if schema not in QUERY_KEYS:
        raise UserError(
            f"Schema {schema!r} is not one of {', '.join(QUERY_KEYS)}.{nearest(schema, QUERY_KEYS)}",
            argument="schema",
            value=schema,
            valid=tuple(QUERY_KEYS),
        )
    id_key, text_key, items_key = QUERY_KEYS[schema]

    def record(query: Query) -> dict[str, Any]:
        items = {items_key: list(query.item_ids)} if query.item_ids or schema == "cn_clip" else {}
        kind = {} if query.kind is None else {"kind": query.kind}
        return {id_key: query.query_id, text_key: query.text, **items, **kind}

    write_json_lines(path, (record(query) for query in queries))


def write_captions(path: Path | str, captions: Iterable[tuple[str, list[str]]]) -> None:
    """Write captions as in ``IC_train.jsonl``, atomically.

    Args:
        path: The ``.jsonl`` file.
        captions: Image ids with their references; without any, only the id is written, as in ``IC_test.jsonl``.
    """
    write_json_lines(
        path,
        ({"image_id": image_id, "text": texts} if texts else {"image_id": image_id} for image_id, texts in captions),
    )


def write_image_tsv(path: Path | str, images: Iterable[tuple[Id, bytes]]) -> None:
    """Write lines of id, tab, base64; standard alphabet, as in the published files; atomically.

    Args:
        path: The ``.tsv`` file.
        images: Ids with encoded images (JPEG, PNG, …).
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.writelines(b"%s\t%s\n" % (str(image_id).encode(), encode_base64(data)) for image_id, data in images)


def write_text_tsv(path: Path | str, texts: Iterable[tuple[str, str]]) -> None:
    """Write lines of id, tab, description, as in ``T2I_train.txt.tsv``, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{image_id}\t{text}\n" for image_id, text in texts)
