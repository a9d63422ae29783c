"""``python -m zoo score captioning``: anyone's captions, scored by a stated protocol; without torch."""

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.command import CommandParser, GivenPath, check_output, write_output
from zoo.errors import UserError, invalid, summed_up

if TYPE_CHECKING:
    from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, CaptionScore, DocumentFrequencies, Tokenization
    from zoo.tasks.captioning.submission_files import CaptionSubmission


def scoring_parser() -> CommandParser:
    """Make the options of ``score captioning``."""
    parser = CommandParser(
        prog="python -m zoo score captioning",
        description="E-Commerce IC: CIDEr-D, BLEU-1 to 4 and ROUGE-L, percent, equal to pycocoevalcap's on the same"
        " tokens. MUGE publishes no evaluator: the signature says how texts were cut. Beside them, what the references"
        " score against each other, what the captions score against other images' references, and how much they vary."
        " Errors of the files are listed first, with line and id; then the exit code is 1 and nothing is scored.",
    )
    parser.add_argument(
        "--targets",
        type=GivenPath,
        required=True,
        help="JSON lines of image_id and text, a list of references: IC_valid.jsonl.",
    )
    parser.add_argument(
        "--predictions", type=GivenPath, required=True, help="JSON lines of image_id and text, one caption."
    )
    parser.add_argument(
        "--lowercase", type=bool, default=True, help="Whether the case of letters is dropped, as `test` does."
    )
    parser.add_argument(
        "--max_references",
        type=int,
        default=None,
        help="Score against the first so many references of an image, as `data.max_references` does; left out: all.",
    )
    parser.add_argument(
        "--punctuation", type=bool, default=True, help="Whether punctuation and symbols are tokens, or dropped."
    )
    parser.add_argument(
        "--document_frequencies",
        type=GivenPath,
        default=None,
        help="What CIDEr-D weighs n-grams by: a caption file to count them in (IC_train.jsonl), or counts that were"
        " written (.json); by default they are counted in --targets.",
    )
    parser.add_argument("--output", type=GivenPath, default=None, help="Also write the JSON to this file, atomically.")
    parser.add_argument(
        "--per_image", type=GivenPath, default=None, help="Write each image's scores to this file, as JSON lines."
    )
    return parser


def main(argv: list[str]) -> int:
    """Check, score, print, write; see ``scoring_parser`` for the options."""
    options = scoring_parser().parse_args(argv)
    from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, Tokenization
    from zoo.tasks.captioning.submission_files import read_caption_submission

    inputs = [options.targets, options.predictions, options.document_frequencies]
    check_output(options.output, inputs)
    check_per_image(options.per_image, [*inputs, options.output])
    most = options.max_references
    if most is not None and most < 1:
        raise invalid("--max_references", most, "give 1 or more, or leave it out")
    submission = read_caption_submission(options.targets, options.predictions)
    for note in submission.notes:
        print(f"note: {note}", file=sys.stderr)
    if submission.errors:
        for line in summed_up(submission.errors):
            print(line, file=sys.stderr)
        print(f"The submission is not valid: {len(submission.errors)} error(s).", file=sys.stderr)
        return 1
    tokenization = Tokenization(lowercase=options.lowercase, punctuation=options.punctuation)
    frequencies = read_frequencies(options.document_frequencies, tokenization)
    references = CaptionReferences(
        [[tokenization.tokenize(text) for text in texts[:most]] for texts in submission.references],
        document_frequencies=frequencies,
    )
    captions = [tokenization.tokenize(caption) for caption in submission.captions]
    score = references.score(captions)
    result = {
        **result_of(references, captions, score),
        "protocol": {
            "signature": f"{tokenization.signature}|df:{Path(options.document_frequencies or options.targets).name}"
            f"|refs:{'all' if most is None else f'first {most}'}",
            "targets": _named(options.targets),
            "predictions": _named(options.predictions),
            "document_frequencies": _named(options.document_frequencies or options.targets),
            "images": len(references),
            "references": sum(len(texts[:most]) for texts in submission.references),
        },
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if options.per_image is not None:
        write_per_image(options.per_image, submission, score)
    if options.output is not None:
        write_output(options.output, text)
    print(text)
    scores = result["metrics"]
    print(
        f"CIDEr-D {scores['cider']:.2f} (BLEU-4 {scores['bleu4']:.2f}, ROUGE-L {scores['rouge_l']:.2f}), percent",
        file=sys.stderr,
    )
    return 0


def result_of(references: "CaptionReferences", captions: list[list[str]], score: "CaptionScore") -> dict[str, Any]:
    """Compute the scores, the control and the ceiling, in percent; None for one that the split is too small for."""
    from zoo.tasks.captioning.metrics.ngrams import variety

    shuffled = human = None
    if len(references) > 1:
        rows = references.others(range(len(references)))
        shuffled = _percent(references.score(captions, rows=rows).corpus)
    ceiling = references.human_ceiling()
    if ceiling is not None:
        human = {**_percent(ceiling.scores), "images": ceiling.images, "rounds": ceiling.rounds}
    return {"metrics": _percent(score.corpus) | variety(captions), "shuffled": shuffled, "human_ceiling": human}


def read_frequencies(path: str | None, tokenization: "Tokenization") -> "DocumentFrequencies | None":
    """Read document frequencies, or count them in a caption file; None where no file is named.

    Raises:
        UserError: It is no such file, or its texts were cut otherwise.
    """
    from zoo.data.formats import read_captions
    from zoo.tasks.captioning.metrics.ngrams import DocumentFrequencies

    if path is None:
        return None
    if not Path(path).is_file():
        raise UserError(f"--document_frequencies {path}: there is no such file; give IC_train.jsonl, or counts (.json)")
    if Path(path).suffix == ".json":
        return DocumentFrequencies.read(path, tokenization=tokenization)
    captions = read_captions(path)
    bare = next((caption for caption in captions if not caption.texts), None)
    if bare is not None:
        raise UserError(
            f"--document_frequencies {path}:{bare.line}: image {bare.image_id} has no text; give a split with"
            " references"
        )
    return DocumentFrequencies.of([[tokenization.tokenize(text) for text in caption.texts] for caption in captions])


def check_per_image(path: str | None, others: list[str | None]) -> None:
    """See, before the work, that the images' scores overwrite no other file.

    Raises:
        UserError: It is a file that is read, ``--output``, or a folder.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise UserError(f"--per_image {path} is a folder; name a file in it.")
    if Path(path).resolve() in {Path(name).resolve() for name in others if name}:
        raise UserError(f"--per_image {path} is one of the other files; give it a name of its own.")


def write_per_image(path: str, submission: "CaptionSubmission", score: "CaptionScore") -> None:
    """Write a line for each image, in the order of the answers: id, caption and scores in percent.

    Raises:
        UserError: It cannot be written.
    """
    from zoo.io import write_json_lines

    columns = {name: (100 * values).tolist() for name, values in score.captions.items()}
    records = (
        {"image_id": image_id, "text": caption, **dict(zip(columns, values, strict=True))}
        for image_id, caption, *values in zip(submission.image_ids, submission.captions, *columns.values(), strict=True)
    )
    try:
        write_json_lines(path, records)
    except OSError as error:
        raise UserError(
            f"--per_image {path} cannot be written: {error.strerror}. Give a path in a folder of yours."
        ) from error


def _percent(scores: dict[str, float]) -> dict[str, float]:
    return {name: 100 * value for name, value in scores.items()}


def _named(path: str) -> str:
    """Give a file's name and the beginning of its hash."""
    return f"{Path(path).name}, SHA-256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]}"
