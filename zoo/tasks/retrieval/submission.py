"""The official submission file, written by ``predict``."""

from typing import Any, Literal

import lightning as L

from zoo.core.submission import Submission
from zoo.data.formats import Query, write_queries
from zoo.errors import UserError
from zoo.tasks.retrieval.metrics import RetrievalRecall


class RetrievalSubmission(Submission):
    """A writer of each query's ten best images, best first, to ``predictions/MR_SPLIT_queries.jsonl`` in the run.

    The ranking is exact over the whole gallery, on any number of processes, and the file appears whole or not at all.

    The split and the schema are the data module's ``predict_split`` and ``submission_schema``.
    """

    rows = "query and image"

    def begin(self, trainer: L.Trainer, task: Any, data: Any) -> None:
        """Start with no embeddings; raise UserError where the gallery is too small."""
        self.schema = data.submission_schema
        self.targets = data.targets(data.predict_split)
        if len(self.targets.image_ids) < 10:
            raise UserError(
                f"the {self.targets.split} split has {len(self.targets.image_ids)} images: a submission names 10"
            )
        self.metric = RetrievalRecall(
            query_ids=self.targets.query_ids, image_ids=self.targets.image_ids, positives=None, groups=None
        ).to(task.device)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take in a batch of embeddings."""
        side: Literal["query", "image"] = "image" if "image" in batch else "query"
        self.metric.update(batch[f"{side}_id"], outputs, side=side)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Rank, and write the file."""
        _, image_ids, _ = self.metric.ranking(10)
        if trainer.is_global_zero:
            names = {
                "muge": f"MR_{self.targets.split}_queries.jsonl",
                "cn_clip": f"{self.targets.split}_texts.jsonl",
            }
            path = self.path(trainer, names[self.schema])
            submission = [
                Query(query_id=query_id, text=text, item_ids=tuple(items))
                for query_id, text, items in zip(
                    self.targets.query_ids, self.targets.texts, image_ids.tolist(), strict=True
                )
            ]
            write_queries(path, submission, schema=self.schema)
            print(f"{path}: {len(submission)} queries, the 10 best of {len(self.targets.image_ids)} images each")
