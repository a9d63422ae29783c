"""The Inception score (Salimans et al., "Improved Techniques for Training GANs", arXiv:1606.03498)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.core.precision import float64_device
from zoo.errors import UserError


class InceptionScore(NamedTuple):
    """What an Inception score is printed with."""

    mean: float  # over the splits: 1 to the number of classes
    deviation: float  # standard deviation over the splits, ddof 0


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 2020) -> InceptionScore:
    """The exponential of how much, on average, a picture's classes differ from all pictures' classes, split by split.

    The splits are those that torch-fidelity 0.4 draws with the same seed. Computed in fp64.

    Args:
        logits: ``[N, C] float32``, finite; torch-fidelity takes Inception's without the bias.
        splits: Parts that are scored each alone, at least 1.
        seed: Of the order in which rows are split.

    Raises:
        UserError: There are fewer pictures than splits, or no splits.
        ValueError: Another shape.

    Source: torch-fidelity, https://github.com/toshas/torch-fidelity.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits are {list(logits.shape)}; they must be [N, C].")
    if not 1 <= splits <= len(logits):
        raise UserError(f"splits is {splits} for {len(logits)} pictures; give 1 to {len(logits)}, one picture each.")
    device = float64_device(logits.device)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits))).to(logits.device)
    bounds = [part * len(logits) // splits for part in range(splits + 1)]
    scores = np.empty(splits)
    for part in range(splits):
        rows = logits.detach()[order[bounds[part] : bounds[part + 1]]].to(device, torch.float64)
        log_shares = rows.log_softmax(dim=1)  # [n, C]
        log_marginal = log_shares.logsumexp(dim=0) - np.log(len(rows))  # [C]
        scores[part] = (log_shares.exp() * (log_shares - log_marginal)).sum(dim=1).mean().exp().item()
    return InceptionScore(float(scores.mean()), float(scores.std()))
