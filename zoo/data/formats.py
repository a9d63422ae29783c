"""MUGE's files: queries, submissions, pictures and texts, read and written in both schemas; no torch.

The files are described on MUGE's task pages and in Chinese-CLIP (OFA-Sys/Chinese-CLIP), whose schema differs in key and
file names only.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

from zoo.data.faults import raise_or_list
from zoo.data.images import encode_base64
from zoo.errors import UserError, nearest
from zoo.io import atomic_write, write_json_lines

TASK_FOLDERS = {"retrieval": "Multimodal_Retrieval", "t2i": "ECommerce-T2I", "caption": "ECommerce-IC"}
_TASK_FILES = {"retrieval": ("MR_*", "*_imgs.tsv"), "t2i": ("T2I_*",), "caption": ("IC_*",)}
QUERY_KEYS = {"muge": ("query_id", "query_text", "item_ids"), "cn_clip": ("text_id", "text", "image_ids")}
RETRIEVAL_SPLITS = ("train", "valid", "test")
Schema = Literal["muge", "cn_clip"]


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a query file or of a submission.

    Attributes:
        query_id: The number MUGE knows the query by.
        text: The query in Chinese.
        item_ids: The true pictures of a labelled query, the pictures found (best first) of a submission, else empty.
        kind: A label by which scores are also reported alone, or None.
        line: Where it stood, from 1; 0: in no file. Queries that differ in nothing else are equal.
    """

    query_id: int
    text: str
    item_ids: tuple[int, ...] = ()
    kind: str | None = None
    line: int = field(default=0, compare=False, repr=False)


class RetrievalFiles(NamedTuple):
    """Where one split of ``Multimodal_Retrieval`` lies."""

    images: Path
    queries: Path
    answers: Path | None  # of the test split, where somebody has them: queries with their item_ids


class Description(NamedTuple):
    """One line of a text-to-image text file."""

    image_id: str
    text: str
    line: int  # from 1


def find_task_folder(root: Path | str, task: str) -> Path:
    """The folder of one task.

    Args:
        root: The task's own folder, under whatever name, or the folder that holds it under MUGE's.
        task: ``retrieval``, ``t2i`` or ``caption``.

    Raises:
        UserError: If the task is unknown or ``root`` holds nothing of it.
    """
    root = Path(root)
    if task not in TASK_FOLDERS:
        raise UserError(f"Task {task!r} is not one of {', '.join(TASK_FOLDERS)}.{nearest(task, TASK_FOLDERS)}")
    if not root.is_dir():
        raise UserError(f"Data root {str(root)!r} is {'a file' if root.exists() else 'not there'}: give a folder.")
    below = root / TASK_FOLDERS[task]
    if below.is_dir():
        return below
    if root.name == TASK_FOLDERS[task] or any(next(root.glob(pattern), None) for pattern in _TASK_FILES[task]):
        return root
    raise UserError(
        f"Data root {str(root)!r} has neither a folder {TASK_FOLDERS[task]!r} nor files like "
        f"{' or '.join(_TASK_FILES[task])}. It holds {_listing(root)}. "
        f"Give the folder {TASK_FOLDERS[task]} or the one that contains it."
    )


def retrieval_files(folder: Path | str, split: str) -> RetrievalFiles:
    """Where pictures, queries and (of the test split) answers lie, under MUGE's or Chinese-CLIP's names.

    Args:
        folder: The ``Multimodal_Retrieval`` folder.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        UserError: If the split is unknown or a file is missing.
    """
    folder = Path(folder)
    if split not in RETRIEVAL_SPLITS:
        raise UserError(f"Split {split!r} is not one of train, valid, test.{nearest(split, RETRIEVAL_SPLITS)}")
    answers = folder / "MR_test_answers.jsonl"
    return RetrievalFiles(
        images=first_file(folder, f"MR_{split}_imgs.tsv", f"{split}_imgs.tsv"),
        queries=first_file(folder, f"MR_{split}_queries.jsonl", f"{split}_texts.jsonl"),
        answers=answers if split == "test" and answers.is_file() else None,
    )


def read_queries(path: Path | str, faults: list[str] | None = None) -> list[Query]:
    """Read a query file or a submission, in MUGE's schema or Chinese-CLIP's.

    Args:
        path: The ``.jsonl`` file.
        faults: Where malformed and repeated lines are listed, which are left out; None: the first is an error.

    Raises:
        UserError: With file, line and id, if the file is not there, a line is malformed or an id comes twice.
    """
    queries: list[Query] = []
    lines: dict[int, int] = {}  # query_id → the line it came on
    for number, record in read_json_lines(Path(path), faults):
        where = f"{path}:{number}"
        try:
            query = _parse_query(record, number, where=where)
            if (first := lines.setdefault(query.query_id, number)) != number:
                raise UserError(f"{where}: query id {query.query_id} is already on line {first}; ids are unique.")
            queries.append(query)
        except UserError as fault:
            raise_or_list(fault, faults)
    return queries


def write_queries(path: Path | str, queries: Iterable[Query], *, schema: Schema = "muge") -> None:
    """Write queries or a submission, atomically.

    Args:
        path: The ``.jsonl`` file.
        queries: What to write. Those without ``item_ids`` are written as the test files have them: MUGE leaves the key
            out, Chinese-CLIP writes an empty list.
        schema: ``muge`` or ``cn_clip``.
    """
    if schema not in QUERY_KEYS:
        raise UserError(f"Schema {schema!r} is not one of {', '.join(QUERY_KEYS)}.{nearest(schema, QUERY_KEYS)}")
    id_key, text_key, items_key = QUERY_KEYS[schema]

    def record(query: Query) -> dict[str, Any]:
        items = {items_key: list(query.item_ids)} if query.item_ids or schema == "cn_clip" else {}
        kind = {} if query.kind is None else {"kind": query.kind}
        return {id_key: query.query_id, text_key: query.text, **items, **kind}

    write_json_lines(path, (record(query) for query in queries))


def write_image_tsv(path: Path | str, images: Iterable[tuple[int | str, bytes]]) -> None:
    """Write lines of id, tab, base64; standard alphabet, as in the published files; atomically.

    Args:
        path: The ``.tsv`` file.
        images: Ids with encoded pictures (JPEG, PNG, …).
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.writelines(b"%s\t%s\n" % (str(image_id).encode(), encode_base64(data)) for image_id, data in images)


def write_text_tsv(path: Path | str, texts: Iterable[tuple[str, str]]) -> None:
    """Write lines of id, tab, description, as in ``T2I_train.txt.tsv``, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{image_id}\t{text}\n" for image_id, text in texts)


def read_text_tsv(path: Path | str, faults: list[str] | None = None) -> list[Description]:
    """Read lines of id, tab, description, in UTF-8; a byte order mark, CRLF and empty lines are passed over.

    Args:
        path: The ``.tsv`` file.
        faults: As of ``read_queries``.

    Raises:
        UserError: With file, line and id, if the file is not there or empty, a line is malformed or an id comes twice.
    """
    descriptions: dict[str, Description] = {}
    for number, line in _read_lines(Path(path), ".tsv"):
        where = f"{path}:{number}"
        try:
            description = _parse_description(line, number, where=where)
            if (first := descriptions.setdefault(description.image_id, description)) is not description:
                raise UserError(
                    f"{where}: picture id {first.image_id} is already on line {first.line}; ids are unique."
                )
        except UserError as fault:
            raise_or_list(fault, faults)
    if not descriptions:
        raise UserError(f"{str(path)!r} is empty; expected lines of an id, a tab and a text.")
    return list(descriptions.values())


def first_file(folder: Path, *names: str) -> Path:
    """The first of these files that the folder has; UserError if it has none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{str(folder)!r} has no {' or '.join(names)}. It holds {_listing(folder)}.")


def _listing(folder: Path, limit: int = 8) -> str:
    if not folder.is_dir():
        return "nothing (there is no such folder)"
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more


def _read_lines(path: Path, kind: str) -> Iterator[tuple[int, bytes]]:
    """Line numbers (from 1) and lines; empty ones are passed over."""
    if not path.is_file():
        raise UserError(f"{str(path)!r} is {'a folder' if path.is_dir() else 'not there'}: give a {kind} file.")
    with path.open("rb") as file:
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def read_json_lines(path: Path, faults: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and objects; empty lines are passed over, malformed ones where ``faults`` lists them."""
    for number, line in _read_lines(path, ".jsonl"):
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise_or_list(UserError(f"{path}:{number}: not a line of JSON in UTF-8: {error}."), faults)
            continue
        if not isinstance(record, dict):
            raise_or_list(UserError(f"{path}:{number}: a JSON {type(record).__name__}, expected an object."), faults)
            continue
        yield number, record


def _parse_query(record: dict[str, Any], line: int, *, where: str) -> Query:
    id_key, text_key, items_key = QUERY_KEYS["cn_clip" if "text_id" in record else "muge"]
    query_id = record.get(id_key)
    if not is_integer(query_id):
        came = f"{id_key} is {query_id!r}" if id_key in record else f"no query_id (or text_id) among {list(record)}"
        raise UserError(f"{where}: {came}; it must be an integer of 64 bits.")
    where = f"{where}: query {query_id}"
    text, items, kind = record.get(text_key), record.get(items_key, []), record.get("kind")
    if not isinstance(text, str) or not is_unicode(text):
        came = f"{text_key} is {text!r}" if text_key in record else f"no {text_key} among {list(record)}"
        raise UserError(f"{where}: {came}; it must be a string, of whole characters.")
    if not isinstance(items, list) or not all(map(is_integer, items)):
        raise UserError(f"{where}: {items_key} is {_short(items)}; it must be a list of integers of 64 bits.")
    if kind is not None and not isinstance(kind, str):
        raise UserError(f"{where}: kind is {_short(kind)}; it must be a string, or be left out.")
    return Query(query_id=query_id, text=text, item_ids=tuple(items), kind=kind, line=line)


def _parse_description(line: bytes, number: int, *, where: str) -> Description:
    try:
        image_id, tab, text = line.decode("utf-8-sig" if number == 1 else "utf-8").partition("\t")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8: {error}. Save the file as UTF-8.") from None
    if not tab:
        raise UserError(f"{where}: no tab in {_short(line)}; a line is an id, a tab and a text.")
    if not image_id or not text.strip():
        what = f"picture {image_id} has an empty text" if image_id else "an empty id"
        raise UserError(f"{where}: {what}; a line is an id, a tab and a text.")
    return Description(image_id, text.strip(), number)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is an integer that int64 holds."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def is_unicode(text: str) -> bool:
    """Whether a JSON string has whole characters only: its escapes can spell halves of them, which UTF-8 cannot."""
    return not re.search("[\ud800-\udfff]", text)


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
