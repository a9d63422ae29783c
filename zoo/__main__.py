"""``python -m zoo``: a table of commands. Standard library only, so that help answers at once."""

import importlib
import os
import sys
from collections.abc import Sequence

from zoo.errors import UserError, last_line, nearest

# command → (module with main(argv) -> exit code, one line of help); the first four share Lightning's trainer.
COMMANDS = {
    "fit": ("zoo.cli.train", "train a model: fit --config experiments/clip_demo.yaml"),
    "validate": ("zoo.cli.train", "score a checkpoint on the validation split"),
    "test": ("zoo.cli.train", "score a checkpoint on the test split, where there are answers"),
    "predict": ("zoo.cli.train", "write the submission file for the test split"),
    "score": ("zoo.cli.score", "score a submission file as MUGE does, or list every fault in it"),
    "generate": (
        "zoo.tasks.text_to_image.generate",
        "draw images of descriptions: generate runs/diffusion_demo 苹果",
    ),
    "caption": ("zoo.tasks.captioning.caption", "describe pictures: caption runs/caption_demo picture.jpg"),
    "list": ("zoo.cli.list", "the models that an experiment can name"),
    "data": ("zoo.cli.data", "check, import, export, encode data; make the embedded data set"),
    "bench": ("zoo.cli.bench", "measure speed against the originals"),
    "results": ("zoo.cli.results", "collect scored runs, write the README's table"),
}


def usage() -> str:
    """The text of ``python -m zoo --help``."""
    lines = [
        "usage: python -m zoo COMMAND [OPTION ...]",
        "",
        "A model zoo for MUGE, the Chinese multimodal e-commerce benchmark.",
        "",
    ]
    lines += [f"  {name:<10}{line}" for name, (_, line) in COMMANDS.items()]
    lines += ["", "python -m zoo COMMAND --help lists a command's options."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``python -m zoo``; by default the process's own.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the command line was wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0 if words else 2
    command = words[0]
    if command not in COMMANDS:
        print(f"zoo: there is no command {command!r}.{nearest(command, COMMANDS)}\n\n{usage()}", file=sys.stderr)
        return 2
    # In large pages fresh memory is nearly free; without, it costs a step on a CPU a fifth of its time. PyTorch reads
    # this when it first takes memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    module = importlib.import_module(COMMANDS[command][0])
    arguments = words if COMMANDS[command][0] == "zoo.cli.train" else words[1:]
    try:
        return module.main(arguments)
    except UserError as error:
        print(f"zoo {command}: {last_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
