"""Captioners that are published vision-language models of transformers, asked for a caption in their own chat form."""

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from zoo.core.device import send
from zoo.core.options import options_of
from zoo.core.weights import load_strictly
from zoo.errors import UserError, invalid
from zoo.models.hub import read_model
from zoo.models.lora import add_lora, beside_adapters, check_lora, merged
from zoo.models.vlm import IMAGE, QWEN, ImagePrompt, own_size, read_vlm, squares
from zoo.tasks.captioning.captioners.captioner import ImageCaptioner
from zoo.tasks.captioning.captioners.decoding import Decoding
from zoo.tasks.captioning.captioners.vocabulary import HubVocabulary
from zoo.tasks.captioning.registry import CAPTIONERS

FAMILIES = QWEN | {"internvl": "InternVL of transformers' own format, whose names end in -hf"}
INSTRUCTION = "请为图中的商品写一句吸引人的中文推广文案，只输出文案。"


class VisionLanguageModel(nn.Module):
    """A vision-language model that is asked the same of every image: ``captioner.Language``, which sees images itself.

    The prompt is what the model's processor makes of its chat template. All images are squares of one size, so that
    all prompts are equally long. What the model encodes of an image is computed once, however many captions follow.

    Args:
        model: The built model of transformers.
        processor: Its processor.
        image_size: Square side of the images in pixels.
        instruction: What is asked of each image.
        published: Hub name or folder of its weights.

    Attributes:
        image_size: Square side of the images in pixels.
        instruction: What is asked of each image.
        prompt: The image and the instruction, in the model's chat form.
        published: Hub name or folder of its weights.
        lora: Rank, alpha and dropout of its adapters; None: it has none.

    Raises:
        UserError: The model's processor would resize or cut images of this size.
    """

    def __init__(self, model: Any, processor: Any, *, image_size: int, instruction: str, published: str) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.image_size = image_size
        self.instruction = instruction
        self.published = published
        self.lora: dict[str, Any] | None = None
        content = [IMAGE, {"type": "text", "text": instruction}]
        self.prompt = ImagePrompt(processor, [{"role": "user", "content": content}], image_size)

    @property
    def start(self) -> int:
        """The last token of the prompt, which opens every caption."""
        return int(self.prompt.inputs["input_ids"][0, -1])

    def add_lora(self, *, rank: int, alpha: float, dropout: float) -> None:
        """Freeze the model, and put adapters beside the linear layers of the language side's blocks."""
        self.lora = {"rank": rank, "alpha": alpha, "dropout": dropout}
        add_lora(self.model, self.model.model.language_model.layers, **self.lora)

    def plain_weights(self) -> dict[str, Tensor]:
        """Give the model's weights under transformers' names, adapters added."""
        state = self.model.state_dict()
        return state if self.lora is None else merged(state, rank=self.lora["rank"], alpha=self.lora["alpha"])

    def load_published(self, source: str) -> None:
        """Load the weights of the whole model: all of them, or none.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read, or do not fit.
        """
        _, state, _ = read_model(type(self.model), self.model, source)
        load_strictly(self.model, beside_adapters(self.model, state), source)

    def adapt_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit the weights of such a model to this one: those with adapters as they are, others beside its own.

        Raises:
            UserError: They have adapters, and this model has none.
        """
        if not any(".lora_" in name for name in state):
            return beside_adapters(self, state)
        if self.lora is None:
            raise UserError(
                "These weights have adapters, and this captioner has none. Give its captioner_options.lora_rank, or add"
                " the adapters to the weights first: export --format transformers"
            )
        return dict(state)

    def preprocess(self, images: list[Image.Image]) -> Tensor:
        """Turn B images into squares ``[B, 3, image_size, image_size] uint8``.

        Raises:
            UserError: One image came where a list belongs, or one cannot be read.
        """
        return squares(images, self.image_size)

    def sequence(self, images: Tensor) -> tuple[Tensor, None]:
        """Encode ``[B, 3, S, S] uint8`` at the language side's width: ``[B, N, width]``.

        Where features enter several layers (Qwen3-VL's DeepStack), they stand behind one another, ``[B, N, k width]``.
        """
        features = self.model.get_image_features(**self.prompt.pixels(images), return_dict=True)
        layers = [features.pooler_output, *(getattr(features, "deepstack_features", None) or [])]
        return torch.cat([torch.stack(tuple(layer)) for layer in layers], dim=-1), None

    def logits(self, encoded: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Give the logits ``[M, V]`` of all tokens behind ``ids [B, T]`` at ``places [M]``, indices of B · T."""
        prompt = self.prompt.inputs["input_ids"][:, :-1].expand(len(ids), -1)
        written = ids.masked_fill(ids == self.model.config.image_token_id, 0)  # a sampled one is no place of an image
        inputs = {
            "input_ids": torch.cat([send(prompt.contiguous(), ids.device), written], dim=1),
            "mm_encoder_outputs": self._seen(encoded),
            **self.prompt.positions(self.model.model, len(ids), ids.device, more=ids.shape[1] - 1),
        }
        hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[:, prompt.shape[1] :]  # [B, T, width]
        return self.model.get_output_embeddings()(hidden.flatten(0, 1)[places])

    def generate(self, encoded: Tensor, start: int, config: Any, *processors: Any) -> Tensor:
        """Decode as transformers does: ids ``[B, T]`` after the prompt, ended or cut and padded."""
        prompt = {name: send(row.repeat(len(encoded), 1), encoded.device) for name, row in self.prompt.inputs.items()}
        ids = self.model.generate(
            **prompt,
            mm_encoder_outputs=self._seen(encoded),
            generation_config=config,
            logits_processor=[*processors],
        )
        return ids[:, prompt["input_ids"].shape[1] :]

    def _seen(self, encoded: Tensor) -> dict[str, Any]:
        """Put what ``sequence`` gave into the form in which the model takes images that it has encoded before."""
        first, *deeper = encoded.split(self.model.config.get_text_config().hidden_size, dim=-1)
        output: Any = BaseModelOutputWithDeepstackFeatures()
        output.pooler_output = (
            list(first) if "image_grid_thw" in self.prompt.inputs else first
        )  # Qwen's take a list of images
        output.deepstack_features = [list(layer) for layer in deeper] or None
        return {"image": output}


@CAPTIONERS.register_prefix("vlm:")
def vlm(
    name: str,
    *,
    instruction: str = INSTRUCTION,
    image_size: int | None = None,
    context_length: int = 64,
    lora_rank: int = 0,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.0,
    decoding: dict[str, Any] | None = None,
) -> ImageCaptioner:
    """Build a vision-language model of transformers: Qwen2-VL, Qwen2.5-VL, Qwen3-VL or InternVL, with its processor.

    Args:
        name: A folder that ``save_pretrained`` wrote, which works offline, or a hub name
            (``Qwen/Qwen3-VL-4B-Instruct``).
        instruction: What is asked of each image, in the model's own chat template.
        image_size: Square side of the images in pixels: for Qwen's a multiple of 28 or 32, by default 448; for
            InternVL its tile's.
        context_length: Most tokens read of a reference, start and end included, at least 3.
        lora_rank: Rank of the adapters that are trained beside the linear layers of the language side, in the stead of
            all weights (extra ``lora``), at least 1; 0: none.
        lora_alpha: Scale of the adapters, over the rank, above 0.
        lora_dropout: Dropout probability before the adapters, in [0, 1).
        decoding: Options of beam search: ``beams``, ``length_penalty``, ``max_tokens``, ``no_repeat_ngram``.

    Raises:
        UserError: Configuration or processor cannot be had, it is another kind of model, or an option is out of its
            range.
    """
    if image_size is not None and image_size < 1:
        raise invalid("image_size", image_size, "give 1 or more")
    check_lora(rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout)
    config, processor = read_vlm(name, FAMILIES)
    if processor.tokenizer.eos_token_id is None:
        raise UserError(f"'vlm:{name}': its tokenizer has no end token, with which captions end")
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    if image_size is None:
        image_size = own_size(processor)
    options: dict[str, Any] = {"image_size": image_size, "instruction": instruction, "published": name}
    language = VisionLanguageModel(model, processor, **options)
    if lora_rank:
        language.add_lora(rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout)
    return ImageCaptioner(
        None,
        nn.Identity(),
        language,
        HubVocabulary(processor.tokenizer, start=language.start),
        context_length=context_length,
        decoding=options_of(Decoding, decoding, what="decoding"),
    )
