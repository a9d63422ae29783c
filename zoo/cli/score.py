"""``python -m zoo score TASK``: score a submission, or list every fault in it; starts without torch."""

import json
import sys
from typing import TYPE_CHECKING, Any

from zoo.cli.output import check_output, write_output
from zoo.tasks.captioning.scoring import caption_parser, score_caption_files
from zoo.tasks.text_to_image.controls import controls_parser, score_t2i_controls
from zoo.tasks.text_to_image.scoring import score_t2i_files, t2i_parser

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from zoo.cli.parser import CommandParser


def main(argv: list[str]) -> int:
    """Score one submission.

    Args:
        argv: The words after ``python -m zoo score``: the task, then its options.

    Returns:
        0 when the submission is valid, 1 when it is not.
    """
    from zoo.cli.parser import CommandParser

    parser = CommandParser(
        prog="python -m zoo score",
        description="Score a submission file, or list every fault in it.",
    )
    tasks = parser.add_subcommands(dest="task", title="tasks", required=True)
    tasks.add_subcommand("retrieval", retrieval_parser(), help="Recall@1/5/10 and MeanRecall")
    tasks.add_subcommand("t2i", t2i_parser(), help="FID, KID, IS, Fréchet distances, R-precision")
    tasks.add_subcommand("t2i-controls", controls_parser(), help="the same of true pictures that were spoiled")
    tasks.add_subcommand("caption", caption_parser(), help="CIDEr-D, BLEU, ROUGE-L, their ceiling and control")
    options = parser.parse_args(argv)
    return SCORERS[options.task](options[options.task])


def retrieval_parser() -> "CommandParser":
    """The options of ``score retrieval``."""
    from zoo.cli.parser import CommandParser

    parser = CommandParser(
        description="Multimodal Retrieval: Recall@1/5/10 and their mean, percent, as MUGE's evaluator gives them. "
        "Prints its JSON; the exit code is 1 when a file has errors, each of which is listed with file, line and id.",
    )
    parser.add_argument(
        "--gold",
        type=str,
        required=True,
        help="JSON lines with the answers: query_id and item_ids (MUGE) or text_id and image_ids (Chinese-CLIP). "
        "Predictions must be in the same schema.",
    )
    parser.add_argument(
        "--predictions", type=str, required=True, help="JSON lines with 10 picture ids a query, best first."
    )
    parser.add_argument("--output", type=str, default=None, help="Also write the JSON to this file, atomically.")
    return parser


def score_retrieval_files(options: "Namespace") -> int:
    """Score, print, write; see ``retrieval_parser`` for the options."""
    from zoo.tasks.retrieval.scoring import evaluate_retrieval

    evaluation = evaluate_retrieval(options.gold, options.predictions)
    for note in evaluation.notes:
        print(f"note: {note}", file=sys.stderr)
    for error in evaluation.errors:
        print(error, file=sys.stderr)
    report(evaluation.result, options.output, inputs=(options.gold, options.predictions))
    if evaluation.errors:
        print(f"The submission is not valid: {len(evaluation.errors)} error(s).", file=sys.stderr)
        return 1
    scores = evaluation.result["scoreJson"]
    recalls = ", ".join(f"R@{k} {scores[f'r{k}']:.2f}" for k in (1, 5, 10))
    print(f"MeanRecall {scores['mean_recall']:.2f} ({recalls}), percent", file=sys.stderr)
    return 0


def report(result: dict[str, Any], output: str | None, *, inputs: tuple[str, ...]) -> None:
    """Print the JSON and write it, whole or not at all.

    Raises:
        UserError: ``output`` is one of the inputs or cannot be written.
    """
    text = json.dumps(result)
    print(text)
    if output is None:
        return
    check_output(output, inputs)
    write_output(output, text)


SCORERS = {
    "retrieval": score_retrieval_files,
    "t2i": score_t2i_files,
    "t2i-controls": score_t2i_controls,
    "caption": score_caption_files,
}
