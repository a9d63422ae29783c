"""Learning from a teacher: its embeddings of the training queries and images, computed once and kept on disk.

Source: feature distillation of CLIP-KD (Yang et al. 2023, arXiv:2307.12732).
"""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from zoo.core.checkpoint import load
from zoo.core.weights import read_torch, weights_hash
from zoo.data.images import resize
from zoo.errors import UserError, invalid
from zoo.io import atomic_write, cache_folder
from zoo.tasks.retrieval.contracts import PairBatch, RetrievalData
from zoo.tasks.retrieval.embedding import embed_training


@dataclass(frozen=True)
class DistillationOptions:
    """Whether the task also learns to embed as a teacher does.

    Args:
        teacher: The teacher: a retrieval checkpoint, a run's folder, or published weights. It embeds the training
            queries and images once, not augmented; the embeddings are kept in the cache. null: there is none.
        weight: What ``1 - cosine`` with the teacher's embeddings, mean of both sides, is multiplied by before it is
            added to the loss; above 0.

    Raises:
        UserError: A number is out of its range.
    """

    teacher: str | None = None
    weight: float = 10.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise invalid("model.distillation.weight", self.weight, "give a number above 0; without a teacher none is")

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect beside the others, and say why."""
        return {} if self.teacher else {"weight": "there is no teacher"}


class TeacherEmbeddings:
    """A teacher's embeddings of all training queries and images, found by their ids.

    Args:
        query_ids: ``[Q]`` ids, rising.
        queries: ``[Q, D]`` unit vectors.
        image_ids: ``[M]`` ids, rising.
        images: ``[M, D]`` unit vectors, on the same device.
    """

    def __init__(self, query_ids: np.ndarray, queries: Tensor, image_ids: np.ndarray, images: Tensor) -> None:
        device = queries.device
        self.query_ids, self.image_ids = (torch.from_numpy(ids).to(device) for ids in (query_ids, image_ids))
        self.queries, self.images = queries, images

    def of(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Give the embeddings of a batch's images and queries: ``[B, D]`` each."""
        images = self.images[torch.searchsorted(self.image_ids, batch["image_id"])]
        return images, self.queries[torch.searchsorted(self.query_ids, batch["query_id"])]


def teacher_embeddings(trainer: L.Trainer, source: str, width: int) -> TeacherEmbeddings:
    """Give a teacher's embeddings of all that is trained on; from the cache where they are there.

    Args:
        trainer: Of the training; all processes call this together.
        source: The teacher, as of ``zoo.load``.
        width: How wide the embeddings are to be; see ``with_width``.

    Raises:
        UserError: The teacher cannot be loaded or embeds nothing, or the trainer has no data module of retrieval.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, RetrievalData):
        raise UserError("model.distillation.teacher: give the trainer a RetrievalDataModule, datamodule=…")
    try:
        teacher: Any = load(source)
    except UserError as error:
        raise UserError(f"model.distillation.teacher {error}") from None
    if not hasattr(teacher, "encode_text"):
        raise UserError(f"model.distillation.teacher {source}: it is of {type(teacher).__name__}, which embeds nothing")
    device = trainer.strategy.root_device
    query_ids, image_ids = (np.unique(column) for column in data.training_pairs().T)
    key = json.dumps([weights_hash(teacher), str(trainer.precision), data.training_files()])
    path = cache_folder() / "teachers" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.pt"
    if trainer.strategy.reduce_boolean_decision(path.is_file(), all=True):
        queries, images = (side.to(device).float() for side in read_torch(path))
    else:
        prepare = getattr(teacher, "prepare_image", None) or partial(resize, size=teacher.image_size)
        loaders = data.training_loaders(prepare)
        queries, images = embed_training(trainer, teacher.to(device), loaders, query_ids, image_ids, who="The teacher")
        if trainer.is_global_zero:
            _write(path, queries, images)
    queries, images = with_width(queries, images, width)
    return TeacherEmbeddings(query_ids, queries, image_ids, images)


def _write(path: Path, queries: Tensor, images: Tensor) -> None:
    with atomic_write(path) as temporary:
        torch.save((queries.half().cpu(), images.half().cpu()), temporary)


def with_width(queries: Tensor, images: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Bring embeddings to a width: zeros behind them, or their principal components, which keep most of the cosines.

    Args:
        queries: ``[Q, D]`` unit vectors.
        images: ``[M, D]`` unit vectors.
        width: The width.

    Returns:
        Unit vectors ``[Q, width]`` and ``[M, width]``.
    """
    missing = width - queries.shape[1]
    if missing >= 0:
        return pad(queries, (0, missing)), pad(images, (0, missing))
    moments = queries.T.double() @ queries.double() / len(queries) + images.T.double() @ images.double() / len(images)
    axes = torch.linalg.eigh(moments).eigenvectors[:, -width:].float()  # [D, width]: of the largest moments
    return normalize(queries @ axes, dim=-1), normalize(images @ axes, dim=-1)


def distillation_loss(images: Tensor, texts: Tensor, teacher_images: Tensor, teacher_texts: Tensor) -> Tensor:
    """Compute ``1 - cosine`` with a teacher's embeddings, the mean of both sides; all unit vectors ``[B, D]``."""
    return 1 - ((images * teacher_images).sum(dim=-1).mean() + (texts * teacher_texts).sum(dim=-1).mean()) / 2
