"""``python -m zoo export``: a trained task in a format that other libraries read."""

import math
import signal
import sys


def main(argv: list[str]) -> int:
    """Export, compare, print.

    Args:
        argv: The words after ``python -m zoo export``.

    Returns:
        0; 130 where it was interrupted.

    Raises:
        UserError: As ``zoo.core.export.export``.
    """
    from zoo.core.command import CommandParser, GivenPath

    parser = CommandParser(
        prog="python -m zoo export",
        description="Write a trained model in a format that other libraries read, with a model card, and compare what"
        " they compute with the model at once. A model that a format cannot hold is refused, and the formats that can"
        " hold it are listed.",
    )
    parser.add_argument(
        "checkpoint",
        type=str,
        help="A checkpoint, a run's folder or an experiment's (runs/clip_demo: its newest run), or published weights.",
    )
    parser.add_argument("out", type=GivenPath, metavar="OUT", help="The folder to write: new, or empty.")
    parser.add_argument("--format", type=str, required=True, help=f"One of the model's formats:\n{formats()}")
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="A folder of the model's data in MUGE's formats: recall on its validation split is measured before and"
        " after; onnx_fp16 and onnx_int8 may change it. auto: the embedded data.",
    )
    parser.add_argument(
        "--licence",
        type=str | None,
        default=None,
        help="The licence of the weights, for the model card, as the Hugging Face hub names it: apache-2.0.",
    )
    options = parser.parse_args(argv)
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from zoo.core.export import export

    disable_progress_bar()
    set_verbosity_error()
    print("Writing and comparing …", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was begun goes
    try:
        found = export(options.checkpoint, options.out, kind=options.format, data=options.data, licence=options.licence)
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 128 + signal.SIGINT
    print(options.out)
    for each in found:
        judged = f": the largest difference is {each.difference:.1e} (allowed: {each.allowed:.0e})"
        print(f"  {each.what}{judged if math.isfinite(each.allowed) else ''}")
    return 0


def formats() -> str:
    """Name the formats of each task."""
    from zoo.spec import COMMON_EXPORTS, find_specs

    own = [f"{spec.name}: {', '.join(spec.exports)}" for spec in find_specs() if spec.exports]
    return "; ".join([*own, f"all tasks: {', '.join(COMMON_EXPORTS)}"])
