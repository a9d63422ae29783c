"""What every run does, whatever its experiment lists: the command line adds these callbacks itself."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from zoo.core.evaluation import BestCheckpoint, Evaluation
from zoo.core.options import parameters_of
from zoo.core.texts import text_losses
from zoo.errors import UserError, invalid, nearest
from zoo.io import remove_unfinished, write_text

GRACE = 5.0  # seconds that other processes have to end by themselves


class WriteConfig(Callback):
    """Writes ``config.yaml``, once the data are there, the task is built and a checkpoint has fitted into it.

    What a process that was killed had begun to write into the run's folder goes.

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
            remove_unfinished(self.path.parent)
            write_text(self.path, yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the run's folder, where it was started, and the modules besides the zoo's that ``zoo.load`` asks for."""
        checkpoint["run"] = str(self.path.parent)
        checkpoint["started_in"] = os.getcwd()
        module = type(pl_module).__module__
        checkpoint["imports"] = [*self.config["imports"], *([] if module.startswith("zoo.") else [module])]


class SayIdleOptions(Callback):
    """Says, before training, which options were given another value than the default and have no effect.

    Args:
        config: The whole nested configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it, a line for each."""
        for owner in (pl_module, trainer.datamodule) if trainer.is_global_zero else ():  # type: ignore[attr-defined]
            defaults = parameters_of(type(owner))
            for option, why in getattr(owner, "idle_options", dict)().items():
                part, *path = option.split(".")
                given = self.config[part]["init_args"]
                for name in path:
                    given = (given or {}).get(name)
                default = defaults.get(".".join(path))
                if given is not None and (default is None or plain_value(given) != plain_value(default.default)):
                    print(f"{option} {json.dumps(given, ensure_ascii=False)} has no effect: {why}", file=sys.stderr)


class SayTextLosses(Callback):
    """Says, before training, how many of its texts are cut, and how many of their characters are unknown."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it."""
        reader, texts = getattr(pl_module, "text_reader", None), getattr(trainer.datamodule, "training_texts", tuple)  # type: ignore[attr-defined]
        if trainer.is_global_zero and reader is not None:
            for line in text_losses(reader, texts()):
                print(f"Texts: {line}", file=sys.stderr)


def plain_value(value: Any) -> Any:
    """Give a value as YAML has it: a tuple is a list."""
    return list(value) if isinstance(value, tuple) else value


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


class Monitors(Callback):
    """Sees that what the other callbacks monitor (the best checkpoint, ``EarlyStopping``) is measured.

    A number of the validation that none will measure is refused before the first epoch. Where validation is cut short
    (``limit_val_batches``) its numbers have other names, to which it points the callbacks: it stands before them.
    """

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse what the evaluation before training did not measure, where all who log are known."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if all(type(each).__module__.startswith(("zoo.", "lightning.")) for each in (pl_module, *callbacks)):
            names = [name for each in callbacks if isinstance(each, Evaluation) for name in each.names]
            self._refuse(trainer, {name.replace("_partial/", "/", 1) for name in (*names, *trainer.callback_metrics)})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse what a validation would measure where there is none."""
        if trainer.limit_val_batches == 0:
            self._refuse(trainer, set())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Point the callbacks to the metric that is there."""
        for callback, monitor in monitoring(trainer):
            prefix, _, name = monitor.partition("/")
            partial = f"{prefix}_partial/{name}"
            if monitor not in trainer.callback_metrics and partial in trainer.callback_metrics:
                callback.monitor = partial
                rank_zero_warn(f"Validation is cut short: {type(callback).__name__} goes by {partial}")

    def _refuse(self, trainer: L.Trainer, measured: set[str]) -> None:
        for callback, monitor in monitoring(trainer):
            of_validation = monitor.startswith("val") or f"val/{monitor}" in measured
            if not of_validation or monitor in measured or getattr(callback, "strict", True) is False:
                continue
            kind = type(callback).__name__
            asked = "model.evaluation.monitor" if isinstance(callback, BestCheckpoint) else f"monitor of {kind}"
            if trainer.limit_val_batches == 0:
                fix = "trainer.limit_val_batches is 0, so that nothing is validated: monitor train/loss, or nothing"
            else:
                fix = f"no validation measures it.{nearest(monitor, measured)} There are {', '.join(sorted(measured))}"
            raise invalid(asked, monitor, fix)


def monitoring(trainer: L.Trainer) -> list[tuple[Any, str]]:
    """The callbacks that go by a logged number, and its name."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    monitors = [(callback, getattr(callback, "monitor", None)) for callback in callbacks]
    return [(callback, monitor) for callback, monitor in monitors if isinstance(monitor, str)]


class IdleRates(Callback):
    """Stops a training whose learning rates are all 0 before its end: it would go on and learn nothing.

    A warm-up may begin at 0, and who gives a learning rate of 0 gets it.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See whether the training has begun."""
        self.warm = trainer.global_step > 0
        self.since: int | None = None  # the first step of those, without a break, whose rates were all 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop at the second step in succession.

        Raises:
            UserError: It is.
        """
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        moving = any(group["lr"] != 0 for group in groups)
        self.warm |= moving
        if moving or not self.warm or not any(group.get("initial_lr") for group in groups):
            self.since = None
        elif self.since is None:
            self.since = trainer.global_step
        elif trainer.global_step > self.since:
            raise UserError(
                f"all learning rates are 0 from step {self.since} on, and the training is not at its end: its cosine"
                f" was laid along fewer steps, or something sets them. Give more trainer.max_epochs than"
                f" {trainer.max_epochs}, the data.batch_size that the run began with, or leave out what sets them",
                argument="trainer.max_epochs",
                value=trainer.max_epochs,
            )


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
