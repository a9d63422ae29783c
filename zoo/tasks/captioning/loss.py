"""What captioners are trained by: the likelihood of references, then the reward of their own captions."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def token_losses(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the cross-entropy of each token, in fp32.

    Args:
        logits: ``[M, vocabulary]``.
        targets: ``[M] int64``.
        label_smoothing: The share of the target that is spread evenly over the vocabulary, in [0, 1).

    Returns:
        ``[M] float32``, nats.
    """
    return cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="none")


def self_critical_loss(log_probabilities: Tensor, caption: Tensor, rewards: Tensor) -> Tensor:
    """Make captions likelier that are better than the others of the same image, and the worse ones less likely.

    Rennie et al., "Self-critical Sequence Training for Image Captioning" (2016), arXiv:1612.00563, with the mean of a
    image's other captions for the baseline (Luo, 2020, arXiv:2003.09971).

    Args:
        log_probabilities: ``[M]``: those of the sampled tokens, end tokens too.
        caption: ``[M] int64``: the caption that each token is of, an index among the B · k.
        rewards: ``[B, k]``, k at least 2: those of k captions of each of B images.

    Returns:
        The loss, a mean over tokens.
    """
    count = rewards.shape[1]
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (count - 1)  # [B, k]
    advantage = (rewards - others).flatten().to(log_probabilities.dtype)  # [B · k]
    return -(advantage[caption] * log_probabilities).mean()


def sums_by_group(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sum by group: the sums ``[groups]`` of ``values [M]`` by ``group [M] int64``."""
    return torch.zeros(groups, dtype=values.dtype, device=values.device).index_add_(0, group, values)
