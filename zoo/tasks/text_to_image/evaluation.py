"""FID, IS, KID, Fréchet distances and R-precision of generated images, during training and on the test split."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from zoo.callbacks.ema import EMA
from zoo.core.collected import CollectedRows
from zoo.core.evaluation import (
    Evaluation,
    EvaluationOptions,
    Part,
    data_module,
    parameter_count,
    save_image_grid,
    steps_done,
)
from zoo.errors import UserError, invalid
from zoo.io import write_json_lines
from zoo.tasks.text_to_image.contracts import GenerationTargets
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors, true_features
from zoo.tasks.text_to_image.grids import grid, nearest_grid
from zoo.tasks.text_to_image.metrics.attribute_accuracy import Probes, attribute_scores
from zoo.tasks.text_to_image.metrics.r_precision import distractor_records, mismatched_prompts
from zoo.tasks.text_to_image.metrics.scores import (
    distribution_scores,
    memorisation_scores,
    nearest,
    r_precision_scores,
)
from zoo.tasks.text_to_image.probes import train_probes
from zoo.tasks.text_to_image.report import check_monitored, print_scores

TOKENIZER_CEILING = "first_stage_"  # how the values of reconstructions are named


@dataclass(frozen=True)
class ScorerOptions(EvaluationOptions):
    """What generated images are scored by.

    Args:
        monitor: The logged number that ``best.ckpt`` is chosen by; null: none is kept.
        mode: Whether more of it is better (``max``) or less (``min``).
        metrics: Further metrics: see ``EvaluationOptions``. ``update`` may name ``images`` and ``true_images``
            (``[B, 3, S, S] uint8``), ``rows`` (``[B] int64``) and, of generated images, ``prompts`` (B texts).
        matcher: A retrieval checkpoint, a run's folder or an experiment's (its newest run), a CN-CLIP file or hub name:
            for R-precision, ``fd_clip`` and memorisation. It cannot be the model that re-ranked.
        inception: torch-fidelity's Inception: ``auto`` takes its weights from the cache or a download and otherwise
            does without and says so; ``none`` does without; or their file.
        features: Image towers with published weights, for further Fréchet distances: ``timm:NAME``.
    """

    matcher: str | None = None
    inception: str = "auto"
    features: list[str] = field(default_factory=list)

    def load(self) -> FeatureExtractors:
        """Load the models that score."""
        return FeatureExtractors(matcher=self.matcher, inception=self.inception, features=self.features)


@dataclass(frozen=True)
class GenerationEvaluationOptions(ScorerOptions):
    """What is asked of the evaluation of generated images, beside what they are scored by.

    Args:
        prompts: Prompts on the grid; by default some of the split's, spread evenly, beside their true images.
        grid_seeds: Images of each prompt on the grid, 1 or more.
        memorisation: Whether every generated image is compared with every training image.

    Raises:
        UserError: ``grid_seeds`` is below 1.
    """

    prompts: list[str] = field(default_factory=list)
    grid_seeds: int = 4
    memorisation: bool = True

    def __post_init__(self) -> None:
        if self.grid_seeds < 1:
            raise invalid("evaluation.grid_seeds", self.grid_seeds, "give 1 or more")


DEFAULTS = GenerationEvaluationOptions()


@dataclass
class _Collected:
    """What is collected of the prompts of one split."""

    collected: CollectedRows
    read: Tensor | None  # [N, D], the matcher's vectors of the prompts
    distractors: Tensor | None  # [N, K], what each prompt is held against
    seconds: float = 0.0  # that sampling took on this process
    images: int = 0  # that this process generated


class GenerationEvaluation(Evaluation):
    """Generates the prompts of a split and scores the images, at every validation and at test.

    Logged as ``val/fid``, ``val/kid``, ``val/is`` (of Inception alone), ``val/fd_NAME``, ``val/precision_NAME``,
    ``val/recall_NAME``, ``val/r_precision`` with its controls (``_std``, ``_true``: the ceiling of the true
    images, ``_shuffled``, ``_chance``), ``val/attribute_accuracy`` with ``_true`` and ``_shuffled`` likewise, where the
    data say what images show (``AttributeAccuracy``), ``val/copied`` and ``val/nearest_training`` (memorisation),
    ``val/loss``; ``test/…`` likewise, and there of a generator with an image tokenizer ``r_precision_first_stage`` and
    ``fd_NAME_first_stage``, of the true images through it: the ceiling; ``val_train/…`` and ``test_train/…``, of
    training prompts, where the data module has ``train_images``. The true side is every image of the split, at
    the generator's size, and its features are cached.
    With ``EMA`` the averaged weights are scored. The same on any number of processes.
    ``grids/`` in the run gets a grid of fixed prompts, each by the same seeds every time, and an image grid of the
    images nearest to a training image.

    Args:
        options: What is asked of it.
    """

    def __init__(self, options: GenerationEvaluationOptions = DEFAULTS) -> None:
        super().__init__(options)
        self.extractors: FeatureExtractors = None  # type: ignore[assignment]  # loaded by setup()
        self.distractors: dict[str, Tensor] = {}  # by split
        self.probes: Probes | None = None  # trained by the first evaluation of images that say what they show

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Load the extractors, before anything is trained that they could not score."""
        if stage == "predict":
            return
        data = data_module(trainer, self)
        if data.image_size not in ("auto", pl_module.image_size):
            raise UserError(
                f"data.image_size is {data.image_size} and the generator makes {pl_module.image_size} px: the images"
                " are compared at one size; leave it at auto"
            )
        if self.extractors is not None or (stage == "fit" and trainer.limit_val_batches == 0):
            return
        self.extractors = self.options.load()
        self.extractors.refuse(pl_module.sampling["reranker"])
        if stage == "fit":
            check_monitored(trainer, self.extractors, data.targets("valid"))
        if self.extractors.lacking and trainer.is_global_zero:
            print(f"No FID, KID and IS: {self.extractors.lacking}", file=sys.stderr)

    def begin(self, trainer: L.Trainer, task: Any, part: Part) -> _Collected:
        """Make what collects the features of the generated images."""
        self.extractors.to(task.device)
        names = [*self.extractors.keys_for(part.targets), "loss"]
        if trainer.testing and getattr(task.generator, "image_tokenizer", None) is not None:
            names += [f"{TOKENIZER_CEILING}{extractor}" for extractor in self.extractors.by_name]
        collected = CollectedRows(part.targets.rows, names=names, complete=part.complete).to(task.device)
        if self.extractors.matcher is None:
            return _Collected(collected, None, None)
        if part.split not in self.distractors:
            self.distractors[part.split] = mismatched_prompts(part.targets)
        return _Collected(collected, self.extractors.read(part.targets.texts).cpu(), self.distractors[part.split])

    def update(self, trainer: L.Trainer, task: Any, part: Part, outputs: Any, batch: Any) -> dict[str, Any]:
        """Extract the features of a batch of images."""
        values = {
            **self.extractors.extract_features(outputs["images"], self.extractors.names_for(part.targets)),
            "loss": outputs["loss"].float().expand(len(batch["row"])),
        }
        if "reconstructions" in outputs:
            features = self.extractors.extract_features(outputs["reconstructions"])
            values |= {f"{TOKENIZER_CEILING}{extractor}": features[extractor] for extractor in self.extractors.by_name}
        part.rows.collected.update(batch["row"], **values)
        part.rows.seconds += outputs["seconds"]
        part.rows.images += len(batch["row"])
        return {
            "images": outputs["images"],
            "true_images": batch["image"],
            "prompts": batch["text"],
            "rows": batch["row"],
        }

    def compute(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Score the images, and what they are to be held against."""
        rows, values = part.rows.collected.gathered()
        rows, values = rows.cpu(), {name: value.cpu() for name, value in values.items()}
        true = self._true_features(trainer, part.split, self.extractors.names_for(part.targets))
        spaces = {name: true[name] for name in self.extractors.by_name}
        scores = distribution_scores(values, spaces)
        read, distractors = part.rows.read, part.rows.distractors
        if read is not None and distractors is not None:
            scores |= r_precision_scores(values["clip"], rows, part.targets.texts, read, true["clip"], distractors)
        scores |= self._image_tokenizer_scores(values, rows, part.targets, read, spaces, distractors)
        scores |= self._attribute_scores(trainer, part.targets, rows, values, true)
        scores["loss"] = values["loss"].mean().item()
        if self.options.memorisation and part.split != "train":
            scores |= self._memorisation(trainer, task, part, rows, values, true)
        return scores

    def describe(self, trainer: L.Trainer, task: Any, part: Part) -> dict[str, Any]:
        """Say how many images were generated and compared, by whom, and how."""
        measured = {}
        if trainer.testing:
            measured["seconds_per_image"] = round(part.rows.seconds / part.rows.images, 4)
            measured["parameters"] = parameter_count(task.generator)
        return {
            "generated": len(part.rows.collected.gathered()[0]),
            "true": len(part.targets.texts),
            "extractors": self.extractors.protocol,
            **({} if self.probes is None else {"attributes": f"linear probes of {self.extractors.probed}"}),
            "sampling": task.sampling,
            "averaged_weights": any(isinstance(each, EMA) and each.swapped for each in trainer.callbacks),  # type: ignore[attr-defined]
            **measured,
        }

    def report(
        self, trainer: L.Trainer, task: Any, part: Part, numbers: dict[str, float], protocol: dict[str, Any]
    ) -> None:
        """Print the scores, save the image grid and the distractors."""
        if trainer.is_global_zero:
            print_scores(numbers, title=f"{part.name}, step {protocol['step']}", protocol=protocol)
        if self.options.prompts and part is not self.parts[0]:
            return  # they are on the first one's grid
        grid_image = grid(
            task.generator,
            data_module(trainer, self),
            part.targets,
            prompts=self.options.prompts or None,
            seeds=self.options.grid_seeds,
            extractors=self.extractors,
            read=part.rows.read,
            distractors=part.rows.distractors,
        )
        if trainer.is_global_zero:
            save_image_grid(trainer, grid_image, part.name, f"{part.name}/grid", protocol["step"])
            path = Path(trainer.default_root_dir) / f"distractors_{part.split}.jsonl"
            if part.rows.distractors is not None and not path.exists():
                records = distractor_records(part.targets.image_ids, part.targets.texts, part.rows.distractors)
                write_json_lines(path, records)

    def _image_tokenizer_scores(
        self,
        values: dict[str, Tensor],
        rows: Tensor,
        targets: GenerationTargets,
        read: Tensor | None,
        true: dict[str, Tensor],
        distractors: Tensor | None,
    ) -> dict[str, float]:
        """The ceiling that the image tokenizer sets, where there is one: the scores of the true images through it."""
        seen = {
            name.removeprefix(TOKENIZER_CEILING): value
            for name, value in values.items()
            if name.startswith(TOKENIZER_CEILING)
        }
        if not seen:
            return {}
        of_it = {name: features for name, features in true.items() if name != "inception"}
        found = distribution_scores(seen, of_it)
        if read is not None and distractors is not None:
            found |= r_precision_scores(seen["clip"], rows, targets.texts, read, None, distractors)
        kept = {name: value for name, value in found.items() if name.startswith("fd_") or name == "r_precision"}
        return {f"{name}_first_stage": value for name, value in kept.items()}

    def _attribute_scores(
        self,
        trainer: L.Trainer,
        targets: GenerationTargets,
        rows: Tensor,
        values: dict[str, Tensor],
        true: dict[str, Tensor],
    ) -> dict[str, float]:
        """Attribute accuracy, where the data say what images show."""
        if targets.shown is None:
            return {}
        if self.probes is None:
            self.probes = train_probes(self.extractors, data_module(trainer, self), **_processes(trainer))
        if self.probes is None:
            return {}
        name = self.extractors.probed
        return attribute_scores(self.probes, targets.texts, targets.shown, rows, values[name], true[name])

    def _true_features(self, trainer: L.Trainer, split: str, names: list[str]) -> dict[str, Tensor]:
        """Those of all images of a split."""
        return true_features(self.extractors, data_module(trainer, self), split, names=names, **_processes(trainer))

    def _memorisation(
        self,
        trainer: L.Trainer,
        task: Any,
        part: Part,
        rows: Tensor,
        values: dict[str, Tensor],
        true: dict[str, Tensor],
    ) -> dict[str, float]:
        """Compare with the training images, in the matcher's features, or else the first that there are."""
        name = self.extractors.first
        training = self._true_features(trainer, "train", [name])[name]
        similarity, places = nearest(values[name], training)
        grid_image = nearest_grid(task, data_module(trainer, self), part.targets, rows, similarity, places)
        if trainer.is_global_zero:
            save_image_grid(
                trainer, grid_image, f"{part.name}-nearest", f"{part.name}/nearest", steps_done(trainer, task)
            )
        return memorisation_scores(similarity, nearest(true[name], training)[0])


def _processes(trainer: L.Trainer) -> dict[str, Any]:
    """Say to ``true_features`` that all processes read images together, or all find features in the cache."""
    return {
        "agree": lambda found: trainer.strategy.reduce_boolean_decision(found, all=True),
        "write": trainer.is_global_zero,
    }
