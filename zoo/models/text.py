"""Text encoders: one adapter for any transformers encoder, and the builders of the named ones."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel

from zoo.core.device import send
from zoo.core.inputs import as_texts
from zoo.core.options import check_heads
from zoo.core.texts import TextCounts
from zoo.core.weights import load_strictly
from zoo.errors import UserError, invalid
from zoo.models.blocks import checkpoint_blocks, layers_of, longest_list
from zoo.models.hub import read_configuration, read_model
from zoo.models.lora import add_lora, beside_adapters
from zoo.models.tokenizer import BertChineseTokenizer, Tokenize, measure_hub, pad
from zoo.registry import TEXT_TOWERS


class TransformersTextTower(nn.Module):
    """A transformers encoder with its tokenizer, fed strings; they are padded to the longest of the batch.

    The pooled output is the hidden state of the classification token, without pooler and tanh, where the tokenizer
    opens every text with one (BERT, RoBERTa, ELECTRA, …), and the mean over the tokens where it does not (T5, GPT).

    Args:
        encoder: The built transformers model; a ``forward`` of ids and mask gives ``last_hidden_state``.
        tokenizer: Turns texts into padded ids and their mask.
        pool_first: Whether the first token stands for the text; otherwise the mean does.
        context_length: The most tokens read of a text, special tokens included.
        pad_to_context: Whether texts are padded to ``context_length`` and not to the longest of the batch.
        published: Hub name or folder of the weights of this encoder, if there are any.

    Attributes:
        width: Size of the pooled output and of the sequence.

    Raises:
        UserError: The encoder has fewer positions than ``context_length``.
    """

    def __init__(
        self,
        encoder: Any,
        tokenizer: Tokenize,
        *,
        pool_first: bool = True,
        context_length: int = 52,
        pad_to_context: bool = False,
        published: str | None = None,
    ) -> None:
        super().__init__()
        positions = getattr(encoder.config, "max_position_embeddings", None) or context_length
        if not 2 < context_length <= positions:
            raise invalid("context_length", context_length, f"this text tower takes 3 to {positions} tokens")
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.width: int = encoder.config.hidden_size
        self.context_length = context_length
        self.pad_to_context = pad_to_context
        self.published = published
        self.pool_first = pool_first

    def forward(self, texts: list[str]) -> Tensor:
        """Encode B texts into pooled ``[B, width]``."""
        return self.pool(*self.sequence(texts))

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Pool hidden states ``[B, N, width]`` with their mask ``[B, N]`` into ``[B, width]``."""
        if self.pool_first:
            return hidden[:, 0]
        weights = mask.unsqueeze(-1).to(hidden.dtype)  # [B, N, 1]
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def sequence(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode B texts into the last hidden states.

        Returns:
            hidden states ``[B, N, width]``, N the longest text's tokens, and their mask ``[B, N] bool``.

        Raises:
            UserError: One string came where a list belongs, or something in the list is none.
        """
        ids, mask = self.tokenizer(as_texts(texts), context_length=self.context_length)
        if self.pad_to_context:
            ids, mask = (F.pad(side, (0, self.context_length - side.shape[1])) for side in (ids, mask))
        full = bool(mask.all())  # asked of the host, and no GPU waits for it
        ids, mask = (send(side, self.encoder.device) for side in (ids, mask))
        attention_mask = None if full else self._attention_mask(mask)
        return self.encoder(input_ids=ids, attention_mask=attention_mask).last_hidden_state, mask

    def count_texts(self, texts: Sequence[str]) -> TextCounts:
        """Count which of some texts are cut, and how many of their characters are unknown."""
        return TextCounts.of(*self.tokenizer.measure(texts), self.context_length)

    def _attention_mask(self, mask: Tensor) -> Tensor:
        """The mask ``[B, N] bool`` as attention reads it; transformers would ask the device whether it is full."""
        ready = isinstance(self.encoder, BertModel) and self.encoder.config._attn_implementation == "sdpa"
        return mask[:, None, None] if ready else mask.long()

    def load_published(self, source: str) -> None:
        """Load the encoder's weights, of a model with any heads: all of them, or none.

        Args:
            source: A folder that ``save_pretrained`` wrote, a hub name, or a file of weights.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read, or something of the encoder was missing, unexpected or mis-shaped.
        """
        model, state, unexpected = read_model(AutoModel, self.encoder, source)
        for key in sorted(unexpected):
            state[key.removeprefix(f"{model.base_model_prefix}.")] = torch.empty((), device="meta")
        if type(model) is not type(self.encoder):  # an encoder and a decoder
            part = next(name for name, module in model.named_modules() if module is model.get_encoder())
            state = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
        parts = {key.partition(".")[0] for key in self.encoder.state_dict()}  # heads and the pooler are no part of it
        state = {key: value for key, value in state.items() if key.partition(".")[0] in parts}
        state = {key: value for key, value in state.items() if not key.endswith(".position_ids")}  # of old checkpoints
        load_strictly(self.encoder, beside_adapters(self.encoder, state), source)

    def adapt_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit the weights of such a tower without adapters to this one."""
        return beside_adapters(self, state)

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters, layer after layer: the embeddings, then each block; what follows the last belongs to it.

        Raises:
            UserError: The encoder has no list of blocks.
        """
        return layers_of(self.encoder, self.blocks())

    def blocks(self) -> nn.ModuleList:
        """List the transformer's blocks, in order.

        Raises:
            UserError: The encoder has no list of blocks.
        """
        return longest_list(self.encoder)

    def add_lora(self, **options: Any) -> None:
        """Freeze the tower, and put adapters beside the linear layers of its blocks (see ``zoo.models.lora``)."""
        add_lora(self.encoder, self.blocks(), **options)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back.

        Raises:
            UserError: The encoder has no such mode.
        """
        checkpoint_blocks(self.encoder)

    def compile_network(self) -> None:
        """Compile the network behind the tokenizer with ``torch.compile``, once for texts of any length."""
        self.encoder.compile(dynamic=True)


class HubTokenizer:
    """A transformers tokenizer behind the same call as the bundled one."""

    def __init__(self, tokenizer: Any) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a data worker's fork
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str], *, context_length: int) -> tuple[Tensor, Tensor]:
        """Turn B texts into ids ``[B, N] int64`` and their mask ``[B, N] bool`` (true = a token)."""
        ids = self._tokenizer(list(texts), truncation=True, max_length=context_length)["input_ids"]
        return pad(ids, value=self._tokenizer.pad_token_id or 0)

    def measure(self, texts: Sequence[str]) -> tuple[list[int], int]:
        """Give each text's tokens, uncut, and how many characters of all texts are unknown."""
        return measure_hub(self._tokenizer, texts, add_special_tokens=True)

    def to_tokenizers(self, context_length: int) -> Any:
        """Make the same tokenizer for the library ``tokenizers`` alone, which cuts texts to ``context_length`` tokens.

        Raises:
            UserError: It is written in Python and not of that library.
        """
        if not self._tokenizer.is_fast:
            raise UserError(f"{type(self._tokenizer).__name__} cannot be written for the library tokenizers")
        copy = type(self._tokenizer.backend_tokenizer).from_str(self._tokenizer.backend_tokenizer.to_str())
        copy.enable_truncation(context_length)
        return copy

    def to_transformers(self, context_length: int) -> Any:
        """Give transformers' own tokenizer, which keeps ``context_length`` tokens where it is told to truncate."""
        self._tokenizer.model_max_length = context_length
        return self._tokenizer

    @property
    def opens_with_classification(self) -> bool:
        """Whether every text begins with a classification token."""
        token = self._tokenizer.cls_token_id
        return token is not None and self._tokenizer("字")["input_ids"][0] == token


def _chinese_bert(
    *,
    width: int,
    num_layers: int,
    num_heads: int,
    dropout: float,
    context_length: int,
    published: str | None = None,
    pool_first: bool = True,
    pad_to_context: bool = False,
) -> TransformersTextTower:
    check_heads(width=width, num_layers=num_layers, num_heads=num_heads)
    if not 0 <= dropout < 1:
        raise invalid("dropout", dropout, "give a share, from 0 to below 1")
    config = BertConfig(
        vocab_size=21128,
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    encoder = BertModel(config, add_pooling_layer=False)
    return TransformersTextTower(
        encoder,
        BertChineseTokenizer(),
        pool_first=pool_first,
        context_length=context_length,
        pad_to_context=pad_to_context,
        published=published,
    )


class Variant(NamedTuple):
    """A published Chinese BERT."""

    published: str  # hub name of its weights
    width: int
    num_layers: int
    num_heads: int
    summary: str


CHINESE_BERTS = {
    "chinese_roberta_wwm_ext": Variant(
        *("hfl/chinese-roberta-wwm-ext", 768, 12, 12),
        "Build the Chinese RoBERTa base, 12 layers of 768: the text side of Chinese CLIP B and L.",
    ),
    "chinese_roberta_wwm_ext_large": Variant(
        *("hfl/chinese-roberta-wwm-ext-large", 1024, 24, 16),
        "Build the Chinese RoBERTa large, 24 layers of 1024: the text side of Chinese CLIP H.",
    ),
    "rbt3": Variant(
        *("hfl/rbt3", 768, 3, 12),
        "Build the Chinese RoBERTa of 3 layers of 768: the text side of Chinese CLIP RN50.",
    ),
}


def chinese_bert(
    variant: Variant, /, *, dropout: float = 0.1, context_length: int = 52, num_layers: int | None = None
) -> TransformersTextTower:
    """Build a published Chinese BERT.

    Args:
        variant: Which.
        dropout: Dropout probability of hidden states and attention, in [0, 1).
        context_length: The most tokens read of a text, 3 to 512.
        num_layers: Transformer layers, 1 or more. None: all of its own; only those have published weights.
    """
    return _chinese_bert(
        width=variant.width,
        num_layers=variant.num_layers if num_layers is None else num_layers,
        num_heads=variant.num_heads,
        dropout=dropout,
        context_length=context_length,
        published=variant.published if num_layers is None else None,
    )


for _name, _variant in CHINESE_BERTS.items():
    TEXT_TOWERS.register_variant(_name, _variant.summary, chinese_bert, _variant)


@TEXT_TOWERS.register
def bert_tiny_chinese(
    *,
    width: int = 256,
    num_layers: int = 3,
    num_heads: int = 4,
    dropout: float = 0.1,
    context_length: int = 52,
    pad_to_context: bool = False,
) -> TransformersTextTower:
    """Build a tiny Chinese BERT of 7.9 M parameters, 3 layers of 256, for demos and tests.

    It is made to learn from a few thousand texts, where nobody publishes weights: the mean over the tokens stands for
    the text, and characters begin well apart (deviation 0.08, BERT's is 0.02), so that those seldom seen stay so.

    Args:
        width: Size of the hidden states, a multiple of ``num_heads``.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        dropout: Of hidden states and attention, in [0, 1).
        context_length: The most tokens read of a text, 3 to 512.
        pad_to_context: Whether texts are padded to ``context_length``, as others do, and not to the longest of the
            batch: slower, and the same embeddings.

    Raises:
        UserError: An option is out of its range.
    """
    tower = _chinese_bert(
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout=dropout,
        context_length=context_length,
        pad_to_context=pad_to_context,
        pool_first=False,
    )
    torch.nn.init.normal_(tower.encoder.embeddings.word_embeddings.weight, std=0.08)
    return tower


@TEXT_TOWERS.register_prefix("transformers:")
def transformers_tower(name: str, *, context_length: int = 52) -> TransformersTextTower:
    """Build any transformers encoder: its configuration and tokenizer are read from a folder, the cache or the hub.

    Args:
        name: A folder that ``save_pretrained`` wrote, which works offline, or a hub name (``"hfl/rbt6"``).
        context_length: The most tokens read of a text, special tokens included.

    Raises:
        UserError: The configuration or the tokenizer cannot be had, or it is not a text encoder's.
    """
    config, hub_tokenizer = read_configuration("transformers", name)
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise UserError(f"'transformers:{name}' is a {config.model_type} and not a single text encoder. Name one.")
    config.use_cache = False
    encoder = AutoModel.from_config(config, dtype=torch.float32)
    if config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # its output is not used
    tokenizer = HubTokenizer(hub_tokenizer)
    pool_first = tokenizer.opens_with_classification
    return TransformersTextTower(
        encoder, tokenizer, pool_first=pool_first, context_length=context_length, published=name
    )
