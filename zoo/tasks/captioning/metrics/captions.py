"""CIDEr-D, BLEU and ROUGE-L, each a torchmetrics metric for anybody's LightningModule."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.tasks.captioning.metrics.collected import CollectedTexts
from zoo.tasks.captioning.metrics.ngram_index import ORDERS
from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, DocumentFrequencies
from zoo.tasks.captioning.metrics.rouge import rouge_l
from zoo.tasks.captioning.metrics.tokens import Tokenization

NO_ROW = -1


class CaptionMetric(CollectedTexts):
    """A score of captions against the references of their images: a base of ``CiderD``, ``Bleu`` and ``RougeL``.

    ``compute()`` gives percent, 100 times pycocoevalcap's value on the same tokens, float64 on the CPU; not a number
    where no caption came. It depends on neither the number of processes, how many captions each has, nor their order.

    Args:
        lowercase: Whether case is dropped.
        punctuation: Whether punctuation and symbols are tokens.
        **options: Options of ``torchmetrics.Metric``.
    """

    def __init__(self, *, lowercase: bool = False, punctuation: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.tokenization = Tokenization(lowercase=lowercase, punctuation=punctuation)

    def update(
        self,
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
        rows: Tensor | Sequence[int] | None = None,
    ) -> None:
        """Take a batch.

        Args:
            captions: B texts, one for each image.
            references: B lists of texts, one reference or more for each image.
            rows: B integers from 0, an image's own each; one that comes again counts once, as where Lightning's
                distributed sampler repeats some to give every process as many. None: all count.

        Raises:
            UserError: Lengths differ, an image has no references, or they are a text and no list.
        """
        if len(captions) != len(references):
            raise UserError(
                f"{len(captions)} captions and the references of {len(references)} images: give each caption the list"
                " of its image's references",
                argument="references",
            )
        for index, texts in enumerate(references):
            if isinstance(texts, str) or not texts:
                raise UserError(
                    f"references[{index}] is {texts!r}: give a list of one text or more",
                    argument="references",
                    value=texts,
                )
        given = torch.full((len(captions),), NO_ROW) if rows is None else torch.as_tensor(rows)
        if given.shape != (len(captions),):
            raise UserError(
                f"rows is {list(given.shape)} for {len(captions)} captions: give one for each", argument="rows"
            )
        self._collect(given, [[caption, *texts] for caption, texts in zip(captions, references, strict=True)])

    def compute(self) -> Tensor:
        """Score all captions, in percent."""
        captions, references = self._tokens()
        value = 100 * self._score(captions, references) if captions else torch.nan
        return torch.tensor(value, dtype=torch.float64)

    def _score(self, captions: list[list[str]], references: list[list[list[str]]]) -> float:
        """Score captions against references, as tokens: a fraction of 1, or for CIDEr-D up to 10."""
        raise NotImplementedError

    def _tokens(self) -> tuple[list[list[str]], list[list[list[str]]]]:
        """Give captions and references as tokens: each row once, in an order that processes do not change."""
        came = sorted(zip(*self._collected(), strict=True))
        cut = self.tokenization.tokenize
        tokens = [
            [cut(text) for text in texts]
            for index, (row, texts) in enumerate(came)
            if row == NO_ROW or index == 0 or came[index - 1][0] != row
        ]
        return [own[0] for own in tokens], [own[1:] for own in tokens]


class CiderD(CaptionMetric):
    """CIDEr-D of captions, 0 to 1000 percent.

    Which corpus weighs the n-grams decides the value: pycocoevalcap counts in the references of the split that is
    scored, self-critical training in those of the training split. Say which beside the number.

    Args:
        document_frequencies: What n-grams are weighed by: a corpus to count them in, some texts of each of its images,
            such as the training references; or counts of the same tokens. None: the references that came.
        lowercase: Whether case is dropped.
        punctuation: Whether punctuation and symbols are tokens.
        **options: Options of ``torchmetrics.Metric``.

    Source: Vedantam et al., https://arxiv.org/abs/1411.5726.
    """

    def __init__(
        self,
        document_frequencies: DocumentFrequencies | Sequence[Sequence[str]] | None = None,
        *,
        lowercase: bool = False,
        punctuation: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(lowercase=lowercase, punctuation=punctuation, **options)
        if document_frequencies is not None and not isinstance(document_frequencies, DocumentFrequencies):
            cut = self.tokenization.tokenize
            document_frequencies = DocumentFrequencies.of(
                [[cut(text) for text in texts] for texts in document_frequencies]
            )
        self.document_frequencies = document_frequencies

    def _score(self, captions: list[list[str]], references: list[list[list[str]]]) -> float:
        known = CaptionReferences(references, document_frequencies=self.document_frequencies)
        return float(known.cider_d(range(len(captions)), captions).mean())


class Bleu(CaptionMetric):
    """BLEU of a set of captions, from the n-gram counts of all together, in percent.

    Args:
        n_gram: Tokens of the longest n-grams that count, 1 to 4.
        lowercase: Whether case is dropped.
        punctuation: Whether punctuation and symbols are tokens.
        **options: Options of ``torchmetrics.Metric``.

    Raises:
        UserError: ``n_gram`` is out of its range.

    Source: Papineni et al. 2002, https://aclanthology.org/P02-1040.
    """

    def __init__(
        self, n_gram: int = ORDERS, *, lowercase: bool = False, punctuation: bool = True, **options: Any
    ) -> None:
        super().__init__(lowercase=lowercase, punctuation=punctuation, **options)
        if not 1 <= n_gram <= ORDERS:
            raise UserError(f"n_gram is {n_gram}: give 1 to {ORDERS}", argument="n_gram", value=n_gram)
        self.n_gram = n_gram

    def _score(self, captions: list[list[str]], references: list[list[list[str]]]) -> float:
        return float(CaptionReferences(references).bleu(captions)[self.n_gram - 1])


class RougeL(CaptionMetric):
    """ROUGE-L, the mean over captions, in percent.

    Args:
        lowercase: Whether case is dropped.
        punctuation: Whether punctuation and symbols are tokens.
        **options: Options of ``torchmetrics.Metric``.

    Source: Lin 2004, https://aclanthology.org/W04-1013.
    """

    def _score(self, captions: list[list[str]], references: list[list[list[str]]]) -> float:
        return float(np.mean([rouge_l(caption, texts) for caption, texts in zip(captions, references, strict=True)]))
