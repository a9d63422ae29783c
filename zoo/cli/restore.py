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
from zoo.core.runs import take_option
from zoo.errors import invalid
from zoo.io import read_json, write_text

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
    return read_json(path) if path.is_file() else []


def restore(folder: Path, options: Sequence[str], error: DivergedError) -> tuple[list[str] | None, str]:
    """Decide what becomes of a training that has diverged; one that is restored is noted in ``divergences.json``.

    Args:
        folder: The run's.
        options: The words behind ``fit`` that it was started with.
        error: What stopped it.

    Returns:
        The words behind ``python -m zoo`` by which it goes on, None: it ends; and what to say.
    """
    earlier, most = read_divergences(folder), error.options.max_restores
    if error.options.on_divergence == "stop":
        return None, f"error: {error}"
    if error.good is None:
        return None, f"error: {error}. There is nothing to restore"
    if len(earlier) >= most:
        return None, f"error: {error}. It was restored as often as model.optimizer.max_restores says, {most}"
    factor = error.options.rate_factor / 2
    entry = {"diverged_at": error.step, "restored_from": error.good.step, "rate_factor": factor}
    write_text(folder / RECORD, json.dumps([*earlier, entry], indent=2) + "\n")
    _, others = take_option(list(options), ("--ckpt_path",))
    words = ["fit", *others, "--ckpt_path", str(error.good.path), "--model.optimizer.rate_factor", str(factor)]
    return words, (
        f"{error.what}. It goes on from {error.good.path}, of step {error.good.step}, with half the learning rates"
        f" (restored {len(earlier) + 1} of at most {most} times)"
    )


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
