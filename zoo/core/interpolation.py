"""Weights between those that a training began with and those that it ended with (WiSE-FT).

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (2022), arXiv:2109.01903.
"""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
import yaml
from torch import Tensor

from zoo.core.checkpoint import checkpoint_file, load, load_initial_weights, task_keys
from zoo.core.configs import read_config
from zoo.core.options import plain
from zoo.core.runs import run_of
from zoo.data.convert.folders import refuse_filled
from zoo.errors import UserError, invalid
from zoo.io import atomic_folder, expanded, write_text
from zoo.spec import load_object, spec_of

PLOT = "interpolation.png"
Ends = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
ALPHAS = tuple(round(step / 10, 1) for step in range(11))


@dataclass(frozen=True)
class Curve:
    """What a task scores with weights in between.

    Attributes:
        start: Where the weights of share 0 are from.
        end: Where the weights of share 1 are from.
        monitor: The number that is measured on the validation split.
        mode: Whether more of it is better (``max``) or less (``min``).
        alphas: Shares of the trained weights.
        values: For each folder of data, the number at each share.
        best: The share whose mean over the folders is best; of equal ones the lowest.
    """

    start: str
    end: str
    monitor: str
    mode: str
    alphas: list[float]
    values: dict[str, list[float]]
    best: float


def interpolate(
    source: str | Path,
    folder: str | Path,
    *,
    start: str | None = None,
    alphas: Sequence[float] = ALPHAS,
    data: Sequence[str] = (),
    precision: Any = "32-true",
) -> Curve:
    """Score the weights between a training's first and last ones, and write a run with the best.

    Args:
        source: A trained task, as of ``zoo.load``.
        folder: The run's folder to write: new, or empty.
        start: The weights that it began with, as of ``zoo.load``; None: those that its ``init_from`` names.
        alphas: Shares of the trained weights, each from 0 to 1.
        data: Folders whose validation splits are scored; none: the run's own.
        precision: Of the trainer.

    Raises:
        UserError: Something cannot be loaded, the weights are of another shape, nothing is measured, or there is
            something in the folder.
    """
    place = Path(expanded(folder, "OUT")).resolve()
    refuse_filled(place)
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise invalid("--alphas", list(alphas), "give shares from 0 to 1: '[0, 0.5, 1]'")
    task: Any = load(source)
    started = start or task.hparams["init_from"]
    if not started:
        raise UserError(
            f"{source}: it began with no weights of the whole model (model.init_from). Name what it is to be mixed"
            " with: --start CHECKPOINT",
            argument="--start",
        )
    first = deepcopy(task)
    try:
        begun = load_initial_weights(first, str(started))
    except UserError as error:
        raise UserError(f"--start: {error}", argument="--start", value=started) from None
    ends = first.state_dict(), deepcopy(task.state_dict())
    shares = sorted(set(alphas))
    config = _config(source)
    values = {name: _scores(task, ends, shares, module, precision) for name, module in _modules(task, config, data)}
    monitor, mode = task.hparams["evaluation"].monitor, task.hparams["evaluation"].mode
    means = [sum(each) / len(each) for each in zip(*values.values(), strict=True)]
    best = shares[means.index(max(means) if mode == "max" else min(means))]
    curve = Curve(begun, str(source), monitor, mode, shares, values, best)
    task.load_state_dict(between(*ends, best))
    task.weights = {**task.weights, "interpolated": f"{best:g} of {source}, {1 - best:g} of {begun}"}
    with atomic_folder(place) as unfinished:
        _write(task, config, curve, unfinished)
    return curve


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Give the weights at a share of the way from one state dict to another: ``(1 - alpha) start + alpha end``.

    Counters and other integers are the end's. At 0 and 1 the weights are equal to one's to the last bit.
    """
    if alpha in (0, 1):
        return dict(end if alpha else start)
    return {
        name: torch.lerp(start[name].to(value), value, alpha) if value.is_floating_point() else value
        for name, value in end.items()
    }


def _config(source: str | Path) -> dict[str, Any] | None:
    """The configuration of the run that a checkpoint is of, if it is of one."""
    file = checkpoint_file(source)
    run = run_of(file.resolve()) if file else None
    return read_config(run / "config.yaml") if run else None


def _modules(task: Any, config: dict[str, Any] | None, folders: Sequence[str]) -> list[tuple[str, Any]]:
    """The data modules to score on, by the names of their folders; all else of them is as in the run."""
    options = dict(config["data"]["init_args"]) if config else {}
    own_class = ":".join(config["data"]["class_path"].rsplit(".", 1)) if config else spec_of(type(task)).data or ""
    kind: Any = load_object(own_class)
    if not folders and not config:
        raise UserError("--data: the checkpoint is of no run, so say which folders to score on", argument="--data")
    own = str(options.get("root", "auto"))
    for name in folders:
        if name.split("/")[0] != "auto" and not Path(expanded(name, "--data")).is_dir():
            raise UserError(f"--data {name}: there is no such folder", argument="--data", value=name)
    if len(set(folders)) < len(folders):
        raise UserError(f"--data names a folder twice: {', '.join(folders)}", argument="--data", value=[*folders])
    return [(name, kind(**{**options, "root": expanded(name, "--data")})) for name in folders or [own]]


def _scores(task: Any, ends: Ends, alphas: Sequence[float], data: Any, precision: Any) -> list[float]:
    """The monitored number of the validation split at each share."""
    monitor, scores = task.hparams["evaluation"].monitor, []
    for alpha in alphas:
        task.load_state_dict(between(*ends, alpha))
        with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):  # of grids, and of a table each time
            trainer = L.Trainer(
                devices=1,
                logger=False,
                precision=precision,
                default_root_dir=folder,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
            )
            trainer.validate(task, datamodule=data, verbose=False)
        found = trainer.callback_metrics
        if monitor not in found:
            raise UserError(f"evaluation.monitor is {monitor}, and validation on {data.root} gives {', '.join(found)}")
        scores.append(round(float(found[monitor]), 4))
        print(f"alpha {alpha:g}: {monitor} {scores[-1]:.2f} on {data.root}", file=sys.stderr)
    return scores


def _write(task: Any, config: dict[str, Any] | None, curve: Curve, folder: Path) -> None:
    checkpoint = {
        **task_keys(task),
        "state_dict": task.state_dict(),
        "hyper_parameters": plain(dict(task.hparams)),
        "weights": task.weights,
        "global_step": task.trained_steps,
        "epoch": 0,
        "pytorch-lightning_version": L.__version__,
    }
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    if config is not None:
        model = {"class_path": config["model"]["class_path"], "init_args": checkpoint["hyper_parameters"]}
        write_text(
            folder / "config.yaml", yaml.safe_dump({**config, "model": model}, allow_unicode=True, sort_keys=False)
        )
    write_text(folder / "interpolation.json", json.dumps(asdict(curve), indent=2, ensure_ascii=False) + "\n")
    draw(curve, folder / PLOT)


def draw(curve: Curve, path: Path) -> bool:
    """Plot a curve: each folder's number over the share of the trained weights. False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, values in curve.values.items():
        axes.plot(curve.alphas, values, marker="o", label=Path(name).name)
    axes.axvline(curve.best, color="0.7", linestyle="--", zorder=0)
    axes.set(xlabel="share of the trained weights", ylabel=curve.monitor)
    axes.legend()
    figure.savefig(path)
    return True
