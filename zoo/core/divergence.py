"""A training that diverges stops, in one line, before anything of it is written over what is good."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from zoo.core.checkpoint import read_checkpoint
from zoo.core.optim import OptimizerOptions
from zoo.errors import UserError

NEVER = 2**62


@dataclass(frozen=True)
class GoodCheckpoint:
    """A checkpoint of which all weights are finite, and the optimiser steps behind it."""

    path: Path
    step: int


class DivergedError(UserError):
    """A loss, gradient or weight is not finite.

    Args:
        what: Where it began.
        advice: Which checkpoint is good, what to change.
        step: The first bad step, from 1.
        good: The newest good checkpoint of the training; None: it has none.
        options: The training's.
    """

    def __init__(
        self, what: str, advice: str, *, step: int, good: GoodCheckpoint | None, options: OptimizerOptions
    ) -> None:
        super().__init__(f"{what}. {advice}")
        self.what = what
        self.step = step
        self.good = good
        self.options = options


class FirstBadStep:
    """The first step at which a number was not finite, kept where the numbers are: to note it waits for no GPU."""

    def __init__(self) -> None:
        self.first: Tensor | None = None

    def note(self, number: Tensor, step: int) -> None:
        """Take in a scalar of a step, from 1."""
        number = number.detach()
        if self.first is None:
            self.first = torch.full((), NEVER, device=number.device)
        good = number.isfinite().to(self.first.device) | (self.first != NEVER)
        self.first = torch.where(good, self.first, step)

    def read(self, processes: int = 1) -> int | None:
        """Wait for it; None: all was finite.

        Args:
            processes: Of how many to read it, which then call this together; 1: of this one alone.
        """
        if self.first is None:
            return None
        if processes > 1:
            torch.distributed.all_reduce(self.first, op=torch.distributed.ReduceOp.MIN)
        first = int(self.first)
        return None if first == NEVER else first


def largest(tensors: Iterable[Tensor]) -> Tensor:
    """Compute the largest absolute value in all tensors, of sharded ones here: not finite where one of them is not."""
    here = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    here = [tensor.detach() for tensor in here if tensor.is_floating_point() and tensor.numel()]
    norms = [norm.float() for norm in torch._foreach_norm(here, torch.inf)] if here else [torch.zeros(())]
    return torch.stack(norms).amax()


def diverged(task: L.LightningModule, step: int) -> DivergedError:
    """Give the error of a training that has diverged: where, which checkpoint is good, what to change.

    Args:
        task: It has a trainer.
        step: The first bad one, from 1.
    """
    trainer = task.trainer
    rate = _learning_rate(trainer, step)
    fixes = ["a smaller model.learning_rate", "more model.optimizer.warmup_steps"]
    if task.automatic_optimization and not trainer.gradient_clip_val:
        fixes.append("trainer.gradient_clip_val 1")
    if trainer.precision == "16-mixed":
        fixes.append("trainer.precision 32-true")
    good = good_checkpoint(task)
    advice = "There is no good checkpoint yet: begin anew"
    if good is not None:
        advice = f"{good.path}, of step {good.step}, is good: go on from it with --ckpt_path {good.path}"
    return DivergedError(
        f"the training has diverged: at step {step}, at learning rate {rate:.3g}, a loss, gradient or weight is not"
        " finite",
        f"{advice}. Give {', '.join(fixes[:-1])} or {fixes[-1]}",
        step=step,
        good=good,
        options=task.hparams["optimizer"],
    )


def _learning_rate(trainer: L.Trainer, step: int) -> float:
    """The largest of a step."""
    for config in trainer.lr_scheduler_configs[:1]:
        if isinstance(config.scheduler, LambdaLR):
            rates = zip(config.scheduler.base_lrs, config.scheduler.lr_lambdas, strict=True)
            return max(float(peak * factor(step - 1)) for peak, factor in rates)
    return max(float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups)


def good_checkpoint(task: L.LightningModule) -> GoodCheckpoint | None:
    """Find the newest checkpoint of a training of which all weights are finite."""
    trainer, weights = task.trainer, [name for name, _ in task.named_parameters()]
    names = ("path", "last_model_path", "best_model_path")
    found: list[Any] = [getattr(each, name, None) for each in trainer.checkpoint_callbacks for name in names]
    paths = {Path(path) for path in (*found, trainer.ckpt_path) if path}
    for path in sorted(filter(Path.is_file, paths), key=lambda path: path.stat().st_mtime, reverse=True):
        checkpoint = read_checkpoint(path)
        if largest(checkpoint["state_dict"][name] for name in weights).isfinite():
            return GoodCheckpoint(Path(os.path.relpath(path)), checkpoint["global_step"])
    return None
