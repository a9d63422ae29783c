"""The blocks of a transformer of the transformers library: which they are, whose parameters, how they save memory."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from zoo.errors import UserError


def layers_of(model: nn.Module, blocks: Iterable[nn.Module]) -> list[list[nn.Parameter]]:
    """List a model's parameters, layer after layer: the embeddings, then each block; what follows belongs to it."""
    blocks = [*blocks]
    index_of = {parameter: index for index, block in enumerate(blocks) for parameter in block.parameters()}
    layers: list[list[nn.Parameter]] = [[] for _ in range(len(blocks) + 1)]
    last = 0
    for parameter in model.parameters():
        last = index_of.get(parameter, last - 1) + 1
        layers[last].append(parameter)
    return layers


def longest_list(model: nn.Module) -> Any:
    """Find the blocks of a transformer: its list, or sequence, of modules with the most parameters.

    Raises:
        UserError: It has no list of modules.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of blocks. Name another text tower.")
    return max(lists, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters()))


def checkpoint_blocks(model: Any) -> None:
    """Make a model of transformers keep only the inputs of its blocks in training.

    Raises:
        UserError: It has no such mode.
    """
    if not model.supports_gradient_checkpointing:
        raise UserError(f"gradient_checkpointing: {type(model).__name__} cannot. Set it false.")
    model.config.use_cache = False  # of keys and values, which would be kept
    old_name = model.gradient_checkpointing_enable  # before transformers 5.20
    getattr(model, "activation_checkpointing_enable", old_name)({"use_reentrant": False})
