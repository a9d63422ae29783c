"""BLEU from counts, as coco-caption computes it; no torch."""

import numpy as np

_TINY, _SMALL = 1e-15, 1e-9  # as coco-caption has them, where a count is 0


def bleu(correct: np.ndarray, guessed: np.ndarray, lengths: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """Compute BLEU-1 to 4, of captions or of a corpus.

    Args:
        correct: ``[…, 4]``, n-grams that references have too, clipped; summed over captions for a corpus.
        guessed: ``[…, 4]``, all n-grams.
        lengths: ``[…]``, tokens.
        closest: ``[…]``, tokens of the reference whose length is closest, of equals the shorter.

    Returns:
        ``[…, 4]`` from 0 to 1: BLEU with n-grams of up to 1, 2, 3 and 4 tokens.
    """
    precision = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=-1)
    ratio = (lengths + _TINY) / (closest + _SMALL)
    brevity = np.exp(np.minimum(1 - 1 / ratio, 0))
    return precision ** (1 / np.arange(1, correct.shape[-1] + 1)) * brevity[..., None]
