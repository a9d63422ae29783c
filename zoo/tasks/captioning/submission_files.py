"""A captioning submission and its answers, anyone's: read in the answers' order, with every error; no torch.

MUGE publishes no evaluator: the rules are those of its task page, one line of ``{"image_id": …, "text": "…"}`` for each
image. What they leave open is accepted and told in ``notes``.
"""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.formats import caption_errors, id_errors, is_unicode
from zoo.data.json_values import json_type
from zoo.data.lines import Found, LineReader
from zoo.errors import FileError

SHOWN_IDS = 5  # that a note names
UNKNOWN_TOKEN = "[UNK]"


class Line(NamedTuple):
    """One line that tells an image's id and what is said of it."""

    number: int  # from 1
    image_id: str
    text: Any


@dataclass
class CaptionSubmission:
    """The images in the order of the answers, where nothing is wrong; else everything that is."""

    image_ids: list[str] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)  # of each image, one or more
    captions: list[str] = field(default_factory=list)  # of each image
    errors: list[FileError] = field(default_factory=list)  # none when the submission is valid
    notes: list[str] = field(default_factory=list)  # what is accepted but probably not meant


def read_caption_submission(targets: Path | str, predictions: Path | str) -> CaptionSubmission:
    """Read both files, whatever is in them.

    Args:
        targets: ``{"image_id": …, "text": [reference, …]}`` a line, as ``IC_valid.jsonl``.
        predictions: ``{"image_id": …, "text": "…"}`` a line, in any order. Line ends may be CRLF.

    Returns:
        The images, and all errors: those of the answers, those of the predictions, each file's in its order, then the
        images without a prediction.
    """
    submission = CaptionSubmission()
    errors = submission.errors
    answers = _read(targets, lambda record: caption_errors(record, labelled=True), errors)
    if not answers and not errors:
        errors.append(_error("has no lines; it must have one for each image", targets, kind="empty_file"))
    said = _read(predictions, _prediction_errors, errors, known=None if errors else answers)
    for path, lines in ((targets, answers), (predictions, said)):
        if not lines and any(error.file == str(path) for error in errors):  # nothing in it could be read
            return submission
    for image_id, line in answers.items():
        if image_id not in said:
            message = "no prediction; add a line for it to the predictions"
            errors.append(_error(message, targets, line.number, image_id, kind="no_prediction"))
    submission.notes = list(_notes([line for line in said.values() if isinstance(line.text, str)]))
    if not errors:
        submission.image_ids = list(answers)
        submission.references = [line.text for line in answers.values()]
        submission.captions = [said[image_id].text for image_id in answers]
    return submission


def _read(
    path: Path | str,
    find_errors: Callable[[dict[str, Any]], Found],
    errors: list[FileError],
    known: Container[str] | None = None,
) -> dict[str, Line]:
    """Read the first line of each image, also of one whose text is wrong.

    Args:
        path: The file.
        find_errors: Finds what is wrong with a line.
        errors: Where errors are added.
        known: The images that there are; None when that is not known.
    """
    reader = LineReader(path, noun="image", accepted=("crlf", "empty_file"), errors=errors)
    lines: dict[str, Line] = {}
    for number, told, record in reader.records():
        reader.report_all(find_errors(record), number, told)
        image_id = record.get("image_id")
        if isinstance(image_id, str) and image_id and reader.claim(number, image_id):
            lines[image_id] = Line(number, image_id, record.get("text"))
            if known is not None and image_id not in known:
                reader.report("unknown_id", "is not among the answers; take the line out", number, image_id)
    return lines


def _prediction_errors(record: dict[str, Any]) -> Found:
    """Find what is wrong with one prediction."""
    yield from id_errors(record, "image_id", str)
    if "text" not in record:
        yield "missing_key", f"no text among {', '.join(record)}; add the caption"
    elif not isinstance(record["text"], str):
        yield "wrong_type", f"text is a JSON {json_type(record['text'])}; write the caption as a string"
    elif not is_unicode(record["text"]):
        yield "not_utf8", "text has half of a surrogate pair (\\ud800 to \\udfff); write the whole character"


def _error(
    message: str, file: Path | str, line: int | None = None, image_id: str | None = None, *, kind: str
) -> FileError:
    return FileError(message, file=file, line=line, id=image_id, noun="image", kind=kind)


def _notes(lines: list[Line]) -> Iterator[str]:
    empty = [line.image_id for line in lines if not line.text.strip()]
    unknown = [line.image_id for line in lines if UNKNOWN_TOKEN in line.text.upper()]
    for ids, what in (
        (empty, "captions are empty; they score 0"),
        (unknown, f"captions hold {UNKNOWN_TOKEN}, a token that the model could not spell"),
    ):
        if ids:
            yield f"{len(ids)} {what}: {', '.join(ids[:SHOWN_IDS])}{', …' if len(ids) > SHOWN_IDS else ''}"
