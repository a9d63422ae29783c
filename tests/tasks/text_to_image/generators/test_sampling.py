"""What all generators draw with: guidance, and noise by seeds."""

import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.generators.sampling import guide, seeded_noise


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
