"""Rows of a split, collected on every process and gathered once: what scores of whole sets are computed from."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from zoo.core.gathering import check_ids, file_order, offer_empty_batches, rows_not_finite, some
from zoo.errors import UserError


class CollectedRows(Metric):
    """The rows of a split with some values each, the same on any number of processes.

    Feed it with ``update``, on each process the rows that this process saw, in any order and number; then call
    ``gathered`` on **every** process (they gather once and keep what they gathered), and ``reset`` before the next
    evaluation. Move it to the device of the values first, as with every torchmetrics metric.

    Args:
        expected_rows: The rows that an evaluation goes over, in file order. None: whatever comes, in the order of its
            numbers; a row that comes twice, as samplers repeat some, is kept once.
        names: What is collected of each row, such as ``("embedding", "inception", "logits")``.
        complete: Whether exactly ``expected_rows`` must have come. ``False`` for a partial evaluation
            (``limit_val_batches``): then what came is handed out.

    Raises:
        UserError: ``expected_rows`` has a row twice.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, expected_rows: Sequence[int] | None, names: Sequence[str], *, complete: bool = True) -> None:
        super().__init__(sync_on_compute=False)  # gathered once, by gathered, for all that is computed from it
        repeated = [row for row, count in Counter(expected_rows or ()).items() if count > 1]
        if repeated:
            raise UserError(f"expected_rows has {some(repeated)} more than once; each row is expected once.")
        self.place_of = None if expected_rows is None else {int(row): place for place, row in enumerate(expected_rows)}
        self.names = tuple(names)
        self.complete = complete
        self._gathered: tuple[Tensor, dict[str, Tensor]] | None = None
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        for name in self.names:
            self.add_state(f"value_{name}", default=[], dist_reduce_fx="cat")

    def update(self, rows: Tensor, **values: Tensor) -> None:
        """Take one batch.

        Args:
            rows: ``[B]`` integers.
            **values: For each of the names ``[B, …]`` of any type, which is kept; the same shape in every batch.

        Raises:
            ValueError: Other names, or shapes that do not match.
        """
        if set(values) != set(self.names):
            raise ValueError(f"update got {sorted(values)}; it must be {sorted(self.names)}.")
        for name, value in values.items():
            if rows.ndim != 1 or value.ndim < 1 or len(value) != len(rows):
                raise ValueError(f"rows and {name} are {list(rows.shape)} and {list(value.shape)}: give [B], [B, …].")
            batches = self._batches(name)
            if batches and (batches[0].dtype, batches[0].shape[1:]) != (value.dtype, value.shape[1:]):
                was, came = (f"{tensor.dtype} {list(tensor.shape[1:])}" for tensor in (batches[0], value))
                raise ValueError(f"{name} was {was} a row in the first batch, and now is {came}.")
        self._gathered = None
        self.rows.append(rows.detach().to(self.device, torch.int64))  # type: ignore[operator,union-attr]
        for name, value in values.items():
            self._batches(name).append(value.detach().to(self.device))

    def gathered(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Every process's rows, in file order.

        Returns:
            Rows ``[N] int64`` and for each name its values ``[N, …]``, of the type that came, on the metric's device.

        Raises:
            RuntimeError: The rows that came are not those expected, or a value is not finite; the same on every
                process.
        """
        if self._gathered is None:
            own = not self._is_synced
            with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=own, should_unsync=own):
                rows, values = self._joined("rows", torch.int64), {name: self._value(name) for name in self.names}
            self._gathered = self._in_file_order(rows, values)
        return self._gathered

    def compute(self) -> tuple[Tensor, dict[str, Tensor]]:
        """As ``gathered``."""
        return self.gathered()

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self._gathered = None

    def _batches(self, name: str) -> list[Tensor]:
        return getattr(self, f"value_{name}")

    def _value(self, name: str) -> Tensor:
        return self._joined(f"value_{name}", torch.float32)

    def _joined(self, state: str, empty_dtype: torch.dtype) -> Tensor:
        """All rows that a state holds now."""
        batches = getattr(self, state)
        if isinstance(batches, list) and not batches:
            return torch.empty(0, dtype=empty_dtype, device=self.device)
        return dim_zero_cat(batches)

    def _in_file_order(self, rows: Tensor, values: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        came = rows.tolist()
        if self.place_of is not None:
            check_ids(came, self.place_of, metric="CollectedRows", what="rows", complete=self.complete)
        for name, value in values.items():
            broken = rows_not_finite(value)
            if broken:
                raise RuntimeError(
                    f"{name} of {len(broken)} of {len(came)} rows is not finite (rows "
                    f"{some([came[row] for row in broken])}): no score can be computed from it. The training, or the "
                    "model that scores, has diverged."
                )
        if self.place_of is None:
            first = {row: place for place, row in reversed(list(enumerate(came)))}
            found = [first[row] for row in sorted(first)]
        else:
            found = file_order(came, self.place_of)
        order = torch.tensor(found, dtype=torch.int64, device=rows.device)
        return rows[order], {name: value[order] for name, value in values.items()}

    def _sync_dist(self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None) -> None:
        """Gather, also from processes without rows."""
        self.rows.append(torch.empty(0, dtype=torch.int64, device=self.device))  # type: ignore[operator,union-attr]
        values = {name: self._batches(name) for name in self.names}
        offer_empty_batches(values, self.device, process_group or self.process_group)
        super()._sync_dist(dist_sync_fn, process_group=process_group)
