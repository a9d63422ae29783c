"""How evaluations report: numbers to the loggers, pictures to the run and W&B, results to a file."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
from PIL.Image import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from zoo.errors import UserError
from zoo.io import write_text
from zoo.tasks.text_to_image.contracts import GenerationGold
from zoo.tasks.text_to_image.feature_extractors import Judges


def log_numbers(trainer: L.Trainer, pl_module: L.LightningModule, numbers: dict[str, Any]) -> None:
    """Log numbers that are the same on every process, those of step 0 too."""
    if trainer.sanity_checking:  # Lightning throws away what is logged here
        for logger in trainer.loggers:
            logger.log_metrics({key: float(value) for key, value in numbers.items()}, step=trainer.global_step)
    else:
        pl_module.log_dict(numbers)


def save_sheet(trainer: L.Trainer, sheet: Image, name: str, title: str, step: int) -> None:
    """Write a contact sheet to ``pictures/NAME-stepSTEP.png`` in the run, and to W&B under ``TITLE``."""
    path = Path(trainer.default_root_dir) / "pictures" / f"{name}-step{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(title, [sheet], step=step)


def print_scores(scores: dict[str, float], *, title: str, protocol: dict[str, Any]) -> None:
    """Print the scores of generated pictures, each judge's on a line, with what they are to be held against.

    Args:
        scores: As ``zoo.tasks.text_to_image.metrics.scores`` names them.
        title: Above the table.
        protocol: How they were measured; ``judges``, ``generated`` and ``true`` are printed.
    """
    table = Table(title=title, title_justify="left")
    for column in ("judge", "FID or FD", "KID", "IS", "precision", "recall"):
        table.add_column(column, justify="left" if column == "judge" else "right")
    for name in protocol["judges"]:
        inception = name == "inception"
        table.add_row(
            "Inception" if inception else name,
            _spell(scores, "fid" if inception else f"fd_{name}"),
            _spell(scores, "kid", "kid_std") if inception else "",
            _spell(scores, "is", "is_std") if inception else "",
            _spell(scores, f"precision_{name}"),
            _spell(scores, f"recall_{name}"),
        )
    console = Console()
    console.print(table)
    refused = [name for name in protocol["judges"] if ("fid" if name == "inception" else f"fd_{name}") not in scores]
    if refused:
        console.print(
            f"No Fréchet distance by {', '.join(refused)}: it needs more pictures than there are features; of these"
            f" there are {min(protocol['generated'], protocol['true'])}"
        )
    first_stage = "r_precision_first_stage"
    if "r_precision" in scores:
        console.print(
            f"R-precision {_spell(scores, 'r_precision', 'r_precision_std')} %: true pictures"
            f" {_spell(scores, 'r_precision_true')}"
            + (f", through the first stage {_spell(scores, first_stage)}" if first_stage in scores else "")
            + f", shuffled descriptions {_spell(scores, 'r_precision_shuffled')},"
            f" chance {_spell(scores, 'r_precision_chance')}"
        )
    if "psnr" in scores:
        console.print(
            f"PSNR {_spell(scores, 'psnr')} dB, SSIM {_spell(scores, 'ssim')} %;"
            f" {_spell(scores, 'codebook_usage')} % of the codes are used"
        )
    if "copied" in scores:
        console.print(
            f"Memorisation: {_spell(scores, 'copied')} % nearer to a training picture than 99 % of the true ones;"
            f" mean cosine {_spell(scores, 'nearest_training')}, of true pictures"
            f" {_spell(scores, 'nearest_training_true')}"
        )
    console.print(
        f"{protocol['generated']} generated pictures, {protocol['true']} true ones; precision and recall in percent",
        *(f"\n{name}: {line}" for name, line in protocol["judges"].items()),
        style="dim",
        soft_wrap=True,
    )


def _spell(scores: dict[str, float], key: str, spread: str | None = None) -> str:
    if key not in scores:
        return "–"
    more = f" ± {scores[spread]:.3g}" if spread in scores and not math.isnan(scores[spread]) else ""
    return f"{round(scores[key], 9):.4g}{more}"


def data_module(trainer: L.Trainer, callback: Any) -> Any:
    """The data module that a callback needs.

    Raises:
        UserError: The trainer was given loaders alone.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is None:
        raise UserError(
            f"{type(callback).__name__} needs to know the whole split: give the trainer a data module of the zoo,"
            " datamodule=…, not loaders alone"
        )
    return data


def check_monitored(trainer: L.Trainer, judges: Judges, gold: GenerationGold) -> None:
    """See that the Fréchet distance by which checkpoints are chosen will be there.

    Raises:
        UserError: An evaluation has too few pictures for it.
    """
    count = min(len(gold.rows), len(gold.texts))
    for monitor in (getattr(callback, "monitor", None) or "" for callback in trainer.checkpoint_callbacks):
        judge = judges.judges.get(monitor.removeprefix("val/fd_").replace("val/fid", "inception"))
        if judge is not None and count <= judge.width:
            raise UserError(
                f"checkpoints are chosen by {monitor}, which needs more pictures than its {judge.width} features, and a"
                f" validation has {count}: raise data.val_pictures, or monitor something else"
            )


def parameter_count(module: nn.Module) -> int:
    """Numbers that a module learns or has learnt."""
    return sum(parameter.numel() for parameter in module.parameters())


def steps_done(trainer: L.Trainer, pl_module: Any) -> int:
    """Optimiser steps behind the weights that are evaluated."""
    in_memory = trainer.state.fn == "fit" or (trainer.ckpt_path is None and trainer.global_step > 0)
    return trainer.global_step if in_memory else pl_module.trained_steps


def write_results(path: Path, values: dict[str, float], protocol: dict[str, Any]) -> None:
    """Write numbers and protocol as JSON, atomically."""
    write_text(path, json.dumps({"metrics": values, "protocol": protocol}, indent=2, ensure_ascii=False) + "\n")
