"""Learning from a teacher: its embeddings of the training queries and images, computed once and kept on disk.

A student learns to find each image as near to the training queries as the teacher does, and each query to the images:
the distribution over the other side's embeddings, which are the teacher's (SEED, Fang et al. 2021, arXiv:2101.04731).
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
from torch.nn.functional import kl_div, normalize, pad

from zoo.core.checkpoint import load
from zoo.core.options import plain
from zoo.core.weights import read_torch, weights_hash
from zoo.data.images import resize
from zoo.errors import UserError, invalid
from zoo.io import atomic_write, cache_folder
from zoo.tasks.retrieval.contracts import PairBatch, RetrievalData
from zoo.tasks.retrieval.embedding import embed_training

KEYS = 8192  # embeddings of the other side that each is held against at a step, drawn anew where there are more


@dataclass(frozen=True)
class DistillationOptions:
    """Whether the task also learns to embed as a teacher does.

    Args:
        teacher: A checkpoint, a run or published weights of retrieval; null: none.
        weight: Factor of the divergence from the teacher in nats, above 0.

    Raises:
        UserError: A number is out of its range.
    """

    teacher: str | None = None
    weight: float = 1.0

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
        scale: What the teacher's own loss multiplies cosines by.
        axes: ``[T, D]``, what brought its T dimensions to D; None: they were as many, or fewer.
    """

    def __init__(
        self,
        query_ids: np.ndarray,
        queries: Tensor,
        image_ids: np.ndarray,
        images: Tensor,
        *,
        scale: float,
        axes: Tensor | None = None,
    ) -> None:
        self.query_ids, self.image_ids = (torch.from_numpy(ids).to(queries.device) for ids in (query_ids, image_ids))
        self.queries, self.images = queries, images
        self.scale, self.axes = scale, axes

    def of(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Give the embeddings of a batch's images and queries: ``[B, D]`` each."""
        images = self.images[torch.searchsorted(self.image_ids, batch["image_id"])]
        return images, self.queries[torch.searchsorted(self.query_ids, batch["query_id"])]

    def loss(self, images: Tensor, texts: Tensor, batch: PairBatch) -> Tensor:
        """Compute how far a student's embeddings ``[B, D]`` of a batch are from these: the mean of both sides."""
        own_images, own_texts = self.of(batch)
        both = (
            divergence(images, own_images, _some(self.queries), self.scale),
            divergence(texts, own_texts, _some(self.images), self.scale),
        )
        return torch.stack(both).mean()


def divergence(student: Tensor, teacher: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Compute how far a student's distribution over keys is from a teacher's (Kullback and Leibler's divergence).

    Args:
        student: ``[B, D]`` unit vectors.
        teacher: ``[B, D]`` unit vectors.
        keys: ``[K, D]`` unit vectors.
        scale: What cosines are multiplied by.

    Returns:
        Scalar float32, in nats, at least 0: the mean over the B.
    """
    with torch.autocast(student.device.type, enabled=False):
        own, wanted = ((scale * side.float() @ keys.T).log_softmax(dim=-1) for side in (student, teacher))
        return kl_div(own, wanted, reduction="batchmean", log_target=True)


def _some(keys: Tensor) -> Tensor:
    return keys if len(keys) <= KEYS else keys[torch.randint(len(keys), (KEYS,), device=keys.device)]


def teacher_embeddings(trainer: L.Trainer, source: str, width: int, axes: Tensor | None = None) -> TeacherEmbeddings:
    """Give a teacher's embeddings of all that is trained on; from the cache where they are there.

    Args:
        trainer: Of the training; all processes call this together.
        source: The teacher, as of ``zoo.load``.
        width: How wide the embeddings are to be; see ``with_width``.
        axes: Those that a training began with, which goes on.

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
    prepare = getattr(teacher, "prepare_image", None) or partial(resize, size=teacher.image_size)
    query_ids, image_ids = (np.unique(column) for column in data.training_pairs().T)
    key = json.dumps([_computation(teacher, prepare), str(trainer.precision), data.training_files()], default=str)
    path = cache_folder() / "teachers" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.pt"
    if not trainer.strategy.reduce_boolean_decision(path.is_file(), all=True):
        loaders = data.training_loaders(prepare)
        embedded = embed_training(trainer, teacher.to(device), loaders, query_ids, image_ids, who="The teacher")
        if trainer.is_global_zero:
            _write(path, *embedded)
        trainer.strategy.barrier()
    queries, images = (side.to(device).float() for side in read_torch(path))  # as a run that goes on reads them
    queries, images, axes = with_width(queries, images, width, axes)
    return TeacherEmbeddings(
        query_ids, queries, image_ids, images, scale=float(teacher.loss.logit_scale.exp()), axes=axes
    )


def _computation(teacher: Any, prepare: Any) -> list[Any]:
    """What tells a teacher from others, also from one of the same weights that prepares or computes otherwise."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    square = prepare(coarse.repeat(40, axis=0).repeat(40, axis=1))  # [200, 320, 3]: how it is cut counts too
    with torch.no_grad():
        image = teacher.encode_image(torch.from_numpy(square).permute(2, 0, 1)[None])
        text = teacher.encode_text(["红色连衣裙，“大码”显瘦 １００％ Cotton " * 8])
    probes = [[round(value, 2) for value in side[0].tolist()] for side in (image, text)]  # as any processor rounds
    return [weights_hash(teacher), plain(dict(teacher.hparams)), list(square.shape), *probes]


def _write(path: Path, queries: Tensor, images: Tensor) -> None:
    with atomic_write(path) as temporary:
        torch.save((queries.half().cpu(), images.half().cpu()), temporary)


def with_width(
    queries: Tensor, images: Tensor, width: int, axes: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bring embeddings to a width: zeros behind them, or their principal components, which keep most of the cosines.

    Args:
        queries: ``[Q, T]`` unit vectors.
        images: ``[M, T]`` unit vectors.
        width: The width D.
        axes: ``[T, D]``, the components; None: those of these embeddings.

    Returns:
        Unit vectors ``[Q, D]`` and ``[M, D]``, and the axes, None where there are no more dimensions than wanted.
    """
    missing = width - queries.shape[1]
    if missing >= 0:
        return pad(queries, (0, missing)), pad(images, (0, missing)), None
    if axes is None:
        moments = sum(side.T.double() @ side.double() / len(side) for side in (queries, images))
        axes = torch.linalg.eigh(moments).eigenvectors[:, -width:].float()  # of the largest moments
    axes = axes.to(queries.device)
    return normalize(queries @ axes, dim=-1), normalize(images @ axes, dim=-1), axes
