"""Published dual encoders of transformers: their two halves as towers, projections included, exactly as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel

from zoo.core.device import send
from zoo.core.inputs import as_images, as_texts
from zoo.core.texts import TextCounts
from zoo.core.weights import load_strictly
from zoo.errors import UserError
from zoo.models.blocks import checkpoint_blocks, layers_of, longest_list
from zoo.models.hub import read_configuration, read_image_processor, read_model
from zoo.models.image import normalised
from zoo.models.lora import add_lora, beside_adapters
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


class Half(nn.Module):
    """What the two halves of a dual encoder share.

    Args:
        config: The configuration of the whole.
        side: ``image`` or ``text``.
        published: Hub name or folder of its weights.
    """

    def __init__(self, config: Any, side: str, published: str) -> None:
        super().__init__()
        self.config = config
        self.model: Any = AutoModel.from_config(config, dtype=torch.float32)
        for name in (*_OTHER[side], "logit_scale", "logit_bias"):
            if hasattr(self.model, name):
                delattr(self.model, name)
        self.published = published
        self.width: int = getattr(config, "projection_dim", None) or config.vision_config.hidden_size
        if config.model_type in UNMASKED:
            self.width = config.vision_config.hidden_size

    def load_published(self, source: str) -> None:
        """Load the half's weights of a whole model: all of them, or none.

        Args:
            source: A folder that ``save_pretrained`` wrote, or a hub name.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read, or something of the half was missing or mis-shaped.
        """
        _, state, _ = read_model(AutoModel, self.model, source)
        own = {name: value for name, value in state.items() if name in self.model.state_dict()}
        load_strictly(self.model, beside_adapters(self.model, own), source)

    def adapt_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit the weights of such a tower without adapters to this one."""
        return beside_adapters(self, state)

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters, layer after layer: the embeddings, then each block; what follows the last is its own."""
        return layers_of(self.model, self.blocks())

    def blocks(self) -> nn.ModuleList:
        """List the transformer's blocks, in order."""
        return longest_list(self.model)

    def add_lora(self, **options: Any) -> None:
        """Freeze the tower, and put adapters beside the linear layers of its blocks (see ``zoo.models.lora``)."""
        add_lora(self.model, self.blocks(), **options)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back."""
        checkpoint_blocks(self.model)

    def sequence(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Refuse: a half's features are one vector.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "dual:NAME has one vector for an image or a text, and no sequence. Name a timm: or"
            " transformers: tower for a model that attends to places"
        )


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


class DualImageTower(Half):
    """The image half, with its projection.

    Args:
        config: The configuration of the whole.
        processor: Its image processor: size, mean and deviation, and how images that are not square are cut.
        published: Hub name or folder of its weights.

    Attributes:
        width: Size of the features.
        image_size: Square side in pixels.
        mean_and_std: What is subtracted from each channel, of 0 to 1, and what that is divided by.
        processor: Its image processor.
        prepare_image: Makes the square that the model reads of one image ``[H, W, 3] uint8``.
        published: Hub name or folder of its weights.
    """

    def __init__(self, config: Any, processor: Any, published: str) -> None:
        super().__init__(config, "image", published)
        self.image_size: int = config.vision_config.image_size
        self.mean_and_std: tuple[list[float], list[float]] = list(processor.image_mean), list(processor.image_std)
        self.processor = processor
        self.prepare_image = Squares(processor)
        square = self.prepare_image(np.zeros((9, 7, 3), dtype=np.uint8)).shape
        if square != (self.image_size, self.image_size, 3):
            raise UserError(
                f"'dual:{published}': its image processor makes {square[0]} × {square[1]} pixels, and config.json says"
                f" image_size {self.image_size}. Fix the folder"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into features ``[B, width]``.

        Raises:
            UserError: The images are not ``uint8 [B, 3, H, W]``, or not of the one size the model takes.
        """
        pixels = normalised(images, self.mean_and_std, self.image_size).to(self.model.dtype)
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def preprocess(self, images: list[Image.Image]) -> Tensor:
        """Turn B images into ``[B, 3, image_size, image_size] uint8`` as the model's own processor does.

        Raises:
            UserError: One image came where a list belongs, or one cannot be read.
        """
        squares = [self.prepare_image(np.array(image)) for image in as_images(images)]
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)  # [B, H, W, 3] -> [B, 3, H, W]


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
        super().__init__(config, "text", published)
        self.tokenizer = HubTokenizer(tokenizer)
        positions: int = config.text_config.max_position_embeddings
        self.context_length = min(positions, tokenizer.model_max_length)
        if config.model_type == "altclip":  # its positions begin behind the padding's
            self.context_length = min(self.context_length, positions - 2)
        self._padding = tokenizer.pad_token_id or 0
        self.masked = config.model_type not in UNMASKED

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
