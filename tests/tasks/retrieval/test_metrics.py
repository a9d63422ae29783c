"""The metric: MUGE's definition, the ids that must come, and the same numbers on any number of processes."""

import copy
import json
import pickle

import lightning as L
import pytest
import torch
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

import zoo.metrics
from zoo.errors import UserError
from zoo.tasks.retrieval import metrics
from zoo.tasks.retrieval.metrics import RetrievalRecall, top_k

LABELS = ("name", ("base", "name"), None, ())  # in turns: one, two, none, none


def make_split(queries=23, images=31, width=8, seed=0):
    """Ids in an order that is not sorted, several relevant images a query, some of them not in the gallery."""
    generator = torch.Generator().manual_seed(seed)
    query_ids = (torch.randperm(queries, generator=generator) * 3 + 100).tolist()
    image_ids = (torch.randperm(images, generator=generator) * 5 + 7).tolist()
    positives = [
        [image_ids[row] for row in torch.randint(images, (count,), generator=generator).tolist()]
        for count in torch.randint(1, 5, (queries,), generator=generator).tolist()
    ]
    positives[3], positives[4] = [], [999_999]
    return {
        "query_ids": query_ids,
        "image_ids": image_ids,
        "positives": positives,
        "groups": [LABELS[row % 4] for row in range(queries)],
        "query_embeddings": torch.randint(-2, 3, (queries, width), generator=generator).float(),
        "image_embeddings": torch.randint(-2, 3, (images, width), generator=generator).float(),
    }


def make_metric(split, **changes):
    return RetrievalRecall(**{key: split[key] for key in ("query_ids", "image_ids", "positives", "groups")} | changes)


def feed(metric, split, rows=None, batch_size=4):
    """Give the metric some rows of each side: ``rows["query"]``, ``rows["image"]``."""
    for side in ("query", "image"):
        ids, embeddings = torch.tensor(split[f"{side}_ids"]), split[f"{side}_embeddings"]
        chosen = torch.as_tensor(range(len(ids)) if rows is None else rows[side], dtype=torch.int64)
        for batch in chosen.split(batch_size) if len(chosen) else []:
            metric.update(ids[batch], embeddings[batch], side=side)
    return metric


def muge_scores(split, members=None):
    """Recall as MUGE's evaluator computes it from the ten best images, by a naive ranking."""
    hits = {1: 0, 5: 0, 10: 0}
    members = range(len(split["query_ids"])) if members is None else members
    for row in members:
        scores = (split["image_embeddings"] @ split["query_embeddings"][row]).tolist()
        order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
        best = [split["image_ids"][index] for index in order[:10]]
        for k in hits:
            hits[k] += any(image in best[:k] for image in set(split["positives"][row]))
    shares = [count / len(members) for count in hits.values()]
    return [100 * share for share in shares] + [100 * sum(shares) / 3]


def test_recall_is_muges_in_any_order_of_batches():
    split = make_split()
    result = feed(make_metric(split), split).compute()
    assert [value.item() for value in list(result.values())[:4]] == pytest.approx(muge_scores(split), abs=1e-9)
    assert list(result)[:4] == ["recall@1", "recall@5", "recall@10", "mean_recall"]
    shuffled = {side: torch.randperm(len(split[f"{side}_ids"])) for side in ("query", "image")}
    assert feed(make_metric(split), split, shuffled, batch_size=5).compute() == result


def test_recall_by_leading_dimensions_is_that_of_shorter_unit_vectors():
    split = make_split()
    found = feed(make_metric(split, dimensions=[3, 5], groups=None), split).compute()
    for count in (3, 5):
        vectors = {name: split[name][:, :count] for name in ("query_embeddings", "image_embeddings")}
        shorter = split | {name: normalize(value, dim=-1) for name, value in vectors.items()}
        expected = feed(make_metric(shorter, groups=None), shorter).compute()
        assert {name: found[f"{name}/{count}d"] for name in expected} == expected
    assert len({found[name].item() for name in ("recall@10", "recall@10/3d", "recall@10/5d")}) > 1


def test_each_group_is_also_scored_alone():
    split = make_split()
    result = feed(make_metric(split), split).compute()
    for label, turns in (("name", (0, 1)), ("base", (1,))):
        members = [row for row in range(23) if row % 4 in turns]
        got = [result[f"{name}/{label}"].item() for name in ("recall@1", "recall@5", "recall@10", "mean_recall")]
        assert got == pytest.approx(muge_scores(split, members), abs=1e-9)
    assert len(result) == 12


def test_a_group_none_of_whose_queries_came_has_no_score():
    split = make_split()
    metric = make_metric(split, complete=False, complete_labels=True)
    result = feed(metric, split, {"query": [0, 2, 4], "image": range(12)}).compute()
    assert len(result) == 18
    assert {name for name, value in result.items() if value.isnan()} == {name for name in result if "/base" in name}


def test_the_best_images_are_looked_for_once(monkeypatch):
    split, calls = make_split(), []
    monkeypatch.setattr(metrics, "top_k", lambda *given: calls.append(given[2]) or top_k(*given))
    metric = feed(make_metric(split, complete_labels=True, complete=False), split, {"query": [0], "image": range(20)})
    metric.compute()
    first = metric.ranking(10)
    assert calls == [10]
    assert metric.ranking(3)[1].tolist() == first[1][:, :3].tolist()
    assert calls == [10, 3]
    feed(metric, split, {"query": [1], "image": range(20, 31)})
    assert metric.ranking(10)[1].shape == (2, 10)
    assert calls == [10, 3, 10]


def test_ranking_is_in_file_order_by_ids_and_needs_no_answers():
    split = make_split()
    metric = feed(make_metric(split, positives=None), split, {"query": range(22, -1, -1), "image": range(30, -1, -1)})
    query_ids, image_ids, scores = metric.ranking(50)
    assert query_ids.tolist() == split["query_ids"]
    assert image_ids.shape == scores.shape == (23, 31)  # the gallery is smaller than k
    own = (split["image_embeddings"] @ split["query_embeddings"][0]).tolist()
    order = sorted(range(31), key=lambda index: (-own[index], index))
    assert image_ids[0].tolist() == [split["image_ids"][index] for index in order]
    assert torch.equal(metric.ranking()[1], image_ids[:, :10])
    for unanswerable in (metric.compute, metric.matched_pairs):
        with pytest.raises(UserError, match="positives=None"):
            unanswerable()


def test_matched_pairs_are_each_query_with_its_first_relevant_image():
    split = make_split()
    queries, images, query_ids, image_ids = feed(make_metric(split), split).matched_pairs()
    expected = [row for row in range(23) if row not in (3, 4)]
    assert query_ids.tolist() == [split["query_ids"][row] for row in expected]
    assert image_ids.tolist() == [split["positives"][row][0] for row in expected]
    assert torch.equal(queries, split["query_embeddings"][expected])
    indices = [split["image_ids"].index(identity) for identity in image_ids.tolist()]
    assert torch.equal(images, split["image_embeddings"][indices])


def test_half_precision_is_kept_as_fp32():
    split = make_split()
    expected = feed(make_metric(split), split).compute()
    halved = split | {f"{side}_embeddings": split[f"{side}_embeddings"].bfloat16() for side in ("query", "image")}
    metric = feed(make_metric(split), halved)
    metric.update(torch.tensor([split["query_ids"][0]], dtype=torch.int32), torch.ones(1, 8), side="query")
    assert {ids.dtype for ids in metric.query_ids} == {torch.int64}
    assert metric.query_embeddings.pop().dtype == torch.float32
    metric.query_ids.pop()
    assert metric.compute() == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"query": range(22), "image": range(31)},
            r"^RetrievalRecall gathered 22 query ids for a split of 23: 1 missing \(\d+\)",
        ),
        ({"query": range(23), "image": [*range(31), 4, 4]}, r"33 image ids for a split of 31: 1 repeated \(\d+\)"),
        ({"query": range(23), "image": []}, r"0 image ids for a split of 31: 31 missing \(.*, …\)"),
    ],
)
def test_a_full_evaluation_must_see_exactly_the_split(rows, message):
    split = make_split()
    metric = feed(make_metric(split), split, rows)
    for compute in (metric.compute, metric.ranking, metric.matched_pairs):
        with pytest.raises(RuntimeError, match=message):
            compute()


def test_an_unknown_id_is_named():
    split = make_split()
    metric = feed(make_metric(split, complete=False), split)
    metric.update(torch.tensor([-5]), torch.ones(1, 8), side="query")
    with pytest.raises(RuntimeError, match=r"1 unknown \(-5\)"):
        metric.compute()


def test_a_partial_evaluation_works_on_what_came():
    split = make_split()
    rows = {"query": [9, 2, 5], "image": [30, 0, 7, 11]}
    part = split | {
        f"{side}_{what}": [split[f"{side}_{what}"][row] for row in sorted(rows[side])]
        for side in ("query", "image")
        for what in ("ids", "embeddings")
    }
    part["positives"] = [split["positives"][row] for row in (2, 5, 9)]
    part |= {f"{side}_embeddings": torch.stack(part[f"{side}_embeddings"]) for side in ("query", "image")}
    metric = feed(make_metric(split, complete=False), split, rows)
    assert [value.item() for value in list(metric.compute().values())[:4]] == pytest.approx(muge_scores(part))
    assert metric.ranking()[0].tolist() == part["query_ids"]


def test_a_partial_evaluation_may_have_seen_one_side_alone():
    split = make_split()
    rows = {"query": range(5), "image": []}
    found = feed(make_metric(split, groups=None, complete=False), split, rows).compute()
    assert {value.item() for value in found.values()} == {0}
    images_alone = feed(make_metric(split, complete=False), split, {"query": [], "image": range(5)})
    assert [len(part) for part in images_alone.ranking(3)] == [0, 0, 0]


def test_a_diverged_model_has_no_recall():
    split = make_split()
    split["query_embeddings"][6] = float("nan")
    with pytest.raises(RuntimeError, match=rf"1 of 23 query embeddings are not finite \(ids {split['query_ids'][6]}\)"):
        feed(make_metric(split), split).compute()


def test_reset_forgets_and_update_renews_what_was_gathered():
    split = make_split()
    metric = feed(make_metric(split, complete=False), split, {"query": [0], "image": [0]})
    assert metric.ranking()[1].shape == (1, 1)
    feed(metric, split, {"query": [1], "image": [1, 2]})
    assert metric.ranking()[1].shape == (2, 3)
    metric.reset()
    assert metric.ranking()[1].shape == (0, 0)
    assert metric.compute()["recall@1"].isnan()


def test_pickling_and_copying():
    split = make_split()
    metric = feed(make_metric(split), split)
    expected = metric.compute()
    for other in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        assert other.compute() == expected
        other.reset()
        assert feed(other, split).compute() == expected
    assert not metric.state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_ids": [1, 1]}, "query_ids has 1 more than once"),
        ({"image_ids": [7, 8, 7]}, "image_ids has 7 more than once"),
        ({"positives": [[7]]}, "positives has 1 entries; query_ids has 2"),
        ({"groups": ["a"]}, "groups has 1 entries; query_ids has 2"),
        ({"positives": [[], []]}, "pass positives=None"),
    ],
)
def test_a_faulty_split_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        RetrievalRecall(**{"query_ids": [1, 2], "image_ids": [7, 8, 9], "positives": [[7], [8]]} | changes)


def test_faulty_batches_are_named():
    metric = RetrievalRecall(query_ids=[1], image_ids=[2])
    with pytest.raises(ValueError, match="side is 'text'"):
        metric.update(torch.tensor([1]), torch.ones(1, 2), side="text")
    for ids, embeddings in (((1, 1), (1, 2)), ((1,), (1, 2, 2))):
        with pytest.raises(ValueError, match=r"they must be \[B\] and \[B, D\]"):
            metric.update(torch.ones(ids, dtype=torch.int64), torch.ones(embeddings), side="query")
    with pytest.raises(ValueError, match=r"\[2\] and \[1, 2\]"):
        metric.update(torch.tensor([1, 2]), torch.ones(1, 2), side="query")


# --- several processes ---------------------------------------------------------------------------------------


def everything(metric):
    return metric.compute(), metric.ranking(7), metric.matched_pairs()


def strided(rank, world_size, split):
    return {side: range(rank, len(split[f"{side}_ids"]), world_size) for side in ("query", "image")}


def last_process_alone(rank, world_size, split):
    last = rank == world_size - 1
    return {side: range(len(split[f"{side}_ids"]) if last else 0) for side in ("query", "image")}


def one_side_each(rank, world_size, split):
    """Process 0 has only images, process 1 only queries, the others nothing."""
    return {
        "query": range(len(split["query_ids"]) if rank == min(1, world_size - 1) else 0),
        "image": range(len(split["image_ids"]) if rank == 0 else 0),
    }


def evaluate_share(rank, world_size, split, share):
    metric = feed(make_metric(split), split, share(rank, world_size, split), batch_size=3)
    result = everything(metric)
    assert len(metric.query_ids) == -(-len(share(rank, world_size, split)["query"]) // 3)  # the state is local again
    metric.reset()
    assert feed(metric, split, share(rank, world_size, split), batch_size=2).compute() == result[0]
    return result


@pytest.mark.ddp
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("share", [strided, last_process_alone, one_side_each])
@pytest.mark.parametrize("queries", [7, 23])
def test_processes_agree_with_one(world_size, share, queries, run_processes):
    split = make_split(queries=queries)
    expected = everything(feed(make_metric(split), split))
    for result in run_processes(world_size, evaluate_share, split, share):
        assert {name: value.item() for name, value in result[0].items()} == pytest.approx(
            {name: value.item() for name, value in expected[0].items()}, abs=1e-6
        )
        for got, wanted in zip((*result[1], *result[2]), (*expected[1], *expected[2]), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def evaluate_faulty(rank, world_size, split):
    share = strided(rank, world_size, split)
    if rank == 1:
        share["query"] = [*share["query"], 0]  # process 0 has it: what a padding sampler does
    messages = []
    for metric in (feed(make_metric(split), split, share), make_metric(split)):
        try:
            metric.compute()
        except RuntimeError as error:
            messages.append(str(error))
    return messages


@pytest.mark.ddp
def test_every_process_raises_when_one_repeats_a_row_or_none_has_any(run_processes):
    split = make_split(queries=7)
    for repeated, nothing in run_processes(2, evaluate_faulty, split):
        assert f"8 query ids for a split of 7: 1 repeated ({split['query_ids'][0]})" in repeated
        assert "0 query ids for a split of 7: 7 missing" in nothing


class Stranger(L.LightningModule):
    """Somebody else's model, of fixed images and texts that are trained; the first process has most of the rows."""

    def __init__(self, split, folder):
        super().__init__()
        self.split, self.folder = split, folder
        self.texts = torch.nn.Parameter(split["query_embeddings"].clone())
        self.recall = zoo.metrics.RetrievalRecall(
            query_ids=split["query_ids"], image_ids=split["image_ids"], positives=split["positives"]
        )

    def setup(self, stage):
        torch.set_num_threads(1)  # the parent's thread pool does not survive the fork

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self):
        return DataLoader(range(8), batch_size=4)

    def val_dataloader(self):
        return [
            DataLoader([row for row in range(len(ids)) if (row % 4 == 3) == (self.global_rank == 1)], batch_size=4)
            for ids in (self.split["query_ids"], self.split["image_ids"])
        ]

    def training_step(self, rows, batch_idx):
        return self.texts[rows].sum()

    def validation_step(self, rows, batch_idx, dataloader_idx):
        side = ("query", "image")[dataloader_idx]
        embeddings = (self.texts, self.split["image_embeddings"])[dataloader_idx]
        self.recall.update(torch.tensor(self.split[f"{side}_ids"])[rows.cpu()], embeddings[rows], side=side)

    def on_validation_epoch_end(self):
        self.log_dict({f"val/{name}": value for name, value in self.recall.compute().items()})
        self.recall.reset()

    def on_fit_end(self):
        found = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps([found, self.texts.tolist()]))


@pytest.mark.ddp
def test_a_strangers_module_trains_and_logs_the_naive_recall_on_two_processes(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        max_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    split = make_split()
    trainer.fit(Stranger(split, tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    found, texts = first
    trained = split | {"query_embeddings": torch.tensor(texts)}
    assert not torch.equal(trained["query_embeddings"], split["query_embeddings"])
    names = ("recall@1", "recall@5", "recall@10", "mean_recall")
    assert found == pytest.approx(
        {f"val/{name}": value for name, value in zip(names, muge_scores(trained), strict=True)}, abs=1e-5
    )


def test_a_group_of_one_process_gathers_what_it_has(group_of_one):
    split = make_split()
    metric = feed(make_metric(split), split)
    metric._sync_dist()
    assert metric.query_ids.tolist() == split["query_ids"]
    assert torch.equal(metric.image_embeddings, split["image_embeddings"])
    none = make_metric(split)
    none._sync_dist()
    assert (none.query_ids.dtype, len(none.query_ids)) == (torch.int64, 0)
    assert (none.image_embeddings.dtype, none.image_embeddings.shape) == (torch.float32, (0, 0))


def test_what_is_gathered_may_be_gathered_otherwise(group_of_one, monkeypatch):
    """By a function and among processes of one's own, as torchmetrics has it."""
    asked = []

    def gather(values, group=None):
        asked.append(group)
        return [values, values]

    split = make_split()
    metric = feed(make_metric(split), split)
    group = torch.distributed.new_group([0])
    offered = []
    offer = metrics.offer_empty_batches
    monkeypatch.setattr(metrics, "offer_empty_batches", lambda *given: offered.append(given[2]) or offer(*given))
    metric._sync_dist(gather, process_group=group)
    assert metric.query_ids.tolist() == split["query_ids"] * 2
    assert asked == [group] * 4
    assert offered == [group]


def test_the_sizes_are_those_of_what_came():
    split = make_split()
    assert feed(make_metric(split), split).sizes() == (23, 31)
    assert feed(make_metric(split, complete=False), split, {"query": [1], "image": [1, 2]}).sizes() == (1, 2)
