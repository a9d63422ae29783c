"""Tokens of captions by MUGE's rule, and how much captions vary; no torch."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

REPEATED_ORDER = 3
"""What counts as saying something twice: in Chinese most words have two characters, and good copy repeats words."""

Tokens = Sequence[str]

_TOKEN = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")


@dataclass(frozen=True)
class Tokenization:
    """How captions are cut: each run of Latin letters and digits is a token, and so is each other character.

    MUGE names this rule, not what happens to case and punctuation, and scores depend on both: print ``signature``.

    Attributes:
        lowercase: Whether case is dropped.
        punctuation: Whether punctuation and symbols (Unicode's categories P and S) are kept.
    """

    lowercase: bool = False
    punctuation: bool = True

    def tokenize(self, text: str) -> list[str]:
        """Cut a text into tokens, none of which holds white space; an empty text has none."""
        tokens = _TOKEN.findall(text.lower() if self.lowercase else text)
        if self.punctuation:
            return tokens
        return [token for token in tokens if unicodedata.category(token[0])[0] not in "PS"]

    @property
    def signature(self) -> str:
        """The rule and the options, as printed with a score."""
        case, punctuation = "lower" if self.lowercase else "kept", "kept" if self.punctuation else "dropped"
        return f"tokens:muge|case:{case}|punctuation:{punctuation}"


def variety(captions: Sequence[Tokens]) -> dict[str, float]:
    """Measure how much a set of captions varies, and whether they run in circles.

    Args:
        captions: As tokens.

    Returns:
        ``distinct1`` and ``distinct2``, of all single tokens and of all pairs the percentage that are different (Li et
        al., https://arxiv.org/abs/1510.03055); ``different``, the number of different captions as a percentage of all;
        ``empty``, the percentage that have no token; and ``repetition``, the percentage that have some three tokens in
        a row twice, which good copy hardly does. 0 to 100; 0 where there is nothing to count.
    """
    singles = [token for tokens in captions for token in tokens]
    pairs = [pair for tokens in captions for pair in pairwise(tokens)]
    return {
        "distinct1": _percent(len(set(singles)), len(singles)),
        "distinct2": _percent(len(set(pairs)), len(pairs)),
        "different": _percent(len(set(map(tuple, captions))), len(captions)),
        "empty": _percent(sum(not tokens for tokens in captions), len(captions)),
        "repetition": _percent(sum(map(repeats, captions)), len(captions)),
    }


def repeats(tokens: Tokens, order: int = REPEATED_ORDER) -> bool:
    """Tell whether a caption has the same ``order`` tokens in a row twice; the two may overlap."""
    ngrams = list(zip(*(tokens[start:] for start in range(order)), strict=False))
    return len(set(ngrams)) < len(ngrams)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
