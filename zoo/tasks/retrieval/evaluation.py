"""Recall of a retrieval task during training and on the test split, exact on any number of processes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import Tensor

from zoo.core.grids import SheetRow, contact_sheet
from zoo.core.reporting import log_numbers, save_sheet, steps_done, write_results
from zoo.io import write_text
from zoo.tasks.retrieval.contracts import RetrievalGold
from zoo.tasks.retrieval.metrics import RetrievalRecall
from zoo.tasks.retrieval.thresholds import MarginThreshold, ScoreThreshold, check_precisions


class RetrievalEvaluation(Callback):
    """Recall@1/5/10 and MeanRecall as MUGE defines them, over the whole gallery, at every validation and at test.

    Logged as ``val/recall@1``, ``val/recall@5``, ``val/recall@10``, ``val/mean_recall``, ``val/loss`` (percent but the
    loss), and with ``/KIND`` behind the name for each kind of query that the files label; ``test/…`` likewise. Step 0,
    before training, is the sanity check: run it whole (``num_sanity_val_steps: -1``). An evaluation cut short by
    ``limit_val_batches`` is reported as ``val_partial/…``. Each evaluation draws a contact sheet to
    ``pictures/`` in the run and to W&B; ``test`` also writes its numbers to ``test.json``.

    ``validate`` and ``test``, not cut short, also tell from which score on a pair, and from which margin over the
    second a first answer, is true as often as wanted, and write it to ``thresholds.json``, each split under its name.
    Choose thresholds on the validation split: they are of the checkpoint and of the gallery's size. Pairs that the
    labels do not name count as false, so that precision is a lower bound where labels are incomplete, as MUGE's are.

    Args:
        sheet_queries: Queries on the contact sheet, spread evenly over the file; 0 draws none.
        precisions: Wanted precisions of the thresholds, percent above 0 and below 100; an empty list tells none.

    Raises:
        UserError: A precision is out of its range.
    """

    def __init__(self, sheet_queries: int = 8, precisions: list[float] | tuple[float, ...] = (50, 80, 90, 95)) -> None:
        check_precisions(precisions)
        self.sheet_queries = sheet_queries
        self.precisions = tuple(precisions)
        self.numbers: dict[str, float] = {}  # of the latest evaluation, under the names they are logged by
        self.metric: RetrievalRecall | None = None
        self.gold: RetrievalGold | None = None

    # --- hooks -------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start an empty metric."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._start(trainer, pl_module, "valid", batches, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start an empty metric."""
        self._start(trainer, pl_module, "test", trainer.num_test_batches, trainer.test_dataloaders)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take in a batch of embeddings."""
        self._update(outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take in a batch of embeddings."""
        self._update(outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw."""
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw; write ``test.json``."""
        self._finish(trainer, pl_module, "test")

    # --- the same for both splits ------------------------------------------------------------------------------

    def _start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, split: str, batches: list[Any], loaders: Any
    ) -> None:
        complete = all(number == len(loader) for number, loader in zip(batches, loaders, strict=True))
        complete = trainer.strategy.reduce_boolean_decision(complete, all=True)
        self.numbers = {}
        self.gold = trainer.datamodule.gold(split)  # type: ignore[attr-defined]
        self.metric = RetrievalRecall(
            query_ids=self.gold.query_ids,
            image_ids=self.gold.image_ids,
            positives=self.gold.positives,
            groups=self.gold.kinds,
            complete=complete,
        ).to(pl_module.device)

    def _update(self, embeddings: Tensor, batch: Any) -> None:
        assert self.metric is not None
        if "image" in batch:
            self.metric.update(batch["image_id"], embeddings, side="image")
        else:
            self.metric.update(batch["query_id"], embeddings, side="query")

    def _finish(self, trainer: L.Trainer, pl_module: Any, prefix: str) -> None:
        assert self.metric is not None
        assert self.gold is not None
        if self.gold.positives is None:
            if trainer.is_global_zero:
                print(f"The {self.gold.split} split has no answers here: `predict` writes its submission instead.")
            return
        name = prefix if self.metric.complete else f"{prefix}_partial"
        numbers = self.metric.compute()
        query_embeddings, image_embeddings, query_ids, image_ids = self.metric.matched_pairs()
        if len(query_ids):
            numbers["loss"] = pl_module.evaluation_loss(image_embeddings, query_embeddings, image_ids, query_ids)
        logged = {f"{name}/{key}": value.float() for key, value in numbers.items()}
        log_numbers(trainer, pl_module, logged)
        self.numbers = values = {key: value.item() for key, value in logged.items()}
        ranking = self.metric.ranking(10)
        if trainer.is_global_zero:
            protocol = describe_protocol(trainer, pl_module, self.gold)
            protocol["queries"], protocol["pictures"] = self.metric.sizes()  # fewer in a partial evaluation
            step = protocol["step"]
            print_recall(values, name, protocol)
            if self.precisions and self.metric.complete and trainer.state.fn in ("validate", "test"):
                scores, margins = self.metric.thresholds(self.precisions)
                print_thresholds(scores, margins, self.gold.split, protocol["pictures"])
                path = Path(trainer.default_root_dir) / "thresholds.json"
                write_thresholds(path, self.gold.split, scores, margins, protocol)
            if self.sheet_queries:
                self._draw(trainer, name, ranking, step)
            if prefix == "test":
                write_results(Path(trainer.default_root_dir) / "test.json", values, protocol)
        self.metric = None

    def _draw(self, trainer: L.Trainer, name: str, ranking: tuple[Tensor, Tensor, Tensor], step: int) -> None:
        assert self.gold is not None
        assert self.gold.positives is not None
        places = {query_id: place for place, query_id in enumerate(self.gold.query_ids)}
        chosen = torch.linspace(0, len(ranking[0]) - 1, min(self.sheet_queries, len(ranking[0]))).round().long()
        rows = []
        for query_id, image_ids in zip(ranking[0][chosen].tolist(), ranking[1][chosen].tolist(), strict=True):
            place = places[query_id]
            hits = [image_id in self.gold.positives[place] for image_id in image_ids]
            first = f"first true picture at {hits.index(True) + 1}" if any(hits) else "no true picture in the first 10"
            pictures = [trainer.datamodule.picture(self.gold.split, image_id) for image_id in image_ids]  # type: ignore[attr-defined]
            rows.append(SheetRow(text=self.gold.texts[place], pictures=pictures, hits=hits, note=first))
        save_sheet(trainer, contact_sheet(rows), name, f"{name}/top10", step)


def describe_protocol(trainer: L.Trainer, pl_module: Any, gold: RetrievalGold) -> dict[str, Any]:
    """What the numbers were measured on and how."""
    return {
        "data": gold.source,
        "split": gold.split,
        "queries": len(gold.query_ids),
        "pictures": len(gold.image_ids),
        "image_size": trainer.datamodule.image_size,  # type: ignore[attr-defined]
        "resize": "square bicubic",
        "precision": str(trainer.precision),
        "step": steps_done(trainer, pl_module),
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        "weights": pl_module.weights,
        "ties": "earlier in the file first",
    }


def print_recall(values: dict[str, float], name: str, protocol: dict[str, Any]) -> None:
    """Print recall as a table: all queries, then each kind."""
    table = Table(title=f"{name}, step {protocol['step']}", title_justify="left")
    for column in ("queries", "R@1", "R@5", "R@10", "MeanRecall"):
        table.add_column(column, justify="left" if column == "queries" else "right")
    kinds = [key.removeprefix(f"{name}/mean_recall") for key in values if key.startswith(f"{name}/mean_recall")]
    for kind in kinds:
        keys = [f"{name}/{metric}{kind}" for metric in ("recall@1", "recall@5", "recall@10", "mean_recall")]
        table.add_row(kind.removeprefix("/") or "all", *(f"{values[key]:.2f}" for key in keys))
    console = Console()
    console.print(table)
    console.print(
        f"{protocol['queries']} queries, {protocol['pictures']} pictures, {protocol['image_size']} px, "
        f"{protocol['precision']}; percent; loss {values.get(f'{name}/loss', float('nan')):.4f}",
        style="dim",
    )


def print_thresholds(
    scores: Sequence[ScoreThreshold], margins: Sequence[MarginThreshold], split: str, pictures: int
) -> None:
    """Print, for each wanted precision, the least score of a pair and the least margin of a first answer."""
    console = Console()
    titles = (f"{split}: pairs by score", f"{split}: first answers by margin")
    columns = (("score", "precision", "recall", "pairs a query"), ("margin", "precision", "answered"))
    for title, names, thresholds in zip(titles, columns, (scores, margins), strict=True):
        table = Table(title=title, title_justify="left")
        for name in ("wanted", *names):
            table.add_column(name, justify="right", no_wrap=True)
        for wanted, least, *shares in thresholds:
            cells = ["not reached"] if least is None else [f"{least:.4f}", *(f"{share:.2f}" for share in shares)]
            table.add_row(f"{wanted:g}", *cells)
        console.print(table)
    console.print(
        "percent; margin: the first answer's score less the second's\n"
        f"of this checkpoint and a gallery of {pictures} pictures: choose on valid, not on test\n"
        "precision is a lower bound where labels are incomplete, as MUGE's are",
        style="dim",
    )


def write_thresholds(
    path: Path,
    split: str,
    scores: Sequence[ScoreThreshold],
    margins: Sequence[MarginThreshold],
    protocol: dict[str, Any],
) -> None:
    """Write the thresholds of a split as JSON, atomically, beside those of the other splits in the file."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none yet, or damaged
        kept = {}
    kept[split] = {
        "scores": [threshold._asdict() for threshold in scores],
        "margins": [threshold._asdict() for threshold in margins],
        "protocol": {
            **protocol,
            "pairs": "all queries with all pictures; those that the labels do not name count as false: precision is a"
            " lower bound where labels are incomplete",
            "holds_for": "this checkpoint and this gallery; choose thresholds on valid, not on test",
        },
    }
    write_text(path, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
