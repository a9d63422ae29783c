"""The base of every task: initial weights, seeded steps, optimiser and schedule, and what a checkpoint says."""

import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.core.checkpoint import load_initial_weights, part_of_run, task_keys
from zoo.core.divergence import FirstBadStep, diverged, largest
from zoo.core.evaluation import BestCheckpoint, EvaluationOptions
from zoo.core.moved import follow_run
from zoo.core.optim import OptimizerOptions, adamw, refuse_late_changes, training_steps, warmup_cosine
from zoo.core.options import idle_fields, options_of, plain
from zoo.core.sharding import gradient_norm
from zoo.core.weights import load_pretrained
from zoo.errors import UserError

Options = TypeVar("Options")


class Task(L.LightningModule):
    """A LightningModule that starts from named weights, resumes exactly, and says in its checkpoint what it is.

    Constructors build modules and read neither weights nor the network. A task has the hyper-parameters ``init_from``,
    ``learning_rate``, ``optimizer`` and ``evaluation``.

    It brings its own callbacks: the evaluation, the submission and the best checkpoint, ``checkpoints/best.ckpt`` under
    the trainer's ``default_root_dir``. One of the same class in the trainer's list takes its place.

    Attributes:
        weights: Where each part's initial weights came from, for people; kept in the checkpoint.
        trained_steps: Optimiser steps behind the checkpoint that was loaded.
        scaled_losses: Whether it can be trained in float16, whose losses are scaled: the default of old GPUs.
    """

    scaled_losses = True

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, str] = {}
        self.trained_steps = 0
        self.first_bad_step = FirstBadStep()

    def take_options(self, name: str, kind: type[Options]) -> Options:
        """Give the hyper-parameter of that name as the dataclass that it is, also where a checkpoint has a dictionary.

        Raises:
            UserError: It has an option that the dataclass does not have.
        """
        self.hparams[name] = options_of(kind, self.hparams[name], what=f"model.{name}")
        return self.hparams[name]

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others, ``model.NAME``, and say why; asked before training.

        Those with their default values may be among them.
        """
        idle: dict[str, str] = {}
        for name, options in self.hparams.items():
            if is_dataclass(options):
                idle |= idle_fields(options, f"model.{name}")
        parts = {option for option, _ in self.pretrained_parts().values()}
        init_from = self.hparams["init_from"]
        for name in self.hparams:
            if name.endswith("_pretrained") and name not in parts:
                idle[f"model.{name}"] = "the model has no such part"
            elif name in parts and init_from and not init_from.startswith("auto:"):
                idle[f"model.{name}"] = f"all weights are those of init_from, {init_from}"
        return idle

    @property
    def text_reader(self) -> Any:
        """The part that reads the training texts, which may count what it cuts (``count_texts``); None: none does."""
        return None

    # --- callbacks ---------------------------------------------------------------------------------------------

    def own_callbacks(self) -> list[Callback]:
        """Make the task's evaluation and submission."""
        return []

    def configure_callbacks(self) -> list[Callback]:
        """Give the task's callbacks, but for those that the trainer has of the same class.

        They need to know whole splits: where the trainer was given loaders in place of a data module there are none.

        Raises:
            UserError: The trainer has a callback that changes what the optimiser was made for.
        """
        refuse_late_changes(self.trainer.callbacks)  # type: ignore[attr-defined]
        if not hasattr(self.trainer.datamodule, "targets"):  # type: ignore[attr-defined]
            rank_zero_warn("The trainer has no data module of the zoo, so nothing is evaluated: give it datamodule=…")
            return []
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        callbacks = self.own_callbacks()
        options: EvaluationOptions = self.hparams["evaluation"]
        keeps_checkpoints = any(isinstance(each, Checkpoint) for each in present)
        chooses = any(isinstance(each, ModelCheckpoint) and each.monitor is not None for each in present)
        if options.monitor is not None and keeps_checkpoints and not chooses and self.trainer.limit_val_batches != 0:
            # Not returned: Lightning would let it take the place of the trainer's own ModelCheckpoint, a base of it.
            # Before the others: last.ckpt, which is written at the same time, must know the newest best.
            place = next(place for place, each in enumerate(present) if isinstance(each, Checkpoint))
            present.insert(place, BestCheckpoint(monitor=options.monitor, mode=options.mode))
        return [each for each in callbacks if not any(type(each) is type(other) for other in present)]

    # --- initial weights ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Read initial weights before a new training; a resumed one brings its own."""
        self.first_bad_step = FirstBadStep()
        if stage == "fit" and self.trainer.ckpt_path is None:
            self.read_weights()

    def read_weights(self) -> None:
        """Read the weights of the whole task (``init_from``), or else those of its parts: published, or a run's."""
        if self.hparams["init_from"] is not None:
            self.weights["init_from"] = load_initial_weights(self, self.hparams["init_from"])
            if not self.weights["init_from"].startswith("random ("):
                return
        for name, (option, part) in self.pretrained_parts().items():
            source = self.hparams[option]
            try:
                self.weights[name] = part_of_run(part, source, name) or load_pretrained(part, source).text
            except UserError as error:
                raise UserError(f"model.{option.removesuffix('pretrained')}{error}") from None

    def pretrained_parts(self) -> dict[str, tuple[str, nn.Module]]:
        """Name the parts that may start from published weights: the hyper-parameter that says from which, the part."""
        return {}

    # --- training ----------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make torch's noise a function of seed, process and step: a resumed run repeats an uninterrupted one."""
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        torch.manual_seed((seed * 1_000_003 + progress.processed) * 4_096 + self.global_rank)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then free the gradients: Lightning would behind the next forward pass, which lacks that memory."""
        super().optimizer_step(*args, **kwargs)
        self.zero_grad()

    def learning_rates(self) -> Mapping[nn.Parameter, float]:
        """Give the peak learning rates of those parameters that have one of their own."""
        return {}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make AdamW over decayed and undecayed parameters; warm-up, then a cosine to zero, a step at a time."""
        options: OptimizerOptions = self.hparams["optimizer"]
        optimizer = adamw(self, self.hparams["learning_rate"], options, self.learning_rates())
        scheduler = warmup_cosine(optimizer, options.warmup_steps, training_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # --- divergence --------------------------------------------------------------------------------------------

    def on_before_backward(self, loss: Tensor) -> None:
        """Note whether the loss is finite."""
        self.first_bad_step.note(loss, self.global_step + 1)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note whether the gradient is finite; a scaler of float16 leaves out the steps of which it is not."""
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:
            parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
            self.first_bad_step.note(gradient_norm(parameters), self.global_step + 1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look for divergence when values are logged, which are waited for."""
        if self.trainer._logger_connector.should_update_logs:
            self.stop_if_diverged()

    def on_validation_start(self) -> None:
        """Look for divergence before a validation, and not at the outcome."""
        self.stop_if_diverged()

    def on_train_epoch_end(self) -> None:
        """Look for divergence before checkpoints are written."""
        self.stop_if_diverged()

    def stop_if_diverged(self) -> None:
        """Stop all processes of a training, which call this together, where on one something is not finite.

        Raises:
            DivergedError: It was so; the others than the first process leave in silence.
        """
        step = self.find_bad_step(self.trainer.world_size)
        if step is not None:
            raise diverged(self, step) if self.trainer.is_global_zero else SystemExit(0)

    def find_bad_step(self, processes: int = 1) -> int | None:
        """Give the first step at which a loss, gradient or weight was not finite; None: a training goes well, or none.

        Args:
            processes: How many look, which then call this together; 1: this one alone.
        """
        if self.first_bad_step.first is None:
            return None
        self.first_bad_step.note(largest(self.parameters()), self.global_step)
        return self.first_bad_step.read(processes)

    # --- checkpoints -------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the task's name, by which ``zoo.load`` finds it, and where the initial weights came from.

        Raises:
            DivergedError: The training has diverged. The first process finds that alone, for it alone writes, and on an
                error without the others.
        """
        if self.global_rank == 0 and (step := self.find_bad_step()) is not None:
            raise diverged(self, step)
        checkpoint.update(task_keys(self))
        checkpoint["weights"] = self.weights
        checkpoint["hyper_parameters"] = plain(checkpoint.get("hyper_parameters", {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where the initial weights came from, and how long they were trained."""
        if self._trainer is not None and self._trainer.state.fn == "fit":
            follow_run(self._trainer, checkpoint)
        self.weights = checkpoint["weights"]
        self.trained_steps = checkpoint["global_step"]
