"""``python -m zoo interpolate``: weights between those that a training began with and those that it ended with."""

import logging
import sys
from pathlib import Path

from zoo.core.command import CommandParser, GivenPath, add_precision, typed


def main(argv: list[str]) -> int:
    """Score, print, write.

    Args:
        argv: The words after ``python -m zoo interpolate``.

    Returns:
        0.

    Raises:
        UserError: As ``zoo.core.interpolation.interpolate``.
    """
    options = interpolate_parser().parse_args(argv)
    from zoo.cli.silence import quiet_libraries
    from zoo.core.interpolation import ALPHAS, PLOT, interpolate

    quiet_libraries()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # a trainer for each mixture tells of its devices
    curve = interpolate(
        options.checkpoint,
        options.out,
        start=options.start,
        alphas=ALPHAS if options.alphas is None else options.alphas,
        data=options.data,
        precision=options.precision,
    )
    names = [*curve.values]
    print(f"{curve.monitor} by share of the fine-tuned weights: {', '.join(names)}")
    for place, alpha in enumerate(curve.alphas):
        mark = "  the best" if alpha == curve.best else ""
        print(f"{alpha:5g}  {'  '.join(f'{curve.values[name][place]:7.2f}' for name in names)}{mark}")
    plotted = (Path(options.out) / PLOT).is_file()
    print(f"The run: {options.out}{'' if plotted else ' (without a plot: matplotlib is not installed)'}")
    print(f"Next: {typed('test', '--ckpt_path', options.out)}", file=sys.stderr)
    return 0


def interpolate_parser() -> CommandParser:
    """Make the options of ``interpolate``."""
    parser = CommandParser(
        prog="python -m zoo interpolate",
        description="Mix the weights of a fine-tuned model with those that it began with (WiSE-FT,"
        " Wortsman et al. 2022, arXiv:2109.01903). Each mixture is scored on validation splits; the"
        " best becomes a run, with the scores, and a plot where matplotlib is installed (pip install"
        " 'muge-zoo[plot]'). A mixture often keeps more of what the model knew before.",
    )
    parser.add_argument(
        "checkpoint", type=str, help="The fine-tuned model: a checkpoint, a run's folder or an experiment's."
    )
    parser.add_argument("out", type=GivenPath, metavar="OUT", help="The run's folder to write: new, or empty.")
    parser.add_argument(
        "--start",
        type=str | None,
        default=None,
        help="What it is mixed with: a checkpoint, a run or published weights. By default what the run's init_from"
        " names.",
    )
    parser.add_argument(
        "--alphas",
        type=list[float] | None,
        default=None,
        help="Shares of the fine-tuned weights, 0 to 1: '[0, 0.5, 1]'. By default 0, 0.1, … 1.",
    )
    parser.add_argument(
        "--data",
        type=list[str],
        default=[],
        help="Folders whose validation splits are scored: '[data/old, data/new]'; the best mixture is the one with"
        " the best mean over them. By default the run's own.",
    )
    add_precision(parser)
    return parser
