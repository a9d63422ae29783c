"""Towers that are sharded over the processes (FSDP2), for those that one GPU cannot hold and train."""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from zoo.core.contracts import asked
from zoo.errors import UserError


class ShardedStrategy(ModelParallelStrategy):
    """Each process keeps its part of the towers' weights, gradients and optimiser state; checkpoints are plain files.

    In place of Lightning's reading of a checkpoint, each process reads it and takes its part. Lightning has the first
    process broadcast it, by a function of PyTorch 2.15 that overlooks strides: the channels-last weights of a
    convolution came out of order on the others.
    """

    restore_checkpoint_after_setup = False  # as with DDP: before the optimiser is configured, which starts the loader
    lightning_restore_optimizer = True
    load_checkpoint = Strategy.load_checkpoint

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Start the processes; all of them share."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: L.Trainer) -> None:
        """Set up a task that ``shard_towers`` has sharded.

        Raises:
            UserError: The task is of another kind.
        """
        if not is_overridden("configure_model", self.lightning_module):
            name = type(self.lightning_module).__name__
            raise UserError(f"trainer.strategy: {name} cannot be sharded; RetrievalTask can. Leave the strategy out.")
        super().setup(trainer)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's part of a checkpoint's weights."""
        task: Any = self.lightning_module
        own = task.state_dict()
        weights = checkpoint["state_dict"].items()
        state = {name: _part(value, own[name]) if name in own else value for name, value in weights}
        task.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of a checkpoint's optimiser states, which know parameters by their places."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            places = [place for group in state["param_groups"] for place in group["params"]]
            parts = {
                place: {name: _part(value, parameter) for name, value in state["state"][place].items()}
                for place, parameter in zip(places, own, strict=True)
                if place in state["state"]
            }
            optimizer.load_state_dict({**state, "state": parts})


def _part(value: Any, own: Tensor) -> Any:
    """What of a checkpoint's value belongs here: the part of a tensor that is sharded as this one is, or all."""
    if not isinstance(own, DTensor) or value.shape != own.shape:  # AdamW's count of steps is shared by nobody
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def is_sharded(task: L.LightningModule) -> bool:
    """Whether the trainer's strategy is ``ShardedStrategy``.

    Raises:
        UserError: It is Lightning's own of this kind.
    """
    trainer = task._trainer  # there is none where load_from_checkpoint configures the model
    strategy = None if trainer is None else trainer.strategy
    if isinstance(strategy, ModelParallelStrategy) and not isinstance(strategy, ShardedStrategy):
        raise UserError(
            f"trainer.strategy: {type(strategy).__name__} came; use zoo.core.sharding.ShardedStrategy"
            " (experiments/_overlays/fsdp.yaml)."
        )
    return isinstance(strategy, ShardedStrategy)


def shard_towers(task: L.LightningModule, towers: Iterable[tuple[str, nn.Module]]) -> None:
    """Shard a task's towers, where the trainer's strategy asks for it.

    In training a process gathers each block while it computes it. In evaluation, of which the processes may have
    different numbers of batches, it gathers a tower at its first batch and keeps it until training goes on. What is
    outside the towers or not contiguous all keep whole: ``average_gradients`` it.

    Args:
        task: It has a trainer, or is left as it is.
        towers: Its towers, each with its side: ``image`` or ``text``.

    Raises:
        UserError: A tower has no blocks.
    """
    if not is_sharded(task):
        return
    mesh: Any = task.device_mesh
    half = task.trainer.precision == "bf16-mixed"  # then weights travel in 16 bits, and gradients are summed in 32
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else MixedPrecisionPolicy()
    )
    for side, tower in towers:
        blocks = list(asked(tower, "blocks", f"{side}_tower")())
        if not blocks:
            raise UserError(
                f"{side}_tower: it has no blocks to share out. Name a transformer, or set trainer.strategy ddp."
            )
        whole = {parameter for parameter in tower.parameters() if not parameter.is_contiguous()}
        for part in (*blocks, tower):
            fully_shard(part, mesh=mesh["data_parallel"], mp_policy=policy, ignored_params=whole)
        tower.register_forward_pre_hook(_keep_in_evaluation, prepend=True)


def _keep_in_evaluation(tower: Any, _: Any) -> None:
    tower.set_reshard_after_forward(tower.training)


def average_gradients(task: L.LightningModule) -> None:
    """Average over the processes the gradients of what all keep whole, as FSDP does those of what is sharded."""
    for parameter in task.parameters():
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


def clip_gradients(task: L.LightningModule, largest: float, algorithm: str) -> None:
    """Clip the gradients as a whole; torch's functions take those that are sharded or the others, not both.

    Args:
        task: Its gradients are changed.
        largest: The norm of all of them, or the value of each, that is left.
        algorithm: ``norm`` or ``value``.
    """
    kinds = _kinds(task.parameters())
    if algorithm == "value":
        for kind in kinds:
            clip_grad_value_(kind, largest)
        return
    norm = gradient_norm(task.parameters())
    for kind in kinds:
        clip_grads_with_norm_(kind, largest, norm)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Compute the norm of all gradients of parameters, sharded or not; on all processes together where some are."""
    norms = [get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in _kinds(parameters)]
    if not norms:
        return torch.zeros(())
    return torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()


def _kinds(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Part the parameters that have gradients, not those of a frozen tower, into sharded ones and others."""
    having = [parameter for parameter in parameters if parameter.grad is not None]
    kinds = [[p for p in having if isinstance(p, DTensor) == shared] for shared in (True, False)]
    return [kind for kind in kinds if kind]
