"""All queries and images of a training, embedded once each and not augmented, on all processes."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from zoo.core.collected import CollectedRows

QUIET = 60.0  # seconds between two lines about how far it has come


def embed_training(
    trainer: L.Trainer,
    model: Any,
    loaders: Sequence[Iterable[Any]],
    query_ids: np.ndarray,
    image_ids: np.ndarray,
    *,
    who: str,
) -> tuple[Tensor, Tensor]:
    """Embed queries ``[Q, D]`` and images ``[M, D]``, in the order of their ids; float32, the same on every process.

    Args:
        trainer: Says the precision and how many processes there are; all of them call this together.
        model: Has ``encode_text`` and ``encode_image``, and is on the device.
        loaders: As of ``RetrievalData.training_loaders``.
        query_ids: ``[Q]`` ids, each once.
        image_ids: ``[M]`` ids, each once.
        who: Who says how far it has come.
    """
    sides = [CollectedRows(ids.tolist(), ["embedding"]).to(model.device) for ids in (query_ids, image_ids)]
    told = time.perf_counter()
    with isolate_rng(), _evaluating(model), torch.no_grad(), trainer.precision_plugin.forward_context():
        for what, side, loader in zip(("queries", "images"), sides, loaders, strict=True):
            for number, batch in enumerate(loader, start=1):
                if "text" in batch:
                    side.update(batch["query_id"], embedding=model.encode_text(batch["text"]))
                else:
                    images = batch["image"].to(model.device, non_blocking=True)
                    side.update(batch["image_id"], embedding=model.encode_image(images))
                if trainer.is_global_zero and time.perf_counter() - told > QUIET:
                    told = time.perf_counter()
                    print(f"{who}: embedding {what}, batch {number:,} of {len(loader):,}")  # type: ignore[arg-type]
    queries, images = (side.gathered()[1]["embedding"].float() for side in sides)
    return queries, images


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Keep a module in evaluation mode; afterwards each part has its own again."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
