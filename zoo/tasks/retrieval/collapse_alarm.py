"""The alarm for a contrastive training that has collapsed."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

EVERY = 10  # steps from one look to the next, so that a GPU need not wait for it
STEPS = 100  # on end for which the loss must lie there
TOLERANCE = 0.005  # how near counts, as a share of the loss of guessing


class CollapseAlarm(Callback):
    """An alarm for a ``train/loss`` that sits where equal embeddings put it: at ln(batch), or less where ids repeat.

    It rings once, and looks at every tenth step.
    """

    def __init__(self) -> None:
        self.guessing = torch.tensor(0.0)
        self.stuck = 0
        self.warned = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Compute the loss of guessing, while the loss's own parameters are those of the step."""
        if batch_idx % EVERY == 0:
            task: Any = pl_module
            self.guessing = task.collapsed_loss(batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the step's loss with that of guessing."""
        if batch_idx % EVERY:
            return
        loss = outputs["loss"].item() * trainer.accumulate_grad_batches
        guessing = self.guessing.item()
        self.stuck = self.stuck + EVERY if abs(loss - guessing) <= TOLERANCE * guessing else 0
        if self.stuck >= STEPS and not self.warned:
            self.warned = True
            rank_zero_warn(
                f"train/loss has been {loss:.3f}, about ln(batch), for {STEPS} steps: the embeddings have "
                f"collapsed. Lower model.learning_rate ({pl_module.hparams['learning_rate']}), lengthen "
                f"model.optimizer.warmup_steps ({pl_module.hparams['optimizer'].warmup_steps}), or start from "
                "pretrained weights.",
                category=RuntimeWarning,
            )
