"""The softmax contrastive loss of CLIP, aware of rows that are not each other's negatives. Pure functions, in fp32.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", figure 3.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's upper bound of the learned parameter, which is the logarithm of ``clip_loss``'s factor."""


def clip_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    *,
    image_ids: Tensor | None = None,
    query_ids: Tensor | None = None,
    text_to_image_weight: float = 0.5,
) -> Tensor:
    """The weighted mean of picture-to-text and text-to-picture cross-entropy over a batch of pairs.

    Two rows that share a picture or a query are not each other's negatives: their logits are left out of both sums. In
    a batch where no id repeats this is the plain loss.

    Args:
        image_embeddings: ``[B, D]`` unit vectors, any floating type; row i belongs to row i of the texts.
        text_embeddings: ``[B, D]`` unit vectors.
        logit_scale: Scalar that multiplies the cosines, already exponentiated, 1-100.
        image_ids: ``[B]`` integers, the picture of each row; ``None`` when all pictures differ.
        query_ids: ``[B]`` integers, the query of each row; ``None`` when all queries differ.
        text_to_image_weight: Share of the text-to-picture direction, in [0, 1]; CLIP's is one half.

    Returns:
        Scalar float32, in nats, at least 0; ``collapse_loss`` when all embeddings are the same.

    Raises:
        ValueError: The shapes are others.
    """
    if image_embeddings.ndim != 2 or image_embeddings.shape != text_embeddings.shape:
        shapes = f"{list(image_embeddings.shape)} and {list(text_embeddings.shape)}"
        raise ValueError(f"image and text embeddings are {shapes}; both must be [B, D].")
    with torch.autocast(image_embeddings.device.type, enabled=False):
        logits = logit_scale.float() * (image_embeddings.float() @ text_embeddings.float().T)  # [B, B]
        logits = logits.masked_fill(~negatives_or_self(len(logits), logits.device, image_ids, query_ids), -torch.inf)
        targets = torch.arange(len(logits), device=logits.device)
        image_to_text, text_to_image = F.cross_entropy(logits, targets), F.cross_entropy(logits.T, targets)
        return torch.lerp(image_to_text, text_to_image, text_to_image_weight)


def collapse_loss(batch_size: int, *, image_ids: Tensor | None = None, query_ids: Tensor | None = None) -> Tensor:
    """What ``clip_loss`` gives when every embedding is the same: the value that a collapsed training sits at.

    Args:
        batch_size: Pairs in the batch that the loss sees, over all processes.
        image_ids: ``[B]``, as given to ``clip_loss``.
        query_ids: ``[B]``, as given to ``clip_loss``.

    Returns:
        Scalar float32, in nats: ``ln(batch_size)`` when no id repeats, less where rows leave each other out.
    """
    ids = image_ids if image_ids is not None else query_ids
    device = torch.device("cpu") if ids is None else ids.device
    return negatives_or_self(batch_size, device, image_ids, query_ids).sum(dim=1).float().log().mean()


def negatives_or_self(
    batch_size: int, device: torch.device, image_ids: Tensor | None, query_ids: Tensor | None
) -> Tensor:
    """Which pairs of rows enter the loss: ``[B, B] bool``, true on the diagonal and where neither id is shared."""
    shared = torch.zeros(batch_size, batch_size, dtype=torch.bool, device=device)
    for name, ids in (("image_ids", image_ids), ("query_ids", query_ids)):
        if ids is not None:
            if ids.shape != (batch_size,):
                raise ValueError(f"{name} has shape {list(ids.shape)}; it must be [{batch_size}], one id a row.")
            shared |= ids[:, None] == ids
    return ~shared | torch.eye(batch_size, dtype=torch.bool, device=device)
