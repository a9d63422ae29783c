"""What Lightning's training loop costs over a bare one, for any task."""

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from zoo.core.bench.harness import Precision, Rates

LOOP_STEPS = 20
WANTED_LOOP = 0.97  # Lightning costs at most 3 %


def bare_step(task: Any, loss: Callable[[Any], Any], precision: str) -> Callable[[Any], None]:
    """A bare loop's step of a task of ours, with the optimiser and the schedule that Lightning would be given."""
    from zoo.core.optim import adamw, warmup_cosine
    from zoo.core.precision import autocast

    options = task.hparams["optimizer"]
    optimizer = adamw(task, task.hparams["learning_rate"], options)
    schedule = warmup_cosine(optimizer, options.warmup_steps, 1000)

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        with autocast(precision, task.device):
            value = loss(batch)
        value.backward()
        optimizer.step()
        schedule.step()

    return step


def loop_rates(
    task: Any, step: Callable[[Any], None], batch: Any, precision: str, *, callbacks: Sequence[Any]
) -> Rates:
    """Samples a second of ``Trainer.fit`` and of a bare loop's step, in turns: what slows one slows the other.

    Lightning's time is that from the start of a step to the start of the next, with all that it does between; the bare
    steps are taken at those starts and left out of it.
    """
    import lightning as L

    seconds: dict[str, list[float]] = {"Lightning's loop": [], "bare loop": []}

    class Turns(L.Callback):
        since = 0.0

        def on_train_batch_start(self, trainer: L.Trainer, *rest: Any) -> None:
            seconds["Lightning's loop"].append(time.perf_counter() - self.since)
            since = time.perf_counter()
            step(batch)  # the first makes its AdamW's state
            seconds["bare loop"].append(time.perf_counter() - since)
            task.zero_grad()  # as our task leaves it for Lightning's next step
            self.since = time.perf_counter()

    print("bench step: the loops, in turns", file=sys.stderr, flush=True)
    fit_quietly(task, batch, precision, steps=LOOP_STEPS + 2, callbacks=[Turns(), *callbacks])
    # The first entry is the time before training, the second that of a step that makes AdamW's state.
    return {name: [len(batch["text"]) / value for value in values[2:]] for name, values in seconds.items()}


def fit_quietly(task: Any, batch: Any, precision: str, *, steps: int, callbacks: Sequence[Any]) -> None:
    """Train a task where it lies, on one batch again and again, as ``fit`` does but for evaluation and checkpoints."""
    import lightning as L
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader

    from zoo.core.loaders import whole_batch

    task.configure_callbacks = list  # the evaluation that it brings is no part of a step
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    place, on_gpu = task.device, task.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_steps=steps,
            logger=CSVLogger(folder),
            callbacks=[LearningRateMonitor("step"), *callbacks],
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        batches: Any = [batch] * steps
        trainer.fit(task, DataLoader(batches, batch_size=None, collate_fn=whole_batch, pin_memory=on_gpu))
    task.to(place)  # Lightning leaves it on the CPU


def chosen_precision(precision: Precision) -> str:
    """Resolve ``auto`` to what suits the processor."""
    from zoo.core.hardware import best_precision

    return best_precision() if precision == "auto" else precision
