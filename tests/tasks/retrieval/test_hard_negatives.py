"""Which pairs are dealt together, when they are mined, and that mining leaves no trace."""

import io
import random as standard_random
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from zoo.errors import UserError
from zoo.tasks import RetrievalTask
from zoo.tasks.retrieval import hard_negatives
from zoo.tasks.retrieval.data import RetrievalDataModule
from zoo.tasks.retrieval.hard_negatives import HardNegatives, describe_groups, mine_groups


def embedded_pairs(seed=0, *, queries=40, images=30, pairs=90, clusters=5):
    """Unit vectors in clusters, and pairs of which some share a query, an image, or both ways round."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    centres = torch.randn(clusters, 12, generator=generator)
    texts = centres[random.integers(clusters, size=queries)] + 0.5 * torch.randn(queries, 12, generator=generator)
    image_embeddings = centres[random.integers(clusters, size=images)] + 0.5 * torch.randn(
        images, 12, generator=generator
    )
    cells = random.choice(queries * images, pairs, replace=False)
    return normalize(texts, dim=1), normalize(image_embeddings, dim=1), np.stack(np.divmod(cells, images), axis=1)


def naive_similarities(texts, images, pairs):
    """The full matrix, in float64, minus infinity between pairs that are known to belong together."""
    cosines = (texts.double() @ images.double().T).numpy()
    known = {(int(query), int(image)) for query, image in pairs}
    similarities = np.empty((len(pairs), len(pairs)))
    for a, (query, image) in enumerate(pairs):
        for b, (other_query, other_image) in enumerate(pairs):
            similarities[a, b] = (cosines[query, other_image] + cosines[other_query, image]) / 2
            if (query, other_image) in known or (other_query, image) in known:
                similarities[a, b] = -np.inf
    return similarities


def naive_groups(similarities, group_size, random):
    left, groups = set(range(len(similarities))), {}
    for row in random.permutation(len(similarities)).tolist():
        if row not in left:
            continue
        members = [row]
        for other in np.argsort(-similarities[row]).tolist():
            if len(members) < group_size and other in left and np.isfinite(similarities[other, members]).all():
                members.append(other)
        left -= set(members)
        groups |= dict.fromkeys(members, row)
    return np.array([groups[row] for row in range(len(similarities))])


@pytest.mark.parametrize("block", [1, 1000, 10**6])  # one row at a time, eleven, all
@pytest.mark.parametrize("searched", [1, 8, 100])  # as many neighbours as a group takes, and all
@pytest.mark.parametrize("group_size", [2, 5, 8, 200])
@pytest.mark.parametrize("clusters", [1, 5])  # in one cluster few pairs are nearest to most
def test_groups_are_those_of_the_full_matrix(monkeypatch, block, searched, group_size, clusters):
    monkeypatch.setattr(hard_negatives, "BLOCK", block)
    monkeypatch.setattr(hard_negatives, "SEARCHED", searched)
    texts, images, pairs = embedded_pairs(clusters=clusters)
    expected = naive_groups(naive_similarities(texts, images, pairs), group_size, np.random.default_rng(4))
    mined = mine_groups(texts, images, pairs, group_size=group_size, random=np.random.default_rng(4))
    np.testing.assert_array_equal(mined, expected)


def test_pairs_that_are_nearest_to_all_leave_no_others_alone():
    texts, images, pairs = embedded_pairs(queries=300, images=300, pairs=320, clusters=1)
    images[:20] = normalize(texts.mean(dim=0, keepdim=True) + 0.01 * images[:20], dim=1)
    groups = mine_groups(texts, images, pairs, group_size=8, random=np.random.default_rng(0))
    assert 40 <= len(np.unique(groups)) <= 42


def test_the_matrix_never_exists(monkeypatch):
    """Nor does one of more than ``BLOCK`` similarities."""
    monkeypatch.setattr(hard_negatives, "BLOCK", 1000)
    taken, topk = [], torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, count: taken.append(self.numel()) or topk(self, count))
    mine_groups(*embedded_pairs(), group_size=4, random=np.random.default_rng(0))
    assert 500 < max(taken) <= 1000


@pytest.mark.parametrize("seed", range(5))
def test_groups_part_all_pairs_and_hold_none_that_belong_together(seed):
    texts, images, pairs = embedded_pairs(seed)
    groups = mine_groups(texts, images, pairs, group_size=6, random=np.random.default_rng(seed))
    assert groups.shape == (len(pairs),)
    assert groups.dtype == np.int64
    names, sizes = np.unique(groups, return_counts=True)
    assert sizes.max() == 6
    assert (groups[names] == names).all()
    apart = naive_similarities(texts, images, pairs)
    for name in names:
        within = apart[np.ix_(groups == name, groups == name)]
        np.testing.assert_array_equal(np.isfinite(within), ~np.eye(len(within), dtype=bool))


def test_where_all_belong_together_each_is_alone():
    texts, images, _ = embedded_pairs(queries=1, images=4, pairs=4)
    pairs = np.array([(0, 0), (0, 1), (0, 2), (0, 3)])
    groups = mine_groups(texts, images, pairs, group_size=4, random=np.random.default_rng(0))
    assert sorted(groups) == [0, 1, 2, 3]
    near, _ = describe_groups(texts, images, pairs, groups, np.random.default_rng(0))
    assert np.isnan(near)


def test_grouped_pairs_are_more_similar_than_any_two():
    texts, images, pairs = embedded_pairs()
    groups = mine_groups(texts, images, pairs, group_size=4, random=np.random.default_rng(0))
    near, any_two = describe_groups(texts, images, pairs, groups, np.random.default_rng(0))
    similarities = naive_similarities(texts, images, pairs)
    together = (groups[:, None] == groups) & ~np.eye(len(groups), dtype=bool)
    assert near == pytest.approx(similarities[together].mean(), abs=0.05)
    cosines = (texts[pairs[:, 0]] @ images[pairs[:, 1]].T).mean().item()  # of all, those that belong together too
    assert any_two == pytest.approx(cosines, abs=0.02)
    assert near > any_two + 0.15


def test_every_order_gives_its_own_groups():
    texts, images, pairs = embedded_pairs()
    first, again, other = (
        mine_groups(texts, images, pairs, group_size=4, random=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# --- the callback ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "value", "least"), [("group_size", 1, 2), ("from_epoch", -1, 0)])
def test_impossible_options_are_refused(option, value, least):
    with pytest.raises(UserError, match=rf"HardNegatives: {option} is {value}: give {least} or more"):
        HardNegatives(**{option: value})
    with pytest.raises(UserError, match=r"every_n_epochs is 0: give 1 or more"):
        HardNegatives(every_n_epochs=0)


def test_a_task_or_data_that_cannot_be_mined_is_refused():
    able = SimpleNamespace(encode_text=None, encode_image=None)
    for task, data, message in (
        (SimpleNamespace(encode_text=None), None, "the task SimpleNamespace has no encode_image: train a Retrieval"),
        (able, SimpleNamespace(regroup=None), "data module SimpleNamespace has no training_pairs, training_loaders: "),
    ):
        trainer = SimpleNamespace(datamodule=data or SimpleNamespace())
        with pytest.raises(UserError, match=message):
            HardNegatives().setup(trainer, task, "fit")
    with pytest.raises(UserError, match="give the trainer a data module"):
        HardNegatives().setup(SimpleNamespace(datamodule=None), able, "fit")
    HardNegatives().setup(SimpleNamespace(datamodule=None), able, "validate")


def noting(**options):
    """The callback, with epochs for groups, and the epochs that it mined for."""
    callback, mined = HardNegatives(**options), []

    def mine(trainer, pl_module, epoch):
        mined.append(epoch)
        return torch.full((3,), epoch, dtype=torch.int32)

    callback._mine = mine
    return callback, mined


def dealt(callback, epochs):
    groups = [callback.groups_of(None, None, epoch) for epoch in epochs]
    return [None if group is None else int(group[0]) for group in groups]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"from_epoch": 0}, [0, 1, 2, 3, 4, 5]),
        ({}, [None, 1, 2, 3, 4, 5]),
        ({"from_epoch": 1, "every_n_epochs": 2}, [None, 1, 1, 3, 3, 5]),
        ({"from_epoch": 9}, [None] * 6),
    ],
)
def test_groups_are_mined_in_the_epochs_asked_for(options, expected):
    callback, mined = noting(**options)
    assert dealt(callback, range(6)) == expected
    assert mined == [epoch for epoch in dict.fromkeys(expected) if epoch is not None]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("last", range(4))
def test_a_begun_epoch_keeps_its_groups_when_the_run_resumes(every, last):
    callback, _ = noting(every_n_epochs=every)
    before = dealt(callback, range(last + 1))
    file = io.BytesIO()
    torch.save(callback.state_dict(), file)
    file.seek(0)
    resumed, mined = noting(every_n_epochs=1, from_epoch=0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert dealt(resumed, [last, last]) == before[-1:] * 2
    assert mined == []
    assert dealt(resumed, [last + 1]) == [last + 1]


def test_mining_leaves_the_task_and_the_random_states_as_they_were(muge_root):
    torch.manual_seed(0)
    task = RetrievalTask("resnet10t", "bert_tiny_chinese", image_tower_options={"image_size": 32}, embedding_dim=8)
    task.image_tower.eval()  # as where its batch norm is frozen
    data = RetrievalDataModule(str(muge_root), image_size=32, num_workers=0, eval_batch_size=7)
    data.setup("fit")
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.datamodule = data
    modes = [part.training for part in task.modules()]
    before = {name: value.clone() for name, value in task.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), standard_random.getstate()
    groups = HardNegatives(group_size=4).groups_of(trainer, task, 1)
    assert sorted(np.unique(groups, return_counts=True)[1])[-1] == 4
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), standard_random.getstate()) == states[1:]
    assert [part.training for part in task.modules()] == modes
    assert any(modes)
    assert not all(modes)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())
