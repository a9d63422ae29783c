"""A callback for test_exactness.py and test_dalle.py, imported by the processes that it starts."""

import torch
from lightning.pytorch.callbacks import Callback


class SaveGradients(Callback):
    """Saves the gradients of the first step, as the optimiser sees them, and the loss, if it is logged by then."""

    def __init__(self, path: str):
        self.path = path

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = {name: parameter.grad for name, parameter in pl_module.named_parameters()}
        if trainer.is_global_zero:
            loss = float(trainer.callback_metrics.get("train/loss", "nan"))
            torch.save({"gradients": gradients, "loss": loss}, self.path)
