"""The guard of a fine-tuning: told when it has made trained weights worse than they came."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from zoo.core.evaluation import data_module
from zoo.errors import UserError
from zoo.tasks.retrieval.evaluation import RetrievalEvaluation

METRIC = "val/mean_recall"


class ZeroShotGuard(Callback):
    """A warning after each whole validation whose ``val/mean_recall`` lies below step 0's, and what to change.

    It guards trainings that start from trained weights (``model.init_from``, or both towers' published ones). Step 0
    is the evaluation before training (``num_sanity_val_steps: -1``); a resumed run still compares with it. Its
    order among the callbacks, of which ``RetrievalEvaluation`` must be one, does not matter.

    Too high a learning rate for the batch is the usual cause. What suits a batch is taken to grow with it, from a
    reference that works: by default Chinese-CLIP's recipe for MUGE, 5e-5 for 8 processes of 128 pairs (Yang et al.
    2022, arXiv:2211.01335; run_scripts/muge_finetune_vit-b-16_rbt-base.sh).

    Args:
        reference_learning_rate: A peak learning rate that works, above 0.
        reference_batch_size: Pairs of an optimiser step, over all processes, that it works for; at least 1.

    Raises:
        UserError: A number is out of its range.
    """

    def __init__(self, reference_learning_rate: float = 5e-5, reference_batch_size: int = 1024) -> None:
        if not reference_learning_rate > 0:
            raise UserError(
                f"ZeroShotGuard: reference_learning_rate is {reference_learning_rate}: give a number above 0, as 5e-5"
            )
        if reference_batch_size < 1:
            raise UserError(f"ZeroShotGuard: reference_batch_size is {reference_batch_size}: give 1 or more pairs")
        self.reference_learning_rate = reference_learning_rate
        self.reference_batch_size = reference_batch_size
        self.zero_shot: float | None = None  # step 0's; none where nothing trained was loaded, or it was not measured

    # --- hooks -------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start without a step 0; a checkpoint's comes next.

        Raises:
            UserError: There is no ``RetrievalEvaluation``.
        """
        if stage == "fit":
            self.zero_shot = None
            evaluation_of(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember step 0, or compare with it; by now every callback has finished the evaluation."""
        if trainer.state.fn != "fit":
            return
        recall = evaluation_of(trainer).numbers.get(METRIC)  # none of an evaluation cut short
        if trainer.sanity_checking:
            if trainer.ckpt_path is None and trainer.global_step == 0:  # else step 0 is long past
                self.zero_shot = recall if starts_trained(pl_module) else None
        elif recall is not None and self.zero_shot is not None and recall < self.zero_shot:
            rank_zero_warn(
                f"{METRIC} is {recall:.2f} after step {trainer.global_step}, below the {self.zero_shot:.2f} of step 0,"
                f" the weights that this training started from. {self._advice(trainer, pl_module)}",
                category=RuntimeWarning,
            )

    def _advice(self, trainer: L.Trainer, task: Any) -> str:
        pairs, batches = data_module(trainer, self).batch_size, trainer.accumulate_grad_batches
        batch, rate = pairs * trainer.world_size * batches, task.hparams["learning_rate"]
        suggested = float(f"{self.reference_learning_rate * batch / self.reference_batch_size:.3g}")  # as it is printed
        measured = (
            f"A step takes {batch} pairs (data.batch_size {pairs} × {trainer.world_size} process(es) ×"
            f" trainer.accumulate_grad_batches {batches}): by {self.reference_learning_rate:g} for"
            f" {self.reference_batch_size} pairs, that suggests a learning rate of {suggested:g};"
            f" model.learning_rate is {rate:g}."
        )
        if rate > suggested:
            return f"{measured} Lower it, --model.learning_rate {suggested:g}, or enlarge the batch."
        return (
            f"{measured} That is low enough: take fewer steps (trainer.max_epochs {trainer.max_epochs}), a longer"
            f" warm-up (model.optimizer.warmup_steps {task.hparams['optimizer'].warmup_steps}), or hold the image"
            " tower back (model.finetuning.image_trainable_layers, model.finetuning.layer_decay)."
        )

    # --- checkpoints -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what step 0 reached."""
        return {"zero_shot": self.zero_shot}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume comparing with the run's own step 0."""
        self.zero_shot = state_dict["zero_shot"]


def starts_trained(task: Any) -> bool:
    """Tell whether a task's whole weights, or those of both its towers, are trained ones."""
    trained = {part for part, text in task.weights.items() if text != "random" and not text.startswith("random (")}
    return "init_from" in trained or {"image_tower", "text_tower"} <= trained


def evaluation_of(trainer: L.Trainer) -> RetrievalEvaluation:
    """Find the callback that evaluates.

    Raises:
        UserError: There is none.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, RetrievalEvaluation):
            return callback
    raise UserError(
        "trainer.callbacks has ZeroShotGuard and no zoo.tasks.retrieval.evaluation.RetrievalEvaluation, whose"
        f" {METRIC} it compares: add that, or leave the guard out"
    )
