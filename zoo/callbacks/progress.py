"""The progress bar."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

EVERY = 0.5  # seconds between two looks at the numbers behind the bar


class RunProgressBar(RichProgressBar):
    """Lightning's rich progress bar, with the loss and without the run's time of birth."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1, leave=False)
        self._shown = -EVERY

    def _update_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if time.monotonic() - self._shown > EVERY:  # reading them waits for a GPU
            super()._update_metrics(trainer, pl_module)
            self._shown = time.monotonic()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Give what stands behind the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
