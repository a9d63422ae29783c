"""Texts that processes collect and gather as torchmetrics gathers numbers."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

_STATES = {"rows": torch.int64, "counts": torch.int64, "lengths": torch.int64, "text": torch.uint8}


class CollectedTexts(Metric):
    """Rows with some texts each, collected on every process: a base of metrics of captions.

    Texts are kept as UTF-8 in tensors, so that they are gathered, moved and reset like any state. A process may have
    any number of rows, or none.

    Args:
        **options: Options of ``torchmetrics.Metric``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in _STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def _collect(self, rows: Tensor, texts: Sequence[Sequence[str]]) -> None:
        """Take a batch: ``rows [B]`` integers, and the texts of each."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in chain.from_iterable(texts)]
        batch = {
            "rows": rows.detach(),
            "counts": torch.tensor([len(own) for own in texts]),
            "lengths": torch.tensor([len(text) for text in encoded]),
            "text": torch.from_numpy(np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()),
        }
        for name, values in batch.items():
            getattr(self, name).append(values.to(self.device, _STATES[name]))

    def _collected(self) -> tuple[list[int], list[list[str]]]:
        """Give the rows that the states hold now, in the order in which they came, and the texts of each."""
        rows, counts, lengths, text = (self._joined(name).cpu().numpy() for name in _STATES)
        encoded, ends = text.tobytes(), np.cumsum(lengths)
        texts = [
            encoded[end - length : end].decode("utf-8", "surrogatepass")
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]
        bounds = np.cumsum([0, *counts]).tolist()
        return rows.tolist(), [texts[start:stop] for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]

    def _joined(self, name: str) -> Tensor:
        """Join all that a state holds now."""
        batches = getattr(self, name)
        if isinstance(batches, list) and not batches:
            return torch.empty(0, dtype=_STATES[name], device=self.device)
        return dim_zero_cat(batches)

    def _sync_dist(self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None) -> None:
        """Gather, also from processes without rows."""
        for name in _STATES:
            setattr(self, name, [self._joined(name)])
        super()._sync_dist(dist_sync_fn, process_group=process_group)
