"""CIDEr-D, BLEU and ROUGE-L, each a metric alone: as the pure functions, and in other people's LightningModules."""

import copy
import json
import pickle

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

import zoo
from zoo.errors import UserError
from zoo.tasks.captioning.metrics.captions import Bleu, CiderD, RougeL
from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, DocumentFrequencies, Tokenization

REFERENCES = [
    ["时尚百搭短裤", "夏季 短裤", "百搭"],
    ["红色连衣裙", "时尚连衣裙"],
    ["NEW 短裤"],
    ["手机壳 iPhone15", "个性手机壳"],
    ["儿童书包", "小学生书包"],
]
CAPTIONS = ["时尚短裤", "", "new 短裤！", "手机壳😀手机壳 \ud83d", "小学生儿童书包"]
CORPUS = [["短裤"], ["书包"], ["书包", "裙"]]


def collection():
    return MetricCollection(
        {
            "cider": CiderD(),
            "cider_corpus": CiderD(CORPUS, lowercase=True, punctuation=False),
            **{f"bleu{order}": Bleu(order) for order in (1, 2, 3, 4)},
            "rouge_l": RougeL(),
        }
    )


def expected():
    def score(corpus=None, **options):
        cut = Tokenization(**options).tokenize
        references = CaptionReferences(
            [[cut(text) for text in texts] for texts in REFERENCES],
            document_frequencies=corpus and DocumentFrequencies.of([[cut(text) for text in texts] for texts in corpus]),
        )
        return references.score([cut(text) for text in CAPTIONS]).corpus

    values = score() | {"cider_corpus": score(CORPUS, lowercase=True, punctuation=False)["cider"]}
    return pytest.approx({name: 100 * value for name, value in values.items()}, rel=1e-12)


def feed(metric, rows, batch_size=2):
    rows = list(rows)
    for batch in (rows[start : start + batch_size] for start in range(0, len(rows), batch_size)):
        metric.update([CAPTIONS[row] for row in batch], [REFERENCES[row] for row in batch])
    return metric


def numbers(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_each_metric_alone_gives_what_the_pure_functions_give_in_percent():
    found = {name: feed(metric, range(5)).compute().item() for name, metric in collection().items(copy_state=False)}
    assert found == expected()


def test_a_collection_gives_the_same_in_any_order_of_batches():
    assert numbers(feed(collection(), [4, 0, 3, 1, 2])) == expected()
    assert numbers(feed(collection(), range(5), batch_size=5)) == numbers(feed(collection(), [4, 0, 3, 1, 2]))


@pytest.mark.parametrize("metric", [CiderD, Bleu, RougeL])
def test_a_metric_cuts_texts_as_told(metric):
    assert metric().tokenization == Tokenization()
    assert metric(lowercase=True).tokenization == Tokenization(lowercase=True)
    assert metric(punctuation=False).tokenization == Tokenization(punctuation=False)
    assert metric(compute_on_cpu=True).compute_on_cpu


def test_a_call_scores_the_batch_and_adds_it_to_the_set():
    metric = CiderD(CORPUS)
    first = metric(CAPTIONS[:2], REFERENCES[:2])
    metric(CAPTIONS[2:], REFERENCES[2:])
    assert metric.compute() == feed(CiderD(CORPUS), range(5)).compute()
    assert first == feed(CiderD(CORPUS), range(2)).compute()


def test_counts_that_are_given_weigh_as_the_corpus_that_they_are_of():
    counts = DocumentFrequencies.of([[Tokenization().tokenize(text) for text in texts] for texts in CORPUS])
    assert feed(CiderD(counts), range(5)).compute() == feed(CiderD(CORPUS), range(5)).compute()
    assert feed(CiderD(), range(5)).compute() != feed(CiderD(CORPUS), range(5)).compute()


def test_a_row_that_comes_again_counts_once():
    metric = feed(RougeL(), range(5))
    repeated = RougeL()
    for rows in ([3, 1, 4], torch.tensor([0, 2, 3])):
        repeated.update([CAPTIONS[row] for row in rows], [REFERENCES[row] for row in rows], rows=rows)
    assert repeated.compute() == pytest.approx(metric.compute())
    assert feed(metric, [0]).compute() != repeated.compute()  # without rows all count


def test_a_row_alone_counts_and_so_does_the_first():
    own = RougeL()
    own.update(CAPTIONS[:1], REFERENCES[:1])
    for rows in ([0], [0, 0], [0, 0, 0]):
        repeated = RougeL()
        repeated.update(CAPTIONS[:1] * len(rows), REFERENCES[:1] * len(rows), rows=rows)
        assert len(repeated._tokens()[0]) == 1
        assert repeated.compute() == own.compute()


def test_nothing_is_not_a_number():
    metric = Bleu()
    metric.update([], [])
    assert metric.compute().isnan()
    assert feed(metric, range(5)).compute() == feed(Bleu(), range(5)).compute()


def test_pickling_copying_and_resetting():
    metric = feed(CiderD(CORPUS), range(5))
    for other in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        assert other.compute() == metric.compute()
        other.reset()
        assert feed(other, range(5)).compute() == metric.compute()
    assert not metric.state_dict()


def test_they_are_offered_by_name():
    assert (zoo.metrics.CiderD, zoo.metrics.Bleu, zoo.metrics.RougeL) == (CiderD, Bleu, RougeL)


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ((["裤"], []), "references"),
        ((["裤"], ["短裤"]), "references"),
        ((["裤"], [[]]), "references"),
        ((["裤"], [["短裤"]], [0, 1]), "rows"),
    ],
)
def test_faulty_batches_are_named(given, argument):
    with pytest.raises(UserError) as caught:
        RougeL().update(*given)
    assert caught.value.argument == argument


def test_bleu_has_n_grams_of_one_to_four_tokens():
    with pytest.raises(UserError, match="n_gram is 5: give 1 to 4"):
        Bleu(5)


# --- several processes -----------------------------------------------------------------------------------------------


def collect_share(rank, world_size, alone):
    metric = collection()
    own = (range(5) if rank == world_size - 1 else []) if alone else range(rank, 5, world_size)
    found = numbers(feed(metric, own))
    metric.reset()
    assert numbers(feed(metric, own, batch_size=3)) == found
    return found


@pytest.mark.ddp
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_agree_with_one(world_size, alone, run_processes):
    for found in run_processes(world_size, collect_share, alone):
        assert found == numbers(feed(collection(), range(5)))


class Stranger(L.LightningModule):
    """Somebody else's captioner, which knows its captions by heart."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.scores = collection()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def setup(self, stage):
        torch.set_num_threads(1)  # the parent's thread pool does not survive the fork

    def validation_step(self, batch, batch_idx):
        rows = batch.tolist()
        self.scores.update([CAPTIONS[row] for row in rows], [REFERENCES[row] for row in rows], rows=batch)
        self.log_dict(self.scores)

    def on_validation_end(self):
        found = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(found))


@pytest.mark.ddp
def test_a_strangers_module_scores_alike_on_two_processes(tmp_path):
    """Lightning's sampler gives each process three of the five rows, so one of them twice."""
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(Stranger(tmp_path), DataLoader(range(5), batch_size=2), verbose=False)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected()


def test_a_group_of_one_process_gathers_what_it_has(group_of_one):
    asked = []

    def gather(values, group=None):
        asked.append(group)
        return [values, values]

    for metric in (feed(RougeL(), range(5)), RougeL()):
        own = metric._collected()
        metric._sync_dist()
        assert metric._collected() == own
        group = torch.distributed.new_group([0])
        metric._sync_dist(gather, process_group=group)
        assert metric._collected() == (own[0] * 2, own[1] * 2)
        assert asked == [group] * 4
        asked.clear()
