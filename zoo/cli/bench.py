"""``python -m zoo bench NAME``: how fast it is beside the originals, as ratios in one run."""

import sys

from zoo.errors import UserError, nearest
from zoo.spec import Command, find_specs, load_object


def main(argv: list[str]) -> int:
    """Run one bench.

    Args:
        argv: The words after ``python -m zoo bench``: which one, then its options.

    Returns:
        The bench's exit code; 2 where there is no such bench.

    Raises:
        UserError: A peer's package is missing, or the output cannot be written.
    """
    benches = find_benches()
    if not argv or argv[0] in {"-h", "--help"}:
        print(usage(benches))
        return 0 if argv else 2
    name, *words = argv
    if name not in benches:
        print(f"zoo bench: there is no bench {name!r}.{nearest(name, benches)}\n\n{usage(benches)}", file=sys.stderr)
        return 2
    task, words = take_task(words, list(benches[name]))
    return load_object(benches[name][task].where)(words)


def find_benches() -> dict[str, dict[str, Command]]:
    """The benches by name, and of each name those of the tasks that have one, by task."""
    benches: dict[str, dict[str, Command]] = {}
    for spec in find_specs():
        for name, command in spec.benches.items():
            benches.setdefault(name, {})[spec.name] = command
    return benches


def take_task(words: list[str], tasks: list[str]) -> tuple[str, list[str]]:
    """Take ``--task NAME`` out of a bench's words; without it the first task that has the bench is meant.

    Raises:
        UserError: That task has no such bench.
    """
    from zoo.core.runs import take_option

    named, others = take_option(words, ("--task",))
    task = named[-1] if named else tasks[0]
    if task not in tasks:
        raise UserError(f"--task {task}: this bench is of {', '.join(tasks)}")
    return task, others


def usage(benches: dict[str, dict[str, Command]]) -> str:
    """The text of ``python -m zoo bench --help``."""
    lines = [
        "usage: python -m zoo bench NAME [--task TASK] [OPTION ...]",
        "",
        "Measure speed and memory against the originals, as ratios of rates in one run.",
        "",
    ]
    for name, commands in benches.items():
        for task, command in commands.items():
            choice = f" --task {task}" if task != next(iter(commands)) else ""
            lines.append(f"  {name + choice:<28}{command.summary}")
    lines += ["", "python -m zoo bench NAME --help lists a bench's options."]
    return "\n".join(lines)
