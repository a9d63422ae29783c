"""The base of every task's submission: whole or not at all, on any number of processes."""

from pathlib import Path
from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.callbacks import Callback

from zoo.core.evaluation import data_module
from zoo.errors import UserError


class Submission(Callback):
    """Writes the submission of the data module's ``predict_split`` to ``predictions/`` in the run, when predicting."""

    rows: ClassVar[str]  # what a submission needs every one of, in words

    def begin(self, trainer: L.Trainer, task: Any, data: Any) -> None:
        """Start empty; raise UserError where nothing can become a submission."""
        raise NotImplementedError

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty; refuse what cannot become a submission.

        Raises:
            UserError: Not every row is predicted.
        """
        loaders: Any = trainer.predict_dataloaders
        loaders = loaders if isinstance(loaders, list) else [loaders]
        if list(trainer.num_predict_batches) != [len(loader) for loader in loaders]:
            raise UserError(f"trainer.limit_predict_batches is set: a submission needs every {self.rows}; drop it")
        self.begin(trainer, pl_module, data_module(trainer, self))

    def path(self, trainer: L.Trainer, name: str) -> Path:
        """Give the path of a file in ``predictions/``."""
        return Path(trainer.default_root_dir) / "predictions" / name
