"""The alarm for a contrastive training that has collapsed."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn


class CollapseAlarm(Callback):
    """Warns, once, when ``train/loss`` sits where equal embeddings put it: at ln(batch), or less where ids repeat.

    It looks at every tenth step, so that a GPU need not wait for it.

    Args:
        steps: For how many steps on end the loss must lie there.
        tolerance: How near counts, as a share of that value.
    """

    def __init__(self, steps: int = 100, tolerance: float = 0.005) -> None:
        self.steps = steps
        self.tolerance = tolerance
        self.stuck = 0
        self.warned = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the step's loss with that of guessing."""
        if batch_idx % 10:
            return
        loss = outputs["loss"].item() * trainer.accumulate_grad_batches
        guessing = outputs["collapse_loss"].item()
        self.stuck = self.stuck + 10 if abs(loss - guessing) <= self.tolerance * guessing else 0
        if self.stuck >= self.steps and not self.warned:
            self.warned = True
            rank_zero_warn(
                f"train/loss has been {loss:.3f}, about ln(batch), for {self.steps} steps: the embeddings have "
                f"collapsed. Lower model.learning_rate ({pl_module.hparams['learning_rate']}), lengthen "
                f"model.warmup_steps ({pl_module.hparams['warmup_steps']}), or start from pretrained weights.",
                category=RuntimeWarning,
            )
