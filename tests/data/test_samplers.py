import itertools

import numpy as np
import pytest

from zoo.data.samplers import EvaluationBatchSampler, TrainingBatchSampler
from zoo.errors import UserError


def training(num_rows, batch_size, world_size=1, rank=0, seed=0, done=0, limit=1.0):
    place = {"rank": rank, "world_size": world_size}
    return TrainingBatchSampler(num_rows, batch_size=batch_size, seed=seed, **place, progress=lambda: done, limit=limit)


def test_an_epoch_has_equal_batches_without_repeats():
    batches = list(training(23, 5))
    assert [len(batch) for batch in batches] == [5] * 4
    rows = [row for batch in batches for _, row in batch]
    assert len(set(rows)) == 20


def test_epochs_differ_and_leave_out_other_rows():
    first, second = (list(training(23, 5, done=done)) for done in (0, 4))
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [row for b in first for _, row in b] != [row for b in second for _, row in b]


@pytest.mark.parametrize("done", [1, 3, 4, 6])
def test_a_resumed_run_sees_what_the_uninterrupted_one_would_have(done):
    uninterrupted = [*training(23, 5, done=0), *training(23, 5, done=4)]
    position = list(training(23, 5, done=done))
    assert position == uninterrupted[done : (done // 4 + 1) * 4]


@pytest.mark.parametrize("limit", [2, 0.5])
def test_a_limited_epoch_counts_its_own_batches(limit):
    assert {epoch for batch in training(23, 5, done=2, limit=limit) for epoch, _ in batch} == {1}


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches_of_one_process(world_size):
    alone = list(training(50, 6 * world_size))
    together = zip(*(training(50, 6, world_size, rank) for rank in range(world_size)), strict=True)
    for one, parts in zip(alone, together, strict=True):
        assert sorted(one) == sorted(key for part in parts for key in part)
        assert {len(part) for part in parts} == {6}


def test_rows_of_a_group_are_dealt_in_runs():
    groups = np.array([0] * 10 + [1] * 3 + list(range(2, 30)))
    sampler = TrainingBatchSampler(
        41, batch_size=41, seed=3, rank=0, world_size=1, progress=lambda: 0, groups=groups, group_size=4
    )
    (rows,) = [[row for _, row in batch] for batch in sampler]
    assert sorted(rows) == list(range(41))
    dealt = groups[rows]
    runs = [len(list(run)) for key, run in itertools.groupby(dealt) if key == 0]
    assert sum(runs) == 10
    assert max(runs) >= 4  # 4 + 4 + 2, which may fall side by side
    assert len([key for key, _ in itertools.groupby(dealt) if key == 1]) == 1
    assert rows[:10] != sorted(rows[:10])


def grouped(groups, group_size, epoch=0, seed=0):
    """The rows of an epoch in one batch, as they are dealt."""
    rows = len(groups)
    place = {"batch_size": rows, "seed": seed, "rank": 0, "world_size": 1, "progress": lambda: epoch}
    (batch,) = TrainingBatchSampler(rows, **place, groups=np.array(groups), group_size=group_size)
    return [row for _, row in batch]


@pytest.mark.parametrize("epoch", [0, 1, 5])
@pytest.mark.parametrize("group_size", [2, 3, 100])
def test_the_runs_are_those_that_lists_give(epoch, group_size):
    """Shuffle the rows, cut each group's into runs, shuffle the runs: the order that a resumed run goes on with."""
    groups = [number % 7 if number < 40 else number for number in range(60)]
    random = np.random.default_rng((3, epoch))
    of_group = {}
    for row in random.permutation(60).tolist():
        of_group.setdefault(groups[row], []).append(row)
    runs = [
        rows[start : start + group_size]
        for _, rows in sorted(of_group.items())
        for start in range(0, len(rows), group_size)
    ]
    places = random.permutation(len(runs))
    assert grouped(groups, group_size, epoch, seed=3) == [row for index in places.argsort() for row in runs[index]]


def test_runs_come_in_another_order_each_epoch():
    groups = np.arange(40) // 4
    orders = [[group for group, _ in itertools.groupby(groups[grouped(groups, 4, epoch)])] for epoch in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_groups_of_one_row_are_no_groups():
    by_groups = TrainingBatchSampler(
        12, batch_size=4, seed=0, rank=0, world_size=1, progress=lambda: 0, groups=np.arange(12) // 3
    )
    assert list(by_groups) == list(training(12, 4))


def regrouped(groups_of, done=0, num_rows=12):
    """Deals pairs of a data's own groups, 0 0 1 1 …, where an epoch has no others."""
    return TrainingBatchSampler(
        num_rows,
        batch_size=4,
        seed=0,
        rank=0,
        world_size=1,
        progress=lambda: done,
        groups=np.arange(num_rows) // 2,
        group_size=2,
        regroup=groups_of,
    )


def test_an_epochs_own_groups_are_asked_for_at_its_first_batch_and_dealt_whole():
    asked, own = [], np.array([7, 8, 9, 9, 7, 8, 7, 9, 8, 7, 8, 8])  # four of one, five and three of others

    def groups_of(epoch):
        asked.append(epoch)
        return own if epoch == 1 else None

    for done, names in ((0, np.arange(12) // 2), (3, own)):
        batches = iter(regrouped(groups_of, done=done))
        assert asked == [0] * (done // 3)
        dealt = names[[row for batch in batches for _, row in batch]]
        assert len([name for name, _ in itertools.groupby(dealt)]) == len(set(names))
    assert asked == [0, 1]


def test_without_own_groups_an_epoch_is_as_it_was():
    assert list(regrouped(lambda epoch: None)) == list(regrouped(None))


def test_groups_of_other_rows_are_refused():
    with pytest.raises(UserError, match=r"the groups of epoch 0 are of 11 training rows, and there are 12: resume"):
        list(regrouped(lambda epoch: np.zeros(11)))


def test_a_small_split_makes_one_smaller_batch():
    assert [len(batch) for batch in training(7, 128, world_size=2)] == [3]


def test_as_many_rows_as_processes_are_one_each():
    assert [row for rank in range(3) for ((_, row),) in training(3, 5, 3, rank)] == [
        row for ((_, row),) in training(3, 1)
    ]


def test_fewer_rows_than_processes_is_an_error():
    with pytest.raises(UserError, match="2 rows for 3 processes"):
        training(2, 1, world_size=3)


@pytest.mark.parametrize("num_rows", [1, 4, 7, 8, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_evaluation_reads_every_row_once(num_rows, world_size, batch_size):
    samplers = [
        EvaluationBatchSampler(num_rows, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    rows = [row for sampler in samplers for batch in sampler for row in batch]
    assert sorted(rows) == list(range(num_rows))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
    assert all(len(sampler) > 0 for sampler in samplers[:num_rows])


@pytest.mark.parametrize(("num_rows", "batch_size", "most"), [(100, 8, 13), (100, 64, 2), (11, 4, 3), (7, 2, 4)])
def test_a_row_has_the_same_batch_mates_on_any_number_of_processes(num_rows, batch_size, most):
    def mates(world_size):
        place = {"batch_size": batch_size, "world_size": world_size}
        samplers = [EvaluationBatchSampler(num_rows, rank=rank, **place) for rank in range(world_size)]
        return sorted(batch for sampler in samplers for batch in sampler)

    assert all(mates(world_size) == mates(1) for world_size in range(2, most + 1))
    assert mates(most + 1) != mates(1)  # there are not as many batches
