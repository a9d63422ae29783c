"""Which beams and length penalty to write with: all combinations on the validation split, images encoded once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table

from zoo.core.evaluation import data_module, steps_done
from zoo.errors import UserError
from zoo.io import write_text
from zoo.tasks.captioning.contracts import CaptionTargets
from zoo.tasks.captioning.metrics.ngrams import Tokenization
from zoo.tasks.captioning.metrics.scores import CaptionScores


class CaptionSweep(Callback):
    """Scores every combination of beams and length penalty at ``validate``; prints them and writes ``sweep.json``.

    Add it to a run: ``validate --ckpt_path RUN --config experiments/_overlays/caption_sweep.yaml``.

    Args:
        beams: Numbers of beams.
        length_penalties: Length penalties; one beam has no use for them.
        lowercase: As of ``CaptionEvaluation``.
        punctuation: As of ``CaptionEvaluation``.

    Raises:
        UserError: A list is empty.
    """

    def __init__(
        self,
        *,
        beams: list[int],
        length_penalties: list[float],
        lowercase: bool = True,
        punctuation: bool = True,
    ) -> None:
        if not beams or not length_penalties:
            raise UserError(
                f"CaptionSweep: beams {beams}, length_penalties {length_penalties}: give one or more of each"
            )
        self.grid = [(count, penalty) for count in beams for penalty in length_penalties[: 1 if count == 1 else None]]
        self.tokenization = Tokenization(lowercase=lowercase, punctuation=punctuation)
        self.collected: list[CaptionScores] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Start empty; amid a training there is nothing to do."""
        self.collected = []
        if trainer.state.fn != "validate":
            return
        targets: CaptionTargets = data_module(trainer, self).targets("valid")
        assert targets.references is not None
        loader: Any = trainer.val_dataloaders
        complete = trainer.strategy.reduce_boolean_decision(trainer.num_val_batches[0] == len(loader), all=True)
        first: Any = CaptionScores(
            [targets.references[row] for row in targets.rows], tokenization=self.tokenization, complete=complete
        )
        self.index_of = {row: index for index, row in enumerate(targets.rows)}
        self.collected = [first.clone().to(pl_module.device) for _ in self.grid]

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Write the batch's captions in every way."""
        if not self.collected:
            return
        indices = torch.tensor([self.index_of[row] for row in batch["row"].tolist()])
        for (beams, penalty), scores in zip(self.grid, self.collected, strict=True):
            decoding = replace(pl_module.captioner.decoding, beams=beams, length_penalty=penalty)
            with trainer.precision_plugin.forward_context():  # what was encoded is in its type
                scores.update(indices, pl_module.captioner.write(outputs["encoded"], decoding))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Score, print, write."""
        if not self.collected:
            return
        rows = []
        for (beams, penalty), collected in zip(self.grid, self.collected, strict=True):
            scores = {name: value.item() for name, value in collected.compute().items()}
            rows.append({"beams": beams, "length_penalty": penalty, **scores})
        if not trainer.is_global_zero:
            return
        best: Any = max(rows, key=lambda row: row["cider"])
        table = Table(title=f"sweep, step {steps_done(trainer, pl_module)}", title_justify="left")
        for column in ("beams", "length penalty", "CIDEr-D", "BLEU-4", "ROUGE-L"):
            table.add_column(column, justify="right")
        for row in rows:
            cells = [str(row["beams"]), f"{row['length_penalty']:g}"]
            cells += [f"{row[name]:.2f}" for name in ("cider", "bleu4", "rouge_l")]
            table.add_row(*cells, style="bold" if row is best else None)
        path = Path(trainer.default_root_dir) / "sweep.json"
        write_text(path, json.dumps({"signature": self.tokenization.signature, "rows": rows}, indent=2) + "\n")
        console = Console()
        console.print(table)
        options = "--model.captioner_options.decoding"
        console.print(
            f"The best by CIDEr-D: {options}.beams {best['beams']} {options}.length_penalty {best['length_penalty']:g}",
            soft_wrap=True,
        )
