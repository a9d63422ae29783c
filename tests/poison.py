"""A callback for test_divergence.py: makes a number of a training not finite."""

import json
import os
import signal
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback


class Poison(Callback):
    """Poisons what ``$POISON`` names, at the steps and on the ranks that it names; then may end the training.

    What: loss, gradient, weights, discriminator or averages (EMA's). Then: go, raise or term. A training that was
    restored after one of the steps is poisoned at the next alone.
    """

    def __init__(self):
        self.what, steps, ranks, self.then = os.environ["POISON"].split()
        self.steps = [int(step) for step in steps.split(",")]
        self.here = ranks in ("all", os.environ.get("LOCAL_RANK", "0"))

    @property
    def step(self):
        divergences = Path(os.environ["ZOO_RUN"], "divergences.json")
        past = len(json.loads(divergences.read_text())) if divergences.is_file() else 0
        return [*self.steps, 0][past]

    def now(self, trainer, what, after=0):
        return self.here and self.what == what and trainer.global_step == self.step - 1 + after

    def on_before_backward(self, trainer, pl_module, loss):
        if self.now(trainer, "loss"):
            loss.data.fill_(torch.nan)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if self.now(trainer, "gradient"):
            optimizer.param_groups[0]["params"][0].grad.fill_(torch.inf)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if not self.here or trainer.global_step != self.step:
            return
        if self.what == "averages":
            (ema,) = (each for each in trainer.callbacks if hasattr(each, "averages"))
            next(iter(ema.averages.values())).fill_(torch.nan)
        if self.what in ("weights", "discriminator"):
            module = pl_module.discriminator if self.what == "discriminator" else pl_module
            *_, last = (parameter for parameter in module.parameters() if parameter.requires_grad)
            last.data.fill_(torch.nan)
        if self.then == "raise":
            raise ArithmeticError("for what it was given")
        if self.then == "term":
            os.kill(os.getpid(), signal.SIGTERM)
