"""MUGE's caption files, ``IC_{train,valid,test}.jsonl``: a picture's references on a line; no torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.faults import raise_or_list
from zoo.data.formats import read_json_lines
from zoo.errors import UserError
from zoo.io import write_json_lines


class Caption(NamedTuple):
    """One line of a caption file.

    Attributes:
        image_id: The picture's id, as in ``IC_{split}.tsv``.
        texts: Its references in the order of the file; none in a split without answers.
        line: Where it stands, from 1.
    """

    image_id: str
    texts: tuple[str, ...]
    line: int


def read_captions(path: Path | str, faults: list[str] | None = None) -> list[Caption]:
    """Read ``{"image_id": …, "text": [reference, …]}`` a line; without ``text`` the picture has no references.

    A byte order mark, CRLF and empty lines are passed over. References are given as they stand.

    Args:
        path: The ``.jsonl`` file.
        faults: Where malformed and repeated lines are listed, which are left out; None: the first is an error.

    Raises:
        UserError: With file, line and id, if the file is not there or empty, a line is malformed, a reference is blank
            or an id comes twice.
    """
    captions: dict[str, Caption] = {}
    for number, record in read_json_lines(Path(path), faults):
        where = f"{path}:{number}"
        try:
            caption = _parse(record, number, where=where)
            if (first := captions.setdefault(caption.image_id, caption)) is not caption:
                raise UserError(
                    f"{where}: picture id {first.image_id} is already on line {first.line}; ids are unique."
                )
        except UserError as fault:
            raise_or_list(fault, faults)
    if not captions:
        raise UserError(f'{str(path)!r} is empty; expected lines like {{"image_id": "8cf9", "text": ["短裤", …]}}.')
    return list(captions.values())


def write_captions(path: Path | str, captions: Iterable[tuple[str, list[str]]]) -> None:
    """Write captions as in ``IC_train.jsonl``, atomically.

    Args:
        path: The ``.jsonl`` file.
        captions: Picture ids with their references; without any, only the id is written, as in ``IC_test.jsonl``.
    """
    write_json_lines(
        path,
        ({"image_id": image_id, "text": texts} if texts else {"image_id": image_id} for image_id, texts in captions),
    )


def _parse(record: dict[str, Any], number: int, *, where: str) -> Caption:
    image_id = record.get("image_id")
    if not isinstance(image_id, str) or not image_id:
        came = f"image_id is {_short(image_id)}" if "image_id" in record else f"no image_id among {list(record)}"
        raise UserError(f"{where}: {came}; it must be a string that is not empty.")
    if "text" not in record:
        return Caption(image_id, (), number)
    texts = record["text"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{where}: picture {image_id}: text is {_short(texts)}; it must be a list of strings, one or more, or be"
            " left out."
        )
    blank = [place for place, text in enumerate(texts, start=1) if not text.strip()]
    if blank:
        raise UserError(f"{where}: picture {image_id}: reference {blank[0]} of {len(texts)} is blank; take it out.")
    return Caption(image_id, tuple(texts), number)


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
