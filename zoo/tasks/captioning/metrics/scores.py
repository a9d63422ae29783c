"""CIDEr-D, BLEU and ROUGE-L of a split's captions, with how much they vary, exact on any number of processes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zoo.core.gathering import check_ids, file_order
from zoo.errors import UserError
from zoo.tasks.captioning.metrics.collected import CollectedTexts
from zoo.tasks.captioning.metrics.ngrams import (
    CaptionReferences,
    CaptionScore,
    DocumentFrequencies,
    HumanCeiling,
    Tokenization,
    variety,
)


class CaptionScores(CollectedTexts):
    """The captions of a split's images, collected on every process, and their scores.

    Feed it with ``update``, on each process the rows that this process saw, in any order and number; then call
    ``compute`` and whatever else on **every** process (they gather once and keep what they gathered), and ``reset``
    before the next evaluation. What depends on the references alone is computed once, when the metric is built. Scores
    depend on neither the number of processes nor the order of batches.

    ``compute()`` returns percent, float64 on the CPU: ``cider``, ``bleu1`` to ``bleu4``, ``rouge_l``, 100 times
    pycocoevalcap's; ``distinct1``, ``distinct2``, ``different``, ``empty``, ``repetition`` (see ``variety``).

    Args:
        references: Of each image in file order its references, whose index is the image's row. Where no image has
            any, as in MUGE's test split, captions are collected and not scored.
        tokenization: How references and captions are cut.
        document_frequencies: What n-grams are weighed by in CIDEr-D, of texts that were cut alike; by default counted
            in the references, in a partial evaluation too.
        complete: Whether every row must have come. ``False`` for a partial evaluation (``limit_val_batches``): then the
            rows that came are scored.

    Raises:
        UserError: Some images have references and others have none.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        *,
        tokenization: Tokenization = Tokenization(),  # noqa: B008 it is frozen
        document_frequencies: DocumentFrequencies | None = None,
        complete: bool = True,
    ) -> None:
        super().__init__(sync_on_compute=False)  # gathered once, by gathered, for all that is computed from it
        self.tokenization = tokenization
        self.complete = complete
        self.index_of = {row: row for row in range(len(references))}
        self.references: CaptionReferences | None = None
        if any(references):
            tokens = [[tokenization.tokenize(text) for text in texts] for texts in references]
            self.references = CaptionReferences(tokens, document_frequencies=document_frequencies)
        self._gathered: tuple[list[int], list[str]] | None = None
        self._score: CaptionScore | None = None
        self._ceiling: HumanCeiling | None = None

    def update(self, rows: Tensor, captions: Sequence[str]) -> None:
        """Take one batch.

        Args:
            rows: ``[B]`` integers, the images' indices in the file.
            captions: B texts.

        Raises:
            ValueError: There are not as many captions as rows.
        """
        if rows.ndim != 1 or len(rows) != len(captions):
            raise ValueError(f"rows is {list(rows.shape)} and there are {len(captions)} captions: give [B] and B.")
        self._gathered = self._score = None
        self._collect(rows, [[caption] for caption in captions])

    def gathered(self) -> tuple[list[int], list[str]]:
        """Gather every process's rows and captions, in file order.

        Raises:
            RuntimeError: The rows that came are not the split's; the same on every process.
        """
        if self._gathered is None:
            own = not self._is_synced
            with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=own, should_unsync=own):
                came, captions = self._collected()
            check_ids(came, self.index_of, metric="CaptionScores", what="rows", complete=self.complete)
            order = file_order(came, self.index_of)
            self._gathered = [came[index] for index in order], [captions[index][0] for index in order]
        return self._gathered

    def compute(self) -> dict[str, Tensor]:
        """Compute all scores of the captions; see the class. Not a number where none came.

        Raises:
            UserError: The split has no references.
            RuntimeError: The rows that came are not the split's.
        """
        return _percent(self.score().corpus) | _tensors(variety(self._tokens()))

    def score(self) -> CaptionScore:
        """Score the set and each caption, in the order of ``gathered``; fractions of 1, CIDEr-D to 10.

        Raises:
            UserError: The split has no references.
            RuntimeError: The rows that came are not the split's.
        """
        references = self._need_references()
        if self._score is None:
            self._score = references.score(self._tokens(), rows=self.gathered()[0])
        return self._score

    def shuffled(self) -> dict[str, Tensor]:
        """Score the control: the same captions held against the images half a file further on, in percent.

        What captions score here they owe to the words that are common to all images.

        Returns:
            ``cider``, ``bleu1`` to ``bleu4`` and ``rouge_l``; nothing when the split has a single image.

        Raises:
            UserError: The split has no references.
            RuntimeError: The rows that came are not the split's.
        """
        references = self._need_references()
        if len(references) < 2:
            return {}
        return _percent(references.score(self._tokens(), rows=references.others(self.gathered()[0])).corpus)

    def score_others(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Score another control: other captions of the same images, in percent.

        Args:
            captions: One for each image, in the order of ``gathered``.

        Returns:
            ``cider``, ``bleu1`` to ``bleu4`` and ``rouge_l``.

        Raises:
            UserError: The split has no references.
            RuntimeError: The rows that came are not the split's.
            ValueError: There are not as many captions as rows came.
        """
        tokens = [self.tokenization.tokenize(caption) for caption in captions]
        return _percent(self._need_references().score(tokens, rows=self.gathered()[0]).corpus)

    def human_ceiling(self) -> HumanCeiling | None:
        """Score the references against each other, whichever captions came; in fractions, computed once.

        Returns:
            None when no image has two references.

        Raises:
            UserError: The split has no references.
        """
        if self._ceiling is None:
            self._ceiling = self._need_references().human_ceiling()
        return self._ceiling

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self._gathered = self._score = None

    def _tokens(self) -> list[list[str]]:
        return [self.tokenization.tokenize(caption) for caption in self.gathered()[1]]

    def _need_references(self) -> CaptionReferences:
        if self.references is None:
            raise UserError("CaptionScores was built without references: captions are collected, but cannot be scored.")
        return self.references


def _percent(scores: Mapping[str, float]) -> dict[str, Tensor]:
    return _tensors({name: 100 * value for name, value in scores.items()})


def _tensors(scores: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in scores.items()}
