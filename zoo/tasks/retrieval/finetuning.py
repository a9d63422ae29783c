"""How a tower is trained: which part of it, with what kept on the way; and whether the options of that make sense."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.core.contracts import asked
from zoo.errors import UserError


def check_options(options: Mapping[str, Any]) -> None:
    """See that a retrieval task's hyper-parameters are in their ranges.

    Raises:
        UserError: One is not.
    """
    ranges = {
        "lora_dropout": (lambda value: 0 <= value < 1, "it is a share, from 0 to below 1"),
        "layer_decay": (lambda value: 0 < value <= 1, "it is a share, above 0 and up to 1"),
        "chunk_size": (lambda value: value is None or value >= 1, "use 1 pair or more, or null for the whole batch"),
        "lora_alpha": (lambda value: value > 0, "use a number above 0"),
        "lora_rank": (lambda value: value >= 0, "use 1 or more, or 0 for no adapters"),
    }
    for name, (valid, words) in ranges.items():
        if not valid(options[name]):
            raise UserError(f"{name}: {options[name]} came; {words}.")


def prepare_tower(tower: nn.Module, side: str, options: Mapping[str, Any]) -> list[nn.Module]:
    """Freeze, adapt and set up a tower for its training.

    Args:
        tower: It is changed.
        side: ``image`` or ``text``.
        options: A task's hyper-parameters.

    Returns:
        What of it stays in evaluation mode while the rest trains.

    Raises:
        UserError: The tower cannot be trained so.
    """
    trainable_layers = options[f"{side}_trainable_layers"]
    if trainable_layers is not None:
        if options["lora_rank"]:
            raise UserError(
                f"{side}_trainable_layers and lora_rank are both given: adapters freeze all layers. Drop one."
            )
        freeze_layers(tower, f"{side}_trainable_layers", trainable_layers)
    if not options["train_norms"]:
        freeze_norms(tower)
    if options["lora_rank"]:
        shape = {"rank": options["lora_rank"], "alpha": options["lora_alpha"], "dropout": options["lora_dropout"]}
        asked(tower, "add_lora", "lora_rank")(**shape)
    if options["gradient_checkpointing"]:
        asked(tower, "checkpoint_gradients", "gradient_checkpointing")()
    kept = kept_in_evaluation(tower)
    if kept != [tower] and len(kept) < len(batch_norms(tower)):
        for option, why in (
            ("chunk_size", "whose statistics would be a chunk's and not the batch's"),
            ("gradient_checkpointing", "whose statistics would take each batch in twice"),
        ):
            if options[option]:
                raise UserError(
                    f"{option}: the {side} tower has batch norms, {why}. Set train_norms false or"
                    f" {side}_trainable_layers 0, take a tower without them, or leave {option} out."
                )
    for module in kept:
        module.eval()
    return kept


def freeze_layers(tower: nn.Module, option: str, trainable_layers: int) -> None:
    """Freeze a tower but for its last layers and what follows them.

    Args:
        tower: It says what its layers are.
        option: The task's name for ``trainable_layers``.
        trainable_layers: How many of the last layers are trained; 0 freezes the whole tower.

    Raises:
        UserError: The tower cannot say what its layers are, or has not that many.
    """
    layers = asked(tower, "layers", option)()
    if not 0 <= trainable_layers <= len(layers):
        raise UserError(
            f"{option}: {trainable_layers} came; this tower has {len(layers)} layers, its stem or embeddings among"
            f" them: use 0 to {len(layers)}."
        )
    for layer in layers[: len(layers) - trainable_layers]:
        for parameter in layer:
            parameter.requires_grad_(False)


def freeze_norms(tower: nn.Module) -> None:
    """Freeze the scales and shifts of a tower's normalisations, of whatever kind."""
    for module in tower.modules():
        if "norm" in type(module).__name__.lower():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def kept_in_evaluation(tower: nn.Module) -> list[nn.Module]:
    """What of a tower stays in evaluation mode while the rest trains.

    The whole tower where nothing of it is trained, so that it has no dropout; batch norms that are frozen, so that
    their statistics stay as they are.
    """
    if not any(parameter.requires_grad for parameter in tower.parameters()):
        return [tower]
    return [
        module
        for module in batch_norms(tower)
        if module.affine and not any(parameter.requires_grad for parameter in module.parameters())
    ]


def batch_norms(tower: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a tower: the modules whose output depends on the rest of the batch."""
    return [module for module in tower.modules() if isinstance(module, _BatchNorm)]
