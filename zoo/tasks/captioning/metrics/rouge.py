"""ROUGE-L of tokens, as coco-caption computes it; no torch."""

from collections.abc import Iterator, Sequence

from zoo.tasks.captioning.metrics.tokens import Tokens

BETA = 1.2  # the weight of recall over precision


def rouge_l(hypothesis: Tokens, references: Sequence[Tokens]) -> float:
    """Compute ROUGE-L, 0 to 1: the F-measure of the best precision and the best recall over references.

    A caption without tokens counts as one of one empty token, as in coco-caption.
    """
    hypothesis, references = hypothesis or [""], [tokens or [""] for tokens in references]
    common = list(common_subsequences(hypothesis, references))
    precision = max(common) / len(hypothesis)
    recall = max(length / len(tokens) for length, tokens in zip(common, references, strict=True))
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_subsequences(hypothesis: Tokens, references: Sequence[Tokens]) -> Iterator[int]:
    """Compute the length of the longest common subsequence with each reference.

    A bit for each token of the hypothesis; a reference takes as many steps as it has tokens that the hypothesis has too
    (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
    """
    positions: dict[str, int] = {}  # of each token, as bits
    for position, token in enumerate(hypothesis):
        positions[token] = positions.get(token, 0) | 1 << position
    everywhere = (1 << len(hypothesis)) - 1
    for tokens in references:
        free = everywhere
        for token in tokens:
            if token in positions:
                taken = free & positions[token]
                free = (free + taken) | (free - taken)
        yield len(hypothesis) - (free & everywhere).bit_count()
