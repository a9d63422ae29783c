"""Published VQGANs in: the checkpoints of taming-transformers, read without its code."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from zoo.core.checkpoint import Published
from zoo.errors import UserError
from zoo.tasks.image_tokenizer.task import ImageTokenizerTask

PREFIXES = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
GUMBEL = "quantize.embed.weight"
CODEBOOK = "quantize.embedding.weight"
DISCRIMINATOR = "loss.discriminator."


class _Inert:
    """Stands for a class that a checkpoint names beside its weights, such as a callback: nothing of it is run."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def is_taming(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has the names of a VQGAN of taming-transformers."""
    return "post_quant_conv.weight" in state and (CODEBOOK in state or GUMBEL in state)


def read_vqgan(source: str, contents: Any) -> Published | None:
    """Read a VQGAN of taming-transformers; see ``Published``. What the file lacks of a discriminator is random."""
    state = read_taming(Path(source), contents)
    if state is None:
        return None
    arguments = architecture(state, source)
    task = ImageTokenizerTask(**arguments)
    task.image_tokenizer.to(device="meta")
    weights = {name: value for name, value in task.state_dict().items() if not value.is_meta}
    weights |= {f"image_tokenizer.{name}": value for name, value in to_zoo(state).items()}
    weights |= {f"discriminator.{name}": value for name, value in discriminator(state).items()}
    return Published(
        task=ImageTokenizerTask,
        hyper_parameters={**arguments, "init_from": source},
        state_dict=weights,
        name=Path(source).name,
    )


def read_taming(path: Path, contents: Any = None) -> dict[str, Any] | None:
    """The state dict of a VQGAN of taming-transformers, whatever else the file holds; None: it is of something else.

    Args:
        path: The file.
        contents: What it holds, where that is weights and plain data alone and was read already.
    """
    read = _read_inert(path) if contents is None and path.is_file() else contents
    state = read.get("state_dict", read) if isinstance(read, dict) else None
    return dict(state) if isinstance(state, Mapping) and is_taming(state) else None


def _read_inert(path: Path) -> Any:
    """What a file holds that names classes of old Lightning and OmegaConf; no code of it runs, nor of them.

    None of a file that cannot be read so: the usual reader says what is wrong with it.
    """
    try:
        names = get_unsafe_globals_in_checkpoint(path)
        stand_ins = [(type(name.rpartition(".")[2], (_Inert,), {}), name) for name in names]
        with safe_globals(stand_ins):  # type: ignore[arg-type]
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, KeyError, EOFError):
        return None


def architecture(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The arguments of ``ImageTokenizerTask`` that the weights are of: VQGAN and, where there is one, discriminator.

    Raises:
        UserError: They are of none that was published.
    """
    gumbel = GUMBEL in state
    num_codes = len(state[GUMBEL if gumbel else CODEBOOK])
    levels = len({key.split(".")[2] for key in state if key.startswith("encoder.down.")})
    wanted = (4 if gumbel else 5, 128, 256)
    first = state.get("encoder.conv_in.weight")
    if first is None:
        raise UserError(f"{source}: a VQGAN without encoder.conv_in.weight: the file is not whole")
    found = (levels, first.shape[0], state["post_quant_conv.weight"].shape[1])
    if found != wanted:
        raise UserError(
            f"{source}: a VQGAN of {found[0]} sizes, {found[1]} channels and codes of {found[2]} dimensions; of those"
            " that were published, f16 with 1024 or 16384 codes and Gumbel f8 are read"
        )
    name = "taming_vqgan_f8_gumbel" if gumbel else "taming_vqgan_f16"
    arguments: dict[str, Any] = {"image_tokenizer": name, "image_tokenizer_options": {"num_codes": num_codes}}
    layers = [value for value in discriminator(state).values() if value.ndim == 4]
    if layers:  # the first, those that halve the image but it, and two that do not
        arguments |= {"discriminator_width": layers[0].shape[0], "discriminator_layers": len(layers) - 2}
    return arguments


def to_zoo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of ``VQGAN``."""
    return {key: value for key, value in state.items() if key.startswith(PREFIXES)}


def discriminator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The discriminator's weights, where the file has them."""
    return {key.removeprefix(DISCRIMINATOR): value for key, value in state.items() if key.startswith(DISCRIMINATOR)}
