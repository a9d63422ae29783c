"""The zoo's own checkpoints: read without running code, checked before a single weight is changed."""

import importlib
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.errors import UserError

if TYPE_CHECKING:
    from lightning import LightningModule


def load(path: str | Path, *, device: str | torch.device = "cpu") -> "LightningModule":
    """Load a trained task, ready to use: ``zoo.load("runs/clip_demo/20260102-030405").encode_text(["红裙"])``.

    Args:
        path: A checkpoint file, or a run's folder (its best checkpoint).
        device: Where the task goes.

    Returns:
        The task, in evaluation mode, without gradients.

    Raises:
        UserError: There is no such file, or it is no checkpoint of this zoo.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    checkpoint = read_checkpoint(path)
    if "task" not in checkpoint:
        raise UserError(f"{path}: it does not say which task it is of: not a checkpoint of this zoo")
    module, _, name = checkpoint["task"].rpartition(".")
    task_class = getattr(importlib.import_module(module), name)
    task = task_class(**checkpoint["hyper_parameters"])
    load_strictly(task, checkpoint["state_dict"], str(path))
    task.on_load_checkpoint(checkpoint)
    return task.to(device).eval().requires_grad_(False)


def load_initial_weights(task: nn.Module, path: str | Path) -> str:
    """Start a task from another run's weights: all of them, or an error and none.

    Args:
        task: A task of the same shape.
        path: A checkpoint file, or a run's folder (its best checkpoint).

    Returns:
        Where the weights came from: experiment, run and file, without the folders above.

    Raises:
        UserError: There is no such file, or its weights do not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise UserError(f"model.init_from {path}: there is no such checkpoint. Give a .ckpt file or a run's folder")
    load_strictly(task, read_checkpoint(path)["state_dict"], f"model.init_from {path}")
    return "/".join(path.resolve().parts[-4:])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's contents; nothing in it is executed.

    Raises:
        UserError: There is no such file, it is damaged, or it holds more than weights and plain data.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(f"{path}: it holds more than weights and plain data{what}, so it is not read") from None
    except Exception as error:  # torch's readers raise many kinds for broken files
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path}: it has no 'state_dict': not a checkpoint of this zoo")
    return checkpoint


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict whole, or raise and change nothing.

    Raises:
        UserError: Keys are missing, unexpected or mis-shaped: a short table of them.
    """
    own = module.state_dict()
    faults = [f"missing     {key} {list(own[key].shape)}" for key in own if key not in state]
    faults += [f"unexpected  {key} {list(state[key].shape)}" for key in state if key not in own]
    faults += [
        f"mis-shaped  {key} {list(state[key].shape)}, wanted {list(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if faults:
        shown = "\n  ".join(faults[:10] + ([f"… and {len(faults) - 10} more"] if len(faults) > 10 else []))
        raise UserError(f"{source}: these weights are not of this model; nothing was loaded:\n  {shown}")
    module.load_state_dict(state)
