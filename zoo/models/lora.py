"""Low-rank adapters of a tower's linear layers (LoRA, Hu et al. 2021, arXiv:2106.09685), by peft.

In a checkpoint they stand beside the weights that they adapt; ``merged`` makes plain weights of both.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from zoo.errors import UserError, invalid

ADAPTER = "default"  # peft's name of the only one


def check_lora(*, rank: int, alpha: float, dropout: float, before: str = "") -> None:
    """See that adapters can have these options: ``lora_rank``, ``lora_alpha``, ``lora_dropout``.

    Args:
        rank: Their rank; 0: there are none.
        alpha: Their scale, over the rank.
        dropout: Dropout probability before them.
        before: What stands before the options' names: ``model.finetuning.``.

    Raises:
        UserError: One is out of its range.
    """
    for name, value, in_range, valid in (
        ("lora_rank", rank, rank >= 0, "1 or more, or 0 for no adapters"),
        ("lora_alpha", alpha, alpha > 0, "a number above 0"),
        ("lora_dropout", dropout, 0 <= dropout < 1, "a share, from 0 to below 1"),
    ):
        if not in_range:
            raise invalid(f"{before}{name}", value, f"give {valid}")


def add_lora(network: nn.Module, blocks: Iterable[nn.Module], *, rank: int, alpha: float, dropout: float) -> None:
    """Freeze a network, and put an adapter, zero at first, beside each linear layer of its blocks.

    Raises:
        UserError: peft is not installed, or the blocks have no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"lora_rank: peft is not installed ({error}). pip install 'muge-zoo[lora]'") from None
    modules = [module for block in blocks for module in block.modules()]
    # PyTorch's attention reads the weights of its own linear layer, past an adapter beside it.
    passed = {module.out_proj for module in modules if isinstance(module, nn.MultiheadAttention)}
    inside = {module for module in modules if isinstance(module, nn.Linear)} - passed
    names = [name for name, module in network.named_modules() if module in inside]
    if not names:
        raise UserError(f"lora_rank: {type(network).__name__} has no linear layer in its blocks. Name a transformer.")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)  # type: ignore[arg-type]
    inject_adapter_in_model(config, network, adapter_name=ADAPTER)


def beside_adapters(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a plain state dict under the names of an adapted module, whose adapters stay as they are."""
    own = module.state_dict()
    names = {key.replace(".base_layer.", "."): key for key in own}
    adapters = {key: value for key, value in own.items() if ".lora_" in key}
    return {names.get(key, key): value for key, value in state.items()} | adapters


def merged(state: Mapping[str, Any], *, rank: int, alpha: float) -> dict[str, Any]:
    """Add a state dict's adapters to the weights beside them, under the plain names: ``W + (alpha / rank) B A``."""
    plain = {key.replace(".base_layer.", "."): value for key, value in state.items() if ".lora_" not in key}
    for key, down in state.items():
        if f".lora_A.{ADAPTER}." in key:
            up: Tensor = state[key.replace(".lora_A.", ".lora_B.")]
            name = key.replace(f".lora_A.{ADAPTER}", "")
            plain[name] = plain[name] + (alpha / rank) * (up @ down)
    return plain
