"""A captioning submission and its answers, anyone's: read in the answers' order, with every fault; no torch.

MUGE publishes no evaluator: the rules are those of its task page, one line of ``{"image_id": …, "text": "…"}`` for each
picture. What they leave open is accepted and told in ``notes``.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.faults import Fault

SHOWN_IDS = 5  # that a note names
UNKNOWN_TOKEN = "[UNK]"


class Line(NamedTuple):
    """One line that tells a picture's id and what is said of it."""

    number: int  # from 1
    image_id: str
    text: Any


@dataclass
class CaptionSubmission:
    """The pictures in the order of the answers, where nothing is wrong; else everything that is."""

    image_ids: list[str] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)  # of each picture, one or more
    captions: list[str] = field(default_factory=list)  # of each picture
    faults: list[Fault] = field(default_factory=list)  # none when the submission is valid
    notes: list[str] = field(default_factory=list)  # what is accepted but probably not meant


def read_caption_submission(gold: Path | str, predictions: Path | str) -> CaptionSubmission:
    """Read both files, whatever is in them.

    Args:
        gold: ``{"image_id": …, "text": [reference, …]}`` a line, as ``IC_valid.jsonl``.
        predictions: ``{"image_id": …, "text": "…"}`` a line, in any order. Line ends may be CRLF.

    Returns:
        The pictures, and all faults: those of the answers, those of the predictions, each file's in its order, then the
        pictures without a prediction.
    """
    submission = CaptionSubmission()
    faults = submission.faults
    answers = _read(gold, _reference_fault, faults)
    said = _read(predictions, _caption_fault, faults, known=None if faults else answers)
    if answers is None or said is None:
        return submission
    for image_id, line in answers.items():
        if image_id not in said:
            faults.append(Fault(f"{gold}:{line.number}", f"picture {image_id} has no prediction"))
    if not answers and not faults:
        faults.append(Fault(str(gold), "has no lines; it must have one for each picture"))
    submission.notes = list(_notes([line for line in said.values() if isinstance(line.text, str)]))
    if not faults:
        submission.image_ids = list(answers)
        submission.references = [line.text for line in answers.values()]
        submission.captions = [said[image_id].text for image_id in answers]
    return submission


def _read(
    path: Path | str,
    text_fault: Callable[[Any], str | None],
    faults: list[Fault],
    known: Container[str] | None = None,
) -> dict[str, Line] | None:
    """The first line of each picture, also of one whose text is at fault; None of a file that cannot be read.

    Args:
        path: The file.
        text_fault: What is wrong with a text, if anything.
        faults: Where faults are added.
        known: The pictures that there are; None when that is not known.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        faults.append(Fault(str(path), f"cannot be read: {error.strerror}"))
        return None
    lines: dict[str, Line] = {}
    for number, record in _records(path, data, faults):
        problems, image_id = list(_id_faults(record)), record.get("image_id")
        what = "the picture" if problems else f"picture {image_id}"
        problem = text_fault(record["text"]) if "text" in record else f"has no text among {list(record)}"
        if problem:
            problems.append(f"{what} {problem}")
        if isinstance(image_id, str) and image_id:
            first = lines.setdefault(image_id, Line(number, image_id, record.get("text")))
            if first.number != number:
                problems.append(f"picture {image_id} is already on line {first.number}; ids are unique")
            elif known is not None and image_id not in known:
                problems.append(f"picture {image_id} is not among the answers")
        faults += [Fault(f"{path}:{number}", problem) for problem in problems]
    return lines


def _records(path: Path | str, data: bytes, faults: list[Fault]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that holds one."""
    if data.startswith(BOM_UTF8):
        faults.append(Fault(f"{path}:1", "begins with a byte order mark; save the file as UTF-8 without one"))
        data = data.removeprefix(BOM_UTF8)
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else [], start=1):
        place = f"{path}:{number}"
        if not line.strip():
            faults.append(Fault(place, "is blank; remove it"))
            continue
        try:
            record = json.loads(line.decode())
        except UnicodeDecodeError as error:
            message = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} is not UTF-8; save the file as UTF-8"
            faults.append(Fault(place, message))
        except (ValueError, RecursionError) as error:
            faults.append(Fault(place, f"is not JSON: {error}"))
        else:
            if isinstance(record, dict):
                yield number, record
            else:
                faults.append(Fault(place, f"is a JSON {_kind(record)}, not an object"))


def _id_faults(record: dict[str, Any]) -> Iterator[str]:
    if "image_id" not in record:
        yield f"has no image_id among {list(record)}"
    elif not isinstance(record["image_id"], str):
        yield f"image_id {_shown(record['image_id'])} is a JSON {_kind(record['image_id'])}, not a string"
    elif not record["image_id"]:
        yield "image_id is empty"


def _reference_fault(text: Any) -> str | None:
    """What is wrong with a picture's answers, as the end of a sentence about the picture."""
    if not isinstance(text, list):
        return f"has a text that is a JSON {_kind(text)}, not a list of references"
    if not text:
        return "has an empty list of references; without answers nothing can be scored"
    for place, reference in enumerate(text, start=1):
        problem = _caption_fault(reference)
        if problem is None and not reference.strip():
            problem = "has a text that is blank"
        if problem:
            return f"{problem} (reference {place} of {len(text)})"
    return None


def _caption_fault(text: Any) -> str | None:
    """What is wrong with a caption, as the end of a sentence about the picture."""
    if not isinstance(text, str):
        return f"has a text that is a JSON {_kind(text)}, not a string"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "has a text with half a character, a lone surrogate"
    return None


def _notes(lines: list[Line]) -> Iterator[str]:
    empty = [line.image_id for line in lines if not line.text.strip()]
    unknown = [line.image_id for line in lines if UNKNOWN_TOKEN in line.text.upper()]
    for ids, what in (
        (empty, "captions are empty; they score 0"),
        (unknown, f"captions hold {UNKNOWN_TOKEN}, a token that the model could not spell"),
    ):
        if ids:
            yield f"{len(ids)} {what}: {', '.join(ids[:SHOWN_IDS])}{', …' if len(ids) > SHOWN_IDS else ''}"


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "boolean"}
    return names.get(type(value), "null")


def _shown(value: Any, limit: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
