"""The submission of text to image, written by ``predict``, and taken up again where it stopped."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import lightning as L
from PIL import Image

from zoo.callbacks.ema import EMA
from zoo.core.evaluation import data_module
from zoo.core.submission import Submission
from zoo.core.weights import weights_hash
from zoo.data.formats import write_image_tsv
from zoo.data.images import decode_base64, encode_base64
from zoo.data.layouts import ECOMMERCE_T2I
from zoo.io import write_text
from zoo.tasks.text_to_image.contracts import GenerationTargets


class TextToImageSubmission(Submission):
    """Writes an image of every prompt to ``predictions/T2I_SPLIT.tsv`` in the run: id, tab, base64 of a PNG.

    The file appears whole or not at all, in the prompts' order, on any number of processes. What is generated is kept
    beside it until then, so that the same command resumes after an interruption; images of other weights, seeds or
    data are not taken. ``T2I_SPLIT.json`` beside it says how the images were generated, the model that re-ranked them
    too, which ``score text_to_image`` will not take for a matcher. The split is the data module's ``predict_split``.
    """

    rows = "description"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """See what is generated already, before the loader is made.

        Raises:
            UserError: There is no data module.
        """
        if stage != "predict":
            return
        data = data_module(trainer, self)
        self.targets: GenerationTargets = data.targets(data.predict_split)
        self.protocol = {
            "data": self.targets.source,
            "split": self.targets.split,
            "image_size": pl_module.image_size,
            "checkpoint": _file_hash(trainer.ckpt_path) if trainer.ckpt_path else weights_hash(pl_module),
            "averaged_weights": any(isinstance(callback, EMA) for callback in trainer.callbacks),  # type: ignore[attr-defined]
            "sampling": pl_module.sampling,
            "precision": str(trainer.precision),
        }
        digest = hashlib.sha256(json.dumps(self.protocol, sort_keys=True).encode()).hexdigest()[:12]
        self.file = self.path(trainer, f"T2I_{ECOMMERCE_T2I.split_name(self.targets.split)}.tsv")
        self.parts = self.file.with_name(f".{self.file.stem}.{digest}.parts")
        done = sorted({row for row, _ in self._drawn()})
        done = done[: max(0, len(self.targets.texts) - trainer.world_size)]  # each process must have something to do
        done = trainer.strategy.broadcast(done)  # others may generate already
        data.skip_rows = set(done)
        if done and trainer.is_global_zero:
            print(f"{self.file}: {len(done)} of {len(self.targets.texts)} images are generated already: resuming")

    def begin(self, trainer: L.Trainer, task: Any, data: Any) -> None:
        """Open the file that this process adds to."""
        self.parts.mkdir(parents=True, exist_ok=True)
        name = f"{trainer.global_rank}-{os.getpid()}-{secrets.token_hex(4)}.tsv"
        self.part = (self.parts / name).open("ab")

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep a batch of images."""
        images = outputs.permute(0, 2, 3, 1).cpu().numpy()
        for row, image in zip(batch["row"].tolist(), images, strict=True):
            buffer = BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            self.part.write(b"%d\t%s\n" % (row, encode_base64(buffer.getvalue())))
        self.part.flush()

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the images together and write the file."""
        self.part.close()
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        found = dict(self._drawn())
        missing = [self.targets.image_ids[row] for row in range(len(self.targets.texts)) if row not in found]
        if missing:
            raise RuntimeError(f"{len(missing)} images were not generated (ids {', '.join(missing[:5])})")
        write_image_tsv(self.file, ((self.targets.image_ids[row], found[row]) for row in sorted(found)))
        write_text(self.file.with_suffix(".json"), json.dumps(self.protocol, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(self.parts)
        print(f"{self.file}: {len(found)} images of {self.targets.split}'s prompts")

    def _drawn(self) -> Iterator[tuple[int, bytes]]:
        """Rows and images that are kept; a line that was cut short is none."""
        for part in sorted(self.parts.glob("*.tsv")):
            for line in part.read_bytes().splitlines(keepends=True):
                row, _, encoded = line.rstrip(b"\n").partition(b"\t")
                if line.endswith(b"\n"):
                    yield int(row), decode_base64(encoded)


def _file_hash(path: Any) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
