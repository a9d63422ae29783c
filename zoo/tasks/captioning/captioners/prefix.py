"""Captioners that read the image as the first words: image tower, pixel shuffle, causal language model."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle
from transformers import Qwen3Config, Qwen3ForCausalLM

from zoo.core.options import check_heads, options_of
from zoo.errors import UserError, invalid
from zoo.models.hub import load_language_model, read_configuration
from zoo.tasks.captioning.captioners.captioner import ImageCaptioner, build_image_tower
from zoo.tasks.captioning.captioners.decoding import Decoding
from zoo.tasks.captioning.captioners.vocabulary import BertVocabulary, HubVocabulary, Vocabulary
from zoo.tasks.captioning.registry import CAPTIONERS


class PixelShuffle(nn.Module):
    """Joins each square of ``factor²`` neighbouring positions to one, and brings it to the language model's width.

    Shi et al. (2016), arXiv:1609.05158, backwards, as in Idefics3 (2024), arXiv:2408.12637. Class and register tokens
    of the tower are left out.

    Args:
        width: Width of the tower's sequence.
        factor: Positions of a side that become one, at least 1.
        out_width: Width of the language model.
        hidden: Width of a hidden layer; None: there is none.
    """

    def __init__(self, width: int, *, factor: int, out_width: int) -> None:
        super().__init__()
        if factor < 1:
            raise invalid("shuffle", factor, "give 1 (none) or more")
        self.factor = factor
        inner = width * factor**2
        self.project = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, out_width), nn.GELU())
        self.project.append(nn.Linear(out_width, out_width))

    def forward(self, sequence: Tensor) -> Tensor:
        """Join ``[B, N, width]`` to ``[B, N / factor², out_width]``.

        Raises:
            UserError: The sequence's positions are no grid that ``factor`` divides.
        """
        side = math.isqrt(sequence.shape[1])
        if side % self.factor:
            raise invalid(
                "shuffle",
                self.factor,
                f"the image tower's {side} x {side} positions cannot be joined so; give a divisor of {side}",
            )
        grid = sequence[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))  # [B, W, side, side]
        return self.project(pixel_unshuffle(grid, self.factor).flatten(2).transpose(1, 2))


class PrefixedLanguageModel(nn.Module):
    """A causal language model of transformers that reads an image before its words.

    Args:
        model: The built model.
        published: Hub name or folder of its weights, if there are any.
    """

    def __init__(self, model: Any, *, published: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.published = published

    def load_published(self, source: str) -> None:
        """Load the language model's weights: all of them, or none."""
        load_language_model(self.model, source)

    def logits(self, encoded: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Give the logits ``[M, V]`` of all tokens behind ``ids [B, T]`` at ``places [M]``, indices of B · T."""
        words = self._after(encoded, ids)  # [B, N + T, width]
        # Transformers would ask the device whether several texts are packed into one; no mask says that none are.
        full = set(getattr(self.model.config, "layer_types", None) or ()) == {"full_attention"}
        mask = {"full_attention": None} if full else None
        options = {"attention_mask": mask, "use_cache": False, "logits_to_keep": ids.shape[1]}
        return self.model(inputs_embeds=words, **options).logits.flatten(0, 1)[places]

    def generate(self, encoded: Tensor, start: int, config: Any, *processors: Any) -> Tensor:
        """Decode as transformers does: ids ``[B, T]`` after the start token, ended or cut and padded."""
        first = torch.full((len(encoded), 1), start, device=encoded.device)
        words = self._after(encoded, first)
        mask = torch.ones(words.shape[:2], dtype=torch.long, device=words.device)
        options = {"generation_config": config, "logits_processor": [*processors]}
        return self.model.generate(inputs_embeds=words, attention_mask=mask, **options)

    def _after(self, encoded: Tensor, ids: Tensor) -> Tensor:
        words = self.model.get_input_embeddings()(ids)
        return torch.cat([encoded.to(words.dtype), words], dim=1)


def _assemble(
    model: Any,
    vocabulary: Vocabulary,
    *,
    image_tower: str,
    image_tower_options: dict[str, Any] | None,
    shuffle: int,
    context_length: int,
    decoding: dict[str, Any] | None,
    published: str | None = None,
) -> ImageCaptioner:
    tower = build_image_tower(image_tower, image_tower_options)
    return ImageCaptioner(
        tower,
        PixelShuffle(tower.width, factor=shuffle, out_width=model.config.hidden_size),
        PrefixedLanguageModel(model, published=published),
        vocabulary,
        context_length=context_length,
        decoding=options_of(Decoding, decoding, what="decoding"),
    )


@CAPTIONERS.register
def prefix_tiny(
    *,
    image_tower: str = "resnet10t",
    image_tower_options: dict[str, Any] | None = None,
    shuffle: int = 1,
    width: int = 256,
    num_layers: int = 2,
    num_heads: int = 4,
    context_length: int = 42,
    decoding: dict[str, Any] | None = None,
) -> ImageCaptioner:
    """Build an image tower before a causal language model of 7 M parameters, 2 layers of 256, for demos and tests.

    Args:
        image_tower: Name of an image tower; its positions come before the words.
        image_tower_options: Options of its builder.
        shuffle: Positions of a side that become one, at least 1.
        width: Width of the language model's hidden states, a multiple of twice ``num_heads``.
        num_layers: Number of the language model's layers.
        num_heads: Number of the language model's attention heads.
        context_length: Most tokens read of a reference, start and end included, at least 3.
        decoding: Options of beam search: ``beams``, ``length_penalty``, ``max_tokens``, ``no_repeat_ngram``.

    Raises:
        UserError: An option is out of its range.
    """
    check_heads(width=width, num_layers=num_layers, num_heads=num_heads, multiple=2)
    vocabulary = BertVocabulary()
    config = Qwen3Config(
        vocab_size=vocabulary.size,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        head_dim=width // num_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=vocabulary.padding,
        bos_token_id=vocabulary.start,
        eos_token_id=vocabulary.end,
    )
    return _assemble(
        Qwen3ForCausalLM(config),
        vocabulary,
        image_tower=image_tower,
        image_tower_options=image_tower_options,
        shuffle=shuffle,
        context_length=context_length,
        decoding=decoding,
    )


@CAPTIONERS.register_prefix("prefix:")
def prefix_of(
    name: str,
    *,
    image_tower: str = "vit_base_patch16_clip_quickgelu_224",
    image_tower_options: dict[str, Any] | None = None,
    shuffle: int = 2,
    context_length: int = 64,
    decoding: dict[str, Any] | None = None,
) -> ImageCaptioner:
    """Build an image tower before any causal language model; configuration and tokenizer from folder, cache or hub.

    Args:
        name: A folder that ``save_pretrained`` wrote, which works offline, or a hub name (``Qwen/Qwen3-0.6B``).
        image_tower: Name of an image tower; its positions come before the words.
        image_tower_options: Options of its builder.
        shuffle: Positions of a side that become one, at least 1.
        context_length: Most tokens read of a reference, start and end included, at least 3.
        decoding: Options of beam search: ``beams``, ``length_penalty``, ``max_tokens``, ``no_repeat_ngram``.

    Raises:
        UserError: Configuration or tokenizer cannot be had, or are not a causal language model's.
    """
    from transformers import AutoModelForCausalLM

    config, tokenizer = read_configuration("prefix", name)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except ValueError:
        raise UserError(f"'prefix:{name}' is a {config.model_type}, which is no causal language model") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"'prefix:{name}': its tokenizer has no end token, with which captions end")
    return _assemble(
        model,
        HubVocabulary(tokenizer),
        image_tower=image_tower,
        image_tower_options=image_tower_options,
        shuffle=shuffle,
        context_length=context_length,
        decoding=decoding,
        published=name,
    )
