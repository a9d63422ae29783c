"""Pipelines of the diffusers library: their parts, built of configurations alone, and the weights of each part."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from zoo.core.hubs import MODELSCOPE, WEIGHTS, UnavailableError, cache_then_hub, local_name
from zoo.errors import UserError
from zoo.io import read_json
from zoo.models.hub import SMALL_FILES, quiet_transformers

INDEX = "model_index.json"
Classes = Mapping[str, Sequence[str]]  # of a pipeline: its parts, and the classes that each may have


def read_parts(name: str, pipelines: Mapping[str, Classes]) -> tuple[str, dict[str, Any]]:
    """Build the parts of a pipeline: networks with random weights, tokenizers, a scheduler.

    Args:
        name: A folder that ``save_pretrained`` wrote, or a hub name: its small files come from the cache if they are
            there, else from the hub.
        pipelines: The parts that are built, by the class of the pipeline. What else the folder has, such as a safety
            checker, is left out.

    Returns:
        The class of the pipeline, and its parts by their names.

    Raises:
        UserError: The files cannot be had or read, or they name other classes.
    """
    if not Path(name).is_dir() and (name[:1] in "/.~" or name.removeprefix(MODELSCOPE).count("/") != 1):
        raise UserError(f"'diffusers:{name}': there is no such folder, and it is no hub name", value=name)
    try:
        return cache_then_hub(partial(_built, pipelines), name, SMALL_FILES)
    except UnavailableError as error:
        raise UserError(
            f"'diffusers:{name}': its configuration and tokenizers cannot be had ({error}). Give a folder that a"
            " pipeline's save_pretrained wrote, or a hub name that is cached or reachable"
        ) from None


def _built(pipelines: Mapping[str, Classes], name: str, local_files_only: bool) -> tuple[str, dict[str, Any]]:
    folder = Path(name)
    if not folder.is_dir():
        folder = Path(snapshot_download(name, allow_patterns=[*SMALL_FILES], local_files_only=local_files_only))
    index = read_json(folder / INDEX)
    kind = index["_class_name"]
    if kind not in pipelines:
        raise UserError(f"'diffusers:{name}' is a {kind}; generators are {', '.join(pipelines)}", value=kind)
    with quiet_diffusers():
        return kind, {part: _part(folder, part, index, allowed) for part, allowed in pipelines[kind].items()}


def _part(folder: Path, part: str, index: Mapping[str, Any], allowed: Sequence[str]) -> Any:
    import diffusers
    import transformers

    name = index[part][1]
    if name not in allowed:
        raise UserError(f"{folder / INDEX}: {part} is a {name}; it can be {' or '.join(allowed)}", value=name)
    kind: Any = getattr(diffusers, name, None) or getattr(transformers, name)
    if part.startswith("tokenizer"):
        return _tokenizer(kind, folder / part)
    if hasattr(kind, "from_config"):  # of diffusers: a network or a scheduler
        return kind.from_config(kind.load_config(folder / part))
    return kind(kind.config_class.from_pretrained(folder / part))


def _tokenizer(kind: Any, folder: Path) -> Any:
    """Read a tokenizer; transformers would make a vocabulary up where there is none."""
    found = [name for name in kind.vocab_files_names.values() if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder}: there is no vocabulary: none of {', '.join(kind.vocab_files_names.values())}")
    if all(name.endswith(".model") for name in found) and find_spec("sentencepiece") is None:
        raise UserError(
            f"{folder / found[0]}: sentencepiece is not installed, which reads it: pip install sentencepiece"
        )
    return kind.from_pretrained(folder)


def read_part(network: nn.Module, source: str, part: str) -> dict[str, Tensor]:
    """Read the weights of a network of a pipeline under its own names; the library renames what older ones wrote.

    Args:
        network: The built network, of diffusers or transformers; it is not changed.
        source: A folder that ``save_pretrained`` wrote, or a hub name. Of weights in several formats, safetensors are
            read; nothing in any file is executed.
        part: The network's name in the pipeline.

    Returns:
        Its weights as they were found: without those that were missing, and those of another shape on the meta device,
        in that shape.

    Raises:
        UnavailableError: The hub cannot give them.
        UserError: The folder lacks them, or they are damaged.
    """
    place = local_name(source, *WEIGHTS)
    try:
        return cache_then_hub(partial(_read_part, network, part), place)
    except UnavailableError as error:
        if Path(place).is_dir():
            raise UserError(f"{source}: the weights of {part} cannot be read ({error})") from None
        raise


def _read_part(network: Any, part: str, source: str, local_files_only: bool) -> dict[str, Tensor]:
    options: dict[str, Any] = {"subfolder": part, "local_files_only": local_files_only}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # what does not fit is listed, see below
    if hasattr(network, "from_config"):
        options |= {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    else:
        options |= {"dtype": torch.float32}
    with quiet_diffusers():
        model, report = type(network).from_pretrained(source, **options)
    state: dict[str, Tensor] = dict(model.state_dict())
    for key in report["missing_keys"]:
        state.pop(key, None)
    for key, found, _ in report["mismatched_keys"]:
        state[key] = torch.empty(found, device="meta")
    return state


@contextlib.contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Keep bars and reports of both libraries off the screen: of safety checkers, of texts that they cut."""
    import diffusers.utils.logging as diffusers_logging

    verbosity = diffusers_logging.get_verbosity()
    bar = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    try:
        with quiet_transformers():
            yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        if bar:
            diffusers_logging.enable_progress_bar()
