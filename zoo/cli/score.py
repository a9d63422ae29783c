"""``python -m zoo score``: each task's own scoring of a submission; starts without torch."""

from zoo.spec import find_specs, run_command


def main(argv: list[str]) -> int:
    """Score one submission.

    Args:
        argv: The words after ``python -m zoo score``: what is scored, then its options.

    Returns:
        0 when the submission is valid, 1 when it is not, 2 when the command line is wrong.
    """
    return run_command(
        {name: command for spec in find_specs() for name, command in spec.scorings.items()},
        argv,
        prog="python -m zoo score",
        description="Score a submission file, or list every error in it.",
    )
