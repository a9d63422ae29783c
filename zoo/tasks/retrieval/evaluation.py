"""Recall of a retrieval task during training and on the test split, exact on any number of processes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from PIL.Image import fromarray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from zoo.core.evaluation import Evaluation, EvaluationOptions, Part, data_module, save_image_grid, write_json
from zoo.core.grids import GridRow, image_grid
from zoo.errors import UserError, invalid
from zoo.tasks.retrieval.asked import labels_of
from zoo.tasks.retrieval.contracts import Labels
from zoo.tasks.retrieval.metrics import RetrievalRecall
from zoo.tasks.retrieval.reranking import Reranker, load_reranker, score_candidates
from zoo.tasks.retrieval.thresholds import MarginThreshold, ScoreThreshold, check_precisions


@dataclass(frozen=True)
class RetrievalEvaluationOptions(EvaluationOptions):
    """The options of the evaluation of retrieval.

    Args:
        monitor: The logged number that ``best.ckpt`` is chosen by; null: none is kept.
        mode: Whether more of it is better (``max``) or less (``min``).
        metrics: Further metrics: see ``EvaluationOptions``. ``update`` may name ``ids``, ``embeddings`` and ``side``
            (``query`` or ``image``).
        grid_queries: Queries on the image grid, spread evenly over the file; 0 draws none.
        complete_labels: Whether the files name all relevant images of each query, as MUGE's do not: then
            ``precision@10`` and ``ndcg@10`` are logged too.
        precisions: Wanted precisions of the thresholds, percent in (0, 100); ``[]`` for none.
        rerank: A model that sorts the first images anew in ``validate`` and ``test``.
        rerank_top: How many images of each query are sorted anew, at least 1.

    Raises:
        UserError: A number is out of its range.
    """

    monitor: str | None = "val/mean_recall"
    mode: Literal["max", "min"] = "max"
    grid_queries: int = 8
    complete_labels: bool = False
    precisions: tuple[float, ...] = (50, 80, 90, 95)
    rerank: str | None = None
    rerank_top: int = 50

    def __post_init__(self) -> None:
        check_precisions(self.precisions)
        if self.rerank_top < 1:
            raise invalid("model.evaluation.rerank_top", self.rerank_top, "give 1 or more")
        if self.grid_queries < 0:
            raise invalid("model.evaluation.grid_queries", self.grid_queries, "give 0 or more")

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect beside the others, and say why."""
        return super().idle() | ({} if self.rerank else {"rerank_top": "there is no reranker"})


DEFAULTS = RetrievalEvaluationOptions()


class RetrievalEvaluation(Evaluation):
    """Recall@1/5/10 and MeanRecall as MUGE defines them, over the whole gallery, at every validation and at test.

    Logged as ``val/recall@1``, ``val/recall@5``, ``val/recall@10``, ``val/mean_recall``, ``val/loss`` (percent but the
    loss), and with ``/KIND`` behind the name for each kind of query that the files label; ``test/…`` likewise. Where
    the data say what images show, also for each kind of attribute, of the queries that ask for it:
    ``val/mean_recall/颜色``, …; kinds that few images show are ``details`` together. Each evaluation draws an image
    grid to ``grids/`` in the run and to W&B.

    ``validate`` and ``test``, not cut short, also tell from which score on a pair, and from which margin over the
    second a first answer, is true as often as wanted, and write it to ``thresholds.json``, each split under its name.
    Choose thresholds on the validation split: they are of the checkpoint and of the gallery's size. Pairs that the
    labels do not name count as false, so that precision is a lower bound where labels are incomplete, as MUGE's are.
    With a reranker they also log recall once it has sorted each query's first images anew: ``test/recall@1/reranked``,
    ….

    Args:
        options: What is asked of it.
    """

    def __init__(self, options: RetrievalEvaluationOptions = DEFAULTS) -> None:
        super().__init__(options)
        self.reranker: Reranker | None = None
        self.labels: dict[str, Sequence[Labels]] = {}  # by split, of each query; found once

    def begin(self, trainer: L.Trainer, task: Any, part: Part) -> RetrievalRecall:
        """Make the metric that collects embeddings; what queries ask for is found once, and the reranker is loaded.

        Raises:
            UserError: The data say of some images alone what they show, or there is no such reranker.
        """
        if self._reranks(trainer, part) and self.reranker is None:
            try:
                self.reranker = load_reranker(self.options.rerank, device=task.device)
            except UserError as error:
                raise UserError(f"model.evaluation.rerank {error}") from None
        if part.split not in self.labels:
            self.labels[part.split] = labels_of(data_module(trainer, self).folder, part.targets)
        return RetrievalRecall(
            query_ids=part.targets.query_ids,
            image_ids=part.targets.image_ids,
            positives=part.targets.positives,
            groups=self.labels[part.split],
            complete_labels=self.options.complete_labels,
            dimensions=task.hparams["dimensions"],
            complete=part.complete,
        ).to(task.device)

    def update(self, trainer: L.Trainer, task: Any, part: Part, outputs: Any, batch: Any) -> dict[str, Any]:
        """Take in a batch of embeddings."""
        side = "image" if "image" in batch else "query"
        offered = {"ids": batch[f"{side}_id"], "embeddings": outputs, "side": side}
        part.rows.update(**offered)
        return offered

    def compute(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any] | None:
        """Compute recall, and the loss of the matched pairs."""
        if part.targets.positives is None:
            return None
        numbers = part.rows.compute()
        if self._reranks(trainer, part):
            numbers |= self._rerank(trainer, part)
        query_embeddings, image_embeddings, query_ids, image_ids = part.rows.matched_pairs()
        if len(query_ids):
            numbers["loss"] = task.evaluation_loss(image_embeddings, query_embeddings, image_ids, query_ids)
        return numbers

    def _reranks(self, trainer: L.Trainer, part: Part) -> bool:
        return bool(self.options.rerank) and part.targets.positives is not None and _is_final(trainer, part)

    def _rerank(self, trainer: L.Trainer, part: Part) -> dict[str, Tensor]:
        """Have the reranker sort the first images of each query, and compute recall again."""
        assert self.reranker is not None
        data, text_of = data_module(trainer, self), dict(zip(part.targets.query_ids, part.targets.texts, strict=True))
        query_ids, image_ids, _ = part.rows.ranking(self.options.rerank_top)
        scores = score_candidates(
            trainer,
            self.reranker,
            [text_of[number] for number in query_ids.tolist()],
            image_ids,
            lambda number: fromarray(data.image(part.split, number)),
        )
        return part.rows.compute_reranked(scores.to(image_ids.device))

    def describe(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Say how many queries and images were compared, and how."""
        queries, images = part.rows.sizes()  # fewer in a partial evaluation
        given = {"reranker": self.options.rerank, "reranked": self.options.rerank_top}
        return {
            "queries": queries,
            "images": images,
            "resize": "square bicubic" if task.prepare_image is None else "the model's own",
            "ties": "earlier in the file first",
            **(given if self._reranks(trainer, part) else {}),
        }

    def report(
        self, trainer: L.Trainer, task: Any, part: Part, numbers: dict[str, float], protocol: dict[str, Any]
    ) -> None:
        """Print recall and thresholds, save the image grid."""
        ranking = part.rows.ranking(10)
        if not trainer.is_global_zero:
            return
        print_recall(numbers, part.name, protocol)
        if self.options.precisions and _is_final(trainer, part):
            scores, margins = part.rows.thresholds(self.options.precisions)
            print_thresholds(scores, margins, part.split, protocol["images"])
            path = Path(trainer.default_root_dir) / "thresholds.json"
            write_thresholds(path, part.split, scores, margins, protocol)
        if self.options.grid_queries:
            grid = self._draw(data_module(trainer, self), part, ranking)
            save_image_grid(trainer, grid, part.name, f"{part.name}/top10", protocol["step"])

    def _draw(self, data: Any, part: Part, ranking: tuple[Tensor, Tensor, Tensor]) -> Any:
        index_of = {query_id: index for index, query_id in enumerate(part.targets.query_ids)}
        chosen = torch.linspace(0, len(ranking[0]) - 1, min(self.options.grid_queries, len(ranking[0]))).round().long()
        rows = []
        for query_id, image_ids in zip(ranking[0][chosen].tolist(), ranking[1][chosen].tolist(), strict=True):
            index = index_of[query_id]
            hits = [image_id in part.targets.positives[index] for image_id in image_ids]
            first = (
                f"first relevant image at {hits.index(True) + 1}" if any(hits) else "no relevant image in the first 10"
            )
            images = [data.image(part.split, image_id) for image_id in image_ids]
            rows.append(GridRow(text=part.targets.texts[index], images=images, hits=hits, note=first))
        return image_grid(rows)


def _is_final(trainer: L.Trainer, part: Part) -> bool:
    """Whether a split is gone over whole by ``validate`` or ``test``."""
    return part.complete and trainer.state.fn in ("validate", "test")


def print_recall(values: dict[str, float], name: str, protocol: dict[str, Any]) -> None:
    """Print recall as a table: all queries, then each kind."""
    table = Table(title=f"{name}, step {protocol['step']}", title_justify="left")
    for column in ("queries", "R@1", "R@5", "R@10", "MeanRecall"):
        table.add_column(column, justify="left" if column == "queries" else "right")
    kinds = [key.removeprefix("mean_recall") for key in values if key.startswith("mean_recall")]
    for kind in kinds:
        keys = [f"{metric}{kind}" for metric in ("recall@1", "recall@5", "recall@10", "mean_recall")]
        table.add_row(kind.removeprefix("/") or "all", *(f"{values[key]:.2f}" for key in keys))
    console = Console()
    console.print(table)
    console.print(
        f"{protocol['queries']} queries, {protocol['images']} images, {protocol['image_size']} px, "
        f"{protocol['precision']}; percent; loss {values.get('loss', float('nan')):.4f}",
        style="dim",
    )


def print_thresholds(
    scores: Sequence[ScoreThreshold], margins: Sequence[MarginThreshold], split: str, images: int
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
        f"of this checkpoint and a gallery of {images} images: choose on valid, not on test\n"
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
            "pairs": "all queries with all images; those that the labels do not name count as false: precision is a"
            " lower bound where labels are incomplete",
            "holds_for": "this checkpoint and this gallery; choose thresholds on valid, not on test",
        },
    }
    write_json(path, kept)
