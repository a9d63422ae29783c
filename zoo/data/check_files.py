"""The files of MUGE's formats, each read on its own: its rows, and what is wrong with every one of them; no torch."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Any

from zoo.data import images
from zoo.data.check_lines import DataFile, Found, Id, Kind, Row, shown
from zoo.data.formats import QUERY_KEYS, is_integer, is_unicode
from zoo.data.tsv import MAX_DIGITS

Broken = tuple[int, Id | None, Kind, str]  # line, id, kind and message

_CHUNK = 64  # pictures that a thread decodes at once
_READ_AHEAD = 8  # chunks that wait or are being decoded: what memory holds of the pictures


def scan_queries(file: DataFile, *, labelled: bool) -> None:
    """Read a query file of MUGE's or Chinese-CLIP's.

    Args:
        file: The file.
        labelled: Whether every query must name its pictures.
    """
    for row, identity, record in file.records(int):
        id_key, text_key, items_key = QUERY_KEYS["cn_clip" if "text_id" in record else "muge"]
        file.add_all(_id_faults(record, id_key, int), row.line, identity)
        file.add_all(_text_faults(record, text_key), row.line, identity)
        file.add_all(_item_faults(record, items_key, labelled=labelled), row.line, identity)
        file.add_all(_kind_faults(record), row.line, identity)
        items = record.get(items_key)
        file.rows.append(
            row._replace(
                text=_digest(record.get(text_key)),
                items=tuple(item for item in items if is_integer(item)) if isinstance(items, list) else (),
            )
        )


def scan_captions(file: DataFile, *, labelled: bool) -> None:
    """Read a caption file.

    Args:
        file: The file.
        labelled: Whether every picture must have references.
    """
    for row, identity, record in file.records(str):
        file.add_all(_id_faults(record, "image_id", str), row.line, identity)
        file.add_all(_reference_faults(record, labelled=labelled), row.line, identity)
        texts = record.get("text")
        file.rows.append(row._replace(text=_digest(*texts) if isinstance(texts, list) else None))


def scan_descriptions(file: DataFile) -> None:
    """Read a text-to-image text file: lines of id, tab and text."""
    for number, line, wrong in file.texts():
        token, *columns = line.split("\t")
        identity = token if columns and token else None
        if wrong:
            file.add("not_utf8", wrong, number, identity)
        if not columns:
            file.add("wrong_columns", f"no tab in {shown(line)}; write an id, a tab and a text", number)
            continue
        found = list(_token_faults(token.encode(), str))
        file.add_all(found, number, identity)
        if len(columns) > 1:
            file.add("wrong_columns", f"{len(columns)} tabs; write an id, one tab and a text", number, identity)
        text = "\t".join(columns)
        if not text.strip():
            file.add("empty_text", "no text behind the tab; write it, or take line and picture out", number, identity)
        file.rows.append(Row(number, None if found or "\ufffd" in token else token, _digest(text)))


def scan_pictures(file: DataFile, *, id_type: type[Id], pool: Executor) -> None:
    """Read a picture file, and decode every picture whole.

    Args:
        file: Lines of id, tab and base64.
        id_type: ``int`` for retrieval, ``str`` for the tasks with md5 ids.
        pool: Threads that decode (decoders let go of Python's lock).
    """
    encoded = _encoded_pictures(file, id_type)
    waiting: deque[Future[list[Broken]]] = deque()
    while chunk := list(islice(encoded, _CHUNK)):
        waiting.append(pool.submit(_broken_pictures, chunk))
        if len(waiting) >= _READ_AHEAD:
            _add_results(file, waiting.popleft())
    while waiting:
        _add_results(file, waiting.popleft())


def _encoded_pictures(file: DataFile, id_type: type[Id]) -> Iterator[tuple[int, Id | None, bytes]]:
    """Line, id and base64 text of each picture; its columns and id are checked on the way."""
    for number, line in file.lines():
        token, *columns = line.split(b"\t")
        if not columns:
            begin = shown(line[:40].decode(errors="backslashreplace"))
            file.add("wrong_columns", f"no tab after {begin}; write an id, a tab and a base64 picture", number)
            continue
        found = list(_token_faults(token, id_type))
        identity = token.decode(errors="backslashreplace") or None if found else id_type(token.decode())
        file.add_all(found, number, identity)
        file.rows.append(Row(number, None if found else identity))
        if len(columns) == 1:
            yield number, identity, columns[0]
        else:
            message = f"{len(columns)} tabs; write an id, one tab and a base64 picture"
            file.add("wrong_columns", message, number, identity)


def _broken_pictures(chunk: list[tuple[int, Id | None, bytes]]) -> list[Broken]:
    """What is wrong with each picture that cannot be read."""
    broken: list[Broken] = []
    for number, identity, encoded in chunk:
        kind: Kind = "bad_base64"
        try:
            data = images.decode_base64(encoded)
            kind = "bad_picture"
            images.decode(data)
        except Exception as error:  # whatever a decoder raises would end a training too
            message = f"{str(error).rstrip('.')}; encode the picture again, or take its rows out"
            broken.append((number, identity, kind, message))
    return broken


def _add_results(file: DataFile, future: Future[list[Broken]]) -> None:
    for number, identity, kind, message in future.result():
        file.add(kind, message, number, identity)


# --- what is wrong with one value ------------------------------------------------------------------------------


def _token_faults(token: bytes, id_type: type[Id]) -> Found:
    """Of an id in a TSV."""
    if id_type is int and (not token.isdigit() or len(token) > MAX_DIGITS):
        yield "wrong_type", f"the id is no integer of 1 to {MAX_DIGITS} digits; write the number alone"
    if id_type is str:
        try:
            if not token or len(token.decode()) > 128:
                yield "wrong_type", "the id is no text of 1 to 128 characters; write the picture's md5"
        except UnicodeDecodeError:
            yield "not_utf8", "the id is not UTF-8; write the picture's md5"


def _id_faults(record: dict[str, Any], key: str, id_type: type[Id]) -> Found:
    if key not in record:
        yield "missing_key", f"no {key} {_among(record)}; add it"
    elif id_type is int and not is_integer(record[key]):
        yield "wrong_type", f"{key} is {shown(record[key])}; write an integer of 64 bits, without quotes"
    elif id_type is str and not (isinstance(record[key], str) and record[key]):
        yield "wrong_type", f"{key} is {shown(record[key])}; write the picture's id as a string, in quotes"


def _text_faults(record: dict[str, Any], key: str) -> Found:
    if key not in record:
        yield "missing_key", f"no {key} {_among(record)}; add it"
    elif not isinstance(record[key], str):
        yield "wrong_type", f"{key} is {shown(record[key])}; write a string, in quotes"
    elif not record[key].strip():
        yield "empty_text", f"{key} is {shown(record[key])}; write the text, or take the line out"
    elif not is_unicode(record[key]):
        yield "not_utf8", f"{key} has half of a surrogate pair (\\ud800 to \\udfff); write the whole character"


def _item_faults(record: dict[str, Any], key: str, *, labelled: bool) -> Found:
    if key not in record:
        if labelled:
            yield "missing_key", f"no {key} {_among(record)}; add the list of the query's pictures"
        return
    items = record[key]
    if not isinstance(items, list):
        yield "wrong_type", f"{key} is {shown(items)}; write a list of integers"
    elif wrong := [item for item in items if not is_integer(item)]:
        yield "wrong_type", f"{key} has {shown(wrong[0])}; write integers, without quotes"
    elif labelled and not items:
        yield "no_picture", f"{key} is empty; name the query's pictures, or take the line out"


def _kind_faults(record: dict[str, Any]) -> Found:
    if record.get("kind") is not None and not isinstance(record["kind"], str):
        yield "wrong_type", f"kind is {shown(record['kind'])}; write a string, or leave it out"


def _reference_faults(record: dict[str, Any], *, labelled: bool) -> Found:
    if "text" not in record:
        if labelled:
            yield "missing_key", f"no text {_among(record)}; add the list of references"
        return
    texts = record["text"]
    if not isinstance(texts, list):
        yield "wrong_type", f"text is {shown(texts)}; write a list of strings"
        return
    if not texts:
        yield "empty_text", "text is empty; write one reference or more, or take line and picture out"
    for place, text in enumerate(texts, start=1):
        yield from ((kind, f"reference {place}: {message}") for kind, message in _text_faults({"text": text}, "text"))


def _among(record: dict[str, Any]) -> str:
    return f"among {', '.join(record)}" if record else "in an empty object"


def _digest(*texts: Any) -> bytes | None:
    """What equal texts have in common, in any order; None where there is none, or one whose bytes were no UTF-8."""
    words = sorted({text.strip() for text in texts if isinstance(text, str) and text.strip()})
    joined = "\n".join(words)
    if not words or "\ufffd" in joined:
        return None
    return hashlib.blake2b(joined.encode(errors="backslashreplace"), digest_size=16).digest()
