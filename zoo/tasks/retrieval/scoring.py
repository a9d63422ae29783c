"""``python -m zoo score retrieval``: MUGE's verdict to the last digit, and every error of a file that fails; no torch.

Two evaluators are public and the same but for their names: MUGE's own (``query_id``, ``item_ids``) and Chinese-CLIP's
(``text_id``, ``image_ids``). The schema of the targets decides which one is followed, so predictions in the other one
are refused, as they would be there. What they accept silently is accepted here and told in ``notes``: a query predicted
twice (the last line counts), queries that are not asked, ids that no image has, ``true`` as an integer.
MUGE's own evaluator opens files in the system's encoding; this one, like cn-clip's, in UTF-8.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.core.command import CommandParser, GivenPath, check_output, write_output
from zoo.data.lines import Kind
from zoo.errors import FileError, summed_up
from zoo.tasks.retrieval.submission_files import Schema, SubmissionFile, find_schema, read_predictions, read_targets

CUTOFFS = (1, 5, 10)
SHOWN_IDS = 10  # ids that a note names


@dataclass
class Evaluation:
    """The outcome of scoring one submission."""

    result: dict[str, Any]  # the official JSON
    errors: list[FileError] = field(default_factory=list)  # empty when the submission is valid
    notes: list[str] = field(default_factory=list)  # what is accepted but probably not meant


def main(argv: list[str]) -> int:
    """Score, print, write; see ``scoring_parser`` for the options.

    Returns:
        0 when the submission is valid, 1 when it is not.

    Raises:
        UserError: ``--output`` is one of the inputs or cannot be written.
    """
    options = scoring_parser().parse_args(argv)
    evaluation = evaluate_retrieval(options.targets, options.predictions)
    for line in (*(f"note: {note}" for note in evaluation.notes), *summed_up(evaluation.errors)):
        print(line, file=sys.stderr)
    text = json.dumps(evaluation.result)
    print(text)
    if options.output is not None:
        check_output(options.output, [options.targets, options.predictions])
        write_output(options.output, text)
    if evaluation.errors:
        print(f"The submission is not valid: {len(evaluation.errors)} error(s).", file=sys.stderr)
        return 1
    scores = evaluation.result["scoreJson"]
    recalls = ", ".join(f"R@{k} {scores[f'r{k}']:.2f}" for k in CUTOFFS)
    print(f"MeanRecall {scores['mean_recall']:.2f} ({recalls}), percent", file=sys.stderr)
    return 0


def scoring_parser() -> CommandParser:
    """Build the parser of the options of ``score retrieval``."""
    parser = CommandParser(
        prog="python -m zoo score retrieval",
        description="Multimodal Retrieval: Recall@1/5/10 and their mean, percent, as MUGE's evaluator gives them. "
        "Prints its JSON; the exit code is 1 when a file has errors, which are listed with file, line and id.",
    )
    parser.add_argument(
        "--targets",
        type=GivenPath,
        required=True,
        help="JSON lines with the answers: query_id and item_ids (MUGE) or text_id and image_ids (Chinese-CLIP). "
        "Predictions must be in the same schema.",
    )
    parser.add_argument(
        "--predictions", type=GivenPath, required=True, help="JSON lines with 10 image ids a query, best first."
    )
    parser.add_argument("--output", type=GivenPath, default=None, help="Also write the JSON to this file, atomically.")
    return parser


def score_retrieval(targets: Path | str, predictions: Path | str) -> dict[str, Any]:
    """Compute the official JSON of a retrieval submission.

    Args:
        targets: JSON lines with each query's id and relevant images, in MUGE's or in Chinese-CLIP's schema.
        predictions: JSON lines in the same schema with each query's 10 best images, best first.

    Returns:
        Of a valid submission ``{"success": true, "score", "scoreJson": {"score", "mean_recall", "r1", "r5", "r10"}}``,
        percent 0-100, equal bit for bit; else ``{"errorDetail", "errorMsg", "score": 0, "scoreJson": {},
        "success": false}``: ``errorMsg`` is the first error, of the kind at which the official evaluator stops,
        ``errorDetail`` lists all errors, one a line; both in our words.
    """
    return evaluate_retrieval(targets, predictions).result


def evaluate_retrieval(targets: Path | str, predictions: Path | str) -> Evaluation:
    """Run ``score_retrieval`` with the errors, and with notes on what the official evaluator accepts silently."""
    schema = find_schema(targets, predictions)
    truth, guess = read_targets(targets, schema), read_predictions(predictions, schema)
    missing = _missing(targets, truth, guess) if guess.is_readable else []
    errors = [*truth.errors, *guess.errors, *missing, *_unscorable(targets, truth, schema)]
    notes = list(_notes(truth, guess, schema))
    if errors:
        detail, first = "\n".join(map(str, errors)), str(errors[0])
        return Evaluation(
            {"errorDetail": detail, "errorMsg": first, "score": 0, "scoreJson": {}, "success": False}, errors, notes
        )
    return Evaluation(_official_score(truth.entries, guess.entries), notes=notes)


def _official_score(truth: dict[Any, Any], guess: dict[Any, list[int]]) -> dict[str, Any]:
    """Compute recall in the official order of operations, which decides the last digit."""
    hits = dict.fromkeys(CUTOFFS, 0)
    for query, images in truth.items():
        wanted = set(images)
        for k in CUTOFFS:
            hits[k] += any(image in guess[query][:k] for image in wanted)
    r1, r5, r10 = (hits[k] / len(truth) for k in CUTOFFS)
    mean = (r1 + r5 + r10) / 3.0 * 100
    return {
        "success": True,
        "score": mean,
        "scoreJson": {"score": mean, "mean_recall": mean, "r1": r1 * 100, "r5": r5 * 100, "r10": r10 * 100},
    }


def _missing(targets: Path | str, truth: SubmissionFile, guess: SubmissionFile) -> Iterator[FileError]:
    """List queries of the targets file without a prediction."""
    for query, line in truth.lines.items():
        if query not in guess.entries:
            message = "no prediction; add a line for it to the predictions"
            yield _query_error(message, targets, line, query, kind="no_prediction")


def _unscorable(targets: Path | str, truth: SubmissionFile, schema: Schema) -> Iterator[FileError]:
    """List answers that stop the official evaluator while it scores."""
    for query, images in truth.entries.items():
        try:
            set(images)
        except TypeError as error:
            message = f"{schema.images} is no list of ids ({error}); write a list of integers"
            yield _query_error(message, targets, truth.lines[query], query, kind="wrong_type")
    if not truth.entries and not truth.errors:
        yield FileError("has no lines; it must have one for each query", file=targets, kind="empty_file")


def _query_error(message: str, targets: Path | str, line: int, query: Any, *, kind: Kind) -> FileError:
    return FileError(message, file=targets, line=line, id=query, noun="query", kind=kind)


def _notes(truth: SubmissionFile, guess: SubmissionFile, schema: Schema) -> Iterator[str]:
    unknown = [query for query in guess.entries if query not in truth.entries] if truth.entries else []
    without_relevant = [
        query
        for query, images in truth.entries.items()
        if not isinstance(images, list) or not any(isinstance(image, int) for image in images)
    ]
    for queries, what in (
        (truth.repeated, "are in the targets file more than once; the last line counts"),
        (guess.repeated, "are predicted more than once; the last line counts"),
        (unknown, "are predicted but not in the targets file; they count for nothing"),
        (without_relevant, "have no relevant image in the targets file; they count as missed"),
    ):
        if queries:
            names = ", ".join(map(str, queries[:SHOWN_IDS])) + (", …" if len(queries) > SHOWN_IDS else "")
            yield f"{len(queries)} {schema.query}s {what}: {names}"
