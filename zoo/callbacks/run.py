"""What every run does, whatever its experiment lists: the command line adds these callbacks itself."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from zoo.io import write_text

GRACE = 5.0  # seconds that other processes have to end by themselves


class WriteConfig(Callback):
    """Writes ``config.yaml``, once the data are there, the task is built and a checkpoint has fitted into it.

    Args:
        path: The file.
        config: The whole nested configuration.
        note: What to say then: where the run's numbers go.
    """

    def __init__(self, path: Path, config: dict[str, Any], note: str) -> None:
        self.path = path
        self.config = config
        self.note = note

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it."""
        if trainer.is_global_zero:
            print(self.note, file=sys.stderr)
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            asked, used = self.config["data"]["init_args"], data.batch_size
            if asked["batch_size"] != used:  # the memory is small
                asked["batch_size"] = used
                for logger in trainer.loggers:
                    if isinstance(logger, WandbLogger):
                        logger.experiment.config.update(self.config, allow_val_change=True)
            write_text(self.path, yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the modules, besides the zoo's own, that the task needs: ``zoo.load`` asks for them."""
        module = type(pl_module).__module__
        checkpoint["imports"] = [*self.config["imports"], *([] if module.startswith("zoo.") else [module])]


class RandomWeightsBanner(Callback):
    """Says, on the screen and in W&B, that a run wanted pretrained weights and started from random ones."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it when training."""
        self._say(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it when only validating."""
        if trainer.state.fn == "validate":
            self._say(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it when testing."""
        self._say(trainer, pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it when predicting."""
        self._say(trainer, pl_module)

    def _say(self, trainer: L.Trainer, pl_module: Any) -> None:
        random = {part: text for part, text in pl_module.weights.items() if text.startswith("random (")}
        if not random or not trainer.is_global_zero:
            return
        parts: dict[str, list[str]] = {}  # by the reason: one network fails them all
        for part, text in random.items():
            parts.setdefault(text.partition(": ")[2], []).append(part)
        lines = [f"  {', '.join(names)}: {random[names[0]].removeprefix('random ')}" for names in parts.values()]
        rule = "!" * 80
        title = "RANDOM WEIGHTS: this experiment asks for pretrained weights and does without them"
        print("\n".join([rule, title, *lines, rule]), file=sys.stderr)
        for logger in trainer.loggers:
            run: Any = logger.experiment if isinstance(logger, WandbLogger) else None
            if hasattr(run, "tags") and "random-weights" not in (run.tags or ()):
                run.tags = (*(run.tags or ()), "random-weights")
                run.name = f"{run.name}-random-weights"


class CommandLineWins(Callback):
    """On resuming, learning rate, weight decay and the like are the command line's, not the checkpoint's."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember what the task configured; Lightning restores the checkpoint's next."""
        self.groups = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        self.base_rates = [list(config.scheduler.base_lrs) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put it back, each learning rate at its step of the schedule."""
        if trainer.ckpt_path is None:
            return
        for optimizer, groups in zip(trainer.optimizers, self.groups, strict=True):
            for group, configured in zip(optimizer.param_groups, groups, strict=True):
                group.update(configured)
        for config, rates in zip(trainer.lr_scheduler_configs, self.base_rates, strict=True):
            scheduler: Any = config.scheduler
            scheduler.base_lrs = rates
            for group, rate, factor in zip(scheduler.optimizer.param_groups, rates, scheduler.lr_lambdas, strict=True):
                group["lr"] = rate * factor(scheduler.last_epoch)


class PartialBest(Callback):
    """Where validation is cut short (``limit_val_batches``), the best checkpoint is chosen by the partial metric."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Point the checkpoint callbacks, which come later, to the metric that is there."""
        for checkpoint in trainer.checkpoint_callbacks:
            monitor = checkpoint.monitor if isinstance(checkpoint, ModelCheckpoint) else None
            partial = (monitor or "").replace("val/", "val_partial/", 1)
            if monitor not in trainer.callback_metrics and partial in trainer.callback_metrics:
                checkpoint.monitor = partial  # type: ignore[attr-defined]
                rank_zero_warn(f"Validation is cut short: the best checkpoint is chosen by {partial}")


class EndTogether(Callback):
    """Ends the processes that this one started when it fails: they would wait for it, and hold their GPUs.

    NCCL has them wait for half an hour. They have some seconds to say what they died of, if it was theirs.
    """

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End them; those that agreed to stop leave by themselves."""
        if isinstance(exception, SystemExit | KeyboardInterrupt):
            return
        launcher: Any = trainer.strategy.launcher
        processes, deadline = getattr(launcher, "procs", []), time.monotonic() + GRACE
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline:
                launcher.kill(signal.SIGKILL)
                break
            time.sleep(0.1)
