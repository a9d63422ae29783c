"""CN-CLIP's checkpoints (github.com/OFA-Sys/Chinese-CLIP): their names and shapes, and the zoo's.

A file holds ``epoch, step, name, state_dict``; keys begin with ``module.``, and flash attention names its weights
otherwise. The architecture follows from the shapes. Everything here is a pure function of state dicts.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from zoo.errors import UserError
from zoo.models.image import timm_state


class VisionShape(NamedTuple):
    """What the weights of a CLIP vision transformer tell of it."""

    width: int
    patch: int
    image_size: int
    num_layers: int


class TextShape(NamedTuple):
    """What the weights of a Chinese BERT tell of it."""

    width: int
    num_layers: int


EXPORTED = "clip_cn.pt"  # the file of an exported model
RESNET_BLOCKS = (3, 4, 6, 3)  # of resnet50_clip, 64 wide at its first stage
VISION_TOWERS = {
    "vit_base_patch16_clip_quickgelu_224": VisionShape(768, 16, 224, 12),
    "vit_base_patch32_clip_quickgelu_224": VisionShape(768, 32, 224, 12),
    "vit_large_patch14_clip_quickgelu_224": VisionShape(1024, 14, 224, 24),
    "vit_large_patch14_clip_quickgelu_336": VisionShape(1024, 14, 336, 24),
    "vit_huge_patch14_clip_quickgelu_224": VisionShape(1280, 14, 224, 32),
}
TEXT_TOWERS = {
    "chinese_roberta_wwm_ext": TextShape(768, 12),
    "chinese_roberta_wwm_ext_large": TextShape(1024, 24),
    "rbt3": TextShape(768, 3),
}


def is_cn_clip(state: Mapping[str, Any]) -> bool:
    """Tell whether a state dict has CN-CLIP's names, with ``module.`` or without."""
    return any(str(key).removeprefix("module.").startswith("visual.") for key in state)


def plain(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Read CN-CLIP's weights in fp32 under its plain names: no ``module.``, no pooler, flash attention's names undone.

    Raises:
        UserError: Something in it is no tensor.
    """
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{source}: {key} is a {type(value).__name__} and no tensor: these are no CN-CLIP weights")
        name = key.removeprefix("module.")
        value = value.float() if value.is_floating_point() else value
        if name.startswith("bert.") and ".attention.self.Wqkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                named[name.replace("Wqkv", part)] = third
        elif name.startswith("bert."):
            named[name.replace(".attention.self.out_proj.", ".attention.output.dense.")] = value
        else:
            named[name.replace(".attn.Wqkv.", ".attn.in_proj_")] = value
    unused = ("bert.pooler.", "bert.embeddings.position_ids")
    return {name: value for name, value in named.items() if not name.startswith(unused)}


def architecture(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Derive the arguments of the ``RetrievalTask`` that plain CN-CLIP weights are of, by their shapes.

    Raises:
        UserError: Weights that tell it are missing, or no registered tower has their shapes.
    """
    resnet = "visual.layer1.0.conv1.weight" in state
    if resnet:
        needed = {"visual.conv1.weight": 4, "visual.attnpool.positional_embedding": 2}
        projection = {"visual.attnpool.c_proj.weight": 2}
    else:
        needed = {"visual.conv1.weight": 4, "visual.class_embedding": 1, "visual.positional_embedding": 2}
        projection = {"visual.proj": 2}
    needed |= projection | {"bert.embeddings.word_embeddings.weight": 2}
    errors = [f"missing     {key}" for key in needed if key not in state]
    errors += [
        f"mis-shaped  {key} {list(state[key].shape)}, wanted {dimensions} dimensions"
        for key, dimensions in needed.items()
        if key in state and state[key].ndim != dimensions
    ]
    if errors:
        shown = "\n  ".join(errors)
        raise UserError(f"{source}: weights that tell CN-CLIP's architecture are not there:\n  {shown}")
    arguments = _resnet(state, source) if resnet else _vision_transformer(state, source)
    width = state["bert.embeddings.word_embeddings.weight"].shape[1]
    arguments |= _text_transformer(TextShape(width, _count(state, r"bert\.encoder\.layer\.(\d+)\.")), source)
    (key,) = projection
    return {**arguments, "embedding_dim": state[key].shape[0 if resnet else 1]}


def to_zoo(state: Mapping[str, Tensor], image_model: nn.Module) -> dict[str, Tensor]:
    """Rename plain CN-CLIP weights as a ``RetrievalTask`` does; names that are none of CN-CLIP's stay as they are.

    Args:
        state: Plain names to weights.
        image_model: The timm model of the image tower that ``architecture`` names; its memory is not touched.
    """
    renamed = {
        "visual.attnpool.c_proj.weight": "image_projection.weight",
        "visual.attnpool.c_proj.bias": "image_projection.bias",
        "logit_scale": "loss.logit_scale",
    }
    converted: dict[str, Tensor] = {}
    vision: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in renamed:
            converted[renamed[key]] = value
        elif key in ("visual.proj", "text_projection"):  # [width, D] here, [D, width] there
            name = "image_projection.weight" if key == "visual.proj" else "text_projection.weight"
            converted[name] = value.T if value.ndim == 2 else value
        elif key.startswith("visual."):
            vision[key] = value
        elif key.startswith("bert."):
            converted[f"text_tower.encoder.{key.removeprefix('bert.')}"] = value
        else:
            converted[key] = value
    image = {f"image_tower.model.{key}": value for key, value in timm_state(image_model, vision).items()}
    return image | converted


def from_zoo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ``RetrievalTask`` as CN-CLIP's plain names: the inverse of ``to_zoo``.

    Of the loss only the logit scale is kept. Whose towers they are ``architecture`` tells of what this returns.
    """
    converted: dict[str, Tensor] = {}
    resnet = "image_tower.model.head.pos_embed" in state
    for key, value in state.items():
        if key.startswith("loss.") and key != "loss.logit_scale":
            continue
        name = next((re.sub(pattern, to, key) for pattern, to in _FROM_ZOO if re.match(pattern, key)), key)
        if key == "image_projection.weight" and resnet:
            name = "visual.attnpool.c_proj.weight"
        elif name in ("visual.proj", "text_projection"):
            value = value.T
        elif name in ("visual.class_embedding", "visual.positional_embedding", "visual.attnpool.positional_embedding"):
            value = value.flatten(0, -2) if name.endswith("positional_embedding") else value.flatten()
        converted[name] = value
    return converted


# Beginnings of names here, and CN-CLIP's; the first that fits is taken.
_STAGE = r"^image_tower\.model\.stages\.(\d+)\.(\d+)\."
_FROM_ZOO: tuple[tuple[str, Any], ...] = (
    (r"^text_tower\.encoder\.", "bert."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^image_projection\.weight$", "visual.proj"),
    (r"^image_projection\.bias$", "visual.attnpool.c_proj.bias"),
    (r"^loss\.logit_scale$", "logit_scale"),
    (r"^image_tower\.model\.cls_token$", "visual.class_embedding"),
    (r"^image_tower\.model\.pos_embed$", "visual.positional_embedding"),
    (r"^image_tower\.model\.patch_embed\.proj\.", "visual.conv1."),
    (r"^image_tower\.model\.norm_pre\.", "visual.ln_pre."),
    (r"^image_tower\.model\.norm\.", "visual.ln_post."),
    (r"^image_tower\.model\.blocks\.(\d+)\.norm([12])\.", r"visual.transformer.resblocks.\1.ln_\2."),
    (r"^image_tower\.model\.blocks\.(\d+)\.attn\.qkv\.", r"visual.transformer.resblocks.\1.attn.in_proj_"),
    (r"^image_tower\.model\.blocks\.(\d+)\.attn\.proj\.", r"visual.transformer.resblocks.\1.attn.out_proj."),
    (r"^image_tower\.model\.blocks\.(\d+)\.mlp\.fc1\.", r"visual.transformer.resblocks.\1.mlp.c_fc."),
    (r"^image_tower\.model\.blocks\.(\d+)\.mlp\.fc2\.", r"visual.transformer.resblocks.\1.mlp.c_proj."),
    (r"^image_tower\.model\.stem\.conv(\d)\.(conv|bn)\.", lambda found: f"visual.{found[2]}{found[1]}."),
    (_STAGE + r"conv(\d)_\w+\.(conv|bn)\.", lambda at: f"visual.layer{int(at[1]) + 1}.{at[2]}.{at[4]}{at[3]}."),
    (
        _STAGE + r"shortcut\.conv\.(conv|bn)\.",
        lambda at: f"visual.layer{int(at[1]) + 1}.{at[2]}.downsample.{0 if at[3] == 'conv' else 1}.",
    ),
    (r"^image_tower\.model\.head\.pos_embed$", "visual.attnpool.positional_embedding"),
    (r"^image_tower\.model\.head\.([qkv])\.", r"visual.attnpool.\1_proj."),
)


def _vision_transformer(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    width, _, _, patch = state["visual.conv1.weight"].shape
    length = state["visual.positional_embedding"].shape[0] - 1
    side = round(length**0.5)
    if side * side != length:
        raise UserError(f"{source}: visual.positional_embedding is of {length} patches: they fill no square image")
    shape = VisionShape(width, patch, side * patch, _count(state, r"visual\.transformer\.resblocks\.(\d+)\."))
    alike = {name: known for name, known in VISION_TOWERS.items() if known[:2] == shape[:2]}
    if not alike or not shape.num_layers:
        raise _unknown(source, "image", shape, VISION_TOWERS)
    name = next((name for name, known in alike.items() if known.image_size == shape.image_size), next(iter(alike)))
    return _named("image", name, shape, VISION_TOWERS[name])


def _text_transformer(shape: TextShape, source: str) -> dict[str, Any]:
    alike = {name: known for name, known in TEXT_TOWERS.items() if known.width == shape.width}
    if not alike or not shape.num_layers:
        raise _unknown(source, "text", shape, TEXT_TOWERS)
    name = next((name for name, known in alike.items() if known == shape), next(iter(alike)))
    return _named("text", name, shape, TEXT_TOWERS[name])


def _resnet(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    blocks = tuple(_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
    positions, width = state["visual.attnpool.positional_embedding"].shape
    if (blocks, positions, width) != (RESNET_BLOCKS, 50, 2048):
        raise UserError(
            f"{source}: no registered image tower has its shape: a ResNet of {list(blocks)} blocks whose attention pool"
            f" has {positions} × {width} positions. Known is resnet50_clip: {list(RESNET_BLOCKS)}, 50 × 2048."
        )
    return {"image_tower": "resnet50_clip", "image_projection_bias": True}


def _count(state: Iterable[str], pattern: str) -> int:
    """Count the layers: one more than the highest number in the keys, so that a gap is seen as missing."""
    found = (re.match(pattern, key) for key in state)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _named(side: str, name: str, shape: NamedTuple, known: NamedTuple) -> dict[str, Any]:
    """Return a tower's name, and as options what differs from its own shape."""
    own = known._asdict()
    options = {key: value for key, value in shape._asdict().items() if value != own[key]}
    return {f"{side}_tower": name, **({f"{side}_tower_options": options} if options else {})}


def _unknown(source: str, side: str, shape: NamedTuple, known: Mapping[str, NamedTuple]) -> UserError:
    def spell(shape: NamedTuple) -> str:
        return ", ".join(f"{key} {value}" for key, value in shape._asdict().items())

    names = "".join(f"\n  {name}: {spell(values)}" for name, values in known.items())
    return UserError(
        f"{source}: no registered {side} tower has its shape: {spell(shape)}. Known are, of any num_layers:{names}"
    )
