"""Multi-positive Recall@1/5/10 and MeanRecall as MUGE defines them, exact on any number of processes."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from zoo.core.gathering import check_ids, file_order, offer_empty_batches, rows_not_finite, some
from zoo.errors import UserError
from zoo.tasks.retrieval.contracts import Labels
from zoo.tasks.retrieval.ranking import (
    NEVER_RANKED,
    compressed_rows,
    first_positive_ranks,
    graded_at,
    recall_at,
    reranked,
    top_k,
)
from zoo.tasks.retrieval.thresholds import MarginThreshold, ScoreThreshold, margin_thresholds, score_thresholds

__all__ = ["NEVER_RANKED", "RetrievalRecall", "first_positive_ranks", "recall_at", "top_k"]

Side = Literal["query", "image"]


class Gathered(NamedTuple):
    """Every process's embeddings in file order."""

    query_indices: list[int]  # index in the file of each of the Q queries that came
    query_embeddings: Tensor  # [Q, D] float32
    image_indices: list[int]  # index in the file of each of the N images that came
    image_embeddings: Tensor  # [N, D] float32
    best: dict[int, tuple[Tensor, Tensor]]  # by k: scores and rows of each query's best images, once asked for


class RetrievalRecall(Metric):
    """Text-to-image recall over a whole split.

    Feed it both sides with ``update``, on each process the rows that this process saw, in any order and number; then
    call ``compute``, ``ranking``, ``matched_pairs`` or ``thresholds`` on **every** process (they gather once and keep
    what they gathered), and ``reset`` before the next evaluation. The result depends on neither the number of processes
    nor the order of batches. Scores are inner products in fp32: hand in unit vectors for cosine similarity. Move the
    metric to the device of the embeddings first, as with every torchmetrics metric.

    ``compute()`` returns percent, 0-100, float64 on the CPU: ``recall@1``, ``recall@5``, ``recall@10`` and
    ``mean_recall`` (their mean), and for each label in ``groups`` the same of its queries alone, as
    ``recall@1/<label>``, …, ``mean_recall/<label>``. Every query counts, also one none of whose relevant images is in
    the gallery: it is missed.

    Example: In any LightningModule (``Trainer(use_distributed_sampler=False, num_sanity_val_steps=0)``)::

        self.recall = RetrievalRecall(query_ids=[1, 2], image_ids=[7, 8, 9], positives=[(7,), (8, 9)])  # in __init__

        def validation_step(self, batch, batch_idx):
            self.recall.update(batch["query_id"], self.embed(batch["text"]), side="query")
            self.recall.update(batch["image_id"], self.embed(batch["image"]), side="image")

        def on_validation_epoch_end(self):
            self.log_dict({f"val/{name}": value for name, value in self.recall.compute().items()})
            self.recall.reset()

    Args:
        query_ids: The split's query ids in file order.
        image_ids: The gallery's image ids in file order, which decides between equal scores.
        positives: For each query the ids of its relevant images; ``None`` for a split without answers, which can be
            ranked but not scored.
        groups: For each query a label, a sequence of labels, or ``None`` for a query that belongs to no group.
        complete_labels: Whether ``positives`` are all the relevant images of each query: then ``precision@10`` and
            ``ndcg@10`` are computed too.
        dimensions: Numbers of leading dimensions: recall by those alone, made unit vectors again, is computed too, as
            ``recall@1/64d``, …, ``mean_recall/64d``.
        complete: Whether exactly the split's ids must have come. ``False`` for a partial evaluation
            (``limit_val_batches``, the sanity check): then recall is that of the queries that came over the images
            that came.

    Raises:
        UserError: Lengths differ, an id appears twice, or no query has a relevant image.

    Source: MUGE's ``evaluation.py``, https://github.com/MUGE-2021/image-retrieval-baseline.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        *,
        query_ids: Sequence[int],
        image_ids: Sequence[int],
        positives: Sequence[Sequence[int]] | None = None,
        groups: Sequence[Labels] | None = None,
        complete_labels: bool = False,
        dimensions: Sequence[int] = (),
        complete: bool = True,
    ) -> None:
        super().__init__(sync_on_compute=False)  # gathered once, by _gather, for all that is computed from it
        self.ids: dict[str, list[int]] = {"query": list(query_ids), "image": list(image_ids)}
        self.positives = None if positives is None else [list(images) for images in positives]
        self.groups = None if groups is None else [(own,) if isinstance(own, str) else own or () for own in groups]
        self.complete_labels = complete_labels
        self.dimensions = tuple(dimensions)
        self.complete = complete
        self._gathered: Gathered | None = None
        self._check_split()
        for side in ("query", "image"):
            self.add_state(f"{side}_ids", default=[], dist_reduce_fx="cat")
            self.add_state(f"{side}_embeddings", default=[], dist_reduce_fx="cat")

    def update(self, ids: Tensor, embeddings: Tensor, *, side: Side) -> None:
        """Take one batch of one side.

        Args:
            ids: ``[B]`` integers.
            embeddings: ``[B, D]``, any floating type; kept as fp32 on their device.
            side: ``"query"`` or ``"image"``.

        Raises:
            ValueError: ``side`` is neither, or the shapes are others.
        """
        if side not in self.ids:
            raise ValueError(f"side is {side!r}; it must be 'query' or 'image'.")
        if ids.ndim != 1 or embeddings.ndim != 2 or len(ids) != len(embeddings):
            shapes = f"{list(ids.shape)} and {list(embeddings.shape)}"
            raise ValueError(f"ids and embeddings are {shapes}; they must be [B] and [B, D].")
        self._gathered = None
        getattr(self, f"{side}_ids").append(ids.detach().to(embeddings.device, torch.int64))
        getattr(self, f"{side}_embeddings").append(embeddings.detach().float())

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self._gathered = None

    def compute(self) -> dict[str, Tensor]:
        """Compute the recall of every query, and of each group's queries; see the class.

        Raises:
            UserError: The split has no answers.
            RuntimeError: The ids that came are not the split's, or an embedding is not finite.
        """
        gathered, ranks, rows = self._gather(), self._ranks(), self._relevant_rows()
        first = self._best(10)[1] if self.complete_labels else None
        result = self._scores(ranks, rows, first)
        for count in self.dimensions:
            queries, images = (
                normalize(side[:, :count], dim=-1) for side in (gathered.query_embeddings, gathered.image_embeddings)
            )
            by_few = recall_at(first_positive_ranks(queries, images, compressed_rows(rows)).cpu())
            result |= {f"{name}/{count}d": value for name, value in by_few.items()}
        return result

    def compute_reranked(self, scores: Tensor) -> dict[str, Tensor]:
        """Compute recall once each query's first images are sorted by other scores; see ``compute``.

        The images behind them keep their places, and so recall@k is exact for every k.

        Args:
            scores: ``[Q, K]``, finite, of the images that ``ranking(K)`` gives; between equal ones the file decides.

        Raises:
            UserError: The split has no answers.
            ValueError: The shape is another, or a score is not finite.
        """
        ranks, relevant = self._ranks(), self._relevant_rows()
        rows = reranked(self._best(scores.shape[1])[1], scores).cpu()
        for query, (ranked, own) in enumerate(zip(rows.tolist(), map(set, relevant), strict=True)):
            ranks[query] = next((place for place, row in enumerate(ranked) if row in own), ranks[query])
        first = torch.cat([rows, self._best(10)[1][:, rows.shape[1] :].cpu()], dim=1)[:, :10]
        result = self._scores(ranks, relevant, first if self.complete_labels else None)
        metrics = ((*name.partition("/"), value) for name, value in result.items())
        return {f"{metric}/reranked{slash}{kind}": value for metric, slash, kind, value in metrics}

    def _ranks(self) -> Tensor:
        """Compute the rank of each query's first relevant image, ``[Q] int64`` on the CPU.

        Raises:
            UserError: The split has no answers.
        """
        if self.positives is None:
            raise UserError("RetrievalRecall was built with positives=None: without answers there is ranking() alone.")
        gathered, rows = self._gather(), compressed_rows(self._relevant_rows())
        return first_positive_ranks(gathered.query_embeddings, gathered.image_embeddings, rows).cpu()

    def _scores(self, ranks: Tensor, relevant: list[list[int]], first: Tensor | None) -> dict[str, Tensor]:
        """Score all queries, then each group's, by their ranks and, where all labels are there, their first images."""

        def score(members: list[int]) -> dict[str, Tensor]:
            graded = {} if first is None else graded_at(first[members], [relevant[member] for member in members])
            return recall_at(ranks[members]) | graded

        result = score([*range(len(relevant))])
        if self.groups is not None:
            labels = [self.groups[index] for index in self._gather().query_indices]
            for label in sorted({label for own in self.groups for label in own}):
                members = [place for place, own in enumerate(labels) if label in own]
                result |= {f"{name}/{label}": value for name, value in score(members).items()}
        return result

    def sizes(self) -> tuple[int, int]:
        """Count the queries and images that came: those of the split, or fewer in a partial evaluation."""
        gathered = self._gather()
        return len(gathered.query_indices), len(gathered.image_indices)

    def ranking(self, k: int = 10) -> tuple[Tensor, Tensor, Tensor]:
        """Find the k best images of every query, for a submission or an image grid; needs no answers.

        Args:
            k: Images a query; all N when the gallery is smaller.

        Returns:
            Query ids ``[Q] int64`` in file order, image ids ``[Q, k] int64``, best first, and scores
            ``[Q, k] float32``, on the device of the embeddings.

        Raises:
            RuntimeError: The ids that came are not the split's, or an embedding is not finite.
        """
        gathered = self._gather()
        scores, rows = self._best(k)
        gallery = self._ids_at("image", gathered.image_indices, rows.device)
        return self._ids_at("query", gathered.query_indices, rows.device), gallery[rows], scores

    def matched_pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pair each query with its first relevant image, in file order: what the validation loss is computed from.

        Returns:
            Query embeddings ``[P, D] float32``, image embeddings ``[P, D] float32``, query ids ``[P] int64``, image
            ids ``[P] int64``. A query none of whose relevant images came is left out.

        Raises:
            UserError: The split has no answers.
            RuntimeError: The ids that came are not the split's, or an embedding is not finite.
        """
        if self.positives is None:
            raise UserError(
                "RetrievalRecall was built with positives=None: without answers there are no matched pairs."
            )
        gathered = self._gather()
        pairs = [(row, image_row) for row, present in enumerate(self._relevant_rows()) for image_row in present[:1]]
        queries, images = torch.tensor(pairs, dtype=torch.int64, device=gathered.query_embeddings.device).view(-1, 2).T
        return (
            gathered.query_embeddings[queries],
            gathered.image_embeddings[images],
            self._ids_at("query", gathered.query_indices, queries.device)[queries],
            self._ids_at("image", gathered.image_indices, images.device)[images],
        )

    def thresholds(self, precisions: Sequence[float]) -> tuple[list[ScoreThreshold], list[MarginThreshold]]:
        """Find from which score on pairs, and from which margin on first answers, are true as often as wanted.

        Once something is computed on every process, one process alone may call it.

        Args:
            precisions: Wanted, percent, above 0 and below 100.

        Returns:
            For each wanted precision the least score of all pairs of a query with an image, and the least margin of
            a query's first answer over its second; see ``zoo.tasks.retrieval.thresholds``.

        Raises:
            UserError: The split has no answers, or a precision is out of its range.
            RuntimeError: The ids that came are not the split's, or an embedding is not finite.
        """
        if self.positives is None:
            raise UserError("RetrievalRecall was built with positives=None: without answers there are no thresholds.")
        gathered, rows = self._gather(), self._relevant_rows()
        embeddings = gathered.query_embeddings, gathered.image_embeddings
        best_scores, best_rows = (best.cpu() for best in top_k(*embeddings, 2))  # [Q, 2]
        margins = (best_scores[:, :1] - best_scores[:, 1:]).flatten()  # [Q], or [0]: one image leads no other
        right = [any(row in own for row in best[:1]) for best, own in zip(best_rows.tolist(), rows, strict=True)]
        return (
            score_thresholds(*embeddings, compressed_rows(rows), precisions),
            margin_thresholds(margins, torch.tensor(right, dtype=torch.bool)[: len(margins)], precisions),
        )

    def _best(self, k: int) -> tuple[Tensor, Tensor]:
        """Find scores and rows of each query's k best images, ``[Q, min(k, N)]``, and keep them for who asks again."""
        gathered = self._gather()
        if k not in gathered.best:
            gathered.best[k] = top_k(gathered.query_embeddings, gathered.image_embeddings, k)
        return gathered.best[k]

    def _relevant_rows(self) -> list[list[int]]:
        """List, for each query that came, the rows of its relevant images among those that came."""
        assert self.positives is not None
        gathered = self._gather()
        row_of = {self.ids["image"][index]: row for row, index in enumerate(gathered.image_indices)}
        return [
            [row_of[image] for image in self.positives[index] if image in row_of] for index in gathered.query_indices
        ]

    def _ids_at(self, side: Side, indices: list[int], device: torch.device) -> Tensor:
        return torch.tensor([self.ids[side][index] for index in indices], dtype=torch.int64, device=device)

    def _check_split(self) -> None:
        for side, ids in self.ids.items():
            repeated = [identity for identity, count in Counter(ids).items() if count > 1]
            if repeated:
                raise UserError(f"{side}_ids has {some(repeated)} more than once; each id of a split must be its own.")
        for name, values in (("positives", self.positives), ("groups", self.groups)):
            if values is not None and len(values) != len(self.ids["query"]):
                raise UserError(f"{name} has {len(values)} entries; query_ids has {len(self.ids['query'])}: one each.")
        if self.positives is not None and self.ids["query"] and not any(self.positives):
            raise UserError("positives is empty for every query; for a split without answers pass positives=None.")

    def _gather(self) -> Gathered:
        """Gather all rows in file order, checked; the same on every process, so that all raise or none does."""
        if self._gathered is None:
            own = not self._is_synced
            with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=own, should_unsync=own):
                queries, images = self._rows("query"), self._rows("image")
            query_indices, query_rows = self._in_file_order("query", *queries)
            image_indices, image_rows = self._in_file_order("image", *images)
            width = max(query_rows.shape[1], image_rows.shape[1])  # a side without rows does not know it
            query_rows, image_rows = (rows if len(rows) else rows.view(0, width) for rows in (query_rows, image_rows))
            self._gathered = Gathered(query_indices, query_rows, image_indices, image_rows, best={})
        return self._gathered

    def _rows(self, side: Side) -> tuple[Tensor, Tensor]:
        """Return ids ``[n] int64`` and embeddings ``[n, D] float32`` that the state holds now."""
        ids, embeddings = getattr(self, f"{side}_ids"), getattr(self, f"{side}_embeddings")
        if isinstance(ids, list) and not ids:
            return torch.empty(0, dtype=torch.int64, device=self.device), torch.empty(0, 0, device=self.device)
        return dim_zero_cat(ids), dim_zero_cat(embeddings)

    def _in_file_order(self, side: Side, ids: Tensor, embeddings: Tensor) -> tuple[list[int], Tensor]:
        came, index_of = ids.tolist(), {identity: index for index, identity in enumerate(self.ids[side])}
        check_ids(came, index_of, metric="RetrievalRecall", what=f"{side} ids", complete=self.complete)
        broken = rows_not_finite(embeddings)
        if broken:
            ids_shown = some([came[row] for row in broken])
            raise RuntimeError(
                f"{len(broken)} of {len(came)} {side} embeddings are not finite (ids {ids_shown}): "
                "they have no rank. The training has diverged; lower the learning rate."
            )
        order = file_order(came, index_of)
        rows = torch.tensor(order, dtype=torch.int64, device=embeddings.device)
        return [index_of[came[row]] for row in order], embeddings[rows]

    def _sync_dist(self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None) -> None:
        """Gather, also from processes without rows."""
        for side in self.ids:
            getattr(self, f"{side}_ids").append(torch.empty(0, dtype=torch.int64, device=self.device))
        embeddings = {name: getattr(self, name) for name in ("query_embeddings", "image_embeddings")}
        offer_empty_batches(embeddings, self.device, process_group or self.process_group)
        super()._sync_dist(dist_sync_fn, process_group=process_group)
