"""WordPiece over the bundled BERT-Chinese vocabulary: 21,128 entries, offline.

The vocabulary (``vocab.txt``) is Google's, of ``bert-base-chinese``, under Apache-2.0; cn-clip and the Chinese RoBERTa
checkpoints use the same file. The steps are those of BERT's own tokenizer, run by the ``tokenizers`` library: clean,
space Chinese characters, lower-case, strip accents, split at spaces and punctuation, longest match first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

if TYPE_CHECKING:  # `data check` counts tokens without torch
    from torch import Tensor

VOCABULARY = Path(__file__).with_name("vocab.txt")
PAD, UNKNOWN, CLASSIFY, SEPARATE = 0, 100, 101, 102  # the ids of [PAD], [UNK], [CLS], [SEP]

# The vocabulary has no curly quotes; cn-clip's training and evaluation map them to straight ones first.
_STRAIGHT_QUOTES = str.maketrans({"“": '"', "”": '"'})


class Tokenize(Protocol):
    """What a text tower needs of a tokenizer."""

    def __call__(self, texts: Sequence[str], *, context_length: int) -> "tuple[Tensor, Tensor]":
        """Turn B texts into ids ``[B, N] int64`` and the mask ``[B, N] bool`` (true = a token), N the longest's."""

    def measure(self, texts: Sequence[str]) -> tuple[list[int], int]:
        """Give each text's tokens, uncut, and how many characters of all texts are unknown."""


class BertChineseTokenizer:
    """Chinese texts to ids, equal to ``cn_clip.tokenize`` on all but private-use and very recent characters.

    Text that spells a special token (``[SEP]``) is split like any other text. Pickles with its vocabulary.
    """

    def __init__(self) -> None:
        words = VOCABULARY.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        vocabulary = {word: index for index, word in enumerate(words)}
        # 200 characters a word, as in BERT's own tokenizer; the library's default is 100.
        self._tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=200))
        self._tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str, *, context_length: int = 52) -> list[int]:
        """Turn one text into ids, [CLS] and [SEP] included, at most ``context_length`` of them."""
        # One text at a time: as fast as the library's batch, whose threads do not survive a worker's fork.
        words = self._tokenizer.encode(text.translate(_STRAIGHT_QUOTES), add_special_tokens=False).ids
        return [CLASSIFY, *words[: context_length - 2], SEPARATE]

    def measure(self, texts: Sequence[str]) -> tuple[list[int], int]:
        """Give each text's tokens, [CLS] and [SEP] included, uncut, and how many characters of all become [UNK]."""
        lengths, unknown = [], 0
        for text in texts:
            encoding = self._tokenizer.encode(text.translate(_STRAIGHT_QUOTES), add_special_tokens=False)
            lengths.append(len(encoding.ids) + 2)
            if UNKNOWN in encoding.ids:
                places = zip(encoding.ids, encoding.offsets, strict=True)
                unknown += sum(end - start for index, (start, end) in places if index == UNKNOWN)
        return lengths, unknown

    def __call__(self, texts: Sequence[str], *, context_length: int = 52) -> "tuple[Tensor, Tensor]":
        """Turn B texts into padded ids, on the CPU.

        Args:
            texts: B strings; an empty one is [CLS] [SEP].
            context_length: The most tokens kept of a text, [CLS] and [SEP] included.

        Returns:
            ids ``[B, N] int64`` and mask ``[B, N] bool`` (true = a token), N the longest text's length.
        """
        return pad([self.encode(text, context_length=context_length) for text in texts], value=PAD)

    def to_tokenizers(self, context_length: int) -> Tokenizer:
        """Make the same tokenizer for the library ``tokenizers`` alone: it cuts texts, and knows no special spelling.

        Args:
            context_length: The most tokens kept of a text, [CLS] and [SEP] included.
        """
        from tokenizers import processors

        copy = Tokenizer.from_str(self._tokenizer.to_str())
        quotes = [normalizers.Replace(chr(curly), straight) for curly, straight in _STRAIGHT_QUOTES.items()]
        copy.normalizer = normalizers.Sequence([*quotes, copy.normalizer])
        copy.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLASSIFY), ("[SEP]", SEPARATE)]
        )
        copy.enable_truncation(context_length)
        return copy

    def to_transformers(self, context_length: int) -> Any:
        """Make the same tokenizer of transformers' kind, for other libraries: quotes and ``[SEP]`` are read alike.

        Args:
            context_length: The most tokens that it keeps of a text where it is told to truncate.
        """
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_object=self.to_tokenizers(context_length),
            model_max_length=context_length,
            split_special_tokens=True,
            **{f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")},
        )


def measure_hub(tokenizer: Any, texts: Sequence[str], *, add_special_tokens: bool) -> tuple[list[int], int]:
    """Measure texts by a transformers tokenizer; see ``Tokenize.measure``."""
    fast = bool(tokenizer.is_fast)
    read = tokenizer(
        list(texts), add_special_tokens=add_special_tokens, return_offsets_mapping=fast, truncation=False, verbose=False
    )
    unknown = 0
    for row, ids in enumerate(read["input_ids"]):
        for place, index in enumerate(ids):
            if index == tokenizer.unk_token_id:
                start, end = read["offset_mapping"][row][place] if fast else (0, 1)
                unknown += end - start
    return [len(ids) for ids in read["input_ids"]], unknown


def pad(sequences: Sequence[Sequence[int]], *, value: int) -> "tuple[Tensor, Tensor]":
    """Pad B id lists on the right to the longest: ids ``[B, N] int64`` and mask ``[B, N] bool`` (true = real)."""
    import torch

    lengths = torch.tensor([len(sequence) for sequence in sequences])
    longest = max((len(sequence) for sequence in sequences), default=0)
    ids = torch.tensor([[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences], dtype=torch.int64)
    return ids.view(len(sequences), longest), torch.arange(longest) < lengths[:, None]
