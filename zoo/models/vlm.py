"""Vision-language models of transformers: their files, and what they read of one image in a chat."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from zoo.core.device import send
from zoo.core.hubs import UnavailableError, hub_file
from zoo.core.inputs import as_images
from zoo.data.images import resize
from zoo.errors import UserError, invalid
from zoo.models.hub import read_processor

# transformers' model_type: what people call it
QWEN = {"qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL"}
DEFAULT_SIZE = 448  # pixels of a side, of models that read images of many sizes
IMAGE = {"type": "image"}  # a part of a turn
Contents = TypeVar("Contents", dict[str, Any], list[Any])


def read_vlm(name: str, families: Mapping[str, str]) -> tuple[Any, Any]:
    """Read the configuration and the processor of a vision-language model.

    Args:
        name: A folder that ``save_pretrained`` wrote, which works offline, or a hub name.
        families: Those that are taken: transformers' ``model_type``, and what people call it.

    Raises:
        UserError: They cannot be had, it is another kind of model, or it has no chat template.
    """
    config, processor = read_processor("vlm", name)
    if config.model_type not in families:
        known = ", ".join(f"{kind} ({words})" for kind, words in families.items())
        raise UserError(f"'vlm:{name}' is a {config.model_type}; known are {known}")
    if not getattr(processor, "chat_template", None):
        raise UserError(f"'vlm:{name}': its processor has no chat template, in which it could be asked something")
    return config, processor


def published_json(source: str, name: str, kind: type[Contents]) -> Contents:
    """Read a JSON file of a folder or a hub repository; where there is none of that kind, as if it were empty."""
    place = Path(source)
    try:
        file = place / name if place.exists() else hub_file(source, [name])
        contents = json.loads(file.read_text(encoding="utf-8"))
    except (UnavailableError, OSError, ValueError):
        return kind()
    return contents if isinstance(contents, kind) else kind()


def family_of(source: str) -> str | None:
    """Give the ``model_type`` of a folder or a hub repository; None: it has no configuration that can be read."""
    return published_json(source, "config.json", dict).get("model_type")


def is_embedder(source: str) -> bool:
    """Whether a model of transformers is one that embeds: sentence-transformers' ``modules.json`` has a pooling."""
    modules = published_json(source, "modules.json", list)
    return any(isinstance(module, dict) and str(module.get("type")).endswith(".Pooling") for module in modules)


def own_size(processor: Any) -> int:
    """The side of a model's one tile, or of its one number of pixels; else ``DEFAULT_SIZE``, or the largest below."""
    images = processor.image_processor
    if images.size.get("height"):
        return images.size["height"]
    factor, largest = images.patch_size * images.merge_size, int(images.size["longest_edge"] ** 0.5)
    if images.size["shortest_edge"] < images.size["longest_edge"]:
        largest = min(DEFAULT_SIZE, largest)
    return largest // factor * factor


def squares(images: Sequence[Image.Image], image_size: int) -> Tensor:
    """Turn B images into squares ``[B, 3, image_size, image_size] uint8``.

    Raises:
        UserError: One image came where a list belongs, or one cannot be read.
    """
    arrays = [resize(np.array(image), image_size) for image in as_images(images)]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)  # [B, H, W, 3] -> [B, 3, H, W]


class ImagePrompt:
    """A chat about one square image, whose size alone decides how many tokens it has.

    Args:
        processor: The model's processor.
        turns: The chat, as its template takes it, with one ``IMAGE``.
        image_size: Square side of the images in pixels.

    Attributes:
        inputs: What the processor makes of it, but for the pixels: ``input_ids [1, L]``, ``attention_mask``, …

    Raises:
        UserError: The model's processor would resize or cut images of this size.
    """

    def __init__(self, processor: Any, turns: Sequence[Any], image_size: int) -> None:
        self.images = processor.image_processor
        text = processor.apply_chat_template(turns, add_generation_prompt=True)
        with torch.device("cpu"):  # also where the model is built on none
            blank = torch.zeros(3, image_size, image_size, dtype=torch.uint8)
            inputs = processor(text=[text], images=[blank], return_tensors="pt")
        self._check_size(inputs, image_size)
        names = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        self.inputs: dict[str, Tensor] = {name: inputs[name] for name in names if name in inputs}

    def _check_size(self, inputs: Any, image_size: int) -> None:
        if "image_grid_thw" in inputs:
            found = int(inputs["image_grid_thw"][0, 1]) * self.images.patch_size
            factor = self.images.patch_size * self.images.merge_size
            least, most = (int(self.images.size[edge] ** 0.5) for edge in ("shortest_edge", "longest_edge"))
            valid = f"give a multiple of {factor}, from {-(-least // factor) * factor} to {most // factor * factor}"
        else:
            found = inputs["pixel_values"].shape[-1] * len(inputs["pixel_values"])  # of one tile alone the image's side
            valid = f"give {self.images.size['height']}, which the model reads as one tile"
        if found != image_size:
            raise invalid("image_size", image_size, valid)

    def pixels(self, images: Tensor) -> dict[str, Tensor]:
        """Make of ``[B, 3, S, S] uint8`` what the model's image encoder reads."""
        inputs = self.images(images=list(images), return_tensors="pt").to(images.device)
        return {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}

    def positions(self, model: Any, count: int, device: torch.device, *, more: int = 0) -> dict[str, Tensor]:
        """Give the positions in time, height and width of B prompts and what follows, where the model asks for them.

        They are computed once, on the CPU: the model would ask a GPU for each row's.

        Args:
            model: The model without its head.
            count: B.
            device: Where they go.
            more: How many tokens follow the prompt.
        """
        if "image_grid_thw" not in self.inputs:
            return {}
        ids, kinds = (pad(self.inputs[name], (0, more)) for name in ("input_ids", "mm_token_type_ids"))
        options = {"mm_token_type_ids": kinds, "image_grid_thw": self.inputs["image_grid_thw"]}
        positions, _ = model.get_rope_index(ids, **options)  # [3, 1, L]
        return {"position_ids": send(positions, device).expand(-1, count, -1)}

    def last_hidden(self, model: Any, images: Tensor) -> Tensor:
        """Compute the last token's hidden state ``[B, width]`` of the chat about each of ``[B, 3, S, S] uint8``."""
        ids = send(self.inputs["input_ids"], images.device).expand(len(images), -1)
        positions = self.positions(model, len(images), images.device)
        hidden = model(input_ids=ids, **self.pixels(images), **positions, use_cache=False).last_hidden_state
        return hidden[:, -1]
