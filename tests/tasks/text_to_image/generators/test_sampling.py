"""What all generators draw with: guidance, noise by seeds, and codes from their distributions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.generators.sampling import CodeSampling, draw_codes, guide, seeded_noise


def test_guidance_of_one_is_the_conditional():
    conditional, unconditional = torch.randn(2, 3, 4)
    torch.testing.assert_close(guide(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)


@pytest.mark.parametrize("uniform", [False, True])
def test_noise_is_of_the_seed_alone(uniform):
    alone = [seeded_noise([seed], (3, 4, 4), uniform=uniform)[0] for seed in (5, 2**40 + 5, 7)]
    together = seeded_noise([7, 5, 2**40 + 5], (3, 4, 4), uniform=uniform)
    assert torch.equal(together, torch.stack([alone[2], alone[0], alone[1]]))


def test_noise_is_normal_or_uniform():
    normal, uniform = (seeded_noise([3], (20_000,), uniform=uniform) for uniform in (False, True))
    assert (normal.dtype, uniform.dtype) == (torch.float32, torch.float64)
    assert (normal.mean().item(), normal.std().item()) == pytest.approx((0, 1), abs=0.02)
    assert (uniform.mean().item(), uniform.std().item()) == pytest.approx((0.5, 12**-0.5), abs=0.01)
    assert uniform.min() >= 0
    assert uniform.max() < 1


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True + 0.5, "1"])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(UserError, match="a seed is a whole number from 0 to 2"):
        seeded_noise([0, seed], (2,))


def test_guidance_goes_away_from_the_unconditional():
    assert guide(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]), 3.0).tolist() == [2.0, -2.0]


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(3)])
def test_the_ends_of_what_is_a_seed_are_taken(seed):
    expected = torch.randn(2, generator=torch.Generator().manual_seed(int(seed)))
    assert torch.equal(seeded_noise([seed], (2,)), expected[None])
    assert seeded_noise([seed], (2,), device="meta").device.type == "meta"


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("guidance", 0.99, 1.0),
        ("guidance", math.inf, 1e6),
        ("temperature", -0.01, 0.0),
        ("temperature", math.inf, 1e6),
        ("top_k", -1, 0),
        ("top_p", 0.0, 1e-9),
        ("top_p", 1.01, 1.0),
    ],
)
def test_a_number_out_of_its_range_is_refused(name, bad, good):
    with pytest.raises(UserError) as caught:
        CodeSampling(**{name: bad})
    assert (caught.value.argument, caught.value.value) == (name, bad)
    assert getattr(CodeSampling(**{name: good}), name) == good


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        ({}, set()),
        ({"temperature": 0.0}, {"top_k", "top_p"}),
        ({"temperature": 1.0, "top_k": 1}, {"temperature", "top_p"}),
        ({"top_k": 2}, set()),
    ],
)
def test_options_without_effect_are_named(options, idle):
    """And have none: other values of them draw the same codes."""
    sampling = CodeSampling(**options)
    assert set(sampling.idle()) == idle
    assert all(isinstance(reason, str) for reason in sampling.idle().values())
    logits, noise = torch.randn(50, 6), torch.rand(50, dtype=torch.float64)
    drawn = draw_codes(logits, noise, sampling)
    for name, other in {"temperature": 3.0, "top_k": 3, "top_p": 0.3}.items():
        changed = draw_codes(logits, noise, replace(sampling, **{name: other}))
        assert torch.equal(changed, drawn) == (name in idle)


def test_temperature_zero_takes_the_likeliest_code():
    logits = torch.randn(50, 6)
    drawn = draw_codes(logits, torch.rand(50, dtype=torch.float64), CodeSampling(temperature=0.0))
    assert torch.equal(drawn, logits.argmax(dim=1))


@pytest.mark.parametrize(("noise", "code"), [(0.0, 1), (1.0, 2)])
def test_the_ends_of_what_is_drawn_are_codes(noise, code):
    """A product that is rounded up to the sum of all would be behind the last code."""
    logits = torch.tensor([[-torch.inf, 1.0, 0.5]])
    assert draw_codes(logits, torch.tensor([noise], dtype=torch.float64), CodeSampling()).tolist() == [code]


def test_equal_logits_at_the_edge_of_what_is_possible_are_all_possible():
    logits = torch.tensor([[1.0, 0.0, 0.0, 0.0, -9.0]]).expand(4000, -1)
    noise = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]
    for options in ({"top_k": 2}, {"top_p": 0.5}):
        assert set(draw_codes(logits, noise, CodeSampling(**options)).tolist()) == {0, 1, 2, 3}


def test_the_likeliest_codes_reach_a_probability_exactly():
    """Of halves, quarters and eighths, a probability of three quarters takes two."""
    logits = torch.tensor([[0.125, 0.5, 0.125, 0.25]], dtype=torch.float64).log().expand(4000, -1)
    noise = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]
    for top_p, possible in ((0.5, {1}), (0.51, {1, 3}), (0.749, {1, 3}), (0.76, {0, 1, 2, 3})):
        assert set(draw_codes(logits, noise, CodeSampling(top_p=top_p)).tolist()) == possible
