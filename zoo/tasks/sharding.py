"""Towers whose blocks are shared out over the processes (FSDP2), for those that one GPU cannot hold and train."""

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch.distributed
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from zoo.tasks.finetuning import asked


def shard_blocks(task: L.LightningModule, towers: Iterable[tuple[str, nn.Module]]) -> None:
    """Share out the blocks of a task's towers, where the trainer's strategy is ``ModelParallelStrategy``.

    Each process keeps its part of a block's weights, gradients and optimiser state, and gathers the whole block while
    it computes it. What is no block, a twentieth of a large tower, is kept whole by all: ``average_gradients`` it.

    Raises:
        UserError: A tower has no blocks.
    """
    if not is_sharded(task):
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh: Any = task.device_mesh
    for side, tower in towers:
        for block in asked(tower, "blocks", f"{side}_tower under ModelParallelStrategy")():
            if not isinstance(block, FSDPModule):
                fully_shard(block, mesh=mesh["data_parallel"])


def average_gradients(task: L.LightningModule) -> None:
    """Average over the processes the gradients of what all keep whole; DDP would, FSDP does so of the blocks alone."""
    from torch.distributed.tensor import DTensor

    for parameter in task.parameters():
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


def is_sharded(task: L.LightningModule) -> bool:
    """Whether the trainer's strategy leaves it to the task how its parts lie on the processes."""
    trainer = task._trainer  # there is none where load_from_checkpoint configures the model
    return trainer is not None and isinstance(trainer.strategy, ModelParallelStrategy)
