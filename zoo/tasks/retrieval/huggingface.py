"""Dual encoders of transformers, in a folder or on the hub; the names of ``ChineseCLIPModel``, and CN-CLIP's."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import ChineseCLIPConfig

from zoo.core.hubs import MODELSCOPE, NoHubError, UnavailableError, hub_file, none_of
from zoo.core.weights import read_torch
from zoo.errors import UserError
from zoo.io import read_json
from zoo.models.dual import FAMILIES

CONFIGURATION = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
FindFile = Callable[[Sequence[str]], Path]

# Names there and CN-CLIP's, or how they begin where a dot ends them; # is a layer's number.
_NAMES = (
    ("text_model.", "bert."),
    ("text_projection.weight", "text_projection"),
    ("visual_projection.weight", "visual.proj"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.#.layer_norm1.", "visual.transformer.resblocks.#.ln_1."),
    ("vision_model.encoder.layers.#.layer_norm2.", "visual.transformer.resblocks.#.ln_2."),
    ("vision_model.encoder.layers.#.self_attn.out_proj.", "visual.transformer.resblocks.#.attn.out_proj."),
    ("vision_model.encoder.layers.#.mlp.fc1.", "visual.transformer.resblocks.#.mlp.c_fc."),
    ("vision_model.encoder.layers.#.mlp.fc2.", "visual.transformer.resblocks.#.mlp.c_proj."),
)
_FLIPPED = ("text_projection.weight", "visual_projection.weight")  # [D, width] there, [width, D] in CN-CLIP
_JOINED = re.compile(r"^visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$")
_TEXT_OPTIONS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size"),
    *("layer_norm_eps", "pad_token_id"),
)
_QUERY = re.compile(r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)$")


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the configuration and the weights of a dual encoder: of a folder, the cache, else the hub.

    Only a ``ChineseCLIPModel``'s weights: those of others have names that transformers changes as it reads them.

    Raises:
        UserError: There is no such folder and the hub cannot give it, files are missing or damaged or hold code, or
            it is another model.
    """
    folder = Path(name)

    def in_folder(names: Sequence[str]) -> Path:
        found = next((folder / file for file in names if (folder / file).is_file()), None)
        if found is None:
            raise UnavailableError(f"the folder holds {none_of(names)}")
        return found

    find: FindFile = in_folder if folder.is_dir() else lambda names: hub_file(name, names)
    try:
        configuration = _configuration(find([CONFIGURATION]), name)
        return configuration, _weights(find, name) if configuration["model_type"] == "chinese_clip" else {}
    except UnavailableError as error:
        if folder.is_dir():
            raise UserError(
                f"{name}: neither a run's folder (no checkpoints/) nor a dual encoder of transformers ({error})"
            ) from None
        hub = "ModelScope" if name.startswith(MODELSCOPE) else "the Hugging Face hub"
        raise NoHubError(
            f"{name}: there is no such file or folder here, and as a name on {hub} it cannot be had"
            f" ({error}). Give an existing path, or fetch it into that hub's cache while there is a network.",
            reason=str(error),
        ) from None


def to_cn_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ``ChineseCLIPModel``'s weights to CN-CLIP's plain names; other names stay as they are."""
    rest = {key: value for key, value in state.items() if not key.endswith(".position_ids")}  # of old files
    converted: dict[str, Tensor] = {}
    for key in list(rest):
        match = _QUERY.match(key)
        parts = [key.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if match and all(part in rest for part in parts):
            name = f"visual.transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"
            converted[name] = torch.cat([rest.pop(part) for part in parts])
    for key, value in rest.items():
        converted[_renamed(key, _NAMES)] = value.T if key in _FLIPPED and value.ndim == 2 else value
    return converted


def from_cn_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a vision transformer's CN-CLIP weights to a ``ChineseCLIPModel``'s: the inverse of ``to_cn_clip``."""
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        joined = _JOINED.match(key)
        if joined:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                converted[f"vision_model.encoder.layers.{joined[1]}.self_attn.{part}_proj.{joined[2]}"] = third
            continue
        name = _renamed(key, [(there, here) for here, there in _NAMES])
        converted[name] = value.T if name in _FLIPPED else value
    return converted


def _renamed(key: str, names: Iterable[tuple[str, str]]) -> str:
    for old, new in names:
        found = re.match(re.escape(old).replace(r"\#", r"(\d+)") + ("" if old.endswith(".") else "$"), key)
        if found:
            return new.replace("#", found[1] if found.groups() else "#") + key[found.end() :]
    return key


def configuration_of(task: Any) -> ChineseCLIPConfig:
    """Describe a task whose towers are Chinese CLIP's as transformers does."""
    vision, text = task.image_tower.model, task.text_tower.encoder.config
    block = vision.blocks[0]
    return ChineseCLIPConfig(
        vision_config={
            "hidden_size": task.image_tower.width,
            "intermediate_size": block.mlp.fc1.out_features,
            "num_hidden_layers": len(vision.blocks),
            "num_attention_heads": block.attn.num_heads,
            "patch_size": vision.patch_embed.patch_size[0],
            "image_size": task.image_size,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": block.norm1.eps,
            "projection_dim": task.image_projection.out_features,
        },
        text_config={key: getattr(text, key) for key in _TEXT_OPTIONS},
        projection_dim=task.text_projection.out_features,
        logit_scale_init_value=float(task.loss.logit_scale),
    )


def check_computation(configuration: ChineseCLIPConfig, task: Any, source: str) -> None:
    """See that a task computes what a configuration says, where shapes do not tell it.

    Raises:
        UserError: Heads, activation or epsilon differ.
    """
    vision: Any = configuration.vision_config
    text: Any = configuration.text_config
    block, ours = task.image_tower.model.blocks[0], task.text_tower.encoder.config
    wanted = [
        ("vision_config.num_attention_heads", vision.num_attention_heads, block.attn.num_heads),
        ("vision_config.hidden_act", vision.hidden_act, "quick_gelu"),
        ("vision_config.layer_norm_eps", vision.layer_norm_eps, block.norm1.eps),
        ("text_config.num_attention_heads", text.num_attention_heads, ours.num_attention_heads),
        ("text_config.hidden_act", text.hidden_act, ours.hidden_act),
        ("text_config.layer_norm_eps", text.layer_norm_eps, ours.layer_norm_eps),
    ]
    errors = [f"{name} is {came}, its tower here has {known}" for name, came, known in wanted if came != known]
    if errors:
        raise UserError(f"{source}: no registered tower computes this: {'; '.join(errors)}")


def _configuration(path: Path, source: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(f"{source}: {CONFIGURATION} is no JSON ({error})") from None
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind not in FAMILIES:
        raise UserError(
            f"{source}: {CONFIGURATION} is of model_type {kind!r}; read are {', '.join(FAMILIES)}."
            " A text encoder alone is read by --model.text_tower transformers:NAME."
        )
    return content


def _weights(find: FindFile, source: str) -> dict[str, Tensor]:
    """Read the tensors of one file, or of all that an index names."""
    path = find(WEIGHTS)
    if path.suffix != ".json":
        return _tensors(path, source)
    try:
        shards = sorted(set(read_json(path)["weight_map"].values()))
        outside = [shard for shard in shards if Path(shard).name != shard]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: {path.name} is no index of weights ({error})") from None
    if outside:
        raise UserError(f"{source}: {path.name} names files outside its folder: {outside[0]}")
    return {key: value for shard in shards for key, value in _tensors(find([shard]), source).items()}


def _tensors(path: Path, source: str) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{source}: {path.name} is damaged ({error})") from None
    state = read_torch(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{source}: {path.name} is no state dict: it holds more than named tensors")
    return state
