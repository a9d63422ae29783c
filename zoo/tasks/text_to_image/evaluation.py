"""FID, IS, KID, Fréchet distances and R-precision of generated pictures, during training and on the test split."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.callbacks.ema import EMA
from zoo.core.collected import CollectedRows
from zoo.core.reporting import (
    check_monitored,
    data_module,
    log_numbers,
    parameter_count,
    print_scores,
    save_sheet,
    steps_done,
    write_results,
)
from zoo.errors import UserError
from zoo.io import write_json_lines
from zoo.tasks.text_to_image.contracts import GenerationGold
from zoo.tasks.text_to_image.feature_extractors import Judges, true_features
from zoo.tasks.text_to_image.grids import grid, nearest_sheet
from zoo.tasks.text_to_image.metrics.r_precision import distractor_records, draw_distractors
from zoo.tasks.text_to_image.metrics.scores import distribution_scores, memorisation_scores, nearest, r_precision_scores

FIRST_STAGE = "first_stage_"  # how the values of reconstructions are named


@dataclass
class _Drawn:
    """What is collected of the descriptions of one loader."""

    gold: GenerationGold
    name: str  # how the names of its numbers begin: val, val_train, val_partial, test, …
    metrics: dict[str, CollectedRows]  # by how the names begin: of the averaged weights, then of the raw ones
    seconds: float = 0.0  # that drawing took on this process
    pictures: int = 0  # that this process drew


class GenerationEvaluation(Callback):
    """Draws the descriptions of a split and scores the pictures, at every validation and at test.

    Logged as ``val/fid``, ``val/kid``, ``val/is`` (of Inception alone), ``val/fd_<judge>``, ``val/precision_<judge>``,
    ``val/recall_<judge>``, ``val/r_precision`` with its controls (``_std``, ``_true``: the ceiling of the true
    pictures, ``_shuffled``, ``_chance``), ``val/copied`` and ``val/nearest_training`` (memorisation), ``val/loss``;
    ``test/…`` likewise, and there of a generator with a first stage ``r_precision_first_stage`` and
    ``fd_<judge>_first_stage``, of the true pictures through it: the ceiling; ``val_train/…`` and ``test_train/…``, of
    training descriptions, where the data module has ``train_pictures``. The true side is every picture of the split, at
    the generator's size, and its features are cached. Step 0, before training, is the sanity check: run it whole
    (``num_sanity_val_steps: -1``). With ``EMA`` the averaged weights are scored. The same on any number of processes.
    ``pictures/`` in the run gets a grid of fixed descriptions, each by the same seeds every time, and a sheet of the
    pictures nearest to a training picture.

    Args:
        matcher: A retrieval checkpoint, a run's folder or an experiment's (its newest run), a CN-CLIP file or hub name:
            for R-precision, ``fd_clip`` and memorisation. It cannot be the model that re-ranked.
        inception: torch-fidelity's Inception: ``auto`` takes its weights from the cache or a download and otherwise
            does without and says so; ``none`` does without; or their file.
        features: Image towers with published weights, for further Fréchet distances: ``timm:NAME``.
        prompts: Descriptions on the grid; by default some of the split's, spread evenly, beside their true pictures.
        grid_seeds: Pictures of each description on the grid.
        raw_too: Whether the raw weights are scored beside their averages, as ``val_raw/…``; it takes twice the time.
        memorisation: Whether every generated picture is compared with every training picture.
    """

    def __init__(
        self,
        *,
        matcher: str | None = None,
        inception: str = "auto",
        features: list[str] | None = None,
        prompts: list[str] | None = None,
        grid_seeds: int = 4,
        raw_too: bool = False,
        memorisation: bool = True,
    ) -> None:
        if grid_seeds < 1:
            raise UserError(f"GenerationEvaluation: grid_seeds is {grid_seeds}: give 1 or more")
        self.sources = {"matcher": matcher, "inception": inception, "features": features or []}
        self.prompts = prompts
        self.grid_seeds = grid_seeds
        self.raw_too = raw_too
        self.memorisation = memorisation
        self.judges: Judges | None = None
        self.drawn: list[_Drawn] = []  # by loader

    # --- hooks -------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Load the judges, before anything is trained that they could not score."""
        if stage == "predict":
            return
        data = data_module(trainer, self)
        if data.image_size not in ("auto", pl_module.image_size):
            raise UserError(
                f"data.image_size is {data.image_size} and the generator draws {pl_module.image_size} px: the pictures"
                " are compared at one size; leave it at auto"
            )
        if self.judges is not None:
            return
        self.judges = Judges(**self.sources)  # type: ignore[arg-type]
        self.judges.refuse(pl_module.sampling["reranker"])
        if stage == "fit":
            check_monitored(trainer, self.judges, data.gold("val"))
        if self.judges.lacking and trainer.is_global_zero:
            print(f"No FID, KID and IS: {self.judges.lacking}", file=sys.stderr)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._start(trainer, pl_module, "val", batches, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start empty."""
        self._start(trainer, pl_module, "test", trainer.num_test_batches, trainer.test_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at a batch of pictures."""
        self._update(pl_module, outputs, batch, batch_idx, self.drawn[dataloader_idx])

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw."""
        for drawn in self.drawn:
            self._finish(trainer, pl_module, drawn)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score, log, print, draw; write ``test.json``."""
        logged: dict[str, float] = {}
        for drawn in self.drawn:
            logged |= self._finish(trainer, pl_module, drawn)
        first = self.drawn[0]
        if trainer.is_global_zero and first.name == "test":
            protocol = self._protocol(trainer, pl_module, first.gold)
            protocol["seconds_per_picture"] = round(first.seconds / first.pictures, 4)
            generator: Any = pl_module.generator
            protocol["parameters"] = parameter_count(generator)
            write_results(Path(trainer.default_root_dir) / "test.json", logged, protocol)

    # --- the same for all splits -------------------------------------------------------------------------------

    def _start(self, trainer: L.Trainer, pl_module: Any, verb: str, batches: list[Any], loaders: Any) -> None:
        assert self.judges is not None
        self.judges.to(pl_module.device)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.ema = next((callback for callback in trainer.callbacks if isinstance(callback, EMA)), None)  # type: ignore[attr-defined]
        names = [*self.judges.judges, *(["logits"] if "inception" in self.judges.judges else []), "loss"]
        if verb == "test" and getattr(pl_module.generator, "first_stage", None) is not None:
            names += [f"{FIRST_STAGE}{judge}" for judge in self.judges.judges]
        splits = data.drawn_splits(verb)
        loaders = loaders if isinstance(loaders, list) else [loaders]
        self.drawn = []
        for split, count, loader in zip(splits, batches, loaders, strict=True):
            gold: GenerationGold = data.gold(split)
            complete = trainer.strategy.reduce_boolean_decision(count == len(loader), all=True)
            name = verb if split == verb else f"{verb}_{split}"
            prefixes = [name if complete else f"{name}_partial"]
            if self.raw_too and self.ema and self.ema.swapped and complete:
                prefixes.append(f"{name}_raw")
            metrics = {
                prefix: CollectedRows(gold.rows, names=names, complete=complete).to(pl_module.device)
                for prefix in prefixes
            }
            self.drawn.append(_Drawn(gold, prefixes[0], metrics))

    def _update(self, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, drawn: _Drawn) -> None:
        for place, metric in enumerate(drawn.metrics.values()):
            if place == 1:
                assert self.ema is not None
                with self.ema.raw_weights(pl_module):
                    outputs = pl_module.validation_step(batch, batch_idx)
            assert self.judges is not None
            values = {
                **self.judges.look(outputs["pictures"]),
                "loss": outputs["loss"].float().expand(len(batch["row"])),
            }
            if "reconstructions" in outputs:
                looked = self.judges.look(outputs["reconstructions"])
                values |= {f"{FIRST_STAGE}{judge}": looked[judge] for judge in self.judges.judges}
            metric.update(batch["row"], **values)
            drawn.seconds += outputs["seconds"]
            drawn.pictures += len(batch["row"])

    def _finish(self, trainer: L.Trainer, pl_module: Any, drawn: _Drawn) -> dict[str, float]:
        """Score, log, print and draw one loader's descriptions; what was logged, but for the raw weights'."""
        everything: dict[str, float] = {}
        assert self.judges is not None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        gold = drawn.gold
        true = self._true_features(trainer, gold.split)
        read = distractors = None
        if self.judges.matcher is not None:
            read, distractors = self.judges.read(gold.texts).cpu(), draw_distractors(gold.texts)
        for prefix, metric in drawn.metrics.items():
            rows, values = metric.gathered()
            rows, values = rows.cpu(), {name: value.cpu() for name, value in values.items()}
            scores = distribution_scores(values, true)
            if read is not None and distractors is not None:
                scores |= r_precision_scores(values["clip"], rows, gold.texts, read, true["clip"], distractors)
            scores |= self._first_stage_scores(values, rows, gold, read, true, distractors)
            scores["loss"] = values["loss"].mean().item()
            if self.memorisation and gold.split != "train":
                scores |= self._memorisation(trainer, pl_module, gold, prefix, rows, values, true)
            logged = {f"{prefix}/{key}": value for key, value in scores.items() if not math.isnan(value)}
            log_numbers(trainer, pl_module, logged)
            everything = logged if prefix == drawn.name else everything
            if trainer.is_global_zero:
                protocol = self._protocol(trainer, pl_module, gold, len(rows))
                print_scores(scores, title=f"{prefix}, step {protocol['step']}", protocol=protocol)
        if self.prompts and drawn is not self.drawn[0]:
            return everything  # they are on the first one's grid
        sheet = grid(
            pl_module.generator,
            data,
            gold,
            prompts=self.prompts,
            seeds=self.grid_seeds,
            judges=self.judges,
            read=read,
            distractors=distractors,
        )
        if trainer.is_global_zero:
            save_sheet(trainer, sheet, drawn.name, f"{drawn.name}/grid", steps_done(trainer, pl_module))
            path = Path(trainer.default_root_dir) / f"distractors_{gold.split}.jsonl"
            if distractors is not None and not path.exists():
                write_json_lines(path, distractor_records(gold.image_ids, gold.texts, distractors))
        return everything

    def _first_stage_scores(
        self,
        values: dict[str, Tensor],
        rows: Tensor,
        gold: GenerationGold,
        read: Tensor | None,
        true: dict[str, Tensor],
        distractors: Tensor | None,
    ) -> dict[str, float]:
        """The ceiling that the first stage sets, where there is one: the scores of the true pictures through it."""
        seen = {name.removeprefix(FIRST_STAGE): value for name, value in values.items() if name.startswith(FIRST_STAGE)}
        if not seen:
            return {}
        of_it = {name: features for name, features in true.items() if name != "inception"}
        found = distribution_scores(seen, of_it)
        if read is not None and distractors is not None:
            found |= r_precision_scores(seen["clip"], rows, gold.texts, read, None, distractors)
        kept = {name: value for name, value in found.items() if name.startswith("fd_") or name == "r_precision"}
        return {f"{name}_first_stage": value for name, value in kept.items()}

    def _true_features(self, trainer: L.Trainer, split: str, names: list[str] | None = None) -> dict[str, Tensor]:
        """Those of all pictures of a split; all processes read them together, or all find them in the cache."""
        assert self.judges is not None
        return true_features(
            self.judges,
            trainer.datamodule,  # type: ignore[attr-defined]
            split,
            names=names,
            agree=lambda found: trainer.strategy.reduce_boolean_decision(found, all=True),
            write=trainer.is_global_zero,
        )

    def _memorisation(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        gold: GenerationGold,
        prefix: str,
        rows: Tensor,
        values: dict[str, Tensor],
        true: dict[str, Tensor],
    ) -> dict[str, float]:
        """Compare with the training pictures, in the matcher's features, or else the first that there are."""
        assert self.judges is not None
        name = self.judges.first
        training = self._true_features(trainer, "train", [name])[name]
        likeness, places = nearest(values[name], training)
        if not prefix.endswith("_raw"):
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            sheet = nearest_sheet(pl_module, data, gold, rows, likeness, places)
            if trainer.is_global_zero:
                save_sheet(trainer, sheet, f"{prefix}-nearest", f"{prefix}/nearest", steps_done(trainer, pl_module))
        return memorisation_scores(likeness, nearest(true[name], training)[0])

    def _protocol(
        self, trainer: L.Trainer, pl_module: Any, gold: GenerationGold, drawn: int | None = None
    ) -> dict[str, Any]:
        """What the numbers were measured on and how; ``drawn``, where not all of the descriptions were."""
        assert self.judges is not None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        return {
            "data": gold.source,
            "split": gold.split,
            "generated": len(gold.rows) if drawn is None else drawn,
            "true": len(gold.texts),
            "image_size": data.image_size,
            "judges": self.judges.protocol,
            "sampling": pl_module.sampling,
            "averaged_weights": bool(self.ema and self.ema.swapped),
            "precision": str(trainer.precision),
            "step": steps_done(trainer, pl_module),
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "weights": pl_module.weights,
        }
