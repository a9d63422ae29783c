"""``python -m zoo bench NAME``: how fast it is beside the originals, as ratios in one run."""

from zoo.core.runs import take_option
from zoo.errors import UserError
from zoo.spec import Command, find_spec, find_specs, run_command


def main(argv: list[str]) -> int:
    """Run one bench.

    Args:
        argv: The words after ``python -m zoo bench``: which one, then its options.

    Returns:
        The bench's exit code; 2 where there is no such bench.

    Raises:
        UserError: There is no such task, or it has no benches; a peer's package is missing; the output cannot be
            written.
    """
    tasks, words = take_option(argv, ("--task",))
    benches: dict[str, Command] = {}
    for spec in [find_spec(name) for name in tasks] or find_specs():
        for name, command in spec.benches.items():
            benches.setdefault(name, command)
    if not benches:
        raise UserError(f"--task {tasks[0]}: this task has no benches; leave it out for those of all tasks")
    return run_command(
        benches,
        words,
        prog="python -m zoo bench",
        description="Measure speed and memory against the originals, as ratios in one run.\n"
        "--task TASK: the benches of one task; else the first of each name is meant.",
    )
