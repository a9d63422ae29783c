"""``last.ckpt``: from which a run resumes exactly, however it ended."""

import copy
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from zoo.core.device import Later
from zoo.core.divergence import DivergedError
from zoo.errors import UserError
from zoo.io import atomic_write

TERMINATED = 128 + signal.SIGTERM  # the exit code of a program that SIGTERM ended; that of SIGINT is 130


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a reader sees the old one or the whole new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: It cannot be written; the one that was there is as it was.
        """
        checksums = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)  # nobody reads them, and they take most of the time
        try:
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else str(error).partition("\n")[0]
            raise UserError(
                f"{path}: the checkpoint cannot be written ({reason}; {_free(Path(path))}). What was there is"
                " untouched: make room, then resume with --ckpt_path last"
            ) from None
        finally:
            torch.serialization.set_crc32_options(checksums)


def _free(path: Path) -> str:
    folder = next(folder for folder in path.parents if folder.is_dir())
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: every ``every_n_steps`` steps, after every epoch, on SIGTERM, Ctrl-C and most errors.

    It is written between two steps, when all of the last one is logged, so that a run that resumes from it trains and
    logs what an uninterrupted one does. On SIGTERM or Ctrl-C, to one process or to all, the processes agree on the step
    after which they stop; the exit code is 143 or 130. A second Ctrl-C does not wait for that. A validation that is cut
    short is repeated from its start. Where the processes share the weights (FSDP), they write between two steps alone.

    Args:
        folder: Where ``last.ckpt`` is kept.
        every_n_steps: Optimiser steps between two writings.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.terminated = False  # SIGTERM or SIGINT came, here or elsewhere
        self.signal = signal.SIGTERM  # which
        self.told: Later | None = None  # how many processes were told, as of the last step
        self.saved_step = 0
        self.optimizing = False  # a step has begun to move the weights and is not yet counted and logged
        self.resumed_between_steps = False
        self.between_steps = False  # while writing: the counters must say that no step has begun
        self.moving: list[tuple[str, Any]] = []  # buffers that are kept, with their modules
        self.buffers: dict[str, Tensor] = {}  # before the step's first batch, whose forward pass moves batch norms'
        os.environ.setdefault("ZOO_MAIN_PROCESS", str(os.getpid()))  # by which DDP's processes know their parent

    # --- when to write -----------------------------------------------------------------------------------------

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the progress of training before Lightning does: configuring the optimiser starts the loader."""
        if trainer.state.fn == "fit":
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            trainer.fit_loop.epoch_loop.batch_progress.load_state_dict(copy.deepcopy(progress))
            self.resumed_between_steps = checkpoint.get("between_steps", False)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, whose handler of SIGTERM may wait for other processes for ever."""
        self._listen(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over; a run that resumes is saved already."""
        self._listen(trainer)
        self.saved_step = trainer.global_step
        loop: Any = trainer.fit_loop.epoch_loop
        validated = loop.restarting and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        if self.resumed_between_steps and validated:  # Lightning counts such a step twice, by which rows are numbered
            loop._batches_that_stepped -= 1
        self.resumed_between_steps = False
        self.moving = [
            (f"{place}.{name}" if place else name, module)
            for place, module in pl_module.named_modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and name not in module._non_persistent_buffers_set
        ]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Write, between two steps, when it is time; stop, on every process, when one was told to."""
        self.optimizing = False
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        if progress.current.processed % trainer.accumulate_grad_batches == 0:
            self.buffers = {
                name: own._buffers[name.rpartition(".")[2]].clone() for name, own in self.moving if own.training
            }
        stop = self._one_was_told(trainer)
        self.terminated |= stop
        if stop or trainer.global_step >= self.saved_step + self.every_n_steps:
            pl_module.stop_if_diverged()
            for logger in trainer.loggers:
                logger.save()  # a run that resumes from here does not log it again
            self._write(trainer, trainer.save_checkpoint)
        if stop:
            raise SystemExit(self._exit_code())

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Mark that until the end of the step there is nothing that could be kept."""
        self.optimizing = True

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mark the step as whole: all of it is logged."""
        self.optimizing = False

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the batches that are through: of a validation that was cut short Lightning counts the first one twice.

        A run that resumes later would take the difference for a validation under way, and leave batches of it out.
        """
        if trainer.state.fn == "fit":
            total: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
            total.ready = total.started = total.processed = total.completed

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stop in a validation, where the processes are not in step; :meth:`on_exception` writes."""
        if self.terminated:
            raise SystemExit(self._exit_code())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write after every epoch, its validation included."""
        self.optimizing = False
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.path)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write, without the other processes, which may be gone, where the last step is whole and here."""
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        between_epochs = progress.is_last_batch and progress.current.processed == progress.current.ready
        here = not isinstance(trainer.strategy, ModelParallelStrategy)
        diverged = isinstance(exception, DivergedError)
        good = not diverged and pl_module.find_bad_step() is None
        whole = here and good and not self.optimizing and (trainer.validating or not between_epochs)
        if trainer.state.fn == "fit" and trainer.is_global_zero and whole and trainer.global_step > self.saved_step:
            try:
                self._write(trainer, lambda path: trainer.strategy.save_checkpoint(_contents(trainer), path))
            except UserError as error:
                print(error, file=sys.stderr)
        if self.terminated and not diverged and not isinstance(exception, SystemExit):
            # The others stopped before it noticed.
            raise SystemExit(self._exit_code()) from None

    # --- how ---------------------------------------------------------------------------------------------------

    def _listen(self, trainer: L.Trainer) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._terminate(trainer, number))
        # Lightning's own agreement on SIGTERM, which waits for the GPU at every step.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def _terminate(self, trainer: L.Trainer, number: int) -> None:
        """Take note, and tell the other processes of this machine, once."""
        first, again = not self.terminated, self.terminated and number == self.signal == signal.SIGINT
        if first or number == signal.SIGINT:
            self.signal = signal.Signals(number)
        if again and not self._is_child():
            raise KeyboardInterrupt
        self.terminated = True
        if not first:
            return
        launcher: Any = trainer.strategy.launcher
        if self._is_child():
            os.kill(os.getppid(), signal.SIGTERM)
        elif launcher is not None:
            launcher.kill(signal.SIGTERM)

    def _one_was_told(self, trainer: L.Trainer) -> bool:
        """Tell whether a process was told to stop; of several, by the last step: a GPU's answer to this one is late."""
        if trainer.world_size == 1:
            return self.terminated
        told = torch.full((), float(self.terminated), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(told)
        before, self.told = self.told, Later(told)
        return before is not None and before.item() > 0

    def _is_child(self) -> bool:
        """Tell whether Lightning's first process started this one."""
        return os.environ["ZOO_MAIN_PROCESS"] == str(os.getppid())

    def _exit_code(self) -> int:
        """Give 128 + the signal; 0 of a child: else Lightning kills the first process, which may still be writing."""
        return 0 if self._is_child() else 128 + self.signal

    def _write(self, trainer: L.Trainer, save: Callable[[Path], None]) -> None:
        self.saved_step = trainer.global_step  # tried once
        self.between_steps = True
        try:
            save(self.path)
        finally:
            self.between_steps = False
        if self.terminated and trainer.is_global_zero:
            print(
                f"{self.signal.name}: stopping after step {self.saved_step}; resume with --ckpt_path last",
                file=sys.stderr,
            )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count whole steps alone: as if nothing after the last had been fetched, and no validation been begun."""
        if not self.between_steps:
            return
        loop = checkpoint["loops"]["fit_loop"]
        progress = loop["epoch_loop.batch_progress"]
        epoch_ends = trainer.validating and progress["is_last_batch"]
        part = 0 if epoch_ends else progress["current"]["processed"] % trainer.accumulate_grad_batches
        validating = trainer.validating and part == 0
        for counts in (progress["total"], progress["current"]):
            whole = counts["processed"] - part
            counts.update(ready=whole, started=whole, processed=whole, completed=whole)
        checkpoint["between_steps"] = not validating
        progress["is_last_batch"] &= validating
        if validating:  # Lightning continues a validation of which a batch is under way: say, the first
            validation = loop["epoch_loop.val_loop.batch_progress"]
            for counts in (validation["total"], validation["current"]):
                counts.update(ready=1, started=1, processed=0, completed=0)
        else:
            weights = checkpoint["state_dict"]
            weights.update((name, buffer) for name, buffer in self.buffers.items() if name in weights)


def _contents(trainer: L.Trainer) -> dict[str, Any]:
    """Make a checkpoint's contents; ``Trainer.save_checkpoint`` would wait for processes that may be gone."""
    return trainer._checkpoint_connector.dump_checkpoint()
