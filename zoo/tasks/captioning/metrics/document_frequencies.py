"""In how many images' references n-grams occur, counted, written and read; no torch."""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.errors import UserError
from zoo.io import read_json
from zoo.tasks.captioning.metrics.ngram_index import KEY_SHIFT, NgramIndex, Ngrams
from zoo.tasks.captioning.metrics.tokens import Tokenization, Tokens


class DocumentFrequencies:
    """In how many images' references each n-gram occurs, and of how many images: what CIDEr-D weighs n-grams by.

    Args:
        index: The n-grams.
        counts: ``[index.size]``, the images whose references have each.
        images: How many images there are, at least 1.
    """

    def __init__(self, index: NgramIndex, counts: np.ndarray, images: int) -> None:
        self.index = index
        self.counts = counts
        self.images = images
        self.logarithms = np.log(np.maximum(counts, 1))  # [index.size]

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> "DocumentFrequencies":
        """Count in references: of each image a list of captions, as tokens."""
        index, ngrams = NgramIndex.of([tokens for texts in references for tokens in texts])
        images = np.repeat(np.arange(len(references)), [len(texts) for texts in references])  # of each caption
        once = np.unique(images[ngrams.owner] * index.size + ngrams.gram)
        return cls(index, np.bincount(once % max(index.size, 1), minlength=index.size), len(references))

    def weights(self, ngrams: Ngrams) -> np.ndarray:
        """Compute ``[M] float64``: ln images - ln max(1, count) of n-grams that this index numbered."""
        weights = np.full(len(ngrams.gram), np.log(self.images))
        known = ngrams.gram < self.index.size
        weights[known] -= self.logarithms[ngrams.gram[known]]
        return weights

    def write(self, path: Path | str, *, tokenization: Tokenization) -> None:
        """Write as JSON, atomically: the tokens' signature, the images, and the n-grams of two images or more.

        An n-gram of one image weighs as much as one of none, so it is left out.
        """
        path = Path(path)
        record = {"tokenization": tokenization.signature, "images": self.images, "frequencies": self._spelled()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
        try:
            temporary.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path | str, *, tokenization: Tokenization) -> "DocumentFrequencies":
        """Read what ``write`` wrote.

        Raises:
            UserError: It is no such file, or of captions that were cut otherwise.
        """
        try:
            record = read_json(path)
            cut, images, frequencies = record["tokenization"], record["images"], record["frequencies"]
            counts = np.array(list(frequencies.values()), dtype=np.int64)
            if images < 1 or np.any(counts < 1) or np.any(counts > images):
                raise ValueError(f"a count is not from 1 to {images}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"document frequencies {str(path)!r}: not what DocumentFrequencies.write writes ({error}); make them"
                " again from the training references."
            ) from None
        if cut != tokenization.signature:
            raise UserError(
                f"document frequencies {str(path)!r} are of {cut!r} and the captions are cut by"
                f" {tokenization.signature!r}; give frequencies of the same tokens."
            )
        index, ngrams = NgramIndex.of([ngram.split(" ") for ngram in frequencies])
        whole = ngrams.order == ngrams.lengths[ngrams.owner] - 1  # not a part of a longer one
        by_number = np.zeros(index.size, dtype=np.int64)
        by_number[ngrams.gram[whole]] = counts[ngrams.owner[whole]]
        return cls(index, by_number, images)

    def _spelled(self) -> dict[str, int]:
        """Spell the n-grams of two images or more, tokens joined by blanks, with their counts."""
        spelled: dict[str, int] = {}
        tokens = list(self.index.vocabulary)
        shorter: dict[int, str] = {}
        for order, offset in enumerate(self.index.offsets[:-1].tolist()):
            counts = self.counts[offset : offset + self.index.sizes[order]]
            often = np.flatnonzero(counts > 1).tolist()
            if order == 0:
                words = {number: tokens[number] for number in often}
            else:  # what is in two images begins with what is in two images
                keys = self.index.keys[order - 1][often].tolist()
                last = (1 << KEY_SHIFT) - 1
                words = {
                    n: f"{shorter[key >> KEY_SHIFT]} {tokens[key & last]}" for n, key in zip(often, keys, strict=True)
                }
            spelled |= {word: int(counts[number]) for number, word in words.items()}
            shorter = words
        return spelled
