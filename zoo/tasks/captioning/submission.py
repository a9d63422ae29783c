"""The captioning submission, written by ``predict``."""

from typing import Any

import lightning as L

from zoo.core.submission import Submission
from zoo.io import write_json_lines
from zoo.tasks.captioning.metrics.scores import CaptionScores


class CaptionSubmission(Submission):
    """Writes a caption of every image to ``predictions/IC_SPLIT.jsonl`` in the run: ``{"image_id": …, "text": …}``.

    The file appears whole or not at all, in the order of the split's own, on any number of processes. Captions that are
    empty or hold ``[UNK]`` are written and reported. The split is the data module's ``predict_split``.
    """

    rows = "image"

    def begin(self, trainer: L.Trainer, task: Any, data: Any) -> None:
        """Start with no captions."""
        self.targets = data.targets(data.predict_split)
        self.captions = CaptionScores([()] * len(self.targets.image_ids)).to(task.device)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take in a batch of captions."""
        self.captions.update(batch["row"], outputs)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather, and write the file."""
        _, captions = self.captions.gathered()
        if not trainer.is_global_zero:
            return
        path = self.path(trainer, f"IC_{self.targets.split}.jsonl")
        pairs = list(zip(self.targets.image_ids, captions, strict=True))
        write_json_lines(path, ({"image_id": image_id, "text": text} for image_id, text in pairs))
        print(f"{path}: captions of {len(captions)} images")
        for what, poor in (
            ("are empty", [image_id for image_id, text in pairs if not text.strip()]),
            ("hold [UNK]", [image_id for image_id, text in pairs if "[UNK]" in text]),
        ):
            if poor:
                print(f"{len(poor)} of them {what}: {', '.join(poor[:5])}{', …' if len(poor) > 5 else ''}")
