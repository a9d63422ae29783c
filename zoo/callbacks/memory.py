"""A batch that the machine's memory holds, where the processor trains."""

import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.core.hardware import available_memory
from zoo.errors import UserError

SHARE = 0.8  # of the free memory that a training may take
PEAK = 1.3  # the most that a step holds, over what it keeps for its backward pass
OPTIMIZER = 12  # bytes a weight: its gradient and AdamW's two averages, fp32


class FitBatchToMemory(Callback):
    """On a CPU, lowers the data's ``batch_size`` to what the free memory holds, and says so; a GPU's is left alone.

    What a pair takes is measured: what the two towers keep for the backward pass of two and of four pairs of the
    longest texts. The learning rate stays as it is. The run's ``config.yaml`` holds the batch size that was trained
    with, so that a run that resumes keeps it.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Measure, and lower ``batch_size``, before the loader is built."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        free = available_memory()
        if stage != "fit" or trainer.strategy.root_device.type != "cpu" or free is None:
            return
        two, four = (self._kept(trainer, pl_module, pairs) for pairs in (2, 4))
        pair, rest = (four - two) / 2, 2 * two - four
        weights = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        room = SHARE * free / trainer.num_devices - OPTIMIZER * weights - rest
        fits = trainer.strategy.broadcast(int(room / (PEAK * pair)))
        said = (
            f"a pair takes {pair / 1e6:.0f} MB and {free / 1e9:.1f} GB are free for {trainer.num_devices} process(es)"
        )
        if fits < 1:
            raise UserError(f"the memory does not hold a batch of one: {said}. Take smaller towers or a larger machine")
        if fits < data.batch_size:
            smaller = fits // 8 * 8 or fits
            if trainer.is_global_zero:
                print(
                    f"data.batch_size {data.batch_size} does not fit: {said}. Training with {smaller}", file=sys.stderr
                )
            data.batch_size = smaller

    def _kept(self, trainer: L.Trainer, task: Any, pairs: int) -> int:
        """Bytes that a training step of so many pairs keeps for its backward pass, weights left out."""
        weights = {parameter.untyped_storage().data_ptr() for parameter in task.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = torch.zeros(pairs, 3, task.image_size, task.image_size, dtype=torch.uint8)
        texts = ["字" * task.text_tower.context_length] * pairs
        buffers = [buffer.clone() for buffer in task.buffers()]  # batch norm would remember these images
        task.train()
        with trainer.precision_plugin.forward_context(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            embeddings = task.encode_image(images), task.encode_text(texts)  # alive: so are the tensors they keep
        del embeddings
        for buffer, value in zip(task.buffers(), buffers, strict=True):
            buffer.copy_(value)
        return sum(kept.values())
