"""A callback for test_dalle.py, imported by the processes that it starts."""

import torch
from lightning.pytorch.callbacks import Callback


class SaveWeights(Callback):
    """Saves each process's weights at the end of training, as ``PATH-RANK.pt``."""

    def __init__(self, path: str):
        self.path = path

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), f"{self.path}-{trainer.global_rank}.pt")
