"""What the halves of dual encoders of other libraries share as towers: one vector, their own way with images."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.core.inputs import as_images
from zoo.errors import UserError
from zoo.models.blocks import layers_of, longest_list
from zoo.models.lora import add_lora, beside_adapters


class Half(nn.Module):
    """One half of a dual encoder, or a model that reads both sides.

    Args:
        model: The half, or the whole, as its library builds it.
        width: Size of the features.
        published: Hub name or folder of its weights.
    """

    def __init__(self, model: Any, width: int, published: str) -> None:
        super().__init__()
        self.model = model
        self.width = width
        self.published = published

    def adapt_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit the weights of such a tower without adapters to this one."""
        return beside_adapters(self, state)

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters, layer after layer: the embeddings, then each block; what follows the last is its own."""
        return layers_of(self.model, self.blocks())

    def blocks(self) -> Any:
        """List the transformer's blocks, in order."""
        return longest_list(self.model)

    def add_lora(self, **options: Any) -> None:
        """Freeze the tower, and put adapters beside the linear layers of its blocks (see ``zoo.models.lora``)."""
        add_lora(self.model, self.blocks(), **options)

    def sequence(self, inputs: Any) -> NoReturn:
        """Refuse; see ``refuse_sequence``."""
        refuse_sequence()


def refuse_sequence() -> NoReturn:
    """Refuse a sequence of features, where there is one vector.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "a half of a dual encoder (dual:NAME, open_clip:NAME) and an embedder (vlm:NAME) have one vector for an image"
        " or a text, and no sequence. Name a timm: or transformers: tower for a model that attends to places"
    )


class ImageHalf(Half):
    """The image half of a dual encoder.

    Args:
        model: As of ``Half``.
        width: As of ``Half``.
        published: As of ``Half``.
        image_size: Square side in pixels.
        mean_and_std: What is subtracted from each channel, of 0 to 1, and what that is divided by.
        prepare_image: Makes the square that the model reads of one image ``[H, W, 3] uint8``.

    Raises:
        UserError: The squares are of another size.
    """

    def __init__(
        self,
        model: Any,
        width: int,
        published: str,
        *,
        image_size: int,
        mean_and_std: tuple[list[float], list[float]],
        prepare_image: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        super().__init__(model, width, published)
        self.image_size, self.mean_and_std, self.prepare_image = image_size, mean_and_std, prepare_image
        square = prepare_image(np.zeros((9, 7, 3), dtype=np.uint8)).shape
        if square != (image_size, image_size, 3):
            raise UserError(
                f"{published}: its image processor makes {square[0]} × {square[1]} pixels, and the model reads"
                f" {image_size} × {image_size}. Fix its configuration"
            )

    def preprocess(self, images: list[Image.Image]) -> Tensor:
        """Turn B images into ``[B, 3, image_size, image_size] uint8`` as the model's own processor does.

        Raises:
            UserError: One image came where a list belongs, or one cannot be read.
        """
        squares = [self.prepare_image(np.array(image)) for image in as_images(images)]
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)  # [B, H, W, 3] -> [B, 3, H, W]
