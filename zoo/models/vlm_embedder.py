"""Embedders that are vision-language models of transformers: one model for images and texts, its last token the vector.

Qwen3-VL-Embedding (Li et al. 2026, arXiv:2601.04720) and its like. Instruction and image, or text, stand in the model's
own chat form; the features are the last hidden state of the last token.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel

from zoo.core.device import send
from zoo.core.inputs import as_texts
from zoo.core.texts import TextCounts
from zoo.core.weights import load_strictly
from zoo.errors import UserError, invalid
from zoo.models.blocks import checkpoint_blocks
from zoo.models.half import Half, refuse_sequence
from zoo.models.hub import read_model
from zoo.models.image import check_pixels
from zoo.models.lora import beside_adapters
from zoo.models.tokenizer import measure_hub, pad
from zoo.models.vlm import IMAGE, QWEN, ImagePrompt, own_size, read_vlm, squares
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS

INSTRUCTIONS = {  # of Qwen3-VL-Embedding: its default, and the one of its published example of queries
    "image": "Represent the user's input.",
    "text": "Retrieve images or text relevant to the user's query.",
}


class EmbedderTower(Half):
    """The model as an image tower; it also encodes the tokens of its ``EmbedderTextTower``.

    Args:
        model: The model of transformers without its head.
        processor: Its processor.
        image_size: Square side of the images in pixels.
        instruction: What is said of each image, as the system's turn.
        published: Hub name or folder of its weights.

    Attributes:
        width: Size of the features.

    Raises:
        UserError: The model's processor would resize or cut images of this size.
    """

    def __init__(self, model: Any, processor: Any, *, image_size: int, instruction: str, published: str) -> None:
        super().__init__(model, model.config.get_text_config().hidden_size, published)
        self.processor, self.image_size, self.instruction = processor, image_size, instruction
        self.prompt = ImagePrompt(processor, turns(instruction, IMAGE), image_size)

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Encode ``[B, 3, S, S] uint8``, or tokens ``input_ids [B, L]`` with their ``attention_mask``: ``[B, width]``.

        Raises:
            UserError: The images are not ``uint8 [B, 3, S, S]`` of the tower's size.
        """
        if isinstance(inputs, Tensor):
            check_pixels(inputs, self.image_size)
            return self.prompt.last_hidden(self.model, inputs)
        hidden = self.model(**inputs, use_cache=False).last_hidden_state  # [B, L, width]
        last = inputs["attention_mask"].sum(dim=1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last]

    def blocks(self) -> Any:
        """List the blocks of the language side, in order: what adapters stand beside."""
        return self.model.language_model.layers

    def load_published(self, source: str) -> None:
        """Load the weights of the whole model but its head: all of them, or none.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read, or do not fit.
        """
        _, state, _ = read_model(AutoModel, self.model, source)
        load_strictly(self.model, beside_adapters(self.model, state), source)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back."""
        checkpoint_blocks(self.model)

    def preprocess(self, images: list[Image.Image]) -> Tensor:
        """Turn B images into squares ``[B, 3, image_size, image_size] uint8``.

        Raises:
            UserError: One image came where a list belongs, or one cannot be read.
        """
        return squares(images, self.image_size)


class EmbedderTextTower(nn.Module):
    """The side of the texts: it has no weights of its own, and reads them with those of the image tower.

    Args:
        processor: The model's processor.
        width: Size of the features.
        instruction: What is said of each text, as the system's turn.
        context_length: Most tokens read of a text, those of the chat form not counted.
        published: Hub name or folder of the weights.
    """

    def __init__(self, processor: Any, width: int, *, instruction: str, context_length: int, published: str) -> None:
        super().__init__()
        self.processor, self.width, self.instruction, self.published = processor, width, instruction, published
        self.context_length = context_length
        self._tower: tuple[EmbedderTower, ...] = ()  # not among the modules of this one: its weights are kept once

    def share(self, image_tower: nn.Module) -> None:
        """Take the image tower, whose weights are to read the texts too.

        Raises:
            UserError: It is not the same model.
        """
        if not isinstance(image_tower, EmbedderTower) or image_tower.published != self.published:
            name = f"vlm:{self.published}"
            raise invalid("text_tower", name, "name it as image_tower too: one model reads both sides")
        self._tower = (image_tower,)

    def forward(self, texts: list[str]) -> Tensor:
        """Encode B texts into features ``[B, width]``.

        Raises:
            UserError: One string came where a list belongs, something in the list is none, or there is no image tower.
        """
        if not self._tower:
            raise UserError(f"text_tower vlm:{self.published}: it reads texts with the image tower alone, and has none")
        (tower,) = self._tower
        ids, mask = self.tokens(texts)
        device = tower.model.device
        return tower({"input_ids": send(ids, device), "attention_mask": send(mask.long(), device)})

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Give the tokens ``[B, L]`` of texts in their chat form, padded on the right, and their mask."""
        chats = [turns(self.instruction, {"type": "text", "text": text}) for text in self.cut(texts)]
        formed = self.processor.apply_chat_template(chats, add_generation_prompt=True)
        return pad(self.processor.tokenizer(formed)["input_ids"], value=self.processor.tokenizer.pad_token_id or 0)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Cut texts that have more tokens than are read."""
        kept = [*as_texts(texts)]
        for place, text in enumerate(kept):
            if len(text.encode()) > self.context_length:  # a token has a byte at least
                options = {"truncation": True, "max_length": self.context_length, "add_special_tokens": False}
                spans = self.processor.tokenizer(text, return_offsets_mapping=True, **options)["offset_mapping"]
                kept[place] = text[: spans[-1][1]]
        return kept

    def count_texts(self, texts: Sequence[str]) -> TextCounts:
        """Count which of some texts are cut, and how many of their characters are unknown."""
        measured = measure_hub(self.processor.tokenizer, texts, add_special_tokens=False)
        return TextCounts.of(*measured, self.context_length)

    def sequence(self, texts: list[str]) -> NoReturn:
        """Refuse: an embedder has one vector for a text.

        Raises:
            UserError: Always.
        """
        refuse_sequence()


def turns(instruction: str, content: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give the chat in which an embedder reads an image or a text."""
    return [
        {"role": "system", "content": [{"type": "text", "text": instruction}]},
        {"role": "user", "content": [content]},
    ]


def _read(name: str, suffix: str) -> tuple[Any, Any]:
    config, processor = read_vlm(name, QWEN)
    processor.chat_template += suffix
    return config, processor


@IMAGE_TOWERS.register_prefix("vlm:")
def vlm_image_tower(
    name: str, *, instruction: str = INSTRUCTIONS["image"], image_size: int | None = None, suffix: str = ""
) -> EmbedderTower:
    """Build an embedder made of a Qwen-VL of transformers; named as ``text_tower`` too, it reads both sides.

    Args:
        name: A folder that ``save_pretrained`` wrote, which works offline, or a hub name
            (``Qwen/Qwen3-VL-Embedding-2B``).
        instruction: What is said of each image, as the system's turn.
        image_size: Square side of the images in pixels, a multiple of 28 or 32; by default 448.
        suffix: What follows the chat form: ``<|endoftext|>`` of GME and Ops-MM-embedding.

    Raises:
        UserError: Configuration or processor cannot be had, it is another kind of model, or an option is out of its
            range.
    """
    if image_size is not None and image_size < 1:
        raise invalid("image_size", image_size, "give 1 or more")
    config, processor = _read(name, suffix)
    model = AutoModel.from_config(config, dtype=torch.float32)
    size = own_size(processor) if image_size is None else image_size
    return EmbedderTower(model, processor, image_size=size, instruction=instruction, published=name)


@TEXT_TOWERS.register_prefix("vlm:")
def vlm_text_tower(
    name: str, *, instruction: str = INSTRUCTIONS["text"], context_length: int = 512, suffix: str = ""
) -> EmbedderTextTower:
    """Build the side of the texts of an embedder, which has the weights of the image tower of the same name.

    Args:
        name: As of the image tower.
        instruction: What is said of each text, as the system's turn.
        context_length: Most tokens read of a text, those of the chat form not counted, at least 1.
        suffix: What follows the chat form: ``<|endoftext|>`` of GME and Ops-MM-embedding.

    Raises:
        UserError: Configuration or processor cannot be had, it is another kind of model, or an option is out of its
            range.
    """
    if context_length < 1:
        raise invalid("context_length", context_length, "give 1 or more")
    config, processor = _read(name, suffix)
    width = config.get_text_config().hidden_size
    options: dict[str, Any] = {"instruction": instruction, "context_length": context_length, "published": name}
    return EmbedderTextTower(processor, width, **options)
