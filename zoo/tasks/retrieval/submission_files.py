"""The two files of a scored retrieval submission: what MUGE's evaluator accepts, and every error; no torch.

Two evaluators are public and the same but for their names: MUGE's own (``evaluation.py`` in
https://github.com/MUGE-2021/image-retrieval-baseline) and that of cn-clip 1.6 (PyPI). Both stop at the first error;
``tests/tasks/retrieval/test_scoring_parity.py`` holds verdicts, scores and the kind of that error to theirs.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.json_values import json_type, shown
from zoo.data.lines import Found, Kind, LineReader
from zoo.errors import FileError

SUBMITTED_IMAGES = 10


class Schema(NamedTuple):
    """The keys of one of the two evaluators."""

    query: str
    images: str


MUGE = Schema("query_id", "item_ids")
CN_CLIP = Schema("text_id", "image_ids")


@dataclass
class SubmissionFile:
    """What one file gives: entries by id, as the evaluators see them, and errors in its order."""

    entries: dict[Any, Any] = field(default_factory=dict)
    lines: dict[Any, int] = field(default_factory=dict)  # id → the line that counts
    repeated: list[Any] = field(default_factory=list)
    errors: list[FileError] = field(default_factory=list)

    def add(self, query: Any, images: Any, line: int) -> None:
        """Keep an entry; the last one of a query counts."""
        if query in self.entries:
            self.repeated.append(query)
        self.entries[query], self.lines[query] = images, line

    @property
    def is_readable(self) -> bool:
        """Tell whether anything in the file could be read."""
        return bool(self.entries) or not self.errors


def open_file(path: Path | str, file: SubmissionFile) -> LineReader:
    """Open a file for reading as the evaluators do.

    Empty it is no error in itself, a mark or a blank line is one; of a key that is given twice the last value counts.
    """
    accepted: tuple[Kind, ...] = ("crlf", "empty_file", "duplicate_key")
    return LineReader(path, noun="query", accepted=accepted, errors=file.errors, as_text=True)


def find_schema(*paths: Path | str) -> Schema:
    """Find the schema whose keys the first file has most, or the next file where it is a draw; else MUGE's."""
    for path in paths:
        counts = dict.fromkeys((MUGE, CN_CLIP), 0)
        for _, _, record in open_file(path, SubmissionFile()).records():
            for schema in counts:
                counts[schema] += (schema.query in record) + (schema.images in record)
        if counts[MUGE] != counts[CN_CLIP]:
            return max(counts, key=counts.__getitem__)
    return MUGE


def read_targets(path: Path | str, schema: Schema) -> SubmissionFile:
    """Read the relevant images of each query; an error for each line without them."""
    file = SubmissionFile()
    reader = open_file(path, file)
    for line, told, record in reader.records():
        missing = [key for key in schema if key not in record]
        if missing:
            hint = "without answers nothing can be scored" if schema.images in missing else "add it"
            reader.report("missing_key", f"no {' and no '.join(missing)} among {', '.join(record)}; {hint}", line, told)
        elif isinstance(record[schema.query], list | dict):
            message = f"{schema.query} is {shown(record[schema.query])}; write an integer"
            reader.report("wrong_type", message, line)
        else:
            file.add(record[schema.query], record[schema.images], line)
    return file


def read_predictions(path: Path | str, schema: Schema) -> SubmissionFile:
    """Read the images predicted for each query; every error of every line."""
    file = SubmissionFile()
    reader = open_file(path, file)
    for line, told, record in reader.records():
        reader.report_all(_prediction_errors(record, schema), line, told)
        query = record.get(schema.query)
        if isinstance(query, int):
            file.add(query, record.get(schema.images), line)
    return file


def _prediction_errors(record: dict[str, Any], schema: Schema) -> Found:
    """Find each error of one prediction, in the evaluators' order."""
    other = CN_CLIP if schema is MUGE else MUGE
    if schema.query not in record:
        hint = f"it has {other.query}: the targets file is in the other schema" if other.query in record else "add it"
        yield "missing_key", f"no {schema.query}; {hint}"
    elif not isinstance(record[schema.query], int):
        yield "wrong_type", f"{schema.query} is {shown(record[schema.query])}; write an integer, without quotes"
    if schema.images not in record:
        yield "missing_key", f"no {schema.images}; add the list of the query's {SUBMITTED_IMAGES} best images"
    elif not isinstance(record[schema.images], list):
        came = json_type(record[schema.images])
        yield "wrong_type", f"{schema.images} is a JSON {came}; write a list of {SUBMITTED_IMAGES} integers"
    else:
        yield from _image_errors(record[schema.images], schema)


def _image_errors(images: list[Any], schema: Schema) -> Iterator[Any]:
    if len(images) != SUBMITTED_IMAGES:
        yield "wrong_count", f"{schema.images} has {len(images)} images; write {SUBMITTED_IMAGES}"
    for rank, image in enumerate(images, start=1):
        if not isinstance(image, int):
            yield "wrong_type", f"{schema.images} has {shown(image)} at rank {rank}; write integers, without quotes"
    counts = Counter(image for image in images if isinstance(image, int))
    repeated = ", ".join(str(image) for image, count in counts.items() if count > 1)
    if repeated:
        yield (
            "repeated_image",
            f"{schema.images} has {repeated} more than once; write different ones",
        )
