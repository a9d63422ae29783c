"""Models of the transformers library: configuration, tokenizer and weights, of a folder, the cache or the hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging as transformers_logging
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer

from zoo.core.hubs import WEIGHTS, UnavailableError, cache_then_hub
from zoo.core.weights import load_strictly, read_weights
from zoo.errors import UserError

SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")  # configuration, tokenizer, chat template


def read_configuration(family: str, name: str) -> tuple[Any, Any]:
    """Read the configuration and the tokenizer of a folder or hub name: from the cache if they are there, else the hub.

    Args:
        family: The registry's prefix without its colon, for the error.
        name: A folder that ``save_pretrained`` wrote, or a hub name.

    Raises:
        UserError: They cannot be had.
    """
    config, tokenizer = read_small_files(family, name, "configuration and tokenizer", AutoConfig, AutoTokenizer)
    return config, tokenizer


def read_image_processor(family: str, name: str) -> Any:
    """Read how a model prepares images, as ``read_configuration`` reads the rest.

    Raises:
        UserError: It cannot be had.
    """
    (processor,) = read_small_files(family, name, "image processor", AutoImageProcessor)
    return processor


def read_processor(family: str, name: str) -> tuple[Any, Any]:
    """Read the configuration of a model of images and texts, and its processor, as ``read_configuration`` does.

    Raises:
        UserError: They cannot be had.
    """
    config, processor = read_small_files(family, name, "configuration and processor", AutoConfig, AutoProcessor)
    return config, processor


def read_small_files(family: str, name: str, what: str, *kinds: Any) -> list[Any]:
    """Read small files of a folder or hub name by classes of transformers; see ``read_configuration``.

    Args:
        family: The registry's prefix without its colon, for the error.
        name: A folder that ``save_pretrained`` wrote, or a hub name.
        what: What is read, for the error.
        *kinds: Classes with ``from_pretrained``.

    Raises:
        UserError: They cannot be had.
    """

    def read(place: str, local_files_only: bool) -> list[Any]:
        with quiet_transformers():
            return [kind.from_pretrained(place, local_files_only=local_files_only) for kind in kinds]

    try:
        return cache_then_hub(read, name, SMALL_FILES)
    except UnavailableError as error:
        raise UserError(
            f"'{family}:{name}': its {what} cannot be had ({error})."
            " Give a folder that save_pretrained wrote, or a hub name that is cached or reachable."
        ) from None


def read_model(model_class: Any, network: Any, source: str) -> tuple[Any, dict[str, Tensor], set[str]]:
    """Build a second model like a network, with the weights of a source.

    Args:
        model_class: The class of transformers that reads them; of a file, the network's own does.
        network: The built network; it is not changed.
        source: A folder that ``save_pretrained`` wrote, a hub name, or a file of weights.

    Returns:
        The model; its weights as they were found: without those that were missing, and those of another shape on the
        meta device, in that shape; and the names that the model does not have.

    Raises:
        UnavailableError: They cannot be had.
        UserError: The file cannot be read.
    """
    if Path(source).is_file():
        model, report = _from_pretrained(type(network), None, network, state_dict=read_weights(source))
    else:
        model, report = _read(model_class, network, source)
    state = dict(model.state_dict())
    for key in report["missing_keys"]:
        state.pop(key, None)
    for key, found, _ in report["mismatched_keys"]:
        state[key] = torch.empty(found, device="meta")
    return model, state, set(report["unexpected_keys"])


def load_language_model(model: nn.Module, source: str, *, kept: str | None = None) -> None:
    """Load a language model's published weights: all of them, or none. Heads that it does not have are left out.

    Args:
        model: The built model.
        source: As of ``read_model``.
        kept: A part of the names of weights that stay as they are where the source has none.

    Raises:
        UnavailableError: They cannot be had.
        UserError: They cannot be read, or do not fit.
    """
    _, state, _ = read_model(type(model), model, source)
    if kept is not None:
        state = {key: value for key, value in model.state_dict().items() if kept in key} | state
    load_strictly(model, state, source)


def _read(model_class: Any, network: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """Read a second model with the weights of a folder or hub name, and what transformers says of their fit."""

    def read(place: str, local_files_only: bool) -> tuple[Any, dict[str, Any]]:
        return _from_pretrained(model_class, place, network, local_files_only=local_files_only)

    return cache_then_hub(read, name, *WEIGHTS)  # beside its small files, which were read before


def _from_pretrained(model_class: Any, name: str | None, network: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    with quiet_transformers():
        return model_class.from_pretrained(
            name,
            config=network.config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed with the rest of what does not fit
            adapter_kwargs={"local_files_only": True},  # where peft is installed, it would ask the hub for adapters
            **options,
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
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
