"""The base of every task's evaluation: whole or partial, exact on any number of processes, with a protocol."""

import importlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from PIL.Image import Image
from torch import Tensor, nn
from torchmetrics import Metric

from zoo.errors import UserError, invalid
from zoo.io import write_text

LOG_PREFIX = {"valid": "val", "test": "test"}


@dataclass(frozen=True)
class EvaluationOptions:
    """What is asked of a task's evaluation.

    Args:
        monitor: The logged number that ``best.ckpt`` is chosen by; null: none is kept.
        mode: Whether more of it is better (``max``) or less (``min``).
        metrics: Further metrics, by the name that they are logged under: the path of a ``torchmetrics.Metric`` class,
            or ``{class_path: …, init_args: {…}}``. Each is updated with those of the keyword arguments that the task's
            evaluation offers which its ``update`` names.
    """

    monitor: str | None = "val/loss"
    mode: Literal["max", "min"] = "min"
    metrics: dict[str, Any] = field(default_factory=dict)

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect beside the others, and say why."""
        return {} if self.monitor is not None else {"mode": "monitor is null"}


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint, ``checkpoints/best.ckpt`` under the trainer's ``default_root_dir``.

    Args:
        monitor: The logged number that it is chosen by.
        mode: Whether more of it is better (``max``) or less (``min``).
    """

    def __init__(self, monitor: str, mode: Literal["max", "min"]) -> None:
        super().__init__(monitor=monitor, mode=mode, filename="best", enable_version_counter=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder."""
        self.dirpath = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)


@dataclass
class Part:
    """One split under evaluation.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        name: How the names of its numbers begin: ``val``, ``val_train``, ``val_partial``, ``test``, …
        complete: Whether every row of it is gone over, on all processes.
        targets: What the split's answers are.
        rows: What is collected of it, as the task's evaluation likes.
        metrics: Further metrics, by name.
    """

    split: str
    name: str
    complete: bool
    targets: Any
    rows: Any = None
    metrics: dict[str, Metric] = field(default_factory=dict)


class Evaluation(Callback):
    """Goes over whole splits at every validation and at test, and logs, prints and keeps the numbers.

    An evaluation cut short by ``limit_val_batches`` is logged as ``val_partial/…``. Step 0, before training, is the
    sanity check: run it whole (``num_sanity_val_steps: -1``). ``test`` writes its numbers and how they were measured to
    ``test.json`` in the run.

    Args:
        options: What is asked of it.
    """

    def __init__(self, options: EvaluationOptions) -> None:
        self.options: Any = options
        self.metrics = {name: build_metric(name, given) for name, given in options.metrics.items()}
        self.parts: list[Part] = []
        self.numbers: dict[str, float] = {}  # of the latest evaluation, under the names they are logged by
        self.names: set[str] = set()  # of all that it measures, also of what is no number yet

    # --- what a task's evaluation says -------------------------------------------------------------------------

    def begin(self, trainer: L.Trainer, task: Any, part: Part) -> Any:
        """Make what collects the rows of a split: its ``rows``."""
        raise NotImplementedError

    def update(self, trainer: L.Trainer, task: Any, part: Part, outputs: Any, batch: Any) -> dict[str, Any]:
        """Collect a batch; give the keyword arguments that further metrics may take."""
        raise NotImplementedError

    def part_metrics(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Metric]:
        """Make the metrics that a split has of itself, for what its files tell; they are logged as further ones are."""
        return {}

    def compute(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any] | None:
        """Score a split: numbers that are the same on every process; None where it has no answers."""
        raise NotImplementedError

    def describe(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Say how the numbers were measured, beyond what every task's protocol holds."""
        return {}

    def report(
        self, trainer: L.Trainer, task: Any, part: Part, numbers: dict[str, float], protocol: dict[str, Any]
    ) -> None:
        """Print the numbers and save image grids; called on every process."""

    # --- hooks -------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._start(trainer, pl_module, "valid", batches, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        self._start(trainer, pl_module, "test", trainer.num_test_batches, trainer.test_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch."""
        part = self.parts[dataloader_idx // self._loaders_each]
        offered = self.update(trainer, pl_module, part, outputs, batch)
        for name, metric in part.metrics.items():
            metric.update(**_taken(name, metric, offered))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print."""
        self._finish(trainer, pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print; write ``test.json``."""
        protocol = self._finish(trainer, pl_module)
        if protocol and trainer.is_global_zero:
            contents = {"metrics": self.numbers, "protocol": protocol}
            write_json(Path(trainer.default_root_dir) / "test.json", contents)

    # --- the same for all splits -------------------------------------------------------------------------------

    def _start(self, trainer: L.Trainer, task: L.LightningModule, split: str, batches: list[Any], loaders: Any) -> None:
        data = data_module(trainer, self)
        loaders = loaders if isinstance(loaders, list) else [loaders]
        splits = data.evaluated_splits(split)
        self._loaders_each = len(loaders) // len(splits)
        whole = [count == len(loader) for count, loader in zip(batches, loaders, strict=True)]
        self.numbers, self.names, self.parts = {}, set(), []
        for place, each in enumerate(splits):
            own = whole[place * self._loaders_each : (place + 1) * self._loaders_each]
            complete = trainer.strategy.reduce_boolean_decision(all(own), all=True)
            name = LOG_PREFIX[split] if each == split else f"{LOG_PREFIX[split]}_{each}"
            part = Part(each, name if complete else f"{name}_partial", complete, data.targets(each))
            part.rows = self.begin(trainer, task, part)
            metrics = self.metrics | self.part_metrics(trainer, task, part)
            part.metrics = {name: metric.clone().to(task.device) for name, metric in metrics.items()}
            self.parts.append(part)

    def _finish(self, trainer: L.Trainer, task: L.LightningModule) -> dict[str, Any] | None:
        """Score every split; give the protocol of the first where it is whole and has answers."""
        first: dict[str, Any] | None = None
        for place, part in enumerate(self.parts):
            computed = self.compute(trainer, task, part)
            if computed is None:
                if trainer.is_global_zero:
                    print(f"The {part.split} split has no answers here: `predict` writes its submission instead.")
                continue
            for name, metric in part.metrics.items():
                computed |= _named(name, metric.compute())
            values = {
                key: value.float().item() if isinstance(value, Tensor) else value for key, value in computed.items()
            }
            numbers = {key: value for key, value in values.items() if not math.isnan(value)}
            logged = {f"{part.name}/{key}": value for key, value in numbers.items()}
            log_numbers(trainer, task, logged)
            self.numbers |= logged
            self.names |= {f"{part.name}/{key}" for key in values}
            protocol = self._protocol(trainer, task, part)
            self.report(trainer, task, part, numbers, protocol)
            if place == 0 and part.complete:
                first = protocol
        self.parts = []
        return first

    def _protocol(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Say what the numbers were measured on and how."""
        return {
            "data": part.targets.source,
            "split": part.split,
            "image_size": data_module(trainer, self).image_size,
            **self.describe(trainer, task, part),
            "precision": str(trainer.precision),
            "step": steps_done(trainer, task),
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "weights": task.weights,
        }


def build_metric(name: str, given: Any) -> Metric:
    """Build a metric of ``EvaluationOptions``.

    Args:
        name: What it is logged under, for errors.
        given: A metric, the path of its class, or ``{class_path: …, init_args: {…}}``.

    Raises:
        UserError: There is no such class, or it is no metric.
    """
    if isinstance(given, Metric):
        return given
    what = f"evaluation.metrics.{name}"
    whole = given if isinstance(given, Mapping) else {"class_path": given}
    place, options = whole.get("class_path"), whole.get("init_args", {})
    if not isinstance(place, str) or not isinstance(options, Mapping):
        raise invalid(what, repr(given), "give the path of a class, or {class_path: …, init_args: {…}}")
    module, _, class_name = place.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{what}: there is no class {place!r} ({error})") from None
    if not (isinstance(kind, type) and issubclass(kind, Metric)):
        raise UserError(f"{what}: {place} is no torchmetrics.Metric")
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {class_name} cannot be built with {dict(options)}: {error}") from error


def _taken(name: str, metric: Metric, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that a metric's ``update`` names."""
    parameters = inspect.signature(metric.update).parameters
    lacking = [key for key, given in parameters.items() if given.default is given.empty and key not in offered]
    if lacking:
        raise UserError(
            f"evaluation.metrics.{name}: {type(metric).__name__}.update wants {', '.join(lacking)}; this task offers"
            f" {', '.join(offered)}"
        )
    return {key: value for key, value in offered.items() if key in parameters}


def _named(name: str, value: Any) -> dict[str, Any]:
    return {f"{name}_{key}": each for key, each in value.items()} if isinstance(value, Mapping) else {name: value}


# --- what callbacks report with ----------------------------------------------------------------------------------


def log_numbers(trainer: L.Trainer, task: L.LightningModule, numbers: dict[str, Any]) -> None:
    """Log numbers that are the same on every process, those of step 0 too."""
    if trainer.sanity_checking:  # Lightning throws away what is logged here
        for logger in trainer.loggers:
            logger.log_metrics({key: float(value) for key, value in numbers.items()}, step=trainer.global_step)
    else:
        task.log_dict(numbers)


def save_image_grid(trainer: L.Trainer, grid: Image, name: str, title: str, step: int) -> None:
    """Write an image grid to ``grids/NAME-stepSTEP.png`` in the run, and to W&B under ``TITLE``."""
    path = Path(trainer.default_root_dir) / "grids" / f"{name}-step{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(title, [grid], step=step)


def data_module(trainer: L.Trainer, callback: Any) -> Any:
    """Give the data module that a callback needs.

    Raises:
        UserError: The trainer was given loaders alone.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is None:
        raise UserError(
            f"{type(callback).__name__} needs to know the whole split: give the trainer a data module of the zoo,"
            " datamodule=…, not loaders alone"
        )
    return data


def steps_done(trainer: L.Trainer, task: Any) -> int:
    """Count the optimiser steps behind the weights that are evaluated."""
    in_memory = trainer.state.fn == "fit" or (trainer.ckpt_path is None and trainer.global_step > 0)
    return trainer.global_step if in_memory else task.trained_steps


def parameter_count(module: nn.Module) -> int:
    """Count the numbers that a module learns or has learnt."""
    return sum(parameter.numel() for parameter in module.parameters())


def write_json(path: Path, contents: Any) -> None:
    """Write plain data as indented JSON, Chinese as it is, atomically."""
    write_text(path, json.dumps(contents, indent=2, ensure_ascii=False) + "\n")
