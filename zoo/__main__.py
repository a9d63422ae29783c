"""``python -m zoo``: a table of commands. Standard library only, so that help answers at once."""

import os
import sys
from collections.abc import Sequence

from zoo.errors import UserError, last_line
from zoo.spec import Command, find_specs, run_command

TRAINING = ("fit", "validate", "test", "predict")  # they share Lightning's trainer
COMMANDS = {  # those that no task owns
    "fit": Command("zoo.cli.train:fit", "train a model: fit --config experiments/clip_demo.yaml"),
    "validate": Command("zoo.cli.train:validate", "score a checkpoint on the validation split"),
    "test": Command("zoo.cli.train:test", "score a checkpoint on the test split, where there are answers"),
    "predict": Command("zoo.cli.train:predict", "write the submission file for the test split"),
    "score": Command("zoo.cli.score:main", "score a submission file as MUGE does, or list every error in it"),
    "export": Command("zoo.cli.export:main", "write a model for transformers, open_clip, ONNX, … and compare it"),
    "interpolate": Command("zoo.cli.interpolate:main", "mix a fine-tuned model with what it began as (WiSE-FT)"),
    "list": Command("zoo.cli.list:main", "the models that an experiment can name"),
    "data": Command("zoo.cli.data:main", "check, import, export, encode data; make the embedded data set"),
    "bench": Command("zoo.cli.bench:main", "measure speed against the originals"),
    "results": Command("zoo.cli.results:main", "collect scored runs, write the tables of docs/pages"),
    "env": Command("zoo.cli.env:main", "what this machine is and can do: a table to paste into an issue"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``python -m zoo``; by default the process's own.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the command line was wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # In large pages fresh memory is nearly free; without, it costs a step on a CPU a fifth of its time. PyTorch reads
    # this when it first takes memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        of_tasks = {name: command for spec in find_specs() for name, command in spec.commands.items()}
        return run_command(
            COMMANDS | of_tasks | COMMANDS,  # behind ours, and never in the place of one
            import_first(words),
            prog="python -m zoo",
            description="A model zoo for MUGE, the Chinese multimodal e-commerce benchmark.",
        )
    except UserError as error:
        print(f"zoo {' '.join(words[:1])}: {last_line(error)}", file=sys.stderr)
        return 1


def import_first(words: list[str]) -> list[str]:
    """Import the modules that a plain command's ``--imports`` names; gives the other words.

    A training command imports them by itself, with those of its configurations, for its run keeps them.
    """
    if words[:1] and words[0] in TRAINING or not any(word.partition("=")[0] == "--imports" for word in words):
        return words
    from zoo.core.runs import import_modules, read_imports, take_option

    modules, others = take_option(words, ("--imports",))
    import_modules(read_imports([], modules))
    return others


if __name__ == "__main__":
    sys.exit(main())
