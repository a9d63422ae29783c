"""Captions collected on several processes and scored: the same as on one, and as the pure functions."""

import copy
import math
import pickle

import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, DocumentFrequencies, Tokenization
from zoo.tasks.captioning.metrics.scores import CaptionScores

REFERENCES = [
    ["时尚百搭短裤", "夏季 短裤", "百搭"],
    ["红色连衣裙", "时尚连衣裙"],
    ["NEW 短裤"],
    ["手机壳 iPhone15", "个性手机壳"],
    ["儿童书包", "小学生书包"],
]
CAPTIONS = ["时尚短裤", "", "new 短裤！", "手机壳😀手机壳 \ud83d", "小学生儿童书包"]


def tokens_of(texts, **options):
    return [Tokenization(**options).tokenize(text) for text in texts]


def feed(metric, rows, batch_size=2):
    for batch in torch.tensor(list(rows), dtype=torch.int64).split(batch_size):
        if len(batch):
            metric.update(batch, [CAPTIONS[row] for row in batch.tolist()])
    return metric


def test_scores_are_those_of_the_pure_functions_in_percent():
    scores = feed(CaptionScores(REFERENCES), [4, 0, 3, 1, 2]).compute()
    expected = CaptionReferences([tokens_of(texts) for texts in REFERENCES]).score(tokens_of(CAPTIONS)).corpus
    for name, value in expected.items():
        assert scores[name].item() == pytest.approx(100 * value), name
    assert scores["repetition"].item() == pytest.approx(100 / 5)  # 手机壳 twice
    assert set(scores) == {*expected, "distinct1", "distinct2", "different", "empty", "repetition"}
    assert {value.dtype for value in scores.values()} == {torch.float64}


def test_captions_come_back_in_file_order_whatever_is_in_them():
    metric = feed(CaptionScores(REFERENCES), [4, 0, 3, 1, 2])
    assert metric.gathered() == (list(range(5)), CAPTIONS)
    assert metric.gathered() is metric.gathered()


def test_texts_are_cut_as_told():
    scores = feed(CaptionScores(REFERENCES, tokenization=Tokenization(lowercase=True, punctuation=False)), range(5))
    assert scores.score().captions["rouge_l"][2] == pytest.approx(1)
    assert feed(CaptionScores(REFERENCES), range(5)).score().captions["rouge_l"][2] < 1


def test_n_grams_are_weighed_by_the_frequencies_that_are_given():
    frequencies = DocumentFrequencies.of([tokens_of(["短裤"]), tokens_of(["书包"]), tokens_of(["书包", "裙"])])
    given = feed(CaptionScores(REFERENCES, document_frequencies=frequencies), range(5)).compute()
    own = feed(CaptionScores(REFERENCES), range(5)).compute()
    assert given["cider"] != own["cider"]
    assert given["bleu4"] == own["bleu4"]


def test_a_partial_evaluation_scores_the_rows_that_came():
    metric = feed(CaptionScores(REFERENCES, complete=False), [4, 0])
    whole = feed(CaptionScores(REFERENCES), range(5)).score().captions["cider"]
    assert metric.gathered()[0] == [0, 4]
    assert metric.compute()["cider"].item() == pytest.approx(100 * (whole[0] + whole[4]) / 2)
    feed(metric, [2])
    assert metric.gathered()[0] == [0, 2, 4]
    assert metric.compute()["cider"].item() == pytest.approx(100 * (whole[0] + whole[2] + whole[4]) / 3)


def test_after_a_reset_nothing_is_left():
    metric = feed(CaptionScores(REFERENCES, complete=False), range(5))
    metric.compute()
    metric.reset()
    assert metric.gathered() == ([], [])
    assert math.isnan(metric.score().corpus["cider"])


def test_the_control_holds_each_caption_against_another_image():
    texts = [[f"第{row}个的文案", f"文案之{row}"] for row in "甲乙丙丁戊"]
    metric = CaptionScores(texts)
    metric.update(torch.arange(5), [own[0] for own in texts])
    shuffled = metric.shuffled()
    references = CaptionReferences([tokens_of(own) for own in texts])
    expected = references.score(tokens_of(own[0] for own in texts), rows=[2, 3, 4, 0, 1]).corpus
    for name, value in expected.items():
        assert shuffled[name].item() == pytest.approx(100 * value), name
    assert metric.compute()["cider"] > 2 * shuffled["cider"]


def test_one_image_has_no_control():
    metric = CaptionScores(REFERENCES[:1])
    metric.update(torch.tensor([0]), ["短裤"])
    assert metric.shuffled() == {}
    two = feed(CaptionScores(REFERENCES[:2]), range(2))
    assert two.shuffled()["rouge_l"] < two.compute()["rouge_l"]


def test_the_ceiling_is_that_of_the_references():
    references = CaptionReferences([tokens_of(texts) for texts in REFERENCES])
    metric = CaptionScores(REFERENCES)
    assert metric.human_ceiling() == references.human_ceiling()
    assert metric.human_ceiling() is metric.human_ceiling()


def test_other_captions_of_the_same_images_are_scored_in_their_order():
    metric = feed(CaptionScores(REFERENCES, complete=False), [4, 0, 2])
    others = metric.score_others(["百搭", "NEW 短裤", "裙"])
    references = CaptionReferences([tokens_of(texts) for texts in REFERENCES])
    expected = references.score(tokens_of(["百搭", "NEW 短裤", "裙"]), rows=[0, 2, 4]).corpus
    assert {name: value.item() for name, value in others.items()} == pytest.approx(
        {name: 100 * value for name, value in expected.items()}
    )


def test_a_split_without_references_is_collected_and_not_scored():
    metric = feed(CaptionScores([()] * 5), range(5))
    assert metric.gathered()[1] == CAPTIONS
    for method in (metric.compute, metric.shuffled, metric.human_ceiling):
        with pytest.raises(UserError, match="without references: captions are collected, but cannot be scored"):
            method()


def test_an_image_without_references_among_others_is_named():
    with pytest.raises(UserError, match=r"row 1 has none \(1 of 3 images\)"):
        CaptionScores([["短裤"], [], ["裙"]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (range(4), r"CaptionScores gathered 4 rows for a split of 5: 1 missing \(4\)"),
        ([*range(5), 1], r"6 rows for a split of 5: 1 repeated \(1\)"),
        ([], r"0 rows for a split of 5: 5 missing"),
    ],
)
def test_a_full_evaluation_must_see_exactly_the_rows(rows, message):
    with pytest.raises(RuntimeError, match=message):
        feed(CaptionScores(REFERENCES), rows).score()


def test_an_unknown_row_is_named():
    metric = CaptionScores(REFERENCES, complete=False)
    metric.update(torch.tensor([5]), ["裤"])
    with pytest.raises(RuntimeError, match=r"1 unknown \(5\)"):
        metric.gathered()


def test_faulty_batches_are_named():
    metric = CaptionScores(REFERENCES)
    with pytest.raises(ValueError, match=r"rows is \[2\] and there are 1 captions"):
        metric.update(torch.tensor([0, 1]), ["裤"])


def test_pickling_and_copying():
    metric = feed(CaptionScores(REFERENCES), range(5))
    for other in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        assert other.compute() == metric.compute()
        other.reset()
        assert feed(other, range(5)).compute() == metric.compute()
    assert not metric.state_dict()


# --- several processes -----------------------------------------------------------------------------------------------


def strided(rank, world_size):
    return range(rank, 5, world_size)


def last_process_alone(rank, world_size):
    return range(5) if rank == world_size - 1 else []


def collect_share(rank, world_size, share):
    metric = feed(CaptionScores(REFERENCES), share(rank, world_size))
    scores = metric.compute(), metric.shuffled(), metric.gathered()
    assert sum(map(len, metric.rows)) == len(share(rank, world_size))  # the state is local again
    metric.reset()
    assert feed(metric, share(rank, world_size), batch_size=3).compute() == scores[0]
    return scores


@pytest.mark.ddp
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("share", [strided, last_process_alone])
def test_processes_agree_with_one(world_size, share, run_processes):
    alone = feed(CaptionScores(REFERENCES), range(5))
    expected = alone.compute(), alone.shuffled(), alone.gathered()
    for result in run_processes(world_size, collect_share, share):
        assert result == expected


def collect_faulty(rank, world_size):
    messages = []
    repeated = [*strided(rank, world_size), *([0] if rank == 1 else [])]
    for rows in (repeated, []):
        try:
            feed(CaptionScores(REFERENCES), rows).compute()
        except RuntimeError as error:
            messages.append(str(error))
    return messages


@pytest.mark.ddp
def test_every_process_raises_when_one_is_at_fault(run_processes):
    for repeated, nothing in run_processes(3, collect_faulty):
        assert "6 rows for a split of 5: 1 repeated (0)" in repeated
        assert "0 rows for a split of 5: 5 missing" in nothing
