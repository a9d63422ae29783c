"""PSNR, SSIM, Fréchet distances and the use of the codebook of an image tokenizer, during training and at test."""

import sys
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from PIL.Image import Image

from zoo.core.collected import CollectedRows
from zoo.core.evaluation import Evaluation, Part, data_module, parameter_count, save_image_grid
from zoo.core.grids import GridRow, image_grid
from zoo.data.images import resize
from zoo.tasks.image_tokenizer.metrics import SSIM_WINDOW, image_similarity
from zoo.tasks.text_to_image.contracts import GenerationTargets
from zoo.tasks.text_to_image.evaluation import ScorerOptions
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors, true_features
from zoo.tasks.text_to_image.metrics.r_precision import mismatched_prompts
from zoo.tasks.text_to_image.metrics.scores import distribution_scores, r_precision_scores
from zoo.tasks.text_to_image.report import check_monitored, print_scores

GRID_ROWS = 10


@dataclass(frozen=True)
class ReconstructionEvaluationOptions(ScorerOptions):
    """What is asked of the evaluation of reconstructions: see ``ScorerOptions``."""

    monitor: str | None = "val/psnr"
    mode: Literal["max", "min"] = "max"


DEFAULTS = ReconstructionEvaluationOptions()


class ReconstructionEvaluation(Evaluation):
    """Encodes and decodes the images of a split and scores what is left of them, at every validation and at test.

    Logged as ``val/psnr`` (decibels) and ``val/ssim`` (percent), means over the images, at 8 bits;
    ``val/codebook_usage`` (the share of the codes that the split uses, in percent); ``val/rfid`` of Inception,
    ``val/fd_NAME`` of any other extractor; with a matcher ``val/r_precision``, a ceiling of any generator that writes
    these codes, beside the true images'; ``test/…`` likewise, and ``val_train/…`` of training images where the data
    module has ``train_images``. The same on any number of processes. ``grids/`` in the run gets a
    image grid of images with their reconstructions.

    Args:
        options: What is asked of it.
    """

    def __init__(self, options: ReconstructionEvaluationOptions = DEFAULTS) -> None:
        super().__init__(options)
        self.extractors: FeatureExtractors = None  # type: ignore[assignment]  # loaded by setup()

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Load the extractors."""
        unused = stage == "predict" or (stage == "fit" and trainer.limit_val_batches == 0)
        if unused or self.extractors is not None:
            return
        self.extractors = self.options.load()
        targets = data_module(trainer, self).targets("test" if stage == "test" else "valid")
        if stage == "fit":
            check_monitored(trainer, self.extractors, targets)
        if self.extractors.lacking and trainer.is_global_zero:
            print(f"No rFID: {self.extractors.lacking}", file=sys.stderr)
        if self.extractors.matcher is not None and not targets.texts and trainer.is_global_zero:
            print(f"No R-precision: {targets.source} have no descriptions of their own", file=sys.stderr)

    def begin(self, trainer: L.Trainer, task: Any, part: Part) -> CollectedRows:
        """Make what collects codes, features and similarities."""
        self.extractors.to(task.device)
        names = [
            *self.extractors.by_name,
            *(["logits"] if "inception" in self.extractors.by_name else []),
            "codes",
            "psnr",
        ]
        names += ["ssim"] if task.image_size >= SSIM_WINDOW else []
        return CollectedRows(part.targets.rows, names=names, complete=part.complete).to(task.device)

    def update(self, trainer: L.Trainer, task: Any, part: Part, outputs: Any, batch: Any) -> dict[str, Any]:
        """Extract the features of a batch of reconstructions."""
        features = self.extractors.extract_features(outputs["images"])
        similarity = image_similarity(outputs["images"], batch["image"])
        part.rows.update(batch["row"], codes=outputs["codes"].flatten(1), **features, **similarity)
        return {
            "images": outputs["images"],
            "true_images": batch["image"],
            "codes": outputs["codes"],
            "rows": batch["row"],
        }

    def compute(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Score the reconstructions and count the codes that they use."""
        rows, gathered = part.rows.gathered()
        rows, values = rows.cpu(), {name: value.cpu() for name, value in gathered.items()}
        true = true_features(
            self.extractors,
            data_module(trainer, self),
            part.split,
            agree=lambda found: trainer.strategy.reduce_boolean_decision(found, all=True),
            write=trainer.is_global_zero,
        )
        scores = distribution_scores(values, true)
        texts = part.targets.texts
        if self.extractors.matcher is not None and texts:
            read, distractors = self.extractors.read(texts).cpu(), mismatched_prompts(part.targets)
            scores |= r_precision_scores(values["clip"], rows, texts, read, true["clip"], distractors)
        scores |= {name: values[name].double().mean().item() for name in ("psnr", "ssim") if name in values}
        scores["codebook_usage"] = 100 * len(values["codes"].unique()) / task.image_tokenizer.num_codes
        return {"rfid" if name == "fid" else name: value for name, value in scores.items()}

    def describe(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Say how many images were compared, by whom, and through which codes."""
        return {
            "generated": len(part.rows.gathered()[0]),
            "true": len(part.targets.image_ids),
            "extractors": self.extractors.protocol,
            "image_tokenizer": task.hparams.get("image_tokenizer", type(task.image_tokenizer).__name__),
            "image_tokenizer_options": task.hparams["image_tokenizer_options"],
            "parameters": parameter_count(task.image_tokenizer),
            "codes_per_image": (task.image_size // task.image_tokenizer.factor) ** 2,
            "codebook": task.image_tokenizer.num_codes,
        }

    def report(
        self, trainer: L.Trainer, task: Any, part: Part, numbers: dict[str, float], protocol: dict[str, Any]
    ) -> None:
        """Print the scores, save the image grid."""
        grid_image = self._grid(data_module(trainer, self), task, part.targets)
        if not trainer.is_global_zero:
            return
        scores = {"fid" if name == "rfid" else name: value for name, value in numbers.items()}
        print_scores(scores, title=f"{part.name}, step {protocol['step']}: reconstructions", protocol=protocol)
        save_image_grid(trainer, grid_image, part.name, f"{part.name}/reconstructions", protocol["step"])

    def _grid(self, data: Any, task: Any, targets: GenerationTargets) -> Image:
        """Images of the split, spread evenly, and their reconstructions below them."""
        spread = torch.linspace(0, len(targets.rows) - 1, min(GRID_ROWS, len(targets.rows))).round().long()
        rows = [targets.rows[place] for place in spread.tolist()]
        squares = [resize(data.image(targets.split, row), task.image_size) for row in rows]
        images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(task.device)
        decoded = task.image_tokenizer.decode(task.image_tokenizer.encode(images))
        lines = [("true", images), ("reconstruction", decoded)]
        return image_grid(
            [
                GridRow(text=name, images=list(each.permute(0, 2, 3, 1).cpu().numpy()), hits=[False] * len(rows))
                for name, each in lines
            ],
            titles=[""] * len(rows),
        )
