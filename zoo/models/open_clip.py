"""Published dual encoders of open_clip: their two halves as towers, exactly as they are."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor
from transformers import AutoConfig

from zoo.core.device import send
from zoo.core.hubs import UnavailableError, cache_then_hub, first_line, none_of
from zoo.core.inputs import as_texts
from zoo.core.texts import TextCounts
from zoo.core.weights import load_strictly
from zoo.errors import UserError
from zoo.models.half import Half, ImageHalf
from zoo.models.hub import SMALL_FILES, read_small_files
from zoo.models.image import normalised
from zoo.models.lora import beside_adapters
from zoo.models.tokenizer import measure_hub
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS

CONFIGURATION = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class Squares:
    """How open_clip makes squares of images; light enough to be sent to a loader's workers.

    Args:
        options: Its ``preprocess_cfg``.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        *self.steps, _, _ = image_transform_v2(PreprocessCfg(**options), is_train=False).transforms

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Turn one image ``[H, W, 3] uint8`` into the square ``[S, S, 3] uint8`` that the model was trained on."""
        square: Any = Image.fromarray(image)
        for step in self.steps:  # all but the making of floats and their normalisation
            square = step(square)
        return np.array(square)


class OpenClipImageTower(ImageHalf):
    """The image half of a model of open_clip, with its projection.

    Args:
        whole: The model, as open_clip builds it.
        width: Size of its features.
        published: Hub name or folder of its weights.

    Raises:
        UserError: It makes squares of another size than it reads.
    """

    def __init__(self, whole: Any, width: int, published: str) -> None:
        from open_clip import get_model_preprocess_cfg

        options = get_model_preprocess_cfg(whole)
        size = whole.visual.image_size
        super().__init__(
            whole.visual,
            width,
            published,
            image_size=size if isinstance(size, int) else size[0],
            mean_and_std=(list(options["mean"]), list(options["std"])),
            prepare_image=Squares(options),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into features ``[B, width]``.

        Raises:
            UserError: The images are not ``uint8 [B, 3, H, W]``, or not of the one size the model takes.
        """
        pixels = normalised(images, self.mean_and_std, self.image_size)
        return self.model(pixels.to(next(self.parameters()).dtype))

    def load_published(self, source: str) -> None:
        """Load the half's weights of a whole model: all of them, or none; see ``read_whole``."""
        load_strictly(self.model, beside_adapters(self.model, read_whole(source).visual.state_dict()), source)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back."""
        self.model.set_grad_checkpointing(True)


class OpenClipTextTower(Half):
    """The text half of a model of open_clip, with its projection and tokenizer.

    Args:
        whole: The model, as open_clip builds it.
        width: Size of its features.
        tokenizer: open_clip's own of the model.
        published: Hub name or folder of its weights.

    Attributes:
        context_length: The tokens of each text, padding included.
    """

    def __init__(self, whole: Any, width: int, tokenizer: Any, published: str) -> None:
        super().__init__(whole.text, width, published)
        self.tokenizer = tokenizer
        self.context_length: int = tokenizer.context_length

    def forward(self, texts: list[str]) -> Tensor:
        """Encode B texts into features ``[B, width]``.

        Raises:
            UserError: One string came where a list belongs, or something in the list is none.
        """
        return self.model(send(self.tokenizer(as_texts(texts)), next(self.parameters()).device))

    def count_texts(self, texts: Sequence[str]) -> TextCounts:
        """Count which of some texts are cut, and how many of their characters are unknown."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        if inner is None:  # OpenAI's, of bytes: start and end come to these, and nothing is unknown
            return TextCounts.of([len(self.tokenizer.encode(text)) + 2 for text in texts], 0, self.context_length)
        return TextCounts.of(*measure_hub(inner, texts, add_special_tokens=True), self.context_length)

    def load_published(self, source: str) -> None:
        """Load the half's weights of a whole model: all of them, or none; see ``read_whole``."""
        load_strictly(self.model, beside_adapters(self.model, read_whole(source).text.state_dict()), source)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back."""
        self.model.set_grad_checkpointing(True)


@IMAGE_TOWERS.register_prefix("open_clip:")
def open_clip_image_tower(name: str) -> OpenClipImageTower:
    """Build the image half of a dual encoder of open_clip (extra ``open_clip``).

    Args:
        name: A folder with ``open_clip_config.json``, which works offline, or a hub name that has one.

    Raises:
        UserError: Its files cannot be had, open_clip is not installed, or it is another kind of model.
    """
    return OpenClipImageTower(*build(name), name)


@TEXT_TOWERS.register_prefix("open_clip:")
def open_clip_text_tower(name: str) -> OpenClipTextTower:
    """Build the text half of a dual encoder of open_clip, with its tokenizer (extra ``open_clip``).

    Args:
        name: A folder with ``open_clip_config.json``, which works offline, or a hub name that has one.

    Raises:
        UserError: Its files cannot be had, open_clip is not installed, or it is another kind of model.
    """
    whole, width = build(name)
    from open_clip import get_tokenizer

    with _quiet():
        try:
            tokenizer = get_tokenizer(f"local-dir:{local_copy(name)}")
        except (OSError, ValueError) as error:
            raise UserError(f"'open_clip:{name}': its tokenizer cannot be read ({first_line(error)})") from None
    return OpenClipTextTower(whole, width, tokenizer, name)


def build(name: str) -> tuple[Any, int]:
    """Build a model of open_clip without reading its weights.

    Returns:
        The model: ``visual``, ``text`` and the scalars of its loss; and the size of its features.

    Raises:
        UserError: As ``open_clip_image_tower``.
    """
    try:
        import open_clip
    except ImportError as error:
        raise UserError(
            f"'open_clip:{name}': open_clip is not installed ({error}). pip install 'muge-zoo[open_clip]'"
        ) from None
    try:
        folder = local_copy(name)
    except UnavailableError as error:
        raise UserError(
            f"'open_clip:{name}': its configuration cannot be had ({error}). Give a folder with {CONFIGURATION}, or a"
            " hub name that is cached or reachable"
        ) from None
    try:
        configuration = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))["model_cfg"]
        text, width = dict(configuration["text_cfg"]), int(configuration["embed_dim"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'open_clip:{name}': its {CONFIGURATION} cannot be read ({first_line(error)})") from None
    if "multimodal_cfg" in configuration:
        raise UserError(f"'open_clip:{name}' is a CoCa, which also writes captions. Name a dual encoder")
    if "hf_model_name" in text:
        text |= {
            "hf_model_name": _text_configuration(name, folder, text["hf_model_name"]),
            "hf_model_pretrained": False,
        }
    try:
        with _quiet():
            model = open_clip.create_model(
                f"local-dir:{folder}",
                load_weights=False,
                device=torch.get_default_device(),
                pretrained_text=False,
                force_custom_text=True,
                text_cfg=text,
            )
    except Exception as error:  # open_clip's and timm's own for what a configuration should not say
        raise UserError(f"'open_clip:{name}': open_clip cannot build it ({first_line(error)})") from None
    return model, width


def read_whole(source: str) -> Any:
    """Build a model of open_clip with its published weights: all of them, or none.

    Raises:
        UnavailableError: They cannot be had.
        UserError: They cannot be read, or do not fit; or as ``build``.
    """
    whole, _ = build(source)
    folder = local_copy(source, WEIGHTS)
    path = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    from open_clip import load_checkpoint

    try:
        load_checkpoint(whole, str(path), strict=True, weights_only=True)
    except Exception as error:  # torch's and safetensors' readers raise many kinds
        raise UserError(f"{source}: its weights cannot be loaded ({first_line(error)})") from None
    return whole


def local_copy(name: str, needed: Sequence[str] = ()) -> Path:
    """Give the folder of a model: itself, or a copy of a hub repository: cached, else downloaded now.

    Args:
        name: A folder, or a hub name.
        needed: Files of which it must have one; none: configuration and tokenizer.

    Raises:
        UnavailableError: It cannot be had, or has none of the files.
    """
    wanted = needed or (CONFIGURATION,)
    kinds = [[file] for file in needed] or [[*SMALL_FILES]]

    def read(place: str, local_files_only: bool) -> Path:
        folder = Path(place)
        if not folder.is_dir():
            patterns = [pattern for kind in kinds for pattern in kind]
            folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=local_files_only))
        if not any((folder / file).is_file() for file in wanted):
            raise FileNotFoundError(f"{name} has {none_of(wanted)}")
        return folder

    return cache_then_hub(read, name, *kinds)


def _text_configuration(name: str, folder: Path, other: str) -> str:
    """Where the text encoder's configuration is: beside the model's own, where one lies there, or a hub name."""
    from open_clip.hf_model import arch_dict

    if (folder / "config.json").is_file():
        (beside,) = read_small_files("open_clip", str(folder), "text encoder's configuration", AutoConfig)
        if beside.model_type in arch_dict:
            return str(folder)
    read_small_files("open_clip", other, f"text encoder's configuration, which {name} names,", AutoConfig)
    return other


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the screen that no weights were loaded: they are read later."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
