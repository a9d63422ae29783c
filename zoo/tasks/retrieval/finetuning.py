"""How a tower is trained: which part of it, with what kept on the way; and whether the options of that make sense."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.core.contracts import asked
from zoo.errors import UserError
from zoo.models.lora import check_lora


@dataclass(frozen=True)
class FinetuningOptions:
    """What of the towers is trained, and how far from their initial weights.

    Args:
        image_trainable_layers: Number of the image tower's last layers that are trained; 0 freezes all of it. null:
            all. Not beside ``lora_rank``, which freezes them all.
        text_trainable_layers: Number of the text tower's last layers that are trained, likewise.
        train_norms: Whether the towers' normalisations are trained; if not, batch norms keep their statistics too.
        layer_decay: Share of the next layer's learning rate that each layer of a tower has, in (0, 1]; the projections
            behind the last have the full one.
        lora_rank: Rank of the adapters that are trained in the towers' stead (extra ``lora``), at least 1; 0: none.
        lora_alpha: Scale of the adapters, over the rank, above 0.
        lora_dropout: Dropout probability before the adapters, in [0, 1).

    Raises:
        UserError: A number is out of its range.
    """

    image_trainable_layers: int | None = None
    text_trainable_layers: int | None = None
    train_norms: bool = True
    layer_decay: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0

    def __post_init__(self) -> None:
        check("finetuning.layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "a share, above 0 and up to 1")
        lora = {"rank": self.lora_rank, "alpha": self.lora_alpha, "dropout": self.lora_dropout}
        check_lora(**lora, before="model.finetuning.")  # type: ignore[arg-type]

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect beside the others, and say why."""
        if self.lora_rank:
            return {"train_norms": "adapters are trained alone"}
        idle = dict.fromkeys(("lora_alpha", "lora_dropout"), "lora_rank is 0")
        if self.image_trainable_layers == self.text_trainable_layers == 0:
            idle |= dict.fromkeys(("train_norms", "layer_decay"), "both towers are frozen")
        return idle


def check(name: str, value: Any, in_range: bool, valid: str) -> None:
    """Raise UserError where a hyper-parameter is not in its range."""
    if not in_range:
        raise UserError(f"model.{name} is {value}: give {valid}", argument=f"model.{name}", value=value, valid=valid)


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
    finetuning: FinetuningOptions = options["finetuning"]
    trainable_layers = getattr(finetuning, f"{side}_trainable_layers")
    if trainable_layers is not None:
        if finetuning.lora_rank:
            raise UserError(
                f"{side}_trainable_layers and lora_rank are both given: adapters freeze all layers. Drop one."
            )
        freeze_layers(tower, f"finetuning.{side}_trainable_layers", trainable_layers)
    if not finetuning.train_norms:
        freeze_norms(tower)
    if finetuning.lora_rank:
        shape = {"rank": finetuning.lora_rank, "alpha": finetuning.lora_alpha, "dropout": finetuning.lora_dropout}
        asked(tower, "add_lora", "finetuning.lora_rank")(**shape)
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
                    f"{option}: the {side} tower has batch norms, {why}. Set finetuning.train_norms"
                    f" false or finetuning.{side}_trainable_layers 0, take a tower without them, or leave {option} out."
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
    """List what of a tower stays in evaluation mode while the rest trains.

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
    """List the batch norms of a tower: the modules whose output depends on the rest of the batch."""
    return [module for module in tower.modules() if isinstance(module, _BatchNorm)]
