"""How much of some texts a model reads: which it cuts, and which characters it does not know."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

SAMPLE = 10_000  # texts that are counted at most: a second


class TextCounts(NamedTuple):
    """What a model makes of some texts.

    Attributes:
        cut: How many are longer than it reads.
        longest: The ``context_length`` that the longest of them needs.
        unknown: How many of their characters become ``[UNK]``.
    """

    cut: int
    longest: int
    unknown: int

    @classmethod
    def of(cls, lengths: Sequence[int], unknown: int, context_length: int) -> "TextCounts":
        """Count texts of these lengths, in the tokens that ``context_length`` is given in."""
        return cls(sum(length > context_length for length in lengths), max(lengths, default=0), unknown)


def text_losses(reader: object, texts: Sequence[str]) -> list[str]:
    """Say what a model loses of the texts that it is to be trained on, in a line each; nothing where it loses nothing.

    Args:
        reader: What reads them; where it has no ``count_texts`` nothing is said.
        texts: All of them, of which up to 10,000 are counted, drawn at random, the same each time.
    """
    count = getattr(reader, "count_texts", None)
    if count is None or not len(texts):
        return []
    sample = texts if len(texts) <= SAMPLE else Random(0).sample(texts, SAMPLE)
    counts: TextCounts = count(sample)
    what = f"of {len(sample):,} training texts"
    if len(sample) < len(texts):
        what += f", drawn from {len(texts):,},"
    lines = []
    if counts.cut:
        share = f"{counts.cut:,} ({counts.cut / len(sample):.2%})"
        lines.append(
            f"{what} {share} are longer than the model reads, and cut: the longest needs context_length"
            f" {counts.longest}"
        )
    if counts.unknown:
        characters = sum(map(len, sample))
        share = f"{counts.unknown:,} of {characters:,} characters ({counts.unknown / characters:.2%})"
        lines.append(f"{what} {share} are unknown to the model: it reads [UNK]")
    return lines
