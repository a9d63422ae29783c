"""Weights in: reading that runs no code, loading that is whole.

A model that has weights published says where (``published``) and may read their format itself, with a method
``load_published(source)``; the files of any other have the names of its own weights. Constructors never come here.
"""

import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.hubs import UnavailableError, cached_file, first_line, hub_file, none_of
from zoo.errors import UserError
from zoo.io import expanded

WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)


@dataclass(frozen=True)
class WeightSource:
    """Where a model's initial weights came from."""

    text: str  # for people: "timm/resnet50.a1_in1k", "path …", "random", "random (… not available: …)"
    wanted: bool  # whether weights were asked for and somebody published some
    found: bool  # whether they were loaded; wanted and not found calls for a banner


def load_pretrained(model: nn.Module, pretrained: bool | str = "auto") -> WeightSource:
    """Load published weights, or those of a path, into a model: all of them, or none.

    Args:
        model: A built model.
        pretrained: ``"auto"`` takes published weights from the cache or the hub and otherwise leaves the model random;
            True insists on them; False leaves it random; anything else is a file (safetensors, or a checkpoint of
            tensors alone) or a folder that holds one.

    Raises:
        UserError: Weights were insisted on and cannot be had, a path does not exist, or weights do not fit the model:
            then nothing was changed.
    """
    if pretrained is False:
        return WeightSource("random", wanted=False, found=False)
    if isinstance(pretrained, str) and pretrained != "auto":
        return _load_path(model, pretrained)
    published = getattr(model, "published", None)
    if published is None:
        if pretrained is True:
            raise UserError("pretrained: true, but nobody published weights of this tower. Use false, or give a path.")
        return WeightSource("random", wanted=False, found=False)
    try:
        _load(model, published)
    except UnavailableError as error:
        if pretrained is True:
            raise UserError(
                f"pretrained: true, but {published} cannot be had ({error}). Fetch it into the Hugging Face cache while"
                " there is a network, give a path, or use auto or false."
            ) from None
        return WeightSource(f"random (pretrained weights not available: {error})", wanted=True, found=False)
    return WeightSource(published, wanted=True, found=True)


def _load_path(model: nn.Module, pretrained: str) -> WeightSource:
    path = Path(expanded(pretrained, "pretrained"))
    if not path.exists():
        raise UserError(f"pretrained: {pretrained!r} does not exist. Valid are auto, true, false, a run or a path.")
    try:
        _load(model, str(path))
    except UnavailableError as error:
        raise UserError(
            f"pretrained: the folder {path} holds no weights to read ({error}). Give another folder, or a file."
        ) from None
    return WeightSource(f"path {path}", wanted=True, found=True)


def _load(model: Any, source: str) -> None:
    source = expanded(source)
    try:
        if hasattr(model, "load_published"):
            model.load_published(source)
        else:
            load_strictly(model, read_weights(source), source)
    except UserError as error:
        raise UserError(f"pretrained {error}") from None


def read_weights(source: str) -> dict[str, Tensor]:
    """Read named tensors; nothing in their file is executed.

    A prefix ``module.`` is taken off the names, and where a file keeps averaged weights beside the raw ones, the
    averaged ones are read.

    Args:
        source: A file, a folder that holds one, or a hub name.

    Raises:
        UnavailableError: The folder holds none, or the hub cannot give them.
        UserError: The file is damaged, or holds more than named tensors.
    """
    from timm.models import load_state_dict

    path = Path(source)
    if path.is_dir():
        found = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
        if found is None:
            raise UnavailableError(f"the folder holds {none_of(WEIGHT_FILES)}")
        path = found
    elif not path.is_file():
        path = hub_file(source, WEIGHT_FILES)
    try:
        state = load_state_dict(str(path), weights_only=True)
        named_tensors = all(isinstance(value, Tensor) for value in state.values())
    except Exception as error:  # the readers of the formats raise many kinds
        raise UserError(f"{source}: it cannot be read as weights ({first_line(error).partition('. ')[0]}).") from None
    if not named_tensors:
        raise UserError(f"{source}: it is no state dict: it holds more than named tensors.")
    return dict(state)


def is_cached(published: str) -> bool:
    """Whether weights lie in the Hugging Face cache (or folder) already."""
    return Path(published).is_dir() or cached_file(published, WEIGHT_FILES) is not None


def read_torch(path: Path) -> Any:
    """Read what ``torch.save`` wrote; nothing in it is executed.

    Raises:
        UserError: There is no such file, it is damaged, or it holds more than weights and plain data.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(f"{path}: it holds more than weights and plain data{what}, so it is not read") from None
    except Exception as error:  # torch's readers raise many kinds for broken files
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict whole, or raise and change nothing.

    Raises:
        UserError: As ``check_fit``; a weight is not finite.
    """
    check_fit(module, state, source)
    bad = [name for name, _ in module.named_parameters() if not state[name].isfinite().all()]
    if bad:
        raise UserError(
            f"{source}: {len(bad)} of its weights are not finite ({', '.join(bad[:3])}{', …' if len(bad) > 3 else ''}):"
            " the training that made it has diverged. Give an earlier checkpoint; nothing was loaded"
        )
    module.load_state_dict(state)


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """See that a state dict has exactly a module's names and shapes.

    Raises:
        UserError: Keys are missing, unexpected or mis-shaped: a short table of them.
    """
    own = module.state_dict()
    errors = [f"missing     {key} {list(own[key].shape)}" for key in own if key not in state]
    errors += [f"unexpected  {key} {list(state[key].shape)}" for key in state if key not in own]
    errors += [
        f"mis-shaped  {key} {list(state[key].shape)}, wanted {list(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if errors:
        shown = "\n  ".join(errors[:10] + ([f"… and {len(errors) - 10} more"] if len(errors) > 10 else []))
        raise UserError(f"{source}: these weights are not of this model; nothing was loaded:\n  {shown}")


def weights_hash(module: nn.Module) -> str:
    """What names a module's weights: 12 hexadecimal digits of the SHA-256 of its state dict.

    Names, types, shapes and values count; neither the device does nor the order of the names.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]
