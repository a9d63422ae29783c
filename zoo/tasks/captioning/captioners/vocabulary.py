"""Captions as ids and back: the bundled BERT-Chinese vocabulary, or a language model's own tokenizer."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from zoo.models.tokenizer import CLASSIFY, PAD, SEPARATE, UNKNOWN, VOCABULARY, BertChineseTokenizer, measure_hub, pad

_LATIN = re.compile(r"[a-z0-9]", re.IGNORECASE)


class Vocabulary(Protocol):
    """What a captioner needs of a tokenizer."""

    start: int  # the id that opens every caption
    end: int  # the id that closes it
    padding: int
    unspeakable: list[int]  # ids that are no text, but for the end
    size: int

    def encode(self, texts: Sequence[str], *, context_length: int) -> tuple[Tensor, Tensor]:
        """Turn B texts into ids ``[B, T] int64``, start and end included, and their mask ``[B, T] bool``."""

    def measure(self, texts: Sequence[str]) -> tuple[list[int], int]:
        """Give each text's tokens, start and end included, uncut, and how many characters of all are unknown."""

    def decode(self, ids: Sequence[int]) -> str:
        """Turn one caption's ids into text, up to the end."""


class BertVocabulary:
    """The 21,128 entries of BERT-Chinese: a Chinese character each, Latin words in pieces, in lower case."""

    start, end, padding = CLASSIFY, SEPARATE, PAD

    def __init__(self) -> None:
        self._tokenizer = BertChineseTokenizer()
        self._words = VOCABULARY.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        special = re.compile(r"\[(unused\d+|PAD|UNK|CLS|MASK)\]|<[ST]>")
        self.unspeakable = [index for index, word in enumerate(self._words) if special.fullmatch(word)]
        self.size = len(self._words)

    def encode(self, texts: Sequence[str], *, context_length: int) -> tuple[Tensor, Tensor]:
        """Turn B texts into ids ``[B, T] int64``, start and end included, and their mask ``[B, T] bool``."""
        return self._tokenizer(texts, context_length=context_length)

    def measure(self, texts: Sequence[str]) -> tuple[list[int], int]:
        """Give each text's tokens, start and end included, uncut, and how many characters of all are unknown."""
        return self._tokenizer.measure(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn one caption's ids into text, up to the end: word pieces joined, a space between two Latin words.

        What the vocabulary does not have is ``[UNK]``.
        """
        text = ""
        for index in ids:
            if index == self.end:
                break
            if index == UNKNOWN or index not in self._silent:
                text = _append(text, self._words[index])
        return text

    @property
    def _silent(self) -> set[int]:
        return {*self.unspeakable} - {UNKNOWN}


class HubVocabulary:
    """The tokenizer that belongs to a published language model.

    Args:
        tokenizer: A transformers tokenizer with an end token.
        start: The id that opens every caption; None: the tokenizer's start token, else its end token.
    """

    def __init__(self, tokenizer: Any, *, start: int | None = None) -> None:
        self._tokenizer = tokenizer
        self.end: int = tokenizer.eos_token_id
        own = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.start: int = own if start is None else start
        self.padding: int = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.unspeakable = sorted({*tokenizer.all_special_ids} - {self.end})
        self.size = len(tokenizer)

    def encode(self, texts: Sequence[str], *, context_length: int) -> tuple[Tensor, Tensor]:
        """Turn B texts into ids ``[B, T] int64``, start and end included, and their mask ``[B, T] bool``."""
        words = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return pad([[self.start, *row[: context_length - 2], self.end] for row in words], value=self.padding)

    def measure(self, texts: Sequence[str]) -> tuple[list[int], int]:
        """Give each text's tokens, start and end included, uncut, and how many characters of all are unknown."""
        lengths, unknown = measure_hub(self._tokenizer, texts, add_special_tokens=False)
        return [length + 2 for length in lengths], unknown

    def decode(self, ids: Sequence[int]) -> str:
        """Turn one caption's ids into text, up to the end."""
        ids = list(ids)
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return self._tokenizer.decode(ids, skip_special_tokens=True).strip()


def _append(text: str, piece: str) -> str:
    if piece.startswith("##") and len(piece) > 2:
        return text + piece[2:]
    apart = text and _LATIN.match(text[-1]) and _LATIN.match(piece)
    return f"{text} {piece}" if apart else text + piece
