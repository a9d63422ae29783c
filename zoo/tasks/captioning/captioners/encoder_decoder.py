"""Captioners whose language model attends to the image: any zoo image tower, a BERT decoder with cross-attention."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import BertConfig, BertLMHeadModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from zoo.core.options import check_heads, options_of
from zoo.errors import invalid
from zoo.models.hub import load_language_model
from zoo.tasks.captioning.captioners.captioner import ImageCaptioner, build_image_tower
from zoo.tasks.captioning.captioners.decoding import Decoding
from zoo.tasks.captioning.captioners.vocabulary import BertVocabulary
from zoo.tasks.captioning.registry import CAPTIONERS

OUT_OF_REACH = -1e4  # the bias of a token that is never written


class CrossAttendingBert(nn.Module):
    """BERT as a causal decoder, each layer of which also attends to the image.

    Rothe et al., "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks" (2019), arXiv:1907.12461.

    Args:
        width: Of the hidden states, a multiple of ``num_heads``.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        dropout: Of hidden states and attention, in [0, 1).
        vocabulary_size: Tokens.
        published: Hub name or folder of a BERT that it can start from; the attention to the image starts at random.
    """

    def __init__(
        self,
        *,
        width: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        vocabulary_size: int,
        published: str | None = None,
    ) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=width,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=4 * width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            is_decoder=True,
            add_cross_attention=True,
        )
        self.model: Any = BertLMHeadModel(config)
        self.published = published
        self.words: Tensor  # [V] int64: the tokens that can be written, rising
        self.register_buffer("words", torch.arange(vocabulary_size), persistent=False)
        self.written = torch.ones(vocabulary_size, dtype=torch.bool)  # whether each token can be; always on the CPU
        self.register_load_state_dict_post_hook(_find_words)

    def load_published(self, source: str) -> None:
        """Load a BERT's weights: all of them, or none. The attention to the image, which it lacks, stays as it is."""
        load_language_model(self.model, source, kept="crossattention")

    def keep_words(self, words: Tensor) -> None:
        """From now on write no other tokens than these: ``[V] int64``.

        The vocabulary takes most of a small model's time, and a shop's copy has a few thousand of its tokens. The bias
        of the others, which is kept with the weights, puts them out of reach.
        """
        with torch.no_grad():
            bias = self.model.cls.predictions.bias
            kept = bias.where(bias > OUT_OF_REACH / 2, 0)[words]
            bias.fill_(OUT_OF_REACH)
            bias[words] = kept
        _find_words(self)

    def logits(self, encoded: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Give the logits ``[M, V]`` of ``words`` behind ``ids [B, T]`` at ``places [M]``, indices of B · T."""
        hidden = self.model.bert(input_ids=ids, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
        head = self.model.cls.predictions
        hidden = head.transform(hidden.flatten(0, 1)[places])  # the vocabulary costs most: not where nothing is learnt
        if len(self.words) == len(head.bias):
            return head.decoder(hidden)
        return linear(hidden, head.decoder.weight[self.words], head.bias[self.words])

    def generate(self, encoded: Tensor, start: int, config: Any, *processors: Any) -> Tensor:
        """Decode as transformers does: ids ``[B, T]`` after the start token, ended or cut and padded."""
        options: dict[str, Any] = {"encoder_hidden_states": encoded, "logits_processor": [*processors]}
        if config.use_cache is not False:  # BERT makes no cache of its own that holds the image's keys too
            options["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
        first = torch.full((len(encoded), 1), start, device=encoded.device)
        ids = self.model.generate(first, generation_config=config, **options)
        return ids[:, 1:]


def _find_words(decoder: CrossAttendingBert, _: Any = None) -> None:
    """Find the tokens that can be written; called whenever weights were loaded."""
    written = decoder.model.cls.predictions.bias > OUT_OF_REACH / 2
    decoder.words, decoder.written = written.nonzero()[:, 0], written.cpu()


def _build(
    *,
    width: int,
    num_layers: int,
    num_heads: int,
    dropout: float,
    image_tower: str,
    image_tower_options: dict[str, Any] | None,
    context_length: int,
    decoding: dict[str, Any] | None,
    published: str | None = None,
) -> ImageCaptioner:
    if not 0 <= dropout < 1:
        raise invalid("dropout", dropout, "give a share, 0 to below 1")
    tower, vocabulary = build_image_tower(image_tower, image_tower_options), BertVocabulary()
    decoder = CrossAttendingBert(
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout=dropout,
        vocabulary_size=vocabulary.size,
        published=published,
    )
    connector = nn.Sequential(nn.Linear(tower.width, width), nn.LayerNorm(width))
    return ImageCaptioner(
        tower,
        connector,
        decoder,
        vocabulary,
        context_length=context_length,
        decoding=options_of(Decoding, decoding, what="decoding"),
    )


@CAPTIONERS.register
def encoder_decoder_tiny(
    *,
    image_tower: str = "resnet10t",
    image_tower_options: dict[str, Any] | None = None,
    width: int = 256,
    num_layers: int = 2,
    num_heads: int = 4,
    dropout: float = 0.1,
    context_length: int = 42,
    decoding: dict[str, Any] | None = None,
) -> ImageCaptioner:
    """Build an image tower and a decoder of 7.7 M parameters, 2 layers of 256, for demos and tests.

    Args:
        image_tower: Name of an image tower; the decoder attends to its sequence.
        image_tower_options: Options of its builder.
        width: Width of the decoder's hidden states, a multiple of ``num_heads``.
        num_layers: Number of the decoder's layers.
        num_heads: Number of the decoder's attention heads.
        dropout: Dropout probability of the decoder, in [0, 1).
        context_length: Most tokens read of a reference, start and end included, at least 3.
        decoding: Options of beam search: ``beams``, ``length_penalty``, ``max_tokens``, ``no_repeat_ngram``.

    Raises:
        UserError: An option is out of its range.
    """
    check_heads(width=width, num_layers=num_layers, num_heads=num_heads)
    return _build(
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout=dropout,
        image_tower=image_tower,
        image_tower_options=image_tower_options,
        context_length=context_length,
        decoding=decoding,
    )


@CAPTIONERS.register
def encoder_decoder_base(
    *,
    image_tower: str = "vit_base_patch16_clip_quickgelu_224",
    image_tower_options: dict[str, Any] | None = None,
    dropout: float = 0.1,
    context_length: int = 52,
    decoding: dict[str, Any] | None = None,
) -> ImageCaptioner:
    """Build an image tower and a decoder of 12 layers of 768, which starts from Chinese RoBERTa.

    Args:
        image_tower: Name of an image tower; the decoder attends to its sequence.
        image_tower_options: Options of its builder.
        dropout: Dropout probability of the decoder, in [0, 1).
        context_length: Most tokens read of a reference, start and end included, at least 3.
        decoding: Options of beam search: ``beams``, ``length_penalty``, ``max_tokens``, ``no_repeat_ngram``.

    Raises:
        UserError: An option is out of its range.
    """
    return _build(
        width=768,
        num_layers=12,
        num_heads=12,
        dropout=dropout,
        image_tower=image_tower,
        image_tower_options=image_tower_options,
        context_length=context_length,
        decoding=decoding,
        published="hfl/chinese-roberta-wwm-ext",
    )
