"""BLEU, ROUGE-L and CIDEr-D of captions against the references of their images, equal to pycocoevalcap's; no torch.

What depends on the references alone is computed once, for all captions that are held against them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zoo.errors import UserError
from zoo.tasks.captioning.metrics.bleu import bleu
from zoo.tasks.captioning.metrics.cider import Counted, Matches, cider_d, vector_norms
from zoo.tasks.captioning.metrics.document_frequencies import DocumentFrequencies
from zoo.tasks.captioning.metrics.ngram_index import ORDERS, NgramIndex, Ngrams
from zoo.tasks.captioning.metrics.rouge import rouge_l
from zoo.tasks.captioning.metrics.tokens import Tokenization, Tokens, variety

__all__ = [
    "CaptionReferences",
    "CaptionScore",
    "DocumentFrequencies",
    "HumanCeiling",
    "Tokenization",
    "bleu",
    "rouge_l",
    "variety",
]

SCORES = ("cider", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l")

Rows = Sequence[int] | np.ndarray


class CaptionScore(NamedTuple):
    """The scores of some captions; each is a fraction of 1, but CIDEr-D, which goes to 10."""

    corpus: dict[str, float]  # ``SCORES``: BLEU of all counts together, the others the mean; nan of no captions
    captions: dict[str, np.ndarray]  # the same of each caption, [H] float64


class HumanCeiling(NamedTuple):
    """What the references reach when each is scored against the others of its image."""

    scores: dict[str, float]  # ``SCORES``, the mean over rounds
    images: int  # that took part: those with two references or more
    rounds: int


class CaptionReferences:
    """The references of a split's images, to score any number of captions against.

    Args:
        references: Of each image, in file order, its references as tokens: one or more, and a reference may be empty.
        document_frequencies: What n-grams are weighed by in CIDEr-D; by default counted in these references.

    Raises:
        UserError: There are no images, or one has no references.

    Sources: Papineni et al. 2002, https://aclanthology.org/P02-1040 (BLEU); Lin 2004,
    https://aclanthology.org/W04-1013 (ROUGE-L); Vedantam et al., https://arxiv.org/abs/1411.5726 (CIDEr-D); as in
    coco-caption, https://github.com/salaniz/pycocoevalcap, on captions that are tokens already.
    """

    def __init__(
        self, references: Sequence[Sequence[Tokens]], *, document_frequencies: DocumentFrequencies | None = None
    ) -> None:
        bare = [row for row, texts in enumerate(references) if not texts]
        if bare or not references:
            what = f"row {bare[0]} has none ({len(bare)} of {len(references)} images)" if bare else "no images"
            raise UserError(f"references: {what}; each image needs one or more to score captions against.")
        self.texts = [[list(tokens) for tokens in texts] for texts in references]
        counts = np.array([len(texts) for texts in self.texts])
        self.bounds = np.cumsum([0, *counts])  # [N + 1]: the references of a row, one image's after the other's
        flat = [tokens for texts in self.texts for tokens in texts]
        self.index, ngrams = NgramIndex.of(flat)
        self.lengths = ngrams.lengths  # [R]
        self._tabulate(ngrams, counts)
        if document_frequencies is None:
            images = np.bincount(self._pairs % max(self.index.size, 1), minlength=self.index.size)
            document_frequencies = DocumentFrequencies(self.index, images, len(references))
        self.document_frequencies = document_frequencies
        weights = np.zeros(self.index.size)
        weights[ngrams.gram] = self._weights(flat, ngrams)
        self._norms = self._reference_norms(weights)  # [R, 4]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.texts)

    def score(
        self, hypotheses: Sequence[Tokens], *, rows: Rows | None = None, left_out: Rows | None = None
    ) -> CaptionScore:
        """Score captions by BLEU-1 to 4, ROUGE-L and CIDEr-D.

        Args:
            hypotheses: Captions as tokens; one may be empty.
            rows: ``[H]``, the image of each, any of them any number of times; by default one caption for each image
                in file order.
            left_out: ``[H]``, for each the index of a reference of its image that it is not held against; the image
                must have another.

        Raises:
            ValueError: Lengths differ, or a row is none of the images'.
        """
        rows = self._checked(hypotheses, rows)
        excluded = np.full(len(rows), -1) if left_out is None else self.bounds[rows] + left_out
        matches = self._match(hypotheses, rows, excluded)
        counts = self._bleu_counts(matches, rows, excluded)
        each = bleu(*counts)  # [H, 4]
        together = bleu(*(count.sum(axis=0) for count in counts))  # [4]
        captions = {"cider": self._cider_d(matches, rows, excluded)}
        captions |= {f"bleu{order}": each[:, order - 1] for order in range(1, ORDERS + 1)}
        captions["rouge_l"] = self._rouge_l(hypotheses, rows, excluded)
        corpus = {name: float(values.mean()) if len(rows) else np.nan for name, values in captions.items()}
        if len(rows):
            corpus |= {f"bleu{order}": float(together[order - 1]) for order in range(1, ORDERS + 1)}
        return CaptionScore(corpus, captions)

    def cider_d(self, rows: Rows, hypotheses: Sequence[Tokens]) -> np.ndarray:
        """Compute CIDEr-D alone, ``[H] float64`` from 0 to 10: the reward of any captions of any images.

        Args:
            rows: ``[H]``, the image of each caption, any of them any number of times.
            hypotheses: Captions as tokens.

        Raises:
            ValueError: Lengths differ, or a row is none of the images'.
        """
        rows = self._checked(hypotheses, rows)
        nothing = np.full(len(rows), -1)
        return self._cider_d(self._match(hypotheses, rows, nothing), rows, nothing)

    def bleu(self, hypotheses: Sequence[Tokens]) -> np.ndarray:
        """Compute BLEU-1 to 4 alone, ``[4] float64`` from 0 to 1, of one caption for each image in file order.

        Raises:
            ValueError: There are not as many captions as images.
        """
        rows = self._checked(hypotheses, None)
        nothing = np.full(len(rows), -1)
        counts = self._bleu_counts(self._match(hypotheses, rows, nothing), rows, nothing)
        return bleu(*(count.sum(axis=0) for count in counts))

    def others(self, rows: Rows) -> np.ndarray:
        """Give for each row another image's, half a file further on: for the control of captions with wrong images.

        Raises:
            ValueError: There is one image alone.
        """
        if len(self) < 2:
            raise ValueError("there is one image, and no other to hold its caption against.")
        return (np.asarray(rows, dtype=np.int64) + len(self) // 2) % len(self)

    def human_ceiling(self) -> HumanCeiling | None:
        """Score each reference against the others of its image: round by round one reference of every image.

        Only images with two references or more take part, in each round; those with fewer than others begin again.
        Document frequencies stay as they are.

        Returns:
            None when no image has two references.
        """
        counts = np.diff(self.bounds)
        rows = np.flatnonzero(counts > 1)
        if not len(rows):
            return None
        rounds = []
        for number in range(int(counts.max())):
            indices = number % counts[rows]
            hypotheses = [self.texts[row][index] for row, index in zip(rows, indices, strict=True)]
            rounds.append(self.score(hypotheses, rows=rows, left_out=indices).corpus)
        means = {name: float(np.mean([scores[name] for scores in rounds])) for name in SCORES}
        return HumanCeiling(means, len(rows), len(rounds))

    # --- n-grams that a caption shares with references ---------------------------------------------------------

    def _tabulate(self, ngrams: Ngrams, counts: np.ndarray) -> None:
        """List by image and n-gram which of the image's references have it, and how often."""
        rows = np.repeat(np.arange(len(counts)), counts)[ngrams.owner]  # [M]
        most = int(counts.max())
        keys = (rows * self.index.size + ngrams.gram) * most + ngrams.owner - self.bounds[rows]
        keys, times = np.unique(keys, return_counts=True)
        pairs, indices = np.divmod(keys, most)
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        self._pairs = pairs[starts]  # [P] sorted: row x size + n-gram
        self._starts = np.append(starts, len(pairs))  # [P + 1]: where a pair's entries begin
        self._entry_references = (self.bounds[pairs // max(self.index.size, 1)] + indices).astype(np.int32)  # [E]
        self._entry_times = times.astype(np.int32)  # [E]

    def _reference_norms(self, weights: np.ndarray) -> np.ndarray:
        """Compute ``[R, 4]``, the length of each reference's vector of each order, from the weights of n-grams."""
        grams = np.repeat(self._pairs % max(self.index.size, 1), np.diff(self._starts))  # [E]
        orders = np.repeat(np.arange(ORDERS), self.index.sizes)  # of each n-gram
        return vector_norms(
            self._entry_references, orders[grams], self._entry_times * weights[grams], len(self.lengths)
        )

    def _match(self, hypotheses: Sequence[Tokens], rows: np.ndarray, excluded: np.ndarray) -> Matches:
        """Find what captions share with the references of their images, but for the reference that is excluded."""
        ngrams = self.index.encode(hypotheses)
        table = _counted(ngrams, self._weights(hypotheses, ngrams))
        wanted = rows[table.owner] * self.index.size + table.gram
        indices = np.searchsorted(self._pairs, wanted)
        found = (table.gram < self.index.size) & (indices < len(self._pairs))
        found[found] = self._pairs[indices[found]] == wanted[found]
        which, pairs = np.flatnonzero(found), indices[found]
        within, entries = _ranges(self._starts[pairs], self._starts[pairs + 1])
        which, references = which[within], self._entry_references[entries]
        kept = references != excluded[table.owner[which]]
        counts = self._entry_times[entries]
        return Matches(table, ngrams.lengths, which[kept], references[kept], counts[kept])

    def _weights(self, captions: Sequence[Tokens], ngrams: Ngrams) -> np.ndarray:
        """Give ``[M]``, by how much CIDEr-D weighs each n-gram, which ``self.index`` numbered."""
        if self.document_frequencies.index is not self.index:
            ngrams = self.document_frequencies.index.encode(captions)  # the same n-grams in the same order
        return self.document_frequencies.weights(ngrams)

    def _checked(self, hypotheses: Sequence[Tokens], rows: Rows | None) -> np.ndarray:
        given = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(given) != len(hypotheses):
            raise ValueError(
                f"there are {len(hypotheses)} captions and {len(given)} rows; give a caption for each row."
            )
        if len(given) and not (given.min() >= 0 and given.max() < len(self)):
            raise ValueError(f"rows go from {given.min()} to {given.max()}; they must be in [0, {len(self)}).")
        return given

    # --- scores ------------------------------------------------------------------------------------------------

    def _cider_d(self, matches: Matches, rows: np.ndarray, excluded: np.ndarray) -> np.ndarray:
        """Compute ``[H]``, CIDEr-D of each caption."""
        against = np.diff(self.bounds)[rows] - (excluded >= 0)
        return cider_d(matches, self.lengths, self._norms, against)

    def _bleu_counts(self, matches: Matches, rows: np.ndarray, excluded: np.ndarray) -> tuple[np.ndarray, ...]:
        """Count what ``bleu`` asks for, of each caption."""
        table, lengths = matches.table, matches.lengths
        most = np.zeros(len(table.times), dtype=np.int64)
        np.maximum.at(most, matches.which, matches.times)  # in one reference
        right = np.minimum(table.times, most)
        correct = np.bincount(table.owner * ORDERS + table.order, weights=right, minlength=len(rows) * ORDERS)
        guessed = np.maximum(lengths[:, None] - np.arange(ORDERS), 0)  # [H, 4]
        owner, references = _ranges(self.bounds[rows], self.bounds[rows + 1])
        kept = references != excluded[owner]
        owner, of_reference = owner[kept], self.lengths[references[kept]]
        span = 1 + int(self.lengths.max())
        nearest = np.full(len(rows), np.iinfo(np.int64).max)
        np.minimum.at(nearest, owner, np.abs(of_reference - lengths[owner]) * span + of_reference)
        return correct.reshape(-1, ORDERS), guessed, lengths, nearest % span

    def _rouge_l(self, hypotheses: Sequence[Tokens], rows: np.ndarray, excluded: np.ndarray) -> np.ndarray:
        """Compute ``[H]``, ROUGE-L of each caption."""
        scores = np.zeros(len(rows))
        for index, (tokens, row, out) in enumerate(zip(hypotheses, rows.tolist(), excluded.tolist(), strict=True)):
            texts = self.texts[row]
            if out >= 0:
                texts = [text for number, text in enumerate(texts, self.bounds[row]) if number != out]
            scores[index] = rouge_l(tokens, texts)
        return scores


def _counted(ngrams: Ngrams, weights: np.ndarray) -> Counted:
    """Count the different n-grams of each caption; ``weights`` ``[M]`` are those of ``ngrams``."""
    span = int(ngrams.gram.max(initial=0)) + 1
    _, first, counts = np.unique(ngrams.owner * span + ngrams.gram, return_index=True, return_counts=True)
    return Counted(ngrams.owner[first], ngrams.order[first], ngrams.gram[first], counts, weights[first])


def _ranges(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give all numbers of some ranges one after the other, and of which range each is: ranges, numbers."""
    counts = stops - starts
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) + (starts - np.cumsum(counts) + counts)[which]
