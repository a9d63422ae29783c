"""A callback for tests, imported by the processes that they start: ends a training in the middle."""

import os
import resource
import signal
import time
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

FULL = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 11.50 MiB is"
    " free."
)


ROOM = 200_000  # bytes: enough for what is printed and logged, too few for a checkpoint


def write_half(contents, file):
    """In the place of torch.save."""
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


class Interrupt(Callback):
    """Ends it as ``$INTERRUPT`` says: how, where, at which step, on which ranks.

    How: kill, term, int, raise, memory (a GPU's is full), alone (the first rank raises, the others hang), disk (it is
    full from there on), write (a kill amid the writing of the next checkpoint).
    Where: forward, second (the second backward pass of a step), end, validation.
    """

    def __init__(self):
        how, self.where, step, ranks = os.environ.get("INTERRUPT", "never never -1 none").split()
        self.how = how
        self.step = int(step)
        self.here = ranks in ("all", os.environ.get("LOCAL_RANK", "0"))
        self.backward = 0  # passes of the step

    def interrupt(self, trainer, where):
        if not self.here or where != self.where or trainer.sanity_checking or trainer.global_step != self.step:
            return
        self.here = False
        if self.how == "alone" and trainer.global_rank > 0:
            Path("hanging").write_text(str(os.getpid()))
            time.sleep(600)
        if self.how in ("raise", "alone"):
            raise ArithmeticError("interrupted")
        if self.how == "memory":
            raise torch.OutOfMemoryError(FULL)
        if self.how == "disk":  # a limit on file sizes stands for it: what fails is the same write
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
            return
        if self.how == "write":
            torch.save = write_half
            return
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}[self.how])

    def on_before_backward(self, trainer, pl_module, loss):
        self.backward += 1
        self.interrupt(trainer, "forward" if self.backward == 1 else "second")  # of a task with two optimisers

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.backward = 0
        self.interrupt(trainer, "end")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.interrupt(trainer, "validation")
