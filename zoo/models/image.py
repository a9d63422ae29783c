"""Image encoders: one adapter for any timm model, and the builders of the named ones."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.core.inputs import as_images
from zoo.core.weights import load_strictly, read_weights
from zoo.data.images import resize
from zoo.errors import UserError, invalid, nearest
from zoo.models.lora import add_lora, beside_adapters
from zoo.registry import IMAGE_TOWERS


class TimmImageTower(nn.Module):
    """A timm model without its classifier, fed raw ``uint8`` pixels.

    It keeps the model's own pooling (class token, average, attention pool), mean, standard deviation and size.
    Construction is random: ``zoo.core.weights.load_pretrained`` asks for published weights.

    Args:
        name: A timm model name, with a weight tag (``"resnet50.a1_in1k"``) or without.
        image_size: Square side in pixels. None keeps the model's own.
        patch_dropout: Share of the patches dropped in training, in [0, 1); for vision transformers.
        num_layers: Transformer layers; for vision transformers. None keeps the model's own.

    Attributes:
        width: Size of the pooled output.
        image_size: Square side in pixels.
        mean_and_std: What is subtracted from each channel, of 0 to 1, and what that is divided by.
        options: What timm builds the model with, beside its name.
        published: Where timm finds the weights of this name, or None when there are none.

    Raises:
        UserError: timm does not know the name, or the model cannot take an option.
    """

    def __init__(
        self,
        name: str,
        *,
        image_size: int | None = None,
        patch_dropout: float = 0.0,
        num_layers: int | None = None,
    ) -> None:
        super().__init__()
        if num_layers is not None and num_layers < 1:
            raise invalid("num_layers", num_layers, "give 1 or more, or null for all of its own")
        if not 0 <= patch_dropout < 1:
            raise invalid("patch_dropout", patch_dropout, "give a share, from 0 to below 1")
        config = _pretrained_config(name)
        self.image_size: int = config.input_size[-1] if image_size is None else image_size
        options: dict[str, Any] = {}
        if patch_dropout:
            options["patch_drop_rate"] = patch_dropout
        if image_size is not None and config.fixed_input_size:
            options["img_size"] = image_size
        if num_layers is not None:
            options["depth"] = num_layers
        self.options = options
        try:
            self.model = cast(Any, timm.create_model(name, num_classes=0, **options))
        except TypeError as error:
            names = {"patch_drop_rate": "patch_dropout", "depth": "num_layers"}
            refused = next((ours for theirs, ours in names.items() if f"'{theirs}'" in str(error)), "image_size")
            raise UserError(f"{refused}: timm's {name!r} does not take it ({error}). Leave it out.") from error
        except (AssertionError, RuntimeError, ValueError) as error:
            given = f"image_size {self.image_size}, patch_dropout {patch_dropout}"
            raise UserError(f"timm cannot build {name!r} with {given}: {error or 'not valid'}") from error
        self.model.to(memory_format=torch.channels_last)  # for the convolutions, and images decode that way
        self.width: int = self.model.head_hidden_size
        self.published: str | None = (config.hf_hub_id or config.url) if num_layers is None else None
        self._fixed_size: bool = config.fixed_input_size
        self.mean_and_std: tuple[list[float], list[float]] = list(config.mean), list(config.std)
        self._with_fused_attention = [part for part in self.model.modules() if getattr(part, "fused_attn", False)]
        _check_patches(self.model, name, self.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into pooled ``[B, width]``.

        Raises:
            UserError: The images are not ``uint8 [B, 3, H, W]``, or not of the one size the model takes.
        """
        pixels = self.normalise(images)
        self._choose_attention(pixels)
        return self.model.forward_head(self.model.forward_features(pixels), pre_logits=True)

    def sequence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``[B, 3, H, W] uint8`` into the features before pooling, class token included where there is one.

        Returns:
            features ``[B, N, width]`` and their mask ``[B, N] bool``, all true. In training, patch dropout lowers N.

        Raises:
            UserError: As ``forward``; or the model widens its features after pooling, so there is no such sequence.
        """
        pixels = self.normalise(images)
        self._choose_attention(pixels)
        features = self.model.forward_features(pixels)
        if (
            isinstance(features, Tensor) and features.ndim == 4
        ):  # [B, C, H', W'], or [B, H', W', C] for Swin and its like
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            features = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
        if not isinstance(features, Tensor) or features.shape[-1] != self.width:
            raise UserError(
                f"This image tower has no sequence of its pooled width {self.width}: it pools several feature maps, or"
                " widens them on the way. Use another one, for example a vision transformer or a ResNet."
            )
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def stages(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into what the last four stages or blocks hold: ``[B, D]``.

        Of each channel mean and deviation over the image, which tell of textures what the pooled output has given up.

        Raises:
            UserError: As ``forward``.
        """
        maps = self.model.forward_intermediates(self.normalise(images), intermediates_only=True)[-4:]
        found = [(each.mean(dim=(2, 3)), each.std(dim=(2, 3), correction=0)) for each in maps]
        return torch.cat([part for pair in found for part in pair], dim=1)

    def load_published(self, source: str) -> None:
        """Load weights that timm can convert, its own classifier's left out: all of them, or none.

        Args:
            source: A hub name, a file, or a folder that holds one.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read, or are of another model.
        """
        state = timm_state(self.model, read_weights(source))
        load_strictly(self.model, beside_adapters(self.model, state), source)

    def adapt_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit the weights of such a tower, of another image size or without adapters, to this one.

        Position embeddings are resized as CN-CLIP does; what differs otherwise stays as it is.
        """
        key, state = "model.pos_embed", dict(state)
        own = getattr(self.model, "pos_embed", None)
        if own is not None and key in state and state[key].ndim == own.ndim == 3 and state[key].shape != own.shape:
            prefix = 0 if self.model.no_embed_class else self.model.num_prefix_tokens
            length = state[key].shape[1] - prefix
            if state[key].shape[2] == own.shape[2] and length >= 1 and round(length**0.5) ** 2 == length:
                state[key] = resize_positions(state[key], self.model.patch_embed.grid_size, prefix=prefix)
        return beside_adapters(self, state)

    def layers(self) -> list[list[nn.Parameter]]:
        """List the parameters, layer after layer: the stem, then each block; what follows the last belongs to it.

        Raises:
            UserError: timm does not say what the layers of this model are.
        """
        try:
            named = timm.models.group_parameters(self.model, self.model.group_matcher(coarse=False))
        except (AttributeError, NotImplementedError) as error:
            raise UserError(f"timm does not say what the layers of {type(self.model).__name__} are: {error}.") from None
        parameters = dict(self.model.named_parameters())
        return [[parameters[name] for name in names] for names in named.values()]

    def blocks(self) -> list[nn.Module]:
        """List the transformer's blocks, in order; none of a convolutional model."""
        return list(getattr(self.model, "blocks", []))

    def add_lora(self, **options: Any) -> None:
        """Freeze the tower, and put adapters beside the linear layers of its blocks (see ``zoo.models.lora``)."""
        add_lora(self.model, self.blocks(), **options)

    def checkpoint_gradients(self) -> None:
        """Keep only the inputs of each block in training, and compute the rest again on the way back.

        Raises:
            UserError: The model has no such mode.
        """
        try:
            self.model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError, NotImplementedError):
            raise UserError(
                f"gradient_checkpointing: timm's {type(self.model).__name__} cannot. Set it false."
            ) from None

    def compile_network(self) -> None:
        """Compile the network behind the normalisation with ``torch.compile``, at its first use."""
        self.model.forward_features = torch.compile(self.model.forward_features)

    def normalise(self, images: Tensor) -> Tensor:
        """Scale ``[B, 3, H, W] uint8`` to the model's mean and deviation in fp32, then cast to its weights' dtype.

        Raises:
            UserError: As ``forward``.
        """
        pixels = normalised(images, self.mean_and_std, self.image_size if self._fixed_size else None)
        return pixels.to(next(self.model.parameters()).dtype)

    def _choose_attention(self, pixels: Tensor) -> None:
        """Attention as two plain products where a CPU computes in bfloat16, else PyTorch's fused one.

        The fused one takes 2.6 times as long there, a seventh of a ViT-B/16's step; in fp32 it is the faster (seen
        with PyTorch 2.15, forward and backward at 197 tokens). The choice stays until the next forward pass: what
        gradient checkpointing computes again is to be computed as it was.
        """
        autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        plain = pixels.device.type == "cpu" and (autocast or pixels.dtype == torch.bfloat16)
        for module in self._with_fused_attention:
            module.fused_attn = not plain

    def preprocess(self, images: list[Image.Image]) -> Tensor:
        """Turn B images into ``[B, 3, image_size, image_size] uint8``: whatever ``zoo.core.inputs.as_images`` reads.

        They are turned as their EXIF says, laid over white where transparent, and resized to a square, bicubic.

        Raises:
            UserError: One image came where a list belongs, or one cannot be read.
        """
        arrays = [resize(np.array(image), self.image_size) for image in as_images(images)]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)  # [B, H, W, 3] -> [B, 3, H, W]


def check_pixels(images: Tensor, size: int | None) -> None:
    """See that images are raw pixels of the size that a tower takes.

    Args:
        images: Raw pixels.
        size: The only side that is taken, in pixels; None: any.

    Raises:
        UserError: The images are not ``uint8 [B, 3, H, W]``, or of another size.
    """
    _, channels, *sides = images.shape if images.ndim == 4 else (0, 0)
    if images.dtype != torch.uint8 or channels != 3:
        raise UserError(
            f"images: {str(images.dtype).removeprefix('torch.')} {list(images.shape)} came; a tower takes raw uint8"
            " [B, 3, H, W] and normalises them itself."
        )
    if size is not None and sides != [size, size]:
        raise UserError(
            f"images: {sides[0]} × {sides[1]} pixels came; this tower takes {size} × {size}."
            f" Set the data's image_size to {size}, or the tower's option image_size."
        )


def normalised(images: Tensor, mean_and_std: tuple[list[float], list[float]], size: int | None) -> Tensor:
    """Scale ``[B, 3, H, W] uint8`` to a mean and deviation, in fp32.

    Args:
        images: Raw pixels.
        mean_and_std: Of each channel, of 0 to 1.
        size: As of ``check_pixels``.

    Raises:
        UserError: As ``check_pixels``.
    """
    check_pixels(images, size)
    row = (1, 1, 1, images.shape[3])
    # Filled, not copied to the device: no wait for the host. Not buffers: bf16-true would round those.
    mean, std = (
        torch.cat([torch.full(row, 255 * value, device=images.device) for value in values], dim=1)
        # A whole row of pixels, laid out as the images are: on a CPU four times as fast as one pixel.
        .contiguous(memory_format=torch.channels_last)
        for values in mean_and_std
    )  # [1, 3, 1, W] each
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)  # [B, 3, H, W]


def timm_state(model: Any, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights in the names and shapes of a timm model without its classifier, by timm's own conversion."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    converted = convert(state, model) if convert else state
    classifiers = model.pretrained_cfg["classifier"]
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers or ())
    heads = tuple(f"{name}." for name in classifiers)
    return {key: value for key, value in converted.items() if not key.startswith(heads)}


def resize_positions(positions: Tensor, grid: tuple[int, int], *, prefix: int = 1) -> Tensor:
    """Resize position embeddings for another image size, as CN-CLIP does: bicubic, corners aligned.

    Args:
        positions: ``[1, prefix + N, width]``, N a square number.
        grid: Rows and columns wanted.
        prefix: How many stand first for tokens that are no patches, and are kept.

    Returns:
        ``[1, prefix + rows · columns, width]``.
    """
    side = round((positions.shape[1] - prefix) ** 0.5)
    patches = positions[:, prefix:].unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [1, width, side, side]
    resized = nn.functional.interpolate(patches.float(), size=grid, mode="bicubic", align_corners=True)
    resized = resized.flatten(2).transpose(1, 2).to(positions.dtype)  # [1, rows · columns, width]
    return torch.cat([positions[:, :prefix], resized], dim=1)


def _pretrained_config(name: str) -> Any:
    """Give what timm records about a name: size, mean, std, where its weights are."""
    architecture = timm.models.split_model_name_tag(name)[0]
    if not timm.is_model(architecture):
        raise UserError(
            f"timm has no model {name!r}.{nearest(architecture, timm.list_models())}"
            " `python -m zoo list 'timm:*'` lists its names."
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(architecture)]
    tag = name.partition(".")[2]
    if tag and tag not in tags:
        raise UserError(f"timm's {architecture!r} has no weights {tag!r}. It has {', '.join(tags) or 'none'}.")
    return timm.get_pretrained_cfg(name)


def _check_patches(model: Any, name: str, image_size: int) -> None:
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    patch = patch[0] if isinstance(patch, tuple) else patch
    if image_size < 1 or image_size % patch:
        lower = image_size // patch * patch
        raise UserError(
            f"image_size: {image_size} is not a multiple of the {patch}-pixel patches of {name!r}."
            f" Use {max(lower, patch)} or {max(lower, patch) + patch}."
        )


class Variant(NamedTuple):
    """One of timm's models, registered under timm's name for it."""

    weights: str  # the tag of its published weights
    image_size: int
    summary: str


# The OpenAI weights are the ones that Chinese CLIP starts from; where they were never published, the nearest family's.
VISION_TRANSFORMERS = {
    "vit_base_patch16_clip_quickgelu_224": Variant("openai", 224, "Build the ViT-B/16 of CLIP and Chinese CLIP."),
    "vit_base_patch32_clip_quickgelu_224": Variant("openai", 224, "Build the ViT-B/32 of CLIP."),
    "vit_large_patch14_clip_quickgelu_224": Variant("openai", 224, "Build the ViT-L/14 of CLIP and Chinese CLIP."),
    "vit_large_patch14_clip_quickgelu_336": Variant(
        "openai", 336, "Build the ViT-L/14 at 336 pixels of CLIP and Chinese CLIP."
    ),
    "vit_huge_patch14_clip_quickgelu_224": Variant(
        "dfn5b", 224, "Build the ViT-H/14 of Chinese CLIP; its published weights here are DFN's."
    ),
    "vit_small_patch16_224": Variant("augreg_in21k_ft_in1k", 224, "Build the ImageNet ViT-S/16."),
}
RESNETS = {
    "resnet50": Variant("a1_in1k", 224, "Build the ImageNet ResNet-50."),
    "resnet10t": Variant("c3_in1k", 176, "Build a tiny ResNet of 4.9 M parameters, for demos and tests."),
}


def vision_transformer(
    name: str, /, *, image_size: int, patch_dropout: float = 0.0, num_layers: int | None = None
) -> TimmImageTower:
    """Build a vision transformer.

    Args:
        name: timm's, with the tag of its weights.
        image_size: Square side in pixels, a multiple of the patches' side.
        patch_dropout: Share of the patches dropped in training, in [0, 1).
        num_layers: Transformer layers, 1 or more. None: all of its own; only those have published weights.
    """
    return TimmImageTower(name, image_size=image_size, patch_dropout=patch_dropout, num_layers=num_layers)


def resnet(name: str, /, *, image_size: int) -> TimmImageTower:
    """Build a ResNet.

    Args:
        name: timm's, with the tag of its weights.
        image_size: Square side in pixels.
    """
    return TimmImageTower(name, image_size=image_size)


for _builder, _variants in ((vision_transformer, VISION_TRANSFORMERS), (resnet, RESNETS)):
    for _name, (_weights, _size, _summary) in _variants.items():
        IMAGE_TOWERS.register_variant(_name, _summary, _builder, f"{_name}.{_weights}", image_size=_size)


@IMAGE_TOWERS.register
def resnet50_clip() -> TimmImageTower:
    """Build the ResNet-50 of CLIP and Chinese CLIP with its attention pool, whose positions fix the size to 224."""
    return TimmImageTower("resnet50_clip.openai")


def _timm_names() -> Iterable[str]:
    return timm.list_models()


@IMAGE_TOWERS.register_prefix("timm:", names=_timm_names)
def timm_tower(name: str, *, image_size: int | None = None, patch_dropout: float = 0.0) -> TimmImageTower:
    """Build any timm model.

    Args:
        name: timm's name, with a weight tag or without.
        image_size: Square side in pixels. None keeps the model's own.
        patch_dropout: Share of the patches dropped in training, in [0, 1); for vision transformers.
    """
    return TimmImageTower(name, image_size=image_size, patch_dropout=patch_dropout)
