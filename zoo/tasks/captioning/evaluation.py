"""CIDEr-D, BLEU and ROUGE-L of captions during training and on the test split, exact on any number of processes."""

from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics import Metric

from zoo.core.collected import CollectedRows
from zoo.core.evaluation import Evaluation, EvaluationOptions, Part, data_module, save_image_grid
from zoo.core.grids import GridRow, image_grid
from zoo.data.attributes import Shown, read_shown
from zoo.errors import invalid
from zoo.tasks.captioning.contracts import CaptionTargets
from zoo.tasks.captioning.metrics.attributes import CaptionAttributes
from zoo.tasks.captioning.metrics.ngrams import DocumentFrequencies, HumanCeiling, Tokenization
from zoo.tasks.captioning.metrics.scores import CaptionScores

COLUMNS = ("cider", "bleu4", "rouge_l")


@dataclass(frozen=True)
class CaptionEvaluationOptions(EvaluationOptions):
    """What is asked of the evaluation of captions.

    Args:
        monitor: The logged number that ``best.ckpt`` is chosen by; null: none is kept.
        mode: Whether more of it is better (``max``) or less (``min``).
        metrics: Further metrics: see ``EvaluationOptions``. ``update`` may name ``captions`` (B texts), ``references``
            (B tuples of texts), ``images`` (``[B, 3, S, S] uint8``), ``rows`` (``[B] int64``) and, where the data say
            what images show, ``attributes`` (B dictionaries).
        lowercase: Whether Latin letters are compared in lower case, in which BERT's vocabulary writes them.
        punctuation: Whether punctuation counts as tokens.
        document_frequencies: Whose references CIDEr-D counts n-grams in to weigh them: the ``split``'s own, or those
            of ``train``.
        nearest_copy: Whether the training images are looked at for the ``nearest`` control.
        grid_images: Images on the image grid, spread evenly over the file; 0: none is made.

    Raises:
        UserError: ``grid_images`` is below 0.
    """

    monitor: str | None = "val/cider"
    mode: Literal["max", "min"] = "max"
    lowercase: bool = True
    punctuation: bool = True
    document_frequencies: Literal["split", "train"] = "split"
    nearest_copy: bool = False
    grid_images: int = 12

    def __post_init__(self) -> None:
        if self.grid_images < 0:
            raise invalid("model.evaluation.grid_images", self.grid_images, "give 0 or more")


DEFAULTS = CaptionEvaluationOptions()


@dataclass
class _Collected:
    """What is collected of a split's images."""

    scores: CaptionScores
    measures: CollectedRows
    index_of: dict[int, int]  # row → its index among those that are described


class CaptionEvaluation(Evaluation):
    """Describes the images of a split and scores the captions, at every validation and at test.

    Logged in percent (100 times pycocoevalcap's values) as ``val/cider``, ``val/bleu1`` to ``val/bleu4``,
    ``val/rouge_l``; ``val/different``, ``val/distinct1``, ``val/distinct2``, ``val/repetition`` and ``val/empty`` (how
    much captions vary), ``val/unknown`` (captions with ``[UNK]``), ``val/loss`` (nats a token); with the controls
    ``val/cider_shuffled`` … (the same captions of other images) and ``val/cider_nearest`` … (the first reference of
    the training image that is nearest in the model's own features); and, where the data say what images show,
    ``val/attributes_precision``, ``_recall`` and ``_contradiction`` (``CaptionAttributes``); ``test/…`` likewise. What
    people's references score against each other is printed beside. ``grids/`` in the run gets an image grid with their
    captions and references.

    Args:
        options: What is asked of it.
    """

    def __init__(self, options: CaptionEvaluationOptions = DEFAULTS) -> None:
        super().__init__(options)
        self.tokenization = Tokenization(lowercase=options.lowercase, punctuation=options.punctuation)
        self.scores: dict[str, CaptionScores] = {}  # by split: what the references alone decide is computed once
        self.human: dict[str, HumanCeiling | None] = {}
        self.shown: dict[str, Shown | None] = {}  # by split

    def begin(self, trainer: L.Trainer, task: Any, part: Part) -> _Collected:
        """Make what collects captions; what the references alone decide is computed once."""
        if part.split not in self.scores:
            self.scores[part.split] = CaptionScores(
                [part.targets.references[row] for row in part.targets.rows],
                tokenization=self.tokenization,
                document_frequencies=self._train_frequencies(trainer),
            )
            self.human[part.split] = self.scores[part.split].human_ceiling()
        scores = self.scores[part.split].to(task.device)
        scores.reset()
        scores.complete = part.complete
        index_of = {row: index for index, row in enumerate(part.targets.rows)}
        names = ["loss", "tokens", *(["features"] if self.options.nearest_copy else [])]
        measures = CollectedRows(list(index_of.values()), names=names, complete=part.complete).to(task.device)
        return _Collected(scores, measures, index_of)

    def part_metrics(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Metric]:
        """Hold captions against what their images show, where the data say it.

        Raises:
            UserError: The data say it of some images alone.
        """
        if part.split not in self.shown:
            folder = data_module(trainer, self).folder
            self.shown[part.split] = read_shown(folder, part.split, part.targets.image_ids)
        shown = self.shown[part.split]
        return {} if shown is None else {"attributes": CaptionAttributes(shown.vocabulary)}

    def update(self, trainer: L.Trainer, task: Any, part: Part, outputs: Any, batch: Any) -> dict[str, Any]:
        """Take in a batch of captions."""
        rows = batch["row"].tolist()
        indices = torch.tensor([part.rows.index_of[row] for row in rows])
        part.rows.scores.update(indices, outputs["captions"])
        part.rows.measures.update(indices, **{name: outputs[name] for name in part.rows.measures.names})
        shown = self.shown[part.split]
        attributes = {} if shown is None else {"attributes": [shown.attributes[row] for row in rows]}
        return {
            **attributes,
            "captions": outputs["captions"],
            "references": [part.targets.references[row] for row in rows],
            "images": batch["image"],
            "rows": batch["row"],
        }

    def compute(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Score the captions, and what they are to be held against."""
        scores = part.rows.scores
        _, captions = scores.gathered()
        _, values = part.rows.measures.gathered()
        numbers = scores.compute()
        numbers |= {f"{score}_shuffled": value for score, value in scores.shuffled().items()}
        numbers["unknown"] = 100 * torch.tensor(["[UNK]" in caption for caption in captions]).double().mean()
        numbers["loss"] = values["loss"].sum() / values["tokens"].sum()
        if self.options.nearest_copy:
            copied = self._copied(trainer, task, values["features"])
            numbers |= {f"{score}_nearest": value for score, value in scores.score_others(copied).items()}
        return numbers

    def describe(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Say which images, references, captioner and decoding, and by which signature."""
        indices, _ = part.rows.scores.gathered()
        most = part.targets.max_references
        references = "all" if most is None else f"first {most}"
        return {
            "images": len(indices),
            "references": sum(len(part.targets.references[part.targets.rows[index]]) for index in indices),
            "signature": f"{self.tokenization.signature}|df:{self.options.document_frequencies}|refs:{references}",
            "captioner": task.hparams.get("captioner", type(task.captioner).__name__),
            "decoding": vars(task.captioner.decoding),
        }

    def report(
        self, trainer: L.Trainer, task: Any, part: Part, numbers: dict[str, float], protocol: dict[str, Any]
    ) -> None:
        """Print the scores, save the image grid."""
        indices, captions = part.rows.scores.gathered()
        if not trainer.is_global_zero:
            return
        title = f"{part.name}, step {protocol['step']}"
        print_captions(numbers, self.human[part.split], title=title, protocol=protocol)
        if self.options.grid_images:
            grid = self._grid(data_module(trainer, self), part, indices, captions)
            save_image_grid(trainer, grid, part.name, f"{part.name}/captions", protocol["step"])

    def _train_frequencies(self, trainer: L.Trainer) -> DocumentFrequencies | None:
        if self.options.document_frequencies == "split":
            return None
        texts = data_module(trainer, self).targets("train").references
        tokens = [[self.tokenization.tokenize(text) for text in own] for own in texts]
        return DocumentFrequencies.of(tokens)

    def _copied(self, trainer: L.Trainer, pl_module: Any, described: Tensor) -> list[str]:
        """Give for each image, ``described [N, W]``, the first reference of the training image nearest to it."""
        data = data_module(trainer, self)
        training: CaptionTargets = data.targets("train")
        assert training.references is not None
        collected = CollectedRows(range(len(training.image_ids)), names=["features"]).to(pl_module.device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in data.images_loader("train"):
                images = batch["image"].to(pl_module.device)
                collected.update(batch["row"], features=pl_module.features(pl_module.captioner.encode(images)))
        _, values = collected.gathered()
        nearest = (described @ values["features"].T).argmax(dim=1)
        return [training.references[row][0] for row in nearest.tolist()]

    def _grid(self, data: Any, part: Part, indices: list[int], captions: list[str]) -> Any:
        count = min(self.options.grid_images, len(indices))
        rows = []
        for index in torch.linspace(0, len(indices) - 1, count).round().long().tolist():
            row = part.targets.rows[indices[index]]
            references, image = part.targets.references[row], data.image(part.split, row)
            text, note = captions[index] or "(empty)", " / ".join(references)
            rows.append(GridRow(text=text, images=[image], hits=[captions[index] in references], note=note))
        return image_grid(rows, titles=[""])


def print_captions(
    scores: dict[str, float], human: HumanCeiling | None, *, title: str, protocol: dict[str, Any]
) -> None:
    """Print the scores of captions, and what they are to be held against, a line each."""
    table = Table(title=title, title_justify="left")
    for column in ("captions", "CIDEr-D", "BLEU-4", "ROUGE-L"):
        table.add_column(column, justify="left" if column == "captions" else "right")
    for label, suffix in (("the model's", ""), ("of other images", "_shuffled"), ("nearest copied", "_nearest")):
        if f"cider{suffix}" in scores:
            table.add_row(label, *(f"{scores[f'{column}{suffix}']:.2f}" for column in COLUMNS))
    if human is not None:
        label = f"people's ({human.images} images)"
        table.add_row(label, *(f"{100 * human.scores[column]:.2f}" for column in COLUMNS))
    console = Console()
    console.print(table)
    if "attributes_recall" in scores:
        shares = ("precision", "recall", "contradiction")
        told = ", ".join(f"{share} {scores.get(f'attributes_{share}', float('nan')):.1f}" for share in shares)
        console.print(f"What they say of what images show: {told} %")
    console.print(
        f"{protocol['images']} images, {protocol['references']} references; {protocol['signature']}; percent;"
        f" different captions {scores['different']:.1f}, distinct-1 {scores['distinct1']:.1f}, distinct-2"
        f" {scores['distinct2']:.1f}, repetition {scores['repetition']:.1f}, empty {scores['empty']:.1f}, [UNK]"
        f" {scores['unknown']:.1f}; loss {scores['loss']:.4f}",
        style="dim",
    )
