"""CIDEr-D, BLEU and ROUGE-L of captions during training and on the test split, exact on any number of processes."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import Tensor

from zoo.core.collected import CollectedRows
from zoo.core.grids import SheetRow, contact_sheet
from zoo.core.reporting import data_module, log_numbers, save_sheet, steps_done, write_results
from zoo.tasks.captioning.contracts import CaptionGold
from zoo.tasks.captioning.metrics.ngrams import DocumentFrequencies, HumanCeiling, Tokenization
from zoo.tasks.captioning.metrics.scores import CaptionScores

COLUMNS = ("cider", "bleu4", "rouge_l")


class CaptionEvaluation(Callback):
    """Describes the pictures of a split and scores the captions, at every validation and at test.

    Logged in percent (100 times pycocoevalcap's values) as ``val/cider``, ``val/bleu1`` to ``val/bleu4``,
    ``val/rouge_l``; ``val/different``, ``val/distinct1``, ``val/distinct2``, ``val/repetition`` and ``val/empty`` (how
    much captions vary), ``val/unknown`` (captions with ``[UNK]``), ``val/loss`` (nats a token); with the controls
    ``val/cider_shuffled`` … (the same captions of other pictures) and ``val/cider_nearest`` … (the first reference of
    the training picture that is nearest in the model's own features); ``test/…`` likewise. What people's references
    score against each other is printed beside. Step 0, before training, is the sanity check: run it whole
    (``num_sanity_val_steps: -1``). An evaluation cut short by ``limit_val_batches`` is reported as ``val_partial/…``.
    ``pictures/`` in the run gets a sheet of pictures with their captions and references; ``test`` also writes its
    numbers to ``test.json``.

    Args:
        lowercase: Whether Latin letters are compared in lower case, in which BERT's vocabulary writes them.
        punctuation: Whether punctuation counts as tokens.
        document_frequencies: Whose references CIDEr-D counts n-grams in to weigh them: the ``split``'s own, or those of
            ``train``.
        nearest_copy: Whether the training pictures are looked at for the ``nearest`` control.
        sheet_pictures: Pictures on the sheet, spread evenly over the file; 0 draws none.
    """

    def __init__(
        self,
        *,
        lowercase: bool = True,
        punctuation: bool = True,
        document_frequencies: Literal["split", "train"] = "split",
        nearest_copy: bool = False,
        sheet_pictures: int = 12,
    ) -> None:
        self.tokenization = Tokenization(lowercase=lowercase, punctuation=punctuation)
        self.document_frequencies = document_frequencies
        self.nearest_copy = nearest_copy
        self.sheet_pictures = sheet_pictures
        self.scores: dict[str, CaptionScores] = {}  # by split: what the references alone decide is computed once
        self.human: dict[str, HumanCeiling | None] = {}
        self.place_of: dict[int, int] = {}  # row → its place among those that are described

    # --- hooks -------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._start(trainer, pl_module, "valid", batches, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        self._start(trainer, pl_module, "test", trainer.num_test_batches, trainer.test_dataloaders)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take in a batch of captions."""
        places = torch.tensor([self.place_of[row] for row in batch["row"].tolist()])
        self.metric.update(places, outputs["captions"])
        self.measures.update(places, **{name: outputs[name] for name in self.measures.names})

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take in a batch of captions."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw."""
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw; write ``test.json``."""
        self._finish(trainer, pl_module, "test")

    # --- the same for both splits ------------------------------------------------------------------------------

    def _start(self, trainer: L.Trainer, pl_module: L.LightningModule, split: str, batches: Any, loader: Any) -> None:
        complete = trainer.strategy.reduce_boolean_decision(batches[0] == len(loader), all=True)
        self.gold: CaptionGold = data_module(trainer, self).gold(split)
        self.place_of = {row: place for place, row in enumerate(self.gold.rows)}
        if split not in self.scores:
            assert self.gold.references is not None  # the data module has seen to it
            self.scores[split] = CaptionScores(
                [self.gold.references[row] for row in self.gold.rows],
                tokenization=self.tokenization,
                document_frequencies=self._train_frequencies(trainer),
            )
            self.human[split] = self.scores[split].human_ceiling()
        self.metric = self.scores[split].to(pl_module.device)
        self.metric.reset()
        self.metric.complete = complete
        names = ["loss", "tokens", *(["features"] if self.nearest_copy else [])]
        self.measures = CollectedRows(list(self.place_of.values()), names=names, complete=complete).to(pl_module.device)

    def _train_frequencies(self, trainer: L.Trainer) -> DocumentFrequencies | None:
        if self.document_frequencies == "split":
            return None
        texts = data_module(trainer, self).gold("train").references
        tokens = [[self.tokenization.tokenize(text) for text in own] for own in texts]
        return DocumentFrequencies.of(tokens)

    def _finish(self, trainer: L.Trainer, pl_module: Any, prefix: str) -> None:
        name = prefix if self.metric.complete else f"{prefix}_partial"
        places, captions = self.metric.gathered()
        _, values = self.measures.gathered()
        numbers = self.metric.compute()
        numbers |= {f"{score}_shuffled": value for score, value in self.metric.shuffled().items()}
        numbers["unknown"] = 100 * torch.tensor(["[UNK]" in caption for caption in captions]).double().mean()
        numbers["loss"] = values["loss"].sum() / values["tokens"].sum()
        if self.nearest_copy:
            copied = self._copied(trainer, pl_module, values["features"])
            numbers |= {f"{score}_nearest": value for score, value in self.metric.score_others(copied).items()}
        logged = {f"{name}/{key}": value.float() for key, value in numbers.items()}
        log_numbers(trainer, pl_module, logged)
        if trainer.is_global_zero:
            step = steps_done(trainer, pl_module)
            protocol = self._protocol(trainer, pl_module, places)
            scores = {key: value.item() for key, value in numbers.items()}
            print_captions(scores, self.human[self.gold.split], title=f"{name}, step {step}", protocol=protocol)
            if self.sheet_pictures:
                self._draw(trainer, name, places, captions, step)
            if name == "test":
                measured = {key: value.item() for key, value in logged.items()}
                write_results(Path(trainer.default_root_dir) / "test.json", measured, protocol)

    def _copied(self, trainer: L.Trainer, pl_module: Any, described: Tensor) -> list[str]:
        """For each picture the first reference of the training picture nearest to it, ``described [N, W]``."""
        data = data_module(trainer, self)
        training: CaptionGold = data.gold("train")
        assert training.references is not None
        collected = CollectedRows(range(len(training.image_ids)), names=["features"]).to(pl_module.device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in data.pictures_loader("train"):
                images = batch["image"].to(pl_module.device)
                collected.update(batch["row"], features=pl_module.features(pl_module.captioner.encode(images)))
        _, values = collected.gathered()
        nearest = (described @ values["features"].T).argmax(dim=1)
        return [training.references[row][0] for row in nearest.tolist()]

    def _draw(self, trainer: L.Trainer, name: str, places: list[int], captions: list[str], step: int) -> None:
        assert self.gold.references is not None
        count = min(self.sheet_pictures, len(places))
        rows = []
        for index in torch.linspace(0, len(places) - 1, count).round().long().tolist():
            row = self.gold.rows[places[index]]
            references, picture = self.gold.references[row], data_module(trainer, self).picture(self.gold.split, row)
            text, note = captions[index] or "(empty)", " / ".join(references)
            rows.append(SheetRow(text=text, pictures=[picture], hits=[captions[index] in references], note=note))
        save_sheet(trainer, contact_sheet(rows, titles=[""]), name, f"{name}/captions", step)

    def _protocol(self, trainer: L.Trainer, pl_module: Any, places: list[int]) -> dict[str, Any]:
        """What the numbers were measured on and how."""
        assert self.gold.references is not None
        most = self.gold.max_references
        references = "all" if most is None else f"first {most}"
        return {
            "data": self.gold.source,
            "split": self.gold.split,
            "pictures": len(places),
            "references": sum(len(self.gold.references[self.gold.rows[place]]) for place in places),
            "signature": f"{self.tokenization.signature}|df:{self.document_frequencies}|refs:{references}",
            "image_size": data_module(trainer, self).image_size,
            "captioner": pl_module.hparams.get("captioner", type(pl_module.captioner).__name__),
            "decoding": vars(pl_module.captioner.decoding),
            "precision": str(trainer.precision),
            "step": steps_done(trainer, pl_module),
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "weights": pl_module.weights,
        }


def print_captions(
    scores: dict[str, float], human: HumanCeiling | None, *, title: str, protocol: dict[str, Any]
) -> None:
    """Print the scores of captions, and what they are to be held against, a line each."""
    table = Table(title=title, title_justify="left")
    for column in ("captions", "CIDEr-D", "BLEU-4", "ROUGE-L"):
        table.add_column(column, justify="left" if column == "captions" else "right")
    for label, suffix in (("the model's", ""), ("of other pictures", "_shuffled"), ("nearest copied", "_nearest")):
        if f"cider{suffix}" in scores:
            table.add_row(label, *(f"{scores[f'{column}{suffix}']:.2f}" for column in COLUMNS))
    if human is not None:
        label = f"people's ({human.pictures} pictures)"
        table.add_row(label, *(f"{100 * human.scores[column]:.2f}" for column in COLUMNS))
    console = Console()
    console.print(table)
    console.print(
        f"{protocol['pictures']} pictures, {protocol['references']} references; {protocol['signature']}; percent;"
        f" different captions {scores['different']:.1f}, distinct-1 {scores['distinct1']:.1f}, distinct-2"
        f" {scores['distinct2']:.1f}, repetition {scores['repetition']:.1f}, empty {scores['empty']:.1f}, [UNK]"
        f" {scores['unknown']:.1f}; loss {scores['loss']:.4f}",
        style="dim",
    )
