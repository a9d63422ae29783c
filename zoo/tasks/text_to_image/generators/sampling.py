"""What generators draw with: guidance, noise by seeds, and codes from their distributions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from zoo.core.device import running_sums
from zoo.core.inputs import as_texts
from zoo.errors import UserError, invalid


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): away from the unconditional; 1 is the conditional."""
    return unconditional + guidance * (conditional - unconditional)


def prompts_of(texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Give B prompts as a list, for as many seeds.

    Raises:
        UserError: They are one string, hold something else than strings, or are more or fewer than the seeds.
    """
    if isinstance(texts, str) or len(as_texts(texts)) != len(seeds):
        raise UserError(f"texts and seeds: {texts!r} and {list(seeds)} came; give two lists, as long as each other")
    return as_texts(texts)


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], *, device: torch.device | str = "cpu", uniform: bool = False
) -> Tensor:
    """Sample noise ``[B, *shape]``, each sample a function of its own seed alone, on any device.

    Args:
        seeds: Whole numbers from 0 to 2⁶³ - 1, of which torch's generator looks at the low 32 bits.
        shape: Of a sample.
        device: Where the noise goes.
        uniform: Whether it is uniform in [0, 1) and float64; else it is standard normal and float32.

    Raises:
        UserError: A seed is none.
    """
    generators = seeded_generators(seeds)
    if uniform:
        return torch.stack([torch.rand(*shape, generator=each, dtype=torch.float64) for each in generators]).to(device)
    return torch.stack([torch.randn(*shape, generator=each) for each in generators]).to(device)


def seeded_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Make a generator of noise, on the CPU, of each seed.

    Raises:
        UserError: A seed is none.
    """
    for seed in seeds:
        if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
            raise UserError(f"seeds: {seed!r} came; a seed is a whole number from 0 to 2^63 - 1")
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


@dataclass(frozen=True)
class CodeSampling:
    """How codes are drawn.

    Args:
        guidance: How far to go from what any image would be to what the text asks for; 1: no guidance.
        temperature: Below 1 likelier codes, above 1 more different ones; 0: the likeliest each time.
        top_k: How many of the likeliest codes are possible; 0: all.
        top_p: The likeliest codes that together have this probability are possible; 1: all.

    Raises:
        UserError: A number is out of its range.
    """

    guidance: float = 3.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.guidance < math.inf:
            raise invalid("guidance", self.guidance, "give 1 (none) or more")
        if not 0 <= self.temperature < math.inf:
            raise invalid("temperature", self.temperature, "give 0 or more")
        if self.top_k < 0:
            raise invalid("top_k", self.top_k, "give 1 or more, or 0 for all codes")
        if not 0 < self.top_p <= 1:
            raise invalid("top_p", self.top_p, "give a probability above 0, up to 1 for all codes")

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect beside the others, and say why."""
        if self.temperature == 0:
            return dict.fromkeys(("top_k", "top_p"), "temperature is 0, which takes the likeliest code")
        return dict.fromkeys(("temperature", "top_p"), "top_k is 1, which takes it") if self.top_k == 1 else {}


def draw_codes(logits: Tensor, noise: Tensor, sampling: CodeSampling) -> Tensor:
    """Sample a code of each row's distribution.

    Args:
        logits: ``[B, K]``.
        noise: ``[B] float64``, uniform in [0, 1): where in the distribution the code lies.
        sampling: How.

    Returns:
        ``[B] int64``.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=1)
    logits = logits.double() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        least = logits.topk(sampling.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=1)
    if sampling.top_p < 1:
        ordered = probabilities.sort(dim=1, descending=True).values
        kept = running_sums(ordered) - ordered < sampling.top_p  # the likeliest code always is
        least = ordered.gather(1, kept.sum(dim=1, keepdim=True) - 1)
        probabilities = probabilities.masked_fill(probabilities < least, 0)
    sums = running_sums(probabilities)
    drawn = torch.searchsorted(sums, noise[:, None] * sums[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[1] - 1)
