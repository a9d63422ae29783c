"""Two sets of images by their features, gathered over processes: what metrics of whole sets own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from zoo.core.collected import CollectedRows
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors

Extract = Callable[[Tensor], Tensor]  # [B, 3, S, S] uint8 → [B, D] float


class ImageSets(nn.Module):
    """Features of generated and of true images, each image once, in the order of their rows.

    Args:
        extractor: ``inception`` (torch-fidelity's), an image tower with published weights (``timm:NAME``), or a
            function of images ``[B, 3, S, S] uint8``. None: features ``[B, D]`` come in the place of images.
        logits: Whether Inception's logits are taken, not its features.

    Raises:
        UserError: The extractor or its weights cannot be had.
    """

    def __init__(self, extractor: str | Extract | None, *, logits: bool = False) -> None:
        super().__init__()
        self.extract = _find_extractor(extractor, logits=logits) if isinstance(extractor, str) else extractor
        self.generated, self.true = (CollectedRows(None, names=["features"]) for _ in range(2))
        self.counts = {"generated": 0, "true": 0}

    def update(self, images: Tensor | None, true_images: Tensor | None, rows: Tensor | None) -> None:
        """Take a batch of either side, or of both.

        Args:
            images: Generated images ``[B, 3, S, S] uint8``, or their features ``[B, D]``.
            true_images: True images, or their features, likewise.
            rows: ``[B]`` integers, the index of each in its set: then the order, and with it who is in which random
                subset, is the same on any number of processes, and an image that comes twice counts once.

        Raises:
            ValueError: What came is neither features nor, with an extractor, images.
        """
        for side, values in (("generated", images), ("true", true_images)):
            if values is None:
                continue
            features = values if self.extract is None else self.extract(values)
            if features.ndim != 2 or not features.is_floating_point():
                raise ValueError(
                    f"features are {features.dtype} {list(features.shape)}; they must be [B, D] of a floating type, or"
                    " images [B, 3, S, S] uint8 with an extractor."
                )
            own = self._next_rows(side, len(features)) if rows is None else rows
            getattr(self, side).update(own.to(features.device), features=features.float())
            self.counts[side] += len(features)

    def features(self, side: str) -> Tensor:
        """Give the features ``[N, D]`` of the ``generated`` or the ``true`` images of all processes, on every one."""
        return getattr(self, side).gathered()[1]["features"]

    def reset(self) -> None:
        """Forget all images."""
        self.generated.reset()
        self.true.reset()
        self.counts = dict.fromkeys(self.counts, 0)

    def _next_rows(self, side: str, count: int) -> Tensor:
        """Number images as they come, the processes in turn."""
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world_size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
        return (torch.arange(count) + self.counts[side]) * world_size + rank


class ImageSetMetric(Metric):
    """A score of a whole set of generated images, most against a set of true ones.

    Args:
        extractor: As ``ImageSets``'s.
        logits: As ``ImageSets``'s.

    Raises:
        UserError: The extractor cannot be had.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, extractor: str | Extract | None, *, logits: bool = False) -> None:
        super().__init__(sync_on_compute=False)  # gathered once, by its sets
        self.sets = ImageSets(extractor, logits=logits)

    def update(
        self, images: Tensor | None = None, true_images: Tensor | None = None, rows: Tensor | None = None
    ) -> None:
        """Take a batch of either side, or of both; see ``ImageSets.update``."""
        self.sets.update(images, true_images, rows)

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Take a batch, as ``update``: a part of a set has no score of its own."""
        self.update(*args, **kwargs)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.sets.reset()


def _find_extractor(name: str, *, logits: bool) -> Extract:
    inception = name == "inception"
    extractors = FeatureExtractors(inception="auto" if inception else "none", features=[] if inception else [name])
    return partial(_extract, extractors, "logits" if logits else extractors.first)


def _extract(extractors: FeatureExtractors, name: str, images: Tensor) -> Tensor:
    return extractors.to(images.device).extract_features(images)[name]
