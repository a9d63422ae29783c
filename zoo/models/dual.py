"""Published dual encoders of transformers: their two halves as towers, projections included, exactly as they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel

from zoo.core.device import send
from zoo.core.inputs import as_texts
from zoo.core.texts import TextCounts
from zoo.core.weights import load_strictly
from zoo.errors import UserError
from zoo.models.blocks import checkpoint_blocks
from zoo.models.half import Half, ImageHalf
from zoo.models.hub import read_configuration, read_image_processor, read_model
from zoo.models.image import normalised
from zoo.models.lora import beside_adapters
from zoo.models.text import HubTokenizer
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS

FAMILIES = {  # transformers' model_type: what people call it
    "siglip": "SigLIP, and SigLIP 2 of a fixed image size",
    "clip": "CLIP",
    "metaclip_2": "MetaCLIP 2",
    "altclip": "AltCLIP",
    "chinese_clip": "Chinese CLIP",
}
UNMASKED = ("siglip",)  # trained on texts of one length, padding included, without a mask
_OTHER = {"image": ("text_model", "text_projection"), "text": ("vision_model", "visual_projection")}


class Squares:
    """How a model's own processor makes squares of images; light enough to be sent to a loader's workers.

    Args:
        processor: The image processor of transformers.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Turn one image ``[H, W, 3] uint8`` into the square ``[S, S, 3] uint8`` that the model was trained on."""
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        square = self.processor(images=Image.fromarray(image), **options)["pixel_values"][0]  # [3, S, S]
        return np.clip(np.rint(square), 0, 255).astype(np.uint8).transpose(1, 2, 0)


class DualImageTower(ImageHalf):
    """The image half, with its projection.

    Args:
        config: The configuration of the whole.
        processor: Its image processor: size, mean and deviation, and how images that are not square are cut.
        published: Hub name or folder of its weights.

    Raises:
        UserError: The processor makes squares of another size than the model reads.
    """

    def __init__(self, config: Any, processor: Any, published: str) -> None:
        super().__init__(
            _half(config, "image"),
            _width(config),
            published,
            image_size=config.vision_config.image_size,
            mean_and_std=(list(processor.image_mean), list(processor.image_std)),
            prepare_image=Squares(processor),
        )
        self.config, self.processor = config, processor

    def load_published(self, source: str) -> None:
        """Load the half's weights of a whole model; see ``load_half``."""
        load_half(self.model, source)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back."""
        checkpoint_blocks(self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into features ``[B, width]``.

        Raises:
            UserError: The images are not ``uint8 [B, 3, H, W]``, or not of the one size the model takes.
        """
        pixels = normalised(images, self.mean_and_std, self.image_size).to(self.model.dtype)
        return self.model.get_image_features(pixel_values=pixels).pooler_output


class DualTextTower(Half):
    """The text half, with its projection and tokenizer.

    Args:
        config: The configuration of the whole.
        tokenizer: Its tokenizer, of transformers.
        published: Hub name or folder of its weights.

    Attributes:
        width: Size of the features.
        context_length: The most tokens read of a text; in SigLIP every text has so many, padding included.
        tokenizer: Turns texts into padded ids and their mask.
        masked: Whether the model is told which tokens are padding.
        published: Hub name or folder of its weights.
    """

    def __init__(self, config: Any, tokenizer: Any, published: str) -> None:
        super().__init__(_half(config, "text"), _width(config), published)
        self.config = config
        self.tokenizer = HubTokenizer(tokenizer)
        positions: int = config.text_config.max_position_embeddings
        self.context_length = min(positions, tokenizer.model_max_length)
        if config.model_type == "altclip":  # its positions begin behind the padding's
            self.context_length = min(self.context_length, positions - 2)
        self._padding = tokenizer.pad_token_id or 0
        self.masked = config.model_type not in UNMASKED

    def load_published(self, source: str) -> None:
        """Load the half's weights of a whole model; see ``load_half``."""
        load_half(self.model, source)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back."""
        checkpoint_blocks(self.model)

    def forward(self, texts: list[str]) -> Tensor:
        """Encode B texts into features ``[B, width]``.

        Raises:
            UserError: One string came where a list belongs, or something in the list is none.
        """
        ids, mask = self.tokenizer(as_texts(texts), context_length=self.context_length)
        if not self.masked:
            ids = F.pad(ids, (0, self.context_length - ids.shape[1]), value=self._padding)
        device = self.model.device
        attention_mask = send(mask.long(), device) if self.masked else None
        return self.model.get_text_features(input_ids=send(ids, device), attention_mask=attention_mask).pooler_output

    def count_texts(self, texts: Sequence[str]) -> TextCounts:
        """Count which of some texts are cut, and how many of their characters are unknown."""
        return TextCounts.of(*self.tokenizer.measure(texts), self.context_length)


def load_half(half: nn.Module, source: str) -> None:
    """Load a half's weights of a whole model: all of them, or none.

    Args:
        half: A model of transformers without the other half.
        source: A folder that ``save_pretrained`` wrote, or a hub name.

    Raises:
        UnavailableError: They cannot be had.
        UserError: They cannot be read, or something of the half was missing or mis-shaped.
    """
    _, state, _ = read_model(AutoModel, half, source)
    own = {name: value for name, value in state.items() if name in half.state_dict()}
    load_strictly(half, beside_adapters(half, own), source)


def _half(config: Any, side: str) -> Any:
    """A whole model without its other half."""
    model = AutoModel.from_config(config, dtype=torch.float32)
    for name in (*_OTHER[side], "logit_scale", "logit_bias"):
        if hasattr(model, name):
            delattr(model, name)
    return model


def _width(config: Any) -> int:
    own = config.vision_config.hidden_size
    return own if config.model_type in UNMASKED else getattr(config, "projection_dim", None) or own


@IMAGE_TOWERS.register_prefix("dual:")
def dual_image_tower(name: str) -> DualImageTower:
    """Build the image half of a dual encoder of transformers: CLIP, SigLIP, SigLIP 2, MetaCLIP 2, AltCLIP.

    Args:
        name: A folder that ``save_pretrained`` wrote, which works offline, or a hub name.

    Raises:
        UserError: Configuration or processor cannot be had, or it is another kind of model.
    """
    config = dual_configuration(name)[0]
    return DualImageTower(config, read_image_processor("dual", name), name)


@TEXT_TOWERS.register_prefix("dual:")
def dual_text_tower(name: str) -> DualTextTower:
    """Build the text half of a dual encoder of transformers, with its tokenizer.

    Args:
        name: A folder that ``save_pretrained`` wrote, which works offline, or a hub name.

    Raises:
        UserError: Configuration or tokenizer cannot be had, or it is another kind of model.
    """
    return DualTextTower(*dual_configuration(name), name)


def dual_configuration(name: str) -> tuple[Any, Any]:
    """Read the configuration and the tokenizer of a dual encoder.

    Raises:
        UserError: They cannot be had, or it is another kind of model.
    """
    config, tokenizer = read_configuration("dual", name)
    if config.model_type not in FAMILIES:
        known = ", ".join(f"{kind} ({words})" for kind, words in FAMILIES.items())
        raise UserError(f"'dual:{name}' is a {config.model_type}; known are {known}")
    return config, tokenizer
