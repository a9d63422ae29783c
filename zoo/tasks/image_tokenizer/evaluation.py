"""PSNR, SSIM, Fréchet distances and the use of the codebook of an image tokenizer, during training and at test."""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL.Image import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from zoo.core.collected import CollectedRows
from zoo.core.grids import SheetRow, contact_sheet
from zoo.core.reporting import (
    check_monitored,
    data_module,
    log_numbers,
    parameter_count,
    print_scores,
    save_sheet,
    steps_done,
    write_results,
)
from zoo.data.images import resize
from zoo.tasks.text_to_image.contracts import GenerationGold
from zoo.tasks.text_to_image.feature_extractors import Judges, true_features
from zoo.tasks.text_to_image.metrics.r_precision import draw_distractors
from zoo.tasks.text_to_image.metrics.scores import distribution_scores, r_precision_scores

SHEET_ROWS = 10
SSIM_WINDOW = 11  # pixels, the usual one; smaller pictures have no SSIM


class ReconstructionEvaluation(Callback):
    """Encodes and decodes the pictures of a split and scores what is left of them, at every validation and at test.

    Logged as ``val/psnr`` (decibels) and ``val/ssim`` (percent), means over the pictures, at 8 bits;
    ``val/codebook_usage`` (the share of the codes that the split uses, in percent); ``val/rfid`` of Inception,
    ``val/fd_<judge>`` of any other judge; with a matcher ``val/r_precision``, a ceiling of any generator that writes
    these codes, beside the true pictures'; ``test/…`` likewise, and ``val_train/…`` of training pictures where the data
    module has ``train_pictures``. The same on any number of processes. An evaluation cut short by
    ``limit_val_batches`` is reported as ``val_partial/…``. ``pictures/`` in the run gets a sheet of pictures with their
    reconstructions; ``test`` also writes its numbers to ``test.json``.

    Args:
        matcher: As of ``GenerationEvaluation``.
        inception: As of ``GenerationEvaluation``.
        features: As of ``GenerationEvaluation``.
    """

    def __init__(
        self, *, matcher: str | None = None, inception: str = "auto", features: list[str] | None = None
    ) -> None:
        self.sources = {"matcher": matcher, "inception": inception, "features": features or []}
        self.judges: Judges | None = None
        self.metrics: list[tuple[GenerationGold, str, CollectedRows]] = []  # by loader

    # --- hooks -------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Load the judges."""
        if stage == "predict" or self.judges is not None:
            return
        self.judges = Judges(**self.sources)  # type: ignore[arg-type]
        if stage == "fit":
            check_monitored(trainer, self.judges, data_module(trainer, self).gold("val"))
        if self.judges.lacking and trainer.is_global_zero:
            print(f"No rFID: {self.judges.lacking}", file=sys.stderr)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._start(trainer, pl_module, "val", batches, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        self._start(trainer, pl_module, "test", trainer.num_test_batches, trainer.test_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at a batch of reconstructions."""
        assert self.judges is not None
        looked = self.judges.look(outputs["pictures"])
        likeness = picture_likeness(outputs["pictures"], batch["image"])
        codes = outputs["codes"].flatten(1)
        self.metrics[dataloader_idx][2].update(batch["row"], codes=codes, **looked, **likeness)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw."""
        for gold, prefix, metric in self.metrics:
            self._finish(trainer, pl_module, gold, prefix, metric)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw; write ``test.json``."""
        logged: dict[str, float] = {}
        for gold, prefix, metric in self.metrics:
            logged |= self._finish(trainer, pl_module, gold, prefix, metric)
        gold, prefix, metric = self.metrics[0]
        if trainer.is_global_zero and prefix == "test":
            protocol = self._protocol(trainer, pl_module, gold, len(metric.gathered()[0]))
            write_results(Path(trainer.default_root_dir) / "test.json", logged, protocol)

    # --- the same for all splits -------------------------------------------------------------------------------

    def _start(self, trainer: L.Trainer, pl_module: Any, verb: str, batches: list[Any], loaders: Any) -> None:
        assert self.judges is not None
        self.judges.to(pl_module.device)
        data = data_module(trainer, self)
        names = [*self.judges.judges, *(["logits"] if "inception" in self.judges.judges else []), "codes", "psnr"]
        names += ["ssim"] if pl_module.image_size >= SSIM_WINDOW else []
        self.metrics = []
        loaders = loaders if isinstance(loaders, list) else [loaders]
        for split, count, loader in zip(data.drawn_splits(verb), batches, loaders, strict=True):
            gold = data.gold(split)
            complete = trainer.strategy.reduce_boolean_decision(count == len(loader), all=True)
            prefix = (verb if split == verb else f"{verb}_{split}") + ("" if complete else "_partial")
            metric = CollectedRows(gold.rows, names=names, complete=complete).to(pl_module.device)
            self.metrics.append((gold, prefix, metric))

    def _finish(
        self, trainer: L.Trainer, pl_module: Any, gold: GenerationGold, prefix: str, metric: CollectedRows
    ) -> dict[str, float]:
        assert self.judges is not None
        rows, gathered = metric.gathered()
        rows, values = rows.cpu(), {name: value.cpu() for name, value in gathered.items()}
        true = true_features(
            self.judges,
            trainer.datamodule,  # type: ignore[attr-defined]
            gold.split,
            agree=lambda found: trainer.strategy.reduce_boolean_decision(found, all=True),
            write=trainer.is_global_zero,
        )
        scores = distribution_scores(values, true)
        if self.judges.matcher is not None:
            read = self.judges.read(gold.texts).cpu()
            distractors = draw_distractors(gold.texts)
            scores |= r_precision_scores(values["clip"], rows, gold.texts, read, true["clip"], distractors)
        scores |= {name: values[name].double().mean().item() for name in ("psnr", "ssim") if name in values}
        scores["codebook_usage"] = 100 * len(values["codes"].unique()) / pl_module.first_stage.num_codes
        logged = {f"{prefix}/{'rfid' if key == 'fid' else key}": value for key, value in scores.items()}
        log_numbers(trainer, pl_module, logged)
        sheet = self._sheet(trainer, pl_module, gold)
        if trainer.is_global_zero:
            protocol = self._protocol(trainer, pl_module, gold, len(rows))
            print_scores(scores, title=f"{prefix}, step {protocol['step']}: reconstructions", protocol=protocol)
            save_sheet(trainer, sheet, prefix, f"{prefix}/reconstructions", protocol["step"])
        return logged

    def _sheet(self, trainer: L.Trainer, pl_module: Any, gold: GenerationGold) -> Image:
        """Pictures of the split, spread evenly, and their reconstructions below them."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        spread = torch.linspace(0, len(gold.rows) - 1, min(SHEET_ROWS, len(gold.rows))).round().long()
        rows = [gold.rows[place] for place in spread.tolist()]
        squares = [resize(data.picture(gold.split, row), pl_module.image_size) for row in rows]
        pictures = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(pl_module.device)
        decoded = pl_module.first_stage.decode(pl_module.first_stage.encode(pictures))
        lines = [("true", pictures), ("reconstruction", decoded)]
        return contact_sheet(
            [
                SheetRow(text=name, pictures=list(each.permute(0, 2, 3, 1).cpu().numpy()), hits=[False] * len(rows))
                for name, each in lines
            ],
            titles=[""] * len(rows),
        )

    def _protocol(self, trainer: L.Trainer, pl_module: Any, gold: GenerationGold, count: int) -> dict[str, Any]:
        assert self.judges is not None
        return {
            "data": gold.source,
            "split": gold.split,
            "generated": count,
            "true": len(gold.texts),
            "image_size": pl_module.image_size,
            "judges": self.judges.protocol,
            "first_stage": pl_module.hparams.get("first_stage", type(pl_module.first_stage).__name__),
            "first_stage_options": pl_module.hparams["first_stage_options"],
            "parameters": parameter_count(pl_module.first_stage),
            "codes_per_picture": (pl_module.image_size // pl_module.first_stage.factor) ** 2,
            "codebook": pl_module.first_stage.num_codes,
            "precision": str(trainer.precision),
            "step": steps_done(trainer, pl_module),
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "weights": pl_module.weights,
        }


def picture_likeness(pictures: Tensor, true: Tensor) -> dict[str, Tensor]:
    """How like its true one each picture is, by torchmetrics.

    Args:
        pictures: ``[B, 3, S, S] uint8``.
        true: ``[B, 3, S, S] uint8``.

    Returns:
        ``psnr [B]`` in decibels, 100 at most (equal pictures have none), and ``ssim [B]`` in percent, where pictures
        are as large as its window.
    """
    a, b = pictures.float(), true.float()
    psnr = peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3))
    found = {"psnr": psnr.clamp(max=100)}
    if a.shape[-1] >= SSIM_WINDOW:
        ssim = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
        found["ssim"] = 100 * ssim.reshape(len(a))  # type: ignore[union-attr]
    return found
