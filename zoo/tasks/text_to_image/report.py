"""How the scores of generated images are printed, and checkpoints chosen by them."""

import math
from collections.abc import Iterator
from typing import Any

import lightning as L
from rich.console import Console
from rich.table import Table

from zoo.errors import UserError
from zoo.tasks.text_to_image.contracts import GenerationTargets
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors
from zoo.tasks.text_to_image.metrics.attribute_accuracy import NAME as ACCURACY


def print_scores(scores: dict[str, float], *, title: str, protocol: dict[str, Any]) -> None:
    """Print the scores of generated images, each extractor's on a line, with what they are to be held against.

    Args:
        scores: As ``zoo.tasks.text_to_image.metrics.scores`` names them.
        title: Above the table.
        protocol: How they were measured; ``extractors``, ``generated`` and ``true`` are printed.
    """
    table = Table(title=title, title_justify="left")
    for column in ("extractor", "FID or FD", "KID", "IS", "precision", "recall"):
        table.add_column(column, justify="left" if column == "extractor" else "right")
    for name in protocol["extractors"]:
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
    refused = [
        name for name in protocol["extractors"] if ("fid" if name == "inception" else f"fd_{name}") not in scores
    ]
    if refused:
        console.print(
            f"No Fréchet distance by {', '.join(refused)}: it needs more images than there are features; of these"
            f" there are {min(protocol['generated'], protocol['true'])}"
        )
    ceiling = "r_precision_first_stage"
    if "r_precision" in scores:
        console.print(
            f"R-precision {_spell(scores, 'r_precision', 'r_precision_std')} %: true images"
            f" {_spell(scores, 'r_precision_true')}"
            + (f", through the image tokenizer {_spell(scores, ceiling)}" if ceiling in scores else "")
            + f", shuffled prompts {_spell(scores, 'r_precision_shuffled')},"
            f" chance {_spell(scores, 'r_precision_chance')}"
        )
    for line in _attribute_lines(scores):
        console.print(line)
    if "psnr" in scores:
        console.print(
            f"PSNR {_spell(scores, 'psnr')} dB, SSIM {_spell(scores, 'ssim')} %;"
            f" {_spell(scores, 'codebook_usage')} % of the codes are used"
        )
    if "copied" in scores:
        console.print(
            f"Memorisation: {_spell(scores, 'copied')} % nearer to a training image than 99 % of the true ones;"
            f" mean cosine {_spell(scores, 'nearest_training')}, of true images"
            f" {_spell(scores, 'nearest_training_true')}"
        )
    console.print(
        f"{protocol['generated']} generated images, {protocol['true']} true ones; precision and recall in percent",
        *(f"\n{name}: {line}" for name, line in protocol["extractors"].items()),
        style="dim",
        soft_wrap=True,
    )


def _attribute_lines(scores: dict[str, float]) -> Iterator[str]:
    """Give a line of attribute accuracy over all, and one of each kind of attribute."""
    for key in scores:
        name, slash, kind = key.partition("/")
        if name == ACCURACY:
            true, shuffled = (_spell(scores, f"{ACCURACY}_{which}{slash}{kind}") for which in ("true", "shuffled"))
            what = f"{kind or 'Attributes'} {_spell(scores, key)} % as asked for"
            yield f"{what}: true images {true}, shuffled prompts {shuffled}"


def _spell(scores: dict[str, float], key: str, spread: str | None = None) -> str:
    if key not in scores:
        return "–"
    more = f" ± {scores[spread]:.3g}" if spread in scores and not math.isnan(scores[spread]) else ""
    return f"{round(scores[key], 9):.4g}{more}"


def check_monitored(trainer: L.Trainer, extractors: FeatureExtractors, targets: GenerationTargets) -> None:
    """See that the Fréchet distance by which checkpoints are chosen will be there.

    Raises:
        UserError: An evaluation has too few images for it.
    """
    count = min(len(targets.rows), len(targets.image_ids))
    for monitor in (getattr(callback, "monitor", None) or "" for callback in trainer.checkpoint_callbacks):
        extractor = extractors.by_name.get(monitor.removeprefix("val/fd_").replace("val/fid", "inception"))
        if extractor is not None and count <= extractor.width:
            raise UserError(
                f"checkpoints are chosen by {monitor}, which needs more images than its {extractor.width} features, and"
                f" a validation has {count}: raise data.valid_images, or monitor something else"
            )
