"""What the training steps of all tasks share."""

import os
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from zoo.core.optim import parameter_groups, warmup_cosine
from zoo.errors import UserError


def seed_step(task: L.LightningModule) -> None:
    """Make torch's noise a function of seed, process and step, so that a resumed run repeats an uninterrupted one."""
    progress: Any = task.trainer.fit_loop.epoch_loop.batch_progress.total
    seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
    torch.manual_seed((seed * 1_000_003 + progress.processed) * 4_096 + task.global_rank)


def adamw_warmup_cosine(
    task: L.LightningModule, rates: Mapping[nn.Parameter, float] | None = None
) -> OptimizerLRScheduler:
    """AdamW over decayed and undecayed parameters; warm-up, then cosine to zero, a step at a time.

    Args:
        task: Its hyper-parameters are ``learning_rate``, ``weight_decay``, ``betas``, ``eps`` and ``warmup_steps``.
        rates: The peak learning rate of parameters that have one of their own.
    """
    optimizer = adamw(task, task.hparams, rates)
    scheduler = warmup_cosine(optimizer, task.hparams["warmup_steps"], int(task.trainer.estimated_stepping_batches))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def adamw(
    module: nn.Module, options: Mapping[str, Any], rates: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.AdamW:
    """AdamW over a module's decayed and undecayed parameters.

    Args:
        module: Whose parameters.
        options: ``learning_rate``, ``weight_decay``, ``betas`` and ``eps``.
        rates: As of ``adamw_warmup_cosine``.

    Raises:
        UserError: The learning rate is negative.
    """
    if options["learning_rate"] < 0:
        raise UserError(f"learning_rate: {options['learning_rate']} came; use 0 or more.")
    return torch.optim.AdamW(
        parameter_groups(module, options["weight_decay"], rates),
        lr=options["learning_rate"],
        betas=options["betas"],
        eps=options["eps"],
    )
