"""Caption scores against pycocoevalcap, on the same tokens."""

import random

import numpy as np
import pytest

from zoo.tasks.captioning.metrics.ngrams import SCORES, CaptionReferences

pytestmark = pytest.mark.parity


def theirs(references, hypotheses):
    """pycocoevalcap's scores of the set and of each caption, by our names."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    true = {row: [" ".join(tokens) for tokens in texts] for row, texts in enumerate(references)}
    said = {row: [" ".join(tokens)] for row, tokens in enumerate(hypotheses)}
    bleu, each_bleu = Bleu(4).compute_score(true, said, verbose=0)
    cider, each_cider = Cider().compute_score(true, said)
    rouge, each_rouge = Rouge().compute_score(true, said)
    return (
        dict(zip(SCORES, [cider, *bleu, rouge], strict=True)),
        dict(zip(SCORES, [each_cider, *each_bleu, each_rouge], strict=True)),
    )


def compare(references, hypotheses):
    corpus, captions = theirs(references, hypotheses)
    ours = CaptionReferences(references).score(hypotheses)
    for name in SCORES:
        np.testing.assert_allclose(ours.captions[name], captions[name], atol=1e-9, rtol=0, err_msg=name)
        assert ours.corpus[name] == pytest.approx(corpus[name], abs=1e-9), name


def make_text(generator, vocabulary, longest):
    return [generator.choice(vocabulary) for _ in range(generator.randint(1, longest))]


@pytest.mark.parametrize("seed", range(30))
def test_random_captions_score_alike(seed):
    """Few words, so that n-grams repeat within a text and over images, and many, so that most are strangers."""
    generator = random.Random(seed)
    vocabulary = [f"词{number}" for number in range(generator.choice([2, 5, 30, 1000]))]
    longest = generator.choice([1, 3, 12, 90])
    images = generator.choice([2, 3, 25])
    references = [
        [make_text(generator, vocabulary, longest) for _ in range(generator.randint(1, 6))] for _ in range(images)
    ]
    hypotheses = [
        make_text(generator, [*vocabulary, "生词", "新词"], longest) if generator.random() < 0.9 else []
        for _ in range(images)
    ]
    compare(references, hypotheses)


EDGES = {
    "one image": ([[list("时尚短裤"), list("短裤")]], [list("时尚短裤")]),
    "one reference": ([[list("时尚短裤")], [list("连衣裙")]], [list("短裤时尚"), list("连衣裙")]),
    "all captions empty": ([[list("短裤")], [list("裙")]], [[], []]),
    "an empty caption": ([[list("短裤")], [list("裙")]], [[], list("裙")]),
    "an empty reference": ([[[], list("短裤")], [[]], [list("裙子")]], [[], [], list("裙")]),
    "all equal": ([[list("时尚短裤")] * 3] * 4, [list("时尚短裤")] * 4),
    "all equal in each image": ([[list("时尚短裤")] * 3, [list("连衣裙")] * 2], [list("时尚短裤"), list("连衣裙")]),
    "of one token": ([[list("裤")], [list("裙")]], [list("裤"), list("裤")]),
    "nothing in common": ([[list("短裤")], [list("裙子")]], [list("衣服"), list("鞋")]),
    "very long": ([[list("时尚" * 70)], [list("百搭" * 50 + "裙")]], [list("尚时" * 80), list("搭百" * 3)]),
}


@pytest.mark.parametrize(("references", "hypotheses"), EDGES.values(), ids=EDGES)
def test_edge_cases_score_alike(references, hypotheses):
    compare(references, hypotheses)


@pytest.mark.parametrize("seed", range(5))
def test_the_ceiling_of_bleu_and_rouge_is_theirs_of_the_others(seed):
    generator = random.Random(seed)
    references = [
        [make_text(generator, list("时尚百搭短裤裙子"), 9) for _ in range(generator.randint(2, 5))] for _ in range(6)
    ]
    ceiling = CaptionReferences(references).human_ceiling()
    rounds = []
    for number in range(ceiling.rounds):
        places = [number % len(texts) for texts in references]
        others = [texts[:place] + texts[place + 1 :] for texts, place in zip(references, places, strict=True)]
        rounds.append(theirs(others, [texts[place] for texts, place in zip(references, places, strict=True)])[0])
    for name in SCORES[1:]:
        assert ceiling.scores[name] == pytest.approx(np.mean([scores[name] for scores in rounds]), abs=1e-9), name
