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
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader

    from zoo.core.loaders import whole_batch

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

    task.configure_callbacks = list  # the evaluation that it brings is no part of a step
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print("bench step: the loops, in turns", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="cpu",
            precision=precision,  # type: ignore[arg-type]
            max_steps=LOOP_STEPS + 2,
            logger=CSVLogger(folder),
            callbacks=[Turns(), LearningRateMonitor("step"), *callbacks],
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        batches: Any = [batch] * (LOOP_STEPS + 2)
        trainer.fit(task, train_dataloaders=DataLoader(batches, batch_size=None, collate_fn=whole_batch))
    # The first entry is the time before training, the second that of a step that makes AdamW's state.
    return {name: [len(batch["text"]) / value for value in values[2:]] for name, values in seconds.items()}


def chosen_precision(precision: Precision) -> str:
    """Resolve ``auto`` to what suits the processor."""
    from zoo.core.hardware import best_precision

    return best_precision() if precision == "auto" else precision
