"""An exponential moving average of the weights, by which generators are evaluated and used."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from zoo.core.divergence import diverged, largest
from zoo.errors import UserError


class EMA(Callback):
    """Averages the trainable parameters over the steps, and puts the averages in for every evaluation.

    Validation, test, prediction and ``zoo.load`` see the averages; training, the optimiser and a checkpoint's
    ``state_dict`` the raw weights. Frozen parameters and buffers are left alone. Before the first step there is no
    average, and the raw weights are evaluated. A resumed run continues the average.

    Args:
        decay: What an average keeps at a step, 0 to 1; less in the beginning: at most (1 + steps) / (10 + steps).

    Raises:
        UserError: ``decay`` is out of its range, or the processes share the weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"EMA: decay is {decay}: give a share from 0 to less than 1, such as 0.999")
        self.decay = decay
        self.updates = 0  # optimiser steps that the averages have taken in
        self.averages: dict[str, Tensor] = {}  # by parameter; the raw weights while the averages stand in for them
        self.swapped = False
        self._seen_step = 0

    # --- training ----------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """See that each process has the whole weights."""
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise UserError(
                f"EMA: {type(trainer.strategy).__name__} shares the weights out, and it averages whole ones. Leave the"
                " callback out, or set trainer.strategy ddp."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See where the run stands."""
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in an optimiser step; a batch that only accumulates gradients is none."""
        if trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        trained = _trainable(pl_module)
        if not self.averages:
            self.averages = {name: value.detach().float().clone() for name, value in trained}
        values = [value.detach().float() for _, value in trained]
        averages = [self.averages[name].to(value.device) for name, value in trained]
        torch._foreach_lerp_(averages, values, 1 - decay)  # a few kernels in place of one each
        self.averages = {name: average for (name, _), average in zip(trained, averages, strict=True)}
        self.updates += 1

    # --- evaluation --------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the averages in."""
        self._put_in(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the raw weights back."""
        self._put_back(pl_module)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the raw weights back, before a checkpoint is written."""
        self._put_back(pl_module)

    def _put_in(self, pl_module: L.LightningModule) -> None:
        if self.updates and not self.swapped:
            self._swap(pl_module)

    def _put_back(self, pl_module: L.LightningModule) -> None:
        if self.swapped:
            self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: L.LightningModule) -> None:
        """Swap in place: optimisers and compiled code keep looking at the same memory."""
        parameters = dict(_trainable(pl_module))
        if parameters.keys() != self.averages.keys():
            raise UserError("the checkpoint's averaged weights are not of the parameters that this task trains")
        for name, value in parameters.items():
            raw = value.detach().clone()
            value.copy_(self.averages[name])
            self.averages[name] = raw.float()
        self.swapped = not self.swapped

    # --- checkpoints -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Give the averages and how many steps they have seen."""
        assert not self.swapped, "the averages stand in for the weights"
        return {"updates": self.updates, "averages": self.averages}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """See that the averages are finite, in the process that writes.

        Raises:
            DivergedError: They are not.
        """
        if trainer.is_global_zero and not largest(self.averages.values()).isfinite():
            raise diverged(pl_module, trainer.global_step)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint's averages."""
        self.updates = state_dict["updates"]
        self.averages = dict(state_dict["averages"])


def _trainable(pl_module: L.LightningModule) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in pl_module.named_parameters() if value.requires_grad]
