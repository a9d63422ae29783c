"""``on_divergence: restore``: a training that has diverged goes on from what is good, at half the learning rates."""

import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
from lightning.fabric.plugins.environments import LightningEnvironment

from zoo.core.divergence import DivergedError
from zoo.core.runs import Plan, take_option
from zoo.errors import UserError, invalid
from zoo.io import write_text

RECORD = "divergences.json"


def check_restorable(trainer: L.Trainer, on_divergence: str) -> None:
    """See that a training which is to be restored can start its processes again.

    Raises:
        UserError: torchrun, Slurm or the like started them.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if on_divergence == "restore" and not isinstance(environment, LightningEnvironment | None):
        raise invalid(
            "model.optimizer.on_divergence",
            on_divergence,
            f"the processes that it would start again were started by another program ({type(environment).__name__})."
            " Give stop, or let the trainer start them (trainer.devices)",
        )


def read_divergences(folder: Path) -> list[dict[str, float]]:
    """Read after which divergences a run was restored: ``diverged_at``, ``restored_from`` (steps), ``rate_factor``."""
    path = folder / RECORD
    return json.loads(path.read_text("utf-8")) if path.is_file() else []


def restored_words(plan: Plan, options: Sequence[str], error: DivergedError) -> list[str] | None:
    """Write a divergence into the run's ``divergences.json``, say it, and give the words by which the training goes on.

    Args:
        plan: Of the training.
        options: The words behind ``fit`` that it was started with.
        error: What stopped it.

    Returns:
        The words behind ``python -m zoo``; None: the training is not to be restored.

    Raises:
        UserError: It is, and cannot be, or was as often as it may.
    """
    if error.options.on_divergence == "stop":
        return None
    earlier, most = read_divergences(plan.folder), error.options.max_restores
    if error.good is None:
        raise UserError(f"{error}. There is nothing to restore")
    if len(earlier) >= most:
        raise UserError(f"{error}. It was restored as often as model.optimizer.max_restores says, {most}")
    factor = error.options.rate_factor / 2
    entry = {"diverged_at": error.step, "restored_from": error.good.step, "rate_factor": factor}
    write_text(plan.folder / RECORD, json.dumps([*earlier, entry], indent=2) + "\n")
    print(
        f"zoo fit: {error.what}. It goes on from {error.good.path}, of step {error.good.step}, with half the learning"
        f" rates (restored {len(earlier) + 1} of at most {most} times)",
        file=sys.stderr,
    )
    _, others = take_option(list(options), ("--ckpt_path",))
    return ["fit", *others, "--ckpt_path", str(error.good.path), "--model.optimizer.rate_factor", str(factor)]


def begin_again(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Let a new ``python -m zoo`` take this process's place, so that nothing is left of the training that diverged.

    Args:
        words: The words behind ``python -m zoo``.
        environment: The variables that this process was started with: Lightning has set some since.
    """
    for worker in multiprocessing.active_children():  # of loaders: they outlive a parent that is another program
        worker.terminate()
        worker.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "zoo", *words], dict(environment))
