"""The official submission file, written by ``predict``."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback

from zoo.data.formats import Query, write_queries
from zoo.errors import UserError
from zoo.tasks.retrieval.metrics import RetrievalRecall


class RetrievalSubmission(Callback):
    """Writes each query's ten best pictures, best first, to ``predictions/MR_SPLIT_queries.jsonl`` in the run.

    The ranking is exact over the whole gallery, on any number of processes, and the file appears whole or not at all.

    The split and the schema are the data module's ``predict_split`` and ``submission_schema``.
    """

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start with no embeddings; refuse what cannot become a submission."""
        loaders: Any = trainer.predict_dataloaders
        if list(trainer.num_predict_batches) != [len(loader) for loader in loaders]:
            raise UserError("trainer.limit_predict_batches is set: a submission needs every query and picture; drop it")
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.schema = data.submission_schema
        self.gold = data.gold(data.predict_split)
        if len(self.gold.image_ids) < 10:
            raise UserError(
                f"the {self.gold.split} split has {len(self.gold.image_ids)} pictures: a submission names 10 a query"
            )
        self.metric = RetrievalRecall(
            query_ids=self.gold.query_ids, image_ids=self.gold.image_ids, positives=None, groups=None
        ).to(pl_module.device)

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
                "muge": f"MR_{self.gold.split}_queries.jsonl",
                "cn_clip": f"{self.gold.split}_texts.jsonl",
            }
            path = Path(trainer.default_root_dir) / "predictions" / names[self.schema]
            path.parent.mkdir(parents=True, exist_ok=True)
            submission = [
                Query(query_id=query_id, text=text, item_ids=tuple(items))
                for query_id, text, items in zip(self.gold.query_ids, self.gold.texts, image_ids.tolist(), strict=True)
            ]
            write_queries(path, submission, schema=self.schema)
            print(f"{path}: {len(submission)} queries, the 10 best of {len(self.gold.image_ids)} pictures each")
