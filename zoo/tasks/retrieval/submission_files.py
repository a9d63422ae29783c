"""The two files of a scored retrieval submission, read as MUGE's evaluator reads them, with every fault; no torch.

Each fault carries our words and the official ones, which stop at the first. The official messages are those of
``evaluation.py`` in https://github.com/MUGE-2021/image-retrieval-baseline and in cn-clip 1.6 (PyPI), as Python 3.11 or
newer makes them, also where they are no more than a Python error's first argument.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.faults import Fault

SUBMITTED_PICTURES = 10


class Schema(NamedTuple):
    """How one of the two evaluators names things."""

    query: str  # key of the query's id
    image: str  # key of the pictures' ids, without its s
    duplicates: str  # what it calls repeated pictures

    @property
    def images(self) -> str:
        """The key of the pictures' ids."""
        return f"{self.image}s"


MUGE = Schema("query_id", "item_id", "products")
CN_CLIP = Schema("text_id", "image_id", "topk images")


@dataclass(frozen=True)
class RetrievalFault(Fault):
    """A fault in our words, with what the official evaluator says when it is the first."""

    official: Any


@dataclass
class SubmissionFile:
    """What one file gives: entries by id, faults in its order, and the fault at which the official evaluator stops."""

    entries: dict[Any, Any] = field(default_factory=dict)
    lines: dict[Any, int] = field(default_factory=dict)  # id → the line that counts
    repeated: list[Any] = field(default_factory=list)
    faults: list[RetrievalFault] = field(default_factory=list)
    official: Any = None


# --- reading ---------------------------------------------------------------------------------------------------


class Lines(NamedTuple):
    """A file's text, as far as there is one."""

    path: Path | str
    lines: list[str]  # bytes that are not UTF-8 as lone surrogates
    readable: int  # lines that a strict UTF-8 reader gets before it stops
    error: OSError | None


def read_lines(path: Path | str) -> Lines:
    """Read a file, whatever is in it."""
    readable = 0
    try:
        with open(path, encoding="utf-8") as file:
            try:
                for _ in file:
                    readable += 1
            except UnicodeDecodeError:
                pass  # the reader decodes ahead: it loses good lines before the bad byte too
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return Lines(path, file.readlines(), readable, None)
    except OSError as error:
        return Lines(path, [], 0, error)


def find_schema(*files: Iterable[str]) -> Schema:
    """The schema whose keys the first file's lines have most, or the next file's where it is a draw; else MUGE's."""
    for lines in files:
        counts = dict.fromkeys((MUGE, CN_CLIP), 0)
        for line in lines:
            try:
                entry = json.loads(line.strip())
            except (ValueError, RecursionError):
                continue
            for schema in counts if isinstance(entry, dict) else ():
                counts[schema] += (schema.query in entry) + (schema.images in entry)
        if counts[MUGE] != counts[CN_CLIP]:
            return max(counts, key=counts.__getitem__)
    return MUGE


def read_gold(source: Lines, schema: Schema) -> SubmissionFile:
    """The true pictures of each query; a fault for each line without them."""
    if source.error is not None:
        return _unreadable(source, source.error.args[0])
    file, faults = SubmissionFile(), []
    for number, line in enumerate(source.lines, start=1):
        message = _undecodable(line)
        official: Any = "utf-8"
        if message is None:
            try:
                entry = json.loads(line.strip())
                images, query = entry[schema.images], entry[schema.query]
                if query in file.entries:
                    file.repeated.append(query)
                file.entries[query], file.lines[query] = images, number
                continue
            except Exception as caught:  # whatever Python says is what the official evaluator reports
                message, official = _gold_message(caught, line, schema), caught.args[0]
        faults.append((number, RetrievalFault(f"{source.path}:{number}", message, official)))
    return _with_faults(file, faults, source)


def _undecodable(line: str) -> str | None:
    """What is wrong with a line that is not UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) - 0xDC00  # as surrogateescape maps it
        return f"byte 0x{byte:02x} at character {error.start + 1} is not UTF-8; save the file as UTF-8"
    return None


def _unreadable(source: Lines, official: Any) -> SubmissionFile:
    assert source.error is not None
    fault = RetrievalFault(str(source.path), f"cannot be read: {source.error.strerror}", official)
    return SubmissionFile(faults=[fault], official=official)


def _with_faults(file: SubmissionFile, faults: list[tuple[int, RetrievalFault]], source: Lines) -> SubmissionFile:
    """Add faults by line, and the first at which a reader stops: undecodable bytes end what it gets to see."""
    file.faults = [fault for _, fault in faults]
    ending = "utf-8" if source.readable < len(source.lines) else None
    file.official = next((fault.official for number, fault in faults if number <= source.readable), ending)
    return file


def _gold_message(error: Exception, line: str, schema: Schema) -> str:
    if isinstance(error, KeyError):
        missing = [key for key in (schema.query, schema.images) if key not in json.loads(line.strip())]
        hint = "; without answers nothing can be scored" if schema.images in missing else ""
        return f"has no {' and no '.join(missing)}{hint}"
    if isinstance(error, TypeError):
        return f"is no JSON object with an integer {schema.query}: {error}"
    return "is blank; remove it" if not line.strip() else f"is not JSON: {error}"


# --- predictions -----------------------------------------------------------------------------------------------


def read_predictions(source: Lines, schema: Schema) -> SubmissionFile:
    """The pictures predicted for each query; every fault of every line."""
    if source.error is not None:
        found = os.path.exists(source.path)
        return _unreadable(source, source.error.args[0] if found else "The submission file is not found!")
    file, faults, previous = SubmissionFile(), [], None
    for number, raw in enumerate(source.lines, start=1):
        broken = _undecodable(raw)
        if broken is not None:
            faults.append((number, RetrievalFault(f"{source.path}:{number}", broken, "utf-8")))
            continue
        line = raw.strip()
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as caught:
            message = "is blank; remove it" if not line else f"is not JSON: {caught}"
            official = f"Cannot parse this line into json object: {line}"
            faults.append((number, RetrievalFault(f"{source.path}:{number}", message, official)))
            continue
        found_faults = list(_line_faults(entry, line, schema, previous))
        faults += [
            (number, RetrievalFault(f"{source.path}:{number}", message, official)) for message, official in found_faults
        ]
        previous = entry.get(schema.query) if isinstance(entry, dict) else None
        if isinstance(previous, int):
            if previous in file.entries:
                file.repeated.append(previous)
            file.entries[previous], file.lines[previous] = entry.get(schema.images), number
    return _with_faults(file, faults, source)


def _line_faults(entry: Any, line: str, schema: Schema, previous: Any) -> Iterator[tuple[str, Any]]:
    """Each fault of one parsed prediction, in the official order: our words, theirs.

    Args:
        entry: The parsed line.
        line: Its text.
        schema: The names that hold.
        previous: The id on the line before, which the official evaluator blames for an id that is no integer.
    """
    absent = f"There exists one line not containing {schema.query}: {line}"
    if not isinstance(entry, dict):
        try:
            official = absent if schema.query not in entry else entry[schema.query]  # noqa: SIM401 it is no mapping
        except TypeError as error:
            official = error.args[0]
        yield f"is a JSON {_kind(entry)}, not an object", official
        return
    query: Any = entry.get(schema.query)
    name = f"query {query}"
    if schema.query not in entry:
        other = CN_CLIP if schema is MUGE else MUGE
        hint = f"; it has {other.query}: the gold file is in the other schema" if other.query in entry else ""
        name = "the query"
        yield f"has no {schema.query}{hint}", absent
    elif not isinstance(query, int):
        name = "the query"
        blamed = (
            f"Found an invalid {schema.query} {previous}, it should be an integer (not string), "
            "please check your schema"
        )
        unbound = "cannot access local variable 'qid' where it is not associated with a value"
        yield f"{schema.query} {_shown(query)} is no integer", unbound if previous is None else blamed
    if schema.images not in entry:
        official = f"There exists one line not containing the predicted {schema.images}: {line}"
        yield f"{name} has no {schema.images}", official
    else:
        yield from _image_faults(entry[schema.images], query, name, schema)


def _image_faults(images: Any, query: Any, name: str, schema: Schema) -> Iterator[tuple[str, str]]:
    """Each fault of one prediction's pictures, in the official order: our words, theirs."""
    title = schema.query.capitalize()
    if not isinstance(images, list):
        official = f"The {schema.images} field of {schema.query} {query} is not a list, please check your schema"
        yield f"{name}: {schema.images} is a JSON {_kind(images)}, not a list", official
        return
    if len(images) != SUBMITTED_PICTURES:
        official = (
            f"{title} {query} has wrong number of predicted {schema.images}! "
            f"Require {SUBMITTED_PICTURES}, but {len(images)} founded."
        )
        yield f"{name} has {len(images)} {schema.images}, not {SUBMITTED_PICTURES}", official
    for rank, image in enumerate(images, start=1):
        if not isinstance(image, int):
            official = (
                f"{title} {query} has an invalid predicted {schema.image} {image} at rank {rank}, "
                "it should be an integer (not string), please check your schema"
            )
            yield f"{name}: {schema.image} {_shown(image)} at rank {rank} is no integer", official
    repeated = [image for image, count in Counter(i for i in images if isinstance(i, int)).items() if count > 1]
    if repeated:
        official = f"{title} {query} has duplicate {schema.duplicates} in your prediction. Pleace check again!"
        yield f"{name} has {', '.join(map(str, repeated))} more than once in {schema.images}", official


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "boolean"}
    return names.get(type(value), "null")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
