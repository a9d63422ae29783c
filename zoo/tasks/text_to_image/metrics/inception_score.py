"""The Inception score (Salimans et al., "Improved Techniques for Training GANs", arXiv:1606.03498)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.core.precision import float64_device
from zoo.errors import UserError
from zoo.tasks.text_to_image.metrics.image_sets import Extract, ImageSetMetric


class InceptionScoreResult(NamedTuple):
    """What an Inception score is printed with."""

    mean: float  # over the splits: 1 to the number of classes
    deviation: float  # standard deviation over the splits, ddof 0


class InceptionScore(ImageSetMetric):
    """The Inception score of generated images.

    ``compute`` gives ``mean`` and ``std``, over the splits, float64, on every process the same. Who is in which split
    depends on the order of the images: give ``update`` their ``rows``.

    Args:
        extractor: ``inception``, or a function of images ``[B, 3, S, S] uint8`` that gives logits. None: logits
            ``[B, C]`` come in the place of images.
        splits: Parts that are scored each alone, at least 1.
        seed: Seed of the splits.

    Raises:
        UserError: The extractor cannot be had.
    """

    def __init__(self, extractor: str | Extract | None = None, *, splits: int = 10, seed: int = 2020) -> None:
        super().__init__(extractor, logits=True)
        self.options = {"splits": splits, "seed": seed}

    def update(  # type: ignore[override]
        self, images: Tensor | None = None, rows: Tensor | None = None
    ) -> None:
        """Take a batch of generated images; see ``ImageSets.update``."""
        self.sets.update(images, None, rows)

    def compute(self) -> dict[str, Tensor]:
        """Give the score; see ``inception_score``."""
        found = inception_score(self.sets.features("generated"), **self.options)
        return {
            "mean": torch.tensor(found.mean, dtype=torch.float64),
            "std": torch.tensor(found.deviation, dtype=torch.float64),
        }


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 2020) -> InceptionScoreResult:
    """The exponential of how much, on average, an image's classes differ from all images' classes, split by split.

    The splits are those that torch-fidelity 0.4 draws with the same seed. Computed in fp64.

    Args:
        logits: ``[N, C] float32``, finite; torch-fidelity takes Inception's without the bias.
        splits: Parts that are scored each alone, at least 1.
        seed: Of the order in which rows are split.

    Raises:
        UserError: There are fewer images than splits, or no splits.
        ValueError: Another shape.

    Source: torch-fidelity, https://github.com/toshas/torch-fidelity.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits are {list(logits.shape)}; they must be [N, C].")
    if not 1 <= splits <= len(logits):
        raise UserError(f"splits is {splits} for {len(logits)} images; give 1 to {len(logits)}, one image each.")
    device = float64_device(logits.device)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits))).to(logits.device)
    bounds = [part * len(logits) // splits for part in range(splits + 1)]
    scores = np.empty(splits)
    for part in range(splits):
        rows = logits.detach()[order[bounds[part] : bounds[part + 1]]].to(device, torch.float64)
        log_shares = rows.log_softmax(dim=1)  # [n, C]
        log_marginal = log_shares.logsumexp(dim=0) - np.log(len(rows))  # [C]
        scores[part] = (log_shares.exp() * (log_shares - log_marginal)).sum(dim=1).mean().exp().item()
    return InceptionScoreResult(float(scores.mean()), float(scores.std()))
