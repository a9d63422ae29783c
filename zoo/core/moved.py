"""A run that was renamed, copied or mounted elsewhere goes on as if it had stayed: paths into it follow it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from zoo.errors import UserError


def change_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Change all texts in a configuration, whatever they stand in; a namespace in its place."""
    if isinstance(value, Namespace):
        for name, inner in vars(value).items():
            setattr(value, name, change_texts(inner, change))
        return value
    if isinstance(value, dict):
        return {name: change_texts(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [change_texts(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def texts_in(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Give all texts in a configuration, each behind the dotted name that leads to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_in(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner, name)
    elif isinstance(value, str):
        yield name, value


def refuse_other_paths(config: dict[str, Any], started_in: str) -> None:
    """See that a run's relative paths, told from another folder than where it was started, mean what they meant there.

    Args:
        config: The run's configuration.
        started_in: The folder in which it was started.

    Raises:
        UserError: One is there in both, as different files or folders.
    """
    for name, text in texts_in(config):
        old, new = os.path.join(started_in, text), os.path.abspath(text)
        if text and os.path.exists(old) and os.path.exists(new) and not os.path.samefile(old, new):
            option = name.replace(".init_args.", ".")
            raise UserError(
                f"{option} is {text} in the run's configuration, which meant {old} where the run was started, and would"
                f" mean {new} here. Give one of them: --{option} PATH",
                argument=option,
                value=text,
                valid=[old, new],
            )


def rebased(path: str, old: Path | str, new: Path) -> str:
    """Give a path into the folder ``old`` as that into ``new``; any other as it is."""
    return str(new / Path(path).relative_to(old)) if Path(path).is_relative_to(old) else path


def follow_run(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Let each ``ModelCheckpoint`` find what it kept where it is now: Lightning forgets the best where paths differ.

    Raises:
        UserError: The run goes on, and what it kept lies in another folder than what it will keep.
    """
    folder, place = Path(trainer.default_root_dir).resolve(), Path(str(trainer.ckpt_path)).resolve()
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)  # weights alone have none
        if not isinstance(callback, ModelCheckpoint) or not state or not state["best_k_models"]:
            continue
        old, new = state["dirpath"], Path(str(callback.dirpath))
        if old == str(new):
            continue
        kept = {path: rebased(path, old, new) for path in state["best_k_models"]}
        if all(map(os.path.isfile, kept.values())):
            state["best_k_models"] = {kept[path]: score for path, score in state["best_k_models"].items()}
            for name in ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path"):
                state[name] = rebased(state[name], old, new)
        elif place.is_relative_to(folder) and all(map(os.path.isfile, kept)):
            raise UserError(
                f"{type(callback).__name__} of {callback.monitor} kept its checkpoints in {old}, and its dirpath is now"
                f" {new}: give the former, or move them",
                argument="dirpath",
                value=str(new),
                valid=old,
            )
        elif place.is_relative_to(folder):
            rank_zero_warn(f"The best checkpoints by {callback.monitor} are not in {new}: the best is chosen anew")
