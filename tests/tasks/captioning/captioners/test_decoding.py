"""The options of beam search, what transformers is told of them, and the sampled token."""

from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from zoo.errors import UserError
from zoo.tasks.captioning.captioners.decoding import Decoding, SampledToken

VOCABULARY = SimpleNamespace(start=1, end=2, padding=3, unspeakable=[1, 3, 7])
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("beams", 0, 1),
        ("max_tokens", 0, 1),
        ("no_repeat_ngram", -1, 0),
        ("length_penalty", -10.5, -10.0),
        ("length_penalty", 10.5, 10.0),
    ],
)
def test_an_option_out_of_its_range_is_refused(name, bad, good):
    with pytest.raises(UserError) as caught:
        Decoding(**{name: bad})
    assert (caught.value.argument, caught.value.value) == (name, bad)
    assert getattr(Decoding(**{name: good}), name) == good


def test_one_beam_has_no_length_penalty():
    assert set(Decoding(beams=1).idle()) == {"length_penalty"}
    assert Decoding(beams=2).idle() == {}


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_transformers_is_told_every_option(beams):
    search = Decoding(beams=beams, length_penalty=0.5, max_tokens=9, no_repeat_ngram=2).search(VOCABULARY)
    expected = GenerationConfig(
        do_sample=False,
        num_beams=beams,
        length_penalty=0.5 if beams > 1 else None,
        min_new_tokens=1,
        max_new_tokens=9,
        no_repeat_ngram_size=2,
        suppress_tokens=[1, 3, 7],
        **TOKENS,
    )
    assert search.to_dict() == expected.to_dict()
    speakable = SimpleNamespace(**{**vars(VOCABULARY), "unspeakable": []})
    assert Decoding().search(speakable).suppress_tokens is None


def test_greedy_is_one_beam_of_as_many_tokens():
    greedy = Decoding(beams=4, length_penalty=0.5, max_tokens=9).greedy(VOCABULARY)
    assert greedy.to_dict() == GenerationConfig(do_sample=False, max_new_tokens=9, **TOKENS).to_dict()


def test_a_token_is_sampled_from_the_models_own_distribution():
    logits = torch.tensor([3.0, -torch.inf, 1.0, 2.0, -2.0]) + 400  # so large that exp overflows
    rows = 20_000
    scores = SampledToken()(torch.zeros(rows, 1, dtype=torch.int64), logits.repeat(rows, 1))
    assert (scores.isfinite().sum(dim=1) == 1).all()
    assert (scores.max(dim=1).values == 0).all()
    shares = torch.bincount(scores.argmax(dim=1), minlength=5) / rows
    expected = logits.softmax(dim=0)
    assert shares[1] == 0
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / rows).sqrt()).all()


def test_a_row_of_scores_is_drawn_from_whatever_the_others_scale():
    scores = torch.tensor([[0.0, 9.0, 0.0], [1000.0, 991.0, 1000.0]])  # the second token nearly always, and hardly ever
    drawn = SampledToken()(torch.zeros(400, 1, dtype=torch.int64), scores.repeat(200, 1)).argmax(dim=1).view(200, 2)
    assert (drawn == 1).sum(dim=0).tolist() == pytest.approx([200, 0], abs=4)
    assert set(drawn[:, 1].tolist()) >= {0, 2}


@pytest.mark.parametrize(("drawn", "token"), [(0.0, 1), (1.0, 2)])
def test_the_ends_of_what_is_drawn_are_tokens(monkeypatch, drawn, token):
    """A product that is rounded up to the sum of all would be behind the last token."""
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.full(shape, drawn, device=device))
    scores = torch.tensor([[-torch.inf, 1.0, 0.5]])
    assert SampledToken()(torch.zeros(1, 1, dtype=torch.int64), scores).argmax(dim=1).tolist() == [token]
