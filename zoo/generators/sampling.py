"""What all generators draw with: guidance, and noise by seeds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import UserError


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): away from the unconditional; 1 is the conditional."""
    return unconditional + guidance * (conditional - unconditional)


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], *, device: torch.device | str = "cpu", uniform: bool = False
) -> Tensor:
    """Draw noise ``[B, *shape]``, each sample a function of its own seed alone, on any device.

    Args:
        seeds: Whole numbers from 0 to 2⁶³ - 1, of which torch's generator looks at the low 32 bits.
        shape: Of a sample.
        device: Where the noise goes.
        uniform: Whether it is uniform in [0, 1) and float64; else it is standard normal and float32.

    Raises:
        UserError: A seed is none.
    """
    for seed in seeds:
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise UserError(f"seeds: {seed!r} came; a seed is a whole number from 0 to 2^63 - 1")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if uniform:
        return torch.stack([torch.rand(*shape, generator=each, dtype=torch.float64) for each in generators]).to(device)
    return torch.stack([torch.randn(*shape, generator=each) for each in generators]).to(device)
