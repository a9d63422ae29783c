"""Contrastive losses of pairs, aware of rows that are not each other's negatives. Pure functions, in fp32.

Both are summed in blocks of rows that are computed again on the way back, so that no ``[N, N]`` matrix is ever kept.
Sources: the softmax loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3); the sigmoid loss of SigLIP (Zhai et
al. 2023, arXiv:2303.15343).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

from zoo.errors import UserError

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's upper bound of the learned parameter, which is the logarithm of the losses' factor."""

Side = Literal["image", "text"]

BLOCK = 1024
"""Rows whose logits are computed at a time."""


def clip_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    *,
    image_ids: Tensor | None = None,
    query_ids: Tensor | None = None,
    positives: Tensor | None = None,
    text_to_image_weight: float = 0.5,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the weighted mean of image-to-text and text-to-image cross-entropy over a batch of pairs.

    Two rows that share an image or a query are not each other's negatives, nor is an image a negative of a query
    that names it: their logits are left out of the sums. Where nothing is shared this is the plain loss.

    Args:
        image_embeddings: ``[B, D]`` unit vectors, any floating type; row i belongs to row i of the texts.
        text_embeddings: ``[B, D]`` unit vectors.
        logit_scale: Scalar that multiplies the cosines, already exponentiated, 1-100.
        image_ids: ``[B]`` integers, the image of each row; ``None`` when all images differ.
        query_ids: ``[B]`` integers, the query of each row; ``None`` when all queries differ.
        positives: ``[B, P]`` integers, all images that each row's query names, -1 fills; ``None`` when its own is
            the only one. Asks for ``image_ids``.
        text_to_image_weight: Share of the text-to-image direction, in [0, 1]; CLIP's is one half.
        label_smoothing: Share of the target that is spread evenly over a row's logits, in [0, 1).

    Returns:
        Scalar float32, in nats, at least 0; ln(B) when all embeddings are the same and no id is shared.

    Raises:
        ValueError: The shapes are others.
    """
    if image_embeddings.ndim != 2 or image_embeddings.shape != text_embeddings.shape:
        shapes = f"{list(image_embeddings.shape)} and {list(text_embeddings.shape)}"
        raise ValueError(f"image and text embeddings are {shapes}; both must be [B, D].")
    entering = _entering(len(image_embeddings), image_embeddings.device, image_ids, query_ids, positives)
    with torch.autocast(image_embeddings.device.type, enabled=False):
        images, texts, scale = image_embeddings.float(), text_embeddings.float(), logit_scale.float()
        search = partial(_cross_entropy, label_smoothing=label_smoothing)
        image_to_text = _in_blocks(partial(search, entering=partial(entering, "image")), images, texts, scale)
        text_to_image = _in_blocks(partial(search, entering=partial(entering, "text")), texts, images, scale)
        return torch.lerp(image_to_text, text_to_image, text_to_image_weight)


def siglip_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    first_row: int = 0,
    image_ids: Tensor | None = None,
    query_ids: Tensor | None = None,
    positives: Tensor | None = None,
) -> Tensor:
    """Compute SigLIP's loss: whether each image and text of a batch belong together, summed over the texts.

    Of N pairs over all processes, each may hand in its own B images and all texts: the mean over processes is then
    the loss of the whole batch. What ``clip_loss`` leaves out is left out here.

    Args:
        image_embeddings: ``[B, D]`` unit vectors, any floating type: rows ``first_row`` and on of the N pairs.
        text_embeddings: ``[N, D]`` unit vectors.
        logit_scale: Scalar that multiplies the cosines, already exponentiated, 1-100; SigLIP begins at 10.
        logit_bias: Scalar that is added; SigLIP begins at -10, for most pairs do not belong together.
        first_row: Index of the first image among the N pairs.
        image_ids: ``[N]`` integers, as of ``clip_loss``.
        query_ids: ``[N]`` integers.
        positives: ``[N, P]`` integers.

    Returns:
        Scalar float32, in nats, at least 0: the mean over the B images.

    Raises:
        ValueError: The shapes are others.
    """
    if image_embeddings.ndim != 2 or image_embeddings.shape[1:] != text_embeddings.shape[1:]:
        shapes = f"{list(image_embeddings.shape)} and {list(text_embeddings.shape)}"
        raise ValueError(f"image and text embeddings are {shapes}; they must be [B, D] and [N, D].")
    if not 0 <= first_row <= len(text_embeddings) - len(image_embeddings):
        raise ValueError(f"first_row is {first_row}: {len(image_embeddings)} of {len(text_embeddings)} rows follow it.")
    entering = _entering(len(text_embeddings), image_embeddings.device, image_ids, query_ids, positives)
    with torch.autocast(image_embeddings.device.type, enabled=False):
        images, texts, scale = image_embeddings.float(), text_embeddings.float(), logit_scale.float()
        decide = partial(_sigmoids, entering=partial(entering, "image"))
        return _in_blocks(decide, images, texts, scale, logit_bias.float(), first_row=first_row)


# --- options of the losses as modules ---------------------------------------------------------------------------------


def initial_logit_scale(temperature: float, learned: bool) -> nn.Parameter:
    """Make a loss's logit scale, the logarithm of the factor of its cosines.

    Args:
        temperature: Initial temperature, in [0.01, 1].
        learned: Whether training moves it.

    Raises:
        UserError: The temperature is out of its range.
    """
    valid = "from 0.01 (a logit scale of 100) to 1"
    if not 0.01 <= temperature <= 1:
        raise UserError(
            f"temperature: {temperature} came; it is {valid}.", argument="temperature", value=temperature, valid=valid
        )
    return nn.Parameter(torch.tensor(math.log(1 / temperature)), requires_grad=learned)


def check_share(argument: str, value: float, in_range: bool, valid: str) -> None:
    """Raise UserError where an option of a loss is not in its range."""
    if not in_range:
        raise UserError(
            f"{argument}: {value} came; it is a share, {valid}.", argument=argument, value=value, valid=valid
        )


# --- blocks of rows ------------------------------------------------------------------------------------------------


def _in_blocks(loss: Callable[..., Tensor], rows: Tensor, *operands: Tensor, first_row: int = 0) -> Tensor:
    """Average, over rows ``[B, D]`` that stand at ``first_row`` and on, a loss that sums over a block of them."""
    sums = []
    for indices in _blocks(first_row, first_row + len(rows)):
        block = rows[indices.start - first_row : indices.stop - first_row]
        if len(block) == len(rows):
            sums.append(loss(indices, block, *operands))
        else:
            sums.append(checkpoint(loss, indices, block, *operands, use_reentrant=False))
    return torch.stack(sums).sum() / len(rows)


def _blocks(start: int, stop: int) -> list[slice]:
    return [slice(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)]


def _cross_entropy(
    indices: slice,
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    *,
    entering: Callable[[slice], Tensor],
    label_smoothing: float,
) -> Tensor:
    """Sum the loss of rows ``[b, D]`` at ``indices`` of all N, each searching its own among columns ``[N, D]``."""
    enters = entering(indices)  # [b, N]
    logits = scale * (rows @ columns.T)
    log_shares = logits.masked_fill(~enters, -torch.inf).log_softmax(dim=1)
    own = log_shares.diagonal(indices.start)
    if label_smoothing > 0:
        even = log_shares.masked_fill(~enters, 0).sum(dim=1) / enters.sum(dim=1)
        own = torch.lerp(own, even, label_smoothing)
    return -own.sum()


def _sigmoids(
    indices: slice,
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    entering: Callable[[slice], Tensor],
) -> Tensor:
    """Sum the loss of images ``[b, D]`` at ``indices`` of all N, each with every text ``[N, D]``."""
    logits = scale * (images @ texts.T) + bias  # [b, N]
    signs = torch.full_like(logits, -1).diagonal_scatter(logits.new_ones(len(images)), indices.start)
    return -(logsigmoid(signs * logits) * entering(indices)).sum()


def _entering(
    num_rows: int,
    device: torch.device,
    image_ids: Tensor | None,
    query_ids: Tensor | None,
    positives: Tensor | None,
) -> Callable[[Side, slice], Tensor]:
    """Find which pairs of rows enter a loss: of a block of images with all texts, or of texts with all images.

    Returns:
        A function of the block's side and its indices: ``[b, N] bool``, true where a row meets itself, and where
        neither id is shared and the image is none of the text's positives.
    """
    for name, ids in (("image_ids", image_ids), ("query_ids", query_ids)):
        if ids is not None and ids.shape != (num_rows,):
            raise ValueError(f"{name} has shape {list(ids.shape)}; it must be [{num_rows}], one id a row.")
    if positives is not None and (image_ids is None or positives.shape[:1] != (num_rows,)):
        raise ValueError(f"positives has shape {list(positives.shape)}; it must be [{num_rows}, P], beside image_ids.")

    def entering(side: Side, indices: slice) -> Tensor:
        shared = torch.zeros(indices.stop - indices.start, num_rows, dtype=torch.bool, device=device)
        for ids in (image_ids, query_ids):
            if ids is not None:
                shared |= ids[indices, None] == ids
        if positives is not None and image_ids is not None:
            for named in positives.unbind(dim=1):
                own, others = (
                    (image_ids[indices, None], named) if side == "image" else (image_ids, named[indices, None])
                )
                shared |= own == others
        return (~shared).diagonal_scatter(torch.ones(len(shared), dtype=torch.bool, device=device), indices.start)

    return entering
