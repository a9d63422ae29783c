"""Published weights into towers: ``pretrained: auto | true | false | PATH``. Constructors never come here."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm.models
import torch
import transformers.utils.logging as transformers_logging
from torch import Tensor, nn
from transformers import AutoModel

from zoo.core.hub import unreachable
from zoo.core.weights import UnavailableError, cached_file, first_line, hub_file, load_strictly, none_of
from zoo.errors import UserError
from zoo.models.autoencoder import KLAutoencoder
from zoo.models.image import TimmImageTower
from zoo.models.lora import without_lora
from zoo.models.text import TransformersTextTower
from zoo.tasks.captioning.captioners.encoder_decoder import CrossAttendingBert
from zoo.tasks.captioning.captioners.prefix import PrefixedLanguageModel

WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)


@dataclass(frozen=True)
class WeightSource:
    """Where a tower's initial weights came from."""

    text: str  # for people: "timm/resnet50.a1_in1k", "path …", "random", "random (… not available: …)"
    wanted: bool  # whether weights were asked for and somebody published some
    found: bool  # whether they were loaded; wanted and not found calls for a banner


def load_pretrained(tower: nn.Module, pretrained: bool | str = "auto") -> WeightSource:
    """Load published weights, or those of a file, into a tower: all of them, or none.

    Args:
        tower: A built tower.
        pretrained: ``"auto"`` takes published weights from the cache or the hub and otherwise leaves the tower random;
            True insists on them; False leaves it random; anything else is a file (safetensors, or a checkpoint of
            tensors alone) or a folder that holds one.

    Raises:
        UserError: Weights were insisted on and cannot be had, a path does not exist, or weights do not fit the tower:
            then nothing was changed.
    """
    with without_lora(tower):
        return _load_pretrained(tower, pretrained)


def _load_pretrained(tower: nn.Module, pretrained: bool | str) -> WeightSource:
    if pretrained is False:
        return WeightSource("random", wanted=False, found=False)
    if isinstance(pretrained, str) and pretrained != "auto":
        path = Path(pretrained).expanduser()
        if not path.exists():
            raise UserError(
                f"pretrained: {pretrained!r} does not exist. Valid are auto, true, false or an existing path."
            )
        _load_path(tower, path)
        return WeightSource(f"path {path}", wanted=True, found=True)
    published = getattr(tower, "published", None)
    if published is None:
        if pretrained is True:
            raise UserError("pretrained: true, but nobody published weights of this tower. Use false, or give a path.")
        return WeightSource("random", wanted=False, found=False)
    try:
        _load_published(tower, published)
    except UnavailableError as error:
        if pretrained is True:
            raise UserError(
                f"pretrained: true, but {published} cannot be had ({error}). Fetch it into the Hugging Face cache while"
                " there is a network, give a path, or use auto or false."
            ) from None
        return WeightSource(f"random (pretrained weights not available: {error})", wanted=True, found=False)
    return WeightSource(published, wanted=True, found=True)


def is_cached(published: str) -> bool:
    """Whether weights lie in the Hugging Face cache (or folder) already."""
    return Path(published).is_dir() or cached_file(published, WEIGHT_FILES) is not None


def _load_published(tower: nn.Module, published: str) -> None:
    if isinstance(tower, TransformersTextTower):
        _load_text(tower, _read_transformers(AutoModel, tower.encoder, published), published)
    elif isinstance(tower, CrossAttendingBert | PrefixedLanguageModel):
        _load_language(tower, _read_transformers(type(tower.model), tower.model, published), published)
    elif Path(published).is_dir():
        _load_path(tower, Path(published))
    else:
        _load_file(tower, hub_file(published, WEIGHT_FILES), published)


def _load_path(tower: nn.Module, path: Path) -> None:
    if path.is_dir() and isinstance(tower, TransformersTextTower | CrossAttendingBert | PrefixedLanguageModel):
        try:
            return _load_published(tower, str(path))
        except UnavailableError as error:
            raise UserError(f"pretrained: the folder {path} holds no weights to read ({error}).") from None
    if path.is_dir():
        files = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
        if not files:
            raise UserError(f"pretrained: the folder {path} holds {none_of(WEIGHT_FILES)}. Name a file.")
        path = files[0]
    return _load_file(tower, path, f"pretrained {path}")


def _load_file(tower: nn.Module, path: Path, source: str) -> None:
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)  # strips module., prefers an average (EMA)
        named_tensors = all(isinstance(value, Tensor) for value in state.values())
    except Exception as error:
        raise UserError(f"{source}: it cannot be read as weights ({first_line(error).partition('. ')[0]}).") from None
    if not named_tensors:
        raise UserError(f"{source}: it is no state dict: it holds more than named tensors.")
    if isinstance(tower, KLAutoencoder):
        load_strictly(tower.model, state, source)
    elif isinstance(tower, TimmImageTower):
        load_strictly(tower.model, timm_state(tower.model, state), source)
    elif isinstance(tower, TransformersTextTower):
        _load_text(tower, _from_pretrained(type(tower.encoder), None, tower.encoder, state_dict=state), source)
    else:
        load_strictly(tower, state, source)


# --- pictures ------------------------------------------------------------------------------------------------------


def timm_state(model: Any, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights in the names and shapes of a timm model without its classifier, by timm's own conversion."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    converted = convert(state, model) if convert else state
    classifiers = model.pretrained_cfg["classifier"]
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers or ())
    heads = tuple(f"{name}." for name in classifiers)
    return {key: value for key, value in converted.items() if not key.startswith(heads)}


# --- texts ---------------------------------------------------------------------------------------------------------


def _read_transformers(model_class: Any, encoder: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """A second encoder with the weights of a folder or hub name, and what transformers says of their fit."""
    try:
        return _from_pretrained(model_class, name, encoder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = first_line(error) if Path(name).is_dir() else unreachable()
    if reason is not None:
        raise UnavailableError(reason)
    try:
        return _from_pretrained(model_class, name, encoder)
    except (OSError, ValueError) as error:
        raise UnavailableError(first_line(error)) from error


def _from_pretrained(model_class: Any, name: str | None, encoder: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    with _quiet_transformers():
        return model_class.from_pretrained(
            name,
            config=encoder.config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed with the rest of what does not fit
            adapter_kwargs={"local_files_only": True},  # where peft is installed, it would ask the hub for adapters
            **options,
        )


def _load_text(tower: TransformersTextTower, read: tuple[Any, dict[str, Any]], source: str) -> None:
    """Load what transformers read, unless something of the encoder was missing, unexpected or mis-shaped."""
    model, report = read
    state = dict(model.state_dict())
    for key in report["missing_keys"]:
        state.pop(key, None)
    for key, found, _ in report["mismatched_keys"]:
        state[key] = torch.empty(found, device="meta")
    for key in sorted(report["unexpected_keys"]):
        state[key.removeprefix(f"{model.base_model_prefix}.")] = torch.empty((), device="meta")
    if type(model) is not type(tower.encoder):  # an encoder and a decoder
        part = next(name for name, module in model.named_modules() if module is model.get_encoder())
        state = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
    parts = {key.partition(".")[0] for key in tower.encoder.state_dict()}  # heads and the pooler are no part of it
    state = {key: value for key, value in state.items() if key.partition(".")[0] in parts}
    state = {key: value for key, value in state.items() if not key.endswith(".position_ids")}  # of old checkpoints
    load_strictly(tower.encoder, state, source)


def _load_language(language: Any, read: tuple[Any, dict[str, Any]], source: str) -> None:
    """Load a language model; of BERT, which has no attention to pictures, all the rest."""
    model, report = read
    state = dict(model.state_dict())
    for key in report["missing_keys"]:
        if "crossattention" not in key:
            state.pop(key, None)
        else:
            state[key] = language.model.state_dict()[key]
    for key, found, _ in report["mismatched_keys"]:
        state[key] = torch.empty(found, device="meta")
    load_strictly(language.model, state, source)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' own report and bar off the screen: what does not fit is raised, in one table."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
