"""Tokens, n-grams and the scores made of them, against values computed by hand; tests/parity has pycocoevalcap's."""

import itertools
import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from zoo.errors import UserError
from zoo.tasks.captioning.metrics.bleu import bleu
from zoo.tasks.captioning.metrics.ngram_index import NgramIndex
from zoo.tasks.captioning.metrics.ngrams import (
    SCORES,
    CaptionReferences,
    DocumentFrequencies,
    Tokenization,
    rouge_l,
    variety,
)
from zoo.tasks.captioning.metrics.rouge import common_subsequences
from zoo.tasks.captioning.metrics.tokens import repeats

PICTURES = [
    [list("时尚百搭短裤"), list("夏季短裤"), list("百搭")],
    [list("红色连衣裙"), list("时尚连衣裙")],
    [list("短裤")],
]
CAPTIONS = [list("时尚短裤"), list("红裙连衣"), []]


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_run_of_latin_letters_and_digits_is_one_token_and_so_is_each_other_character():
    tokens = Tokenization().tokenize("iPhone15 手机壳，5g\u3000快充!!é")
    assert tokens == ["iPhone15", "手", "机", "壳", "，", "5g", "快", "充", "!", "!", "é"]


def test_case_and_punctuation_are_dropped_on_demand():
    text = "NEW款~T恤，￥99「夏」"
    assert Tokenization(lowercase=True).tokenize(text)[:2] == ["new", "款"]
    assert Tokenization(punctuation=False).tokenize(text) == ["NEW", "款", "T", "恤", "99", "夏"]


@pytest.mark.parametrize("text", ["", " \t\u3000"])
def test_an_empty_text_has_no_tokens(text):
    assert Tokenization().tokenize(text) == []


def test_the_signature_says_how_texts_were_cut():
    assert Tokenization().signature == "tokens:muge|case:kept|punctuation:kept"
    other = Tokenization(lowercase=True, punctuation=False)
    assert other.signature == "tokens:muge|case:lower|punctuation:dropped"


# --- n-grams as numbers ----------------------------------------------------------------------------------------------


def test_equal_n_grams_have_equal_numbers_and_others_have_others():
    captions = [list("甲乙甲乙甲"), [], list("乙甲乙丙"), list("丁")]
    index, ngrams = NgramIndex.of(captions)
    spelled = [
        tuple(tokens[start : start + order])
        for order in range(1, 5)
        for tokens in captions
        for start in range(len(tokens) - order + 1)
    ]
    assert len(set(zip(spelled, ngrams.gram.tolist(), strict=True))) == len(set(spelled)) == index.size
    assert ngrams.order.tolist() == [len(ngram) - 1 for ngram in spelled]
    assert ngrams.lengths.tolist() == [5, 0, 4, 1]


def test_n_grams_that_the_index_lacks_are_told_apart():
    captions = [list("甲乙丙"), list("戊甲乙戊"), list("戊甲戊甲")]
    index, ngrams = NgramIndex.of(captions[:1])
    encoded = index.encode(captions)
    spelled = [
        "".join(tokens[start : start + order])
        for order in range(1, 5)
        for tokens in captions
        for start in range(len(tokens) - order + 1)
    ]
    assert len(set(zip(spelled, encoded.gram.tolist(), strict=True))) == len(set(spelled)) == len(set(encoded.gram))
    known = encoded.gram < index.size
    assert {ngram for ngram, is_known in zip(spelled, known, strict=True) if is_known} == {
        *"甲乙丙",
        "甲乙",
        "乙丙",
        "甲乙丙",
    }
    assert encoded.gram[encoded.owner == 0].tolist() == ngrams.gram.tolist()


# --- scores ----------------------------------------------------------------------------------------------------------


def test_bleu_clips_counts_and_is_short_of_the_closest_length():
    scores = CaptionReferences([[list("abdce"), list("zzzzzzzz")]]).score([list("abcd")]).corpus
    brevity = math.exp(1 - 5 / 4)
    assert scores["bleu1"] == pytest.approx(brevity)
    assert scores["bleu2"] == pytest.approx(brevity * math.sqrt(1 / 3))
    clipped = CaptionReferences([[list("aa"), list("ab")]]).score([list("aaa")]).corpus
    assert clipped["bleu1"] == pytest.approx(2 / 3)


def test_of_two_lengths_equally_close_the_shorter_counts():
    scores = CaptionReferences([[list("abcd"), list("ab")]]).score([list("abc")]).corpus
    assert scores["bleu1"] == pytest.approx(1)


def test_a_caption_too_short_for_an_order_has_coco_captions_tiny_share():
    scores = CaptionReferences([[["a"]]]).score([["a"]]).corpus
    assert [scores[f"bleu{order}"] for order in (1, 2, 3)] == pytest.approx([1, 1e-6 ** (1 / 2), 1e-12 ** (1 / 3)])


def test_the_closest_length_counts_and_not_the_shortest():
    scores = CaptionReferences([[list("ab"), list("abcdef"), list("abcdefghi")]]).score([list("abcde")]).corpus
    assert scores["bleu1"] == pytest.approx(math.exp(1 - 6 / 5))


def test_bleu_of_a_set_is_of_all_counts_together():
    scores = CaptionReferences([[list("ab")], [list("cdef")]]).score([list("ab"), list("cdxx")])
    assert scores.captions["bleu1"] == pytest.approx([1, 0.5])
    assert scores.corpus["bleu1"] == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("correct", "guessed", "length", "closest"),
    [
        ([3, 2, 1, 0], [5, 4, 3, 2], 5, 6),
        ([5, 4, 3, 2], [5, 4, 3, 2], 5, 5),
        ([0, 0, 0, 0], [2, 1, 0, 0], 2, 3),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0, 0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0, 4),
        ([0, 0, 0, 0], [2, 1, 0, 0], 2, 0),
    ],
)
def test_bleu_is_coco_captions_formula(correct, guessed, length, closest):
    """Written as there: the product of precisions, to the power of one by their number, times the brevity."""
    expected, product = [], 1.0
    for order in range(4):
        product *= (correct[order] + 1e-15) / (guessed[order] + 1e-9)
        expected.append(product ** (1 / (order + 1)))
    ratio = (length + 1e-15) / (closest + 1e-9)
    if ratio < 1:
        expected = [each * math.exp(1 - 1 / ratio) for each in expected]
    found = bleu(np.array([correct] * 2), np.array([guessed] * 2), np.array([length] * 2), np.array([closest] * 2))
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-12, atol=0)


def test_rouge_takes_the_best_precision_and_the_best_recall_of_any_reference():
    precision, recall = 2 / 3, 1  # of a·c, and of a
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(list("abc"), [list("axc"), list("a")]) == pytest.approx(expected)


def test_a_caption_without_tokens_is_one_of_an_empty_token():
    assert rouge_l([], [[]]) == 1
    assert rouge_l([], [list("a")]) == rouge_l(list("a"), [[]]) == 0
    assert rouge_l([], [list("a"), []]) == 1


def test_common_subsequences_of_texts_longer_than_a_machine_word():
    generator = np.random.default_rng(0)
    texts = [list(generator.choice(list("甲乙丙丁"), size)) for size in (150, 1, 90, 130)]
    assert list(common_subsequences(texts[0], texts)) == [naive_subsequence(texts[0], text) for text in texts]


def test_common_subsequences_of_all_short_texts():
    texts = [list(text) for size in range(1, 5) for text in itertools.product("甲乙", repeat=size)]
    for text in texts:
        assert list(common_subsequences(text, texts)) == [naive_subsequence(text, other) for other in texts]


def naive_subsequence(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if first == second else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_cider_is_the_mean_cosine_over_orders_and_references_times_ten():
    references = CaptionReferences([[list("ab"), list("xy")], [list("c")]])
    scores = references.score([list("ab"), list("c")])
    assert scores.captions["cider"] == pytest.approx([10 * (1 + 1) / 4 / 2, 10 * 1 / 4])
    assert scores.corpus["cider"] == pytest.approx((2.5 + 2.5) / 2)


def test_cider_is_less_for_another_length():
    scores = CaptionReferences([[list("ab")], [list("c")]]).score([list("a"), list("c")])
    assert scores.captions["cider"][0] == pytest.approx(10 / 4 / math.sqrt(2) * math.exp(-1 / 72))


def naive_cider(captions, references):
    """CIDEr-D as coco-caption writes it: vectors of n-grams as dictionaries, products clipped at the reference's."""

    def ngrams(tokens):
        return Counter(tuple(tokens[i : i + n]) for n in range(1, 5) for i in range(len(tokens) - n + 1))

    images = Counter(ngram for texts in references for ngram in {each for text in texts for each in ngrams(text)})

    def vector(tokens):
        return {
            ngram: count * math.log(len(references) / images.get(ngram, 1)) for ngram, count in ngrams(tokens).items()
        }

    def norm(values, order):
        return math.sqrt(sum(value**2 for ngram, value in values.items() if len(ngram) == order))

    scores = []
    for caption, texts in zip(captions, references, strict=True):
        own, score = vector(caption), 0.0
        for text in texts:
            other, off = vector(text), max(len(caption) - 1, 0) - max(len(text) - 1, 0)
            for order in range(1, 5):
                both = norm(own, order) * norm(other, order)
                shared = [ngram for ngram in own if ngram in other and len(ngram) == order]
                product = sum(min(own[ngram], other[ngram]) * other[ngram] for ngram in shared)
                score += math.exp(-(off**2) / 72) * product / both if both else 0.0
        scores.append(10 * score / 4 / len(texts))
    return scores


def test_cider_clips_n_grams_that_come_several_times():
    references = [
        [list("红红裙红红"), list("红裙")],
        [list("蓝裙蓝裙蓝"), list("蓝蓝")],
        [list("裤")],
        [list("红裤红裤")],
    ]
    captions = [list("红红红裙"), list("蓝裙蓝裙"), list("裤裤"), list("红裤")]
    scores = CaptionReferences(references).score(captions).captions["cider"]
    assert scores == pytest.approx(naive_cider(captions, references), rel=1e-12)
    assert min(scores) > 0


def test_captions_that_are_scored_together_have_the_scores_that_each_has_alone():
    """More captions than there are n-grams."""
    references = CaptionReferences([[list("甲")], [list("乙")], [list("甲乙")]])
    captions = [list(text) for size in range(4) for text in itertools.product("甲乙", repeat=size)] * 3
    rows = np.arange(len(captions)) % 3
    together = references.score(captions, rows=rows).captions
    for place, (caption, row) in enumerate(zip(captions, rows, strict=True)):
        for name, value in references.score([caption], rows=[row]).captions.items():
            assert together[name][place] == pytest.approx(value[0]), (name, caption)


def test_each_caption_has_every_score():
    scores = CaptionReferences(PICTURES).score(CAPTIONS)
    assert set(scores.captions) == set(scores.corpus) == set(SCORES)
    assert scores.captions["bleu4"][1] < scores.captions["bleu3"][1] < scores.captions["bleu2"][1]


def test_every_reference_counts_wherever_a_score_is_asked_for():
    references = CaptionReferences([[list("ab"), list("cd")], [list("e")], [list("f")]])
    captions = [list("cd"), list("e"), list("f")]
    assert references.bleu(captions)[0] == pytest.approx(1)
    assert references.cider_d([0], captions[:1]) == pytest.approx([10 * (1 + 1) / 4 / 2])
    assert references.score(captions).captions["bleu1"] == pytest.approx([1, 1, 1])


def test_what_other_images_have_is_not_the_last_ones():
    references = CaptionReferences([[list("ab")], [list("a")]])  # behind all n-grams of the last image come b and ab
    scores = references.score([list("b"), list("ab")], rows=[1, 1])
    assert scores.captions["bleu1"] == pytest.approx([0, 1 / 2], abs=1e-8)


def test_what_every_image_has_weighs_nothing():
    assert CaptionReferences([[list("a")], [list("a")]]).score([list("a")] * 2).corpus["cider"] == 0


def test_one_image_alone_has_a_cider_of_0():
    assert CaptionReferences([[list("ab")]]).score([list("ab")]).corpus["cider"] == 0


def test_any_captions_of_any_images_are_rewarded_as_they_are_scored():
    references = CaptionReferences(PICTURES)
    rows = [2, 0, 0, 1, 2, 0]
    rewards = references.cider_d(rows, [CAPTIONS[row] for row in rows])
    assert rewards == pytest.approx(references.score(CAPTIONS).captions["cider"][rows])
    assert references.cider_d([], []).shape == (0,)


def test_a_few_rows_keep_the_document_frequencies_of_all():
    references = CaptionReferences(PICTURES)
    few, every = references.score([CAPTIONS[1]], rows=[1]), references.score(CAPTIONS)
    assert few.captions["cider"] == pytest.approx(every.captions["cider"][1:2])


def test_references_without_tokens_give_no_score_and_no_error():
    scores = CaptionReferences([[[]], [[], []]]).score([list("短裤"), list("裙")]).corpus
    assert list(scores.values()) == pytest.approx([0] * 6, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_no_captions_have_no_score():
    assert all(math.isnan(score) for score in CaptionReferences(PICTURES).score([], rows=[]).corpus.values())


@pytest.mark.parametrize(
    ("references", "message"),
    [([], "no images"), ([[["a"]], [], []], r"row 1 has none \(2 of 3 images\)")],
)
def test_an_image_without_references_is_named(references, message):
    with pytest.raises(UserError, match=message):
        CaptionReferences(references)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 1], "there are 3 captions and 2 rows"), ([0, 1, 3], r"rows go from 0 to 3; they must be in \[0, 3\)")],
)
def test_rows_that_do_not_fit_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        CaptionReferences(PICTURES).score(CAPTIONS, rows=rows)


def test_wrong_images_are_never_the_own_one():
    for images in (2, 3, 8, 9):
        references = CaptionReferences([[["a"]]] * images)
        others = references.others(range(images))
        assert sorted(others) == list(range(images))
        assert not any(others == np.arange(images))
    assert CaptionReferences([[["a"]]] * 5).others([0, 1, 4]).tolist() == [2, 3, 1]
    with pytest.raises(ValueError, match="there is one image"):
        CaptionReferences([[["a"]]]).others([0])


# --- the human ceiling -----------------------------------------------------------------------------------------------


def test_the_ceiling_holds_each_reference_against_the_others():
    references = CaptionReferences(PICTURES)
    ceiling = references.human_ceiling()
    assert (ceiling.images, ceiling.rounds) == (2, 3)
    rounds = []
    for number in range(3):
        places = [number % len(texts) for texts in PICTURES[:2]]
        others = [texts[:place] + texts[place + 1 :] for texts, place in zip(PICTURES, places, strict=False)]
        naive = CaptionReferences(others, document_frequencies=references.document_frequencies)
        captions = [texts[place] for texts, place in zip(PICTURES, places, strict=False)]
        rounds.append(naive.score(captions).corpus)
    for name, value in ceiling.scores.items():
        assert value == pytest.approx(np.mean([scores[name] for scores in rounds])), name


def test_there_is_no_ceiling_where_no_image_has_two_references():
    assert CaptionReferences([[["a"]], [["b"]]]).human_ceiling() is None


# --- document frequencies --------------------------------------------------------------------------------------------


def test_images_are_counted_once_whatever_their_references():
    frequencies = DocumentFrequencies.of(PICTURES)
    ngrams = frequencies.index.encode([list("短裤天")])
    assert frequencies.images == 3
    expected = [math.log(3 / 2), math.log(3 / 2), math.log(3), math.log(3 / 2), math.log(3), math.log(3)]
    assert frequencies.weights(ngrams) == pytest.approx(expected)  # 短 裤 天 短裤 裤天 短裤天


def test_an_n_gram_may_be_the_only_one():
    frequencies = DocumentFrequencies.of([[["a"]], [["a"], ["a"]], [[]]])
    assert (frequencies.counts.tolist(), frequencies.images) == ([2], 3)
    assert DocumentFrequencies.of([[[]], [[]]]).counts.tolist() == []
    assert CaptionReferences([[["a"]], [["a"]], [[]]]).document_frequencies.counts.tolist() == [2]
    assert CaptionReferences([[[]], [["a"]]]).score([["a"]], rows=[1]).corpus["cider"] == pytest.approx(10 / 4)
    scores = CaptionReferences([[["a"]], [["a"]], [[]]]).score([["a"], ["a"], []])
    assert scores.captions["cider"] == pytest.approx([10 / 4, 10 / 4, 0])


def test_frequencies_of_the_same_references_change_nothing():
    given = CaptionReferences(PICTURES, document_frequencies=DocumentFrequencies.of(PICTURES))
    assert given.score(CAPTIONS).corpus == pytest.approx(CaptionReferences(PICTURES).score(CAPTIONS).corpus)


def test_frequencies_that_are_written_are_read_back(tmp_path):
    path = tmp_path / "new" / "frequencies.json"
    DocumentFrequencies.of(PICTURES).write(path, tokenization=Tokenization())
    assert json.loads(path.read_text("utf-8")) == {
        "tokenization": "tokens:muge|case:kept|punctuation:kept",
        "images": 3,
        "frequencies": {**dict.fromkeys("时尚短裤", 2), "时 尚": 2, "短 裤": 2},
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["frequencies.json"]
    frequencies = DocumentFrequencies.read(path, tokenization=Tokenization())
    read = CaptionReferences(PICTURES, document_frequencies=frequencies)
    assert read.score(CAPTIONS).corpus == pytest.approx(CaptionReferences(PICTURES).score(CAPTIONS).corpus)


def test_n_grams_of_every_length_are_written_as_they_read(tmp_path):
    texts = [["甲乙丙丁戊", "丁戊己"], ["甲乙丙丁戊"], ["戊己庚"], ["丙丁戊己"], ["庚戊"]]
    frequencies = DocumentFrequencies.of([[list(text) for text in own] for own in texts])
    path = tmp_path / "a" / "b" / "frequencies.json"
    frequencies.write(path, tokenization=Tokenization())
    counts = {}
    for own in texts:
        ngrams = {text[i : i + n] for text in own for n in range(1, 5) for i in range(len(text) - n + 1)}
        for ngram in ngrams:
            counts[" ".join(ngram)] = counts.get(" ".join(ngram), 0) + 1
    expected = {ngram: count for ngram, count in counts.items() if count > 1}
    assert max(counts.values()) == 5  # in all images
    assert json.loads(path.read_text("utf-8"))["frequencies"] == expected
    assert "甲 乙 丙 丁" in path.read_text("utf-8")  # legible
    asked = [list(text) for own in texts for text in own] + [list("甲丙")]
    read = DocumentFrequencies.read(path, tokenization=Tokenization())
    found = [each.weights(each.index.encode(asked)) for each in (frequencies, read)]
    np.testing.assert_allclose(*found)


def test_a_count_may_be_of_one_image_or_of_all(tmp_path):
    record = {"tokenization": Tokenization().signature, "images": 2, "frequencies": {"a": 1, "b": 2}}
    (tmp_path / "f.json").write_text(json.dumps(record))
    frequencies = DocumentFrequencies.read(tmp_path / "f.json", tokenization=Tokenization())
    assert frequencies.weights(frequencies.index.encode([["a"], ["b"]])) == pytest.approx([math.log(2), 0])
    (tmp_path / "one.json").write_text(json.dumps(record | {"images": 1, "frequencies": {"a": 1}}))
    assert DocumentFrequencies.read(tmp_path / "one.json", tokenization=Tokenization()).images == 1


def test_frequencies_of_other_tokens_are_refused(tmp_path):
    DocumentFrequencies.of(PICTURES).write(tmp_path / "f.json", tokenization=Tokenization(lowercase=True))
    with pytest.raises(UserError, match=r"are of 'tokens:muge\|case:lower.*' and the captions are cut by .*case:kept"):
        DocumentFrequencies.read(tmp_path / "f.json", tokenization=Tokenization())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not what DocumentFrequencies.write writes"),
        ("{", "not what DocumentFrequencies.write writes"),
        ('{"tokenization": "", "images": 2, "frequencies": {"a": 3}}', "a count is not from 1 to 2"),
        ('{"tokenization": "", "images": 2, "frequencies": {"a": 1, "b": 0}}', "a count is not from 1 to 2"),
        ('{"tokenization": "", "images": 0, "frequencies": {}}', "a count is not from 1 to 0"),
        ('{"tokenization": "", "images": 2, "frequencies": {"a": "x"}}', "not what DocumentFrequencies.write writes"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(UserError, match=message):
        DocumentFrequencies.read(tmp_path / "f.json", tokenization=Tokenization())


# --- variety ---------------------------------------------------------------------------------------------------------


def test_variety_is_counted_over_all_captions():
    scores = variety([list("aba"), list("ab"), list("ab"), []])
    wanted = {"distinct1": 200 / 7, "distinct2": 50, "different": 75, "empty": 25, "repetition": 0}
    assert scores == pytest.approx(wanted)


def test_no_captions_have_no_variety():
    assert variety([]) == {"distinct1": 0, "distinct2": 0, "different": 0, "empty": 0, "repetition": 0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("漂亮漂亮", False), ("漂亮漂亮漂", True), ("时尚百搭又时尚", False), ("哈哈哈哈", True), ("哈", False)],
)
def test_a_caption_repeats_itself_when_it_says_three_tokens_twice(text, expected):
    assert repeats(list(text)) == expected


def test_torch_is_not_imported():
    code = "import sys, zoo.tasks.captioning.metrics.ngrams; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
