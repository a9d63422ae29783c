"""Which rows a process reads, and in what order. Both samplers are handed to the loader as its ``batch_sampler``.

Lightning would wrap them with its own, which pads evaluation with repeats and cannot say where a resumed epoch stands:
run the trainer with ``use_distributed_sampler: false`` (``experiments/_base.yaml`` does).
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from zoo.errors import UserError


class TrainingBatchSampler(Sampler[list[tuple[int, int]]]):
    """Shuffled, equal batches of ``(epoch, row)`` for one process.

    The order is a function of the seed and the epoch alone, and the position in it is asked of the trainer at each
    ``iter``: a run that resumes in the middle of an epoch continues with the very next batch. The rows that do not fill
    a last global batch are left out of an epoch (others each epoch); a split smaller than a global batch makes one
    smaller batch. The same global batch, whatever the number of processes.

    Args:
        num_rows: Rows in the training split.
        batch_size: Rows of a batch on each process.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        progress: Gives the batches trained so far in the run.
        limit: Lightning's ``limit_train_batches``: how many batches, or which share of them, make an epoch.
        groups: ``[num_rows]`` integers, what each row belongs to; with ``group_size``.
        group_size: Rows of one group that are sampled together, in one batch, at least 1; 1: rows singly.
        regroup: Asked for an epoch's groups when its first batch is, on every process: ``[num_rows]`` integers, whole
            groups of which are sampled together, or None for ``groups``.

    Raises:
        UserError: When there are fewer rows than processes, or an epoch's groups are of another number of rows.
    """

    def __init__(
        self,
        num_rows: int,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        progress: Callable[[], int],
        limit: float = 1.0,
        groups: np.ndarray | None = None,
        group_size: int = 1,
        regroup: Callable[[int], np.ndarray | None] | None = None,
    ) -> None:
        if num_rows < world_size:
            raise UserError(
                f"the training split has {num_rows} rows for {world_size} processes: train on at most {num_rows}"
            )
        self.num_rows = num_rows
        self.batch_size = min(batch_size, num_rows // world_size)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.progress = progress
        self.limit = limit
        self.groups = groups
        self.group_size = group_size
        self.regroup = regroup

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever the run stands."""
        return self.num_rows // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Give the batches that are left of the epoch in which the run stands."""
        limit = self.limit if isinstance(self.limit, int) else int(len(self) * self.limit)
        epoch, position = divmod(self.progress(), min(limit, len(self)))
        order = self._order(epoch)
        global_batch = self.batch_size * self.world_size
        for start in range(position * global_batch, len(self) * global_batch, global_batch):
            rows = order[start : start + global_batch][self.rank :: self.world_size]
            yield [(epoch, int(row)) for row in rows]

    def _order(self, epoch: int) -> np.ndarray:
        """Permute the rows: single rows, or runs of rows of a group."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self.num_rows)
        of_row, longest = self._groups(epoch)
        if of_row is None or longest == 1:
            return order
        by_group = order[np.argsort(of_row[order], kind="stable")]
        groups = of_row[by_group]
        starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
        within = np.arange(self.num_rows) - np.repeat(starts, np.diff(np.r_[starts, self.num_rows]))
        run = np.cumsum((within % longest) == 0) - 1  # the run that each row is in
        position = random.permutation(run[-1] + 1)[run]  # where that run goes
        return by_group[np.argsort(position, kind="stable")]

    def _groups(self, epoch: int) -> tuple[np.ndarray | None, int]:
        """Find what each row belongs to in an epoch, and how long a run may be."""
        groups = None if self.regroup is None else self.regroup(epoch)
        if groups is None:
            return self.groups, self.group_size
        if len(groups) != self.num_rows:
            raise UserError(
                f"the groups of epoch {epoch} are of {len(groups)} training rows, and there are {self.num_rows}:"
                " resume with the data that the run began with"
            )
        return groups, self.num_rows


class EvaluationBatchSampler(Sampler[list[int]]):
    """Every row once over all processes, in file order; process ``rank`` takes every ``world_size``-th batch.

    Whole batches go to a process, not rows, so a row has the same batch mates whatever the number of processes: its
    embedding is the same to the last bit, and equal scores stay equal. Only a split of fewer batches than processes is
    cut into smaller ones, so that each process has some.

    Args:
        num_rows: Rows in the split.
        batch_size: Rows of a batch.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, num_rows: int, *, batch_size: int, rank: int, world_size: int) -> None:
        self.num_rows = num_rows
        enough = -(-num_rows // batch_size) >= world_size
        self.batch_size = batch_size if enough else max(1, num_rows // world_size)
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches of this process."""
        return len(range(self.rank * self.batch_size, self.num_rows, self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        """Give this process's batches, in file order."""
        for start in range(self.rank * self.batch_size, self.num_rows, self.batch_size * self.world_size):
            yield list(range(start, min(start + self.batch_size, self.num_rows)))
