"""Rows collected on several processes: in file order, each once, in the types that came."""

import copy
import pickle

import pytest
import torch

from zoo.core.collected import CollectedRows
from zoo.errors import UserError

ROWS = [40, 3, 17, 8, 25, 11, 2]  # not sorted
NAMES = ("embedding", "picture", "logits")


def values_of(rows):
    """Values that tell rows and types apart."""
    base = rows[:, None].float() * torch.tensor([1.0, 0.5, -2.0])
    pictures = (rows.view(-1, 1, 1, 1) + torch.arange(12).view(3, 2, 2)).to(torch.uint8)
    return {"embedding": base, "picture": pictures, "logits": base.half()[:, :1]}


def feed(metric, places, batch_size=2):
    for batch in torch.tensor(ROWS)[torch.as_tensor(list(places), dtype=torch.int64)].split(batch_size):
        if len(batch):
            metric.update(batch, **values_of(batch))
    return metric


def assert_all(gathered, rows=None):
    expected = torch.tensor(ROWS if rows is None else rows)
    assert gathered[0].tolist() == expected.tolist()
    assert tuple(gathered[1]) == NAMES
    for name, value in values_of(expected).items():
        assert gathered[1][name].dtype == value.dtype
        assert torch.equal(gathered[1][name], value)


def test_rows_come_back_in_file_order_and_in_their_types():
    metric = feed(CollectedRows(ROWS, NAMES), [5, 0, 6, 2, 4, 1, 3])
    assert_all(metric.gathered())
    assert metric.gathered() is metric.gathered()
    assert_all(metric.compute())


def test_a_partial_evaluation_hands_out_what_came():
    metric = feed(CollectedRows(ROWS, NAMES, complete=False), [4, 1])
    assert_all(metric.gathered(), rows=[3, 25])
    feed(metric, [6])
    assert_all(metric.gathered(), rows=[3, 25, 2])
    metric.reset()
    assert metric.gathered()[0].tolist() == []


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (range(6), r"CollectedRows gathered 6 rows for a split of 7: 1 missing \(2\)"),
        ([*range(7), 1, 1], r"9 rows for a split of 7: 1 repeated \(3\)"),
        ([], r"0 rows for a split of 7: 7 missing \(40, 3, 17, 8, 25, …\)"),
    ],
)
def test_a_full_evaluation_must_see_exactly_the_rows(places, message):
    with pytest.raises(RuntimeError, match=message):
        feed(CollectedRows(ROWS, NAMES), places).gathered()


def test_an_unknown_row_is_named():
    metric = CollectedRows(ROWS[1:], NAMES, complete=False)
    with pytest.raises(RuntimeError, match=r"1 unknown \(40\)"):
        feed(metric, [0]).gathered()


def test_a_value_that_is_not_finite_is_named():
    metric = CollectedRows([4, 5, 6], ["embedding"])
    metric.update(torch.tensor([6, 4, 5]), embedding=torch.tensor([[1.0], [float("nan")], [float("inf")]]))
    with pytest.raises(RuntimeError, match=r"embedding of 2 of 3 rows is not finite \(rows 4, 5\)"):
        metric.gathered()


def test_rows_expected_twice_are_refused():
    with pytest.raises(UserError, match="expected_rows has 1 more than once"):
        CollectedRows([1, 2, 1], ["embedding"])


def test_faulty_batches_are_named():
    metric = CollectedRows([1, 2], ["embedding"])
    with pytest.raises(ValueError, match=r"update got \['logits'\]; it must be \['embedding'\]"):
        metric.update(torch.tensor([1]), logits=torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"rows and embedding are \[2\] and \[1, 2\]"):
        metric.update(torch.tensor([1, 2]), embedding=torch.ones(1, 2))
    metric.update(torch.tensor([1]), embedding=torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"embedding was torch.float32 \[2\] a row .* now is torch.float16 \[2\]"):
        metric.update(torch.tensor([2]), embedding=torch.ones(1, 2).half())


def test_pickling_and_copying():
    metric = feed(CollectedRows(ROWS, NAMES), range(7))
    for other in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        assert_all(other.gathered())
        other.reset()
        assert_all(feed(other, range(7)).gathered())
    assert not metric.state_dict()


# --- several processes -----------------------------------------------------------------------------------------------


def strided(rank, world_size):
    return range(rank, len(ROWS), world_size)


def last_process_alone(rank, world_size):
    return range(len(ROWS)) if rank == world_size - 1 else []


def uneven(rank, world_size):
    return [0, *range(world_size, len(ROWS))] if rank == 0 else [rank]


def collect_share(rank, world_size, share):
    metric = feed(CollectedRows(ROWS, NAMES), share(rank, world_size))
    result = metric.gathered()
    assert sum(map(len, metric.rows)) == len(share(rank, world_size))  # the state is local again
    metric.reset()
    feed(metric, share(rank, world_size), batch_size=3)
    assert torch.equal(metric.gathered()[1]["embedding"], result[1]["embedding"])
    return result


@pytest.mark.ddp
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("share", [strided, last_process_alone, uneven])
def test_processes_agree_with_one(world_size, share, run_processes):
    for result in run_processes(world_size, collect_share, share):
        assert_all(result)


def collect_faulty(rank, world_size):
    messages = []
    repeated = feed(CollectedRows(ROWS, NAMES), [*strided(rank, world_size), *([0] if rank == 1 else [])])
    differing = CollectedRows([0, 1, 2], ["embedding"])
    differing.update(torch.tensor([rank]), embedding=torch.ones(1, 2 + rank))
    for metric in (repeated, CollectedRows(ROWS, NAMES), differing):
        try:
            metric.gathered()
        except RuntimeError as error:
            messages.append(str(error))
    return messages


@pytest.mark.ddp
def test_every_process_raises_when_one_is_at_fault(run_processes):
    for repeated, nothing, differing in run_processes(3, collect_faulty):
        assert "8 rows for a split of 7: 1 repeated (40)" in repeated
        assert "0 rows for a split of 7: 7 missing" in nothing
        assert "the processes hold different rows of embedding" in differing


def test_without_expected_rows_whatever_came_is_kept_once_in_the_order_of_its_rows():
    metric = CollectedRows(None, names=["value"])
    for rows in ([5, 2], [9, 2]):
        metric.update(torch.tensor(rows), value=torch.tensor(rows).float())
    rows, values = metric.gathered()
    assert rows.tolist() == values["value"].tolist() == [2, 5, 9]
