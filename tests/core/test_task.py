"""What a task brings of its own to anybody's trainer: evaluation, submission, the best checkpoint."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.plugins import MixedPrecision

import zoo
from zoo.core.divergence import DivergedError
from zoo.core.evaluation import BestCheckpoint
from zoo.errors import UserError
from zoo.tasks.retrieval.evaluation import RetrievalEvaluation, RetrievalEvaluationOptions

OPTIONS = {
    "image_tower": "timm:test_vit",
    "image_tower_options": {"image_size": 32},
    "image_pretrained": False,
    "text_tower": "bert_tiny_chinese",
    "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
    "text_pretrained": False,
    "embedding_dim": 16,
    "evaluation": {"grid_queries": 0},
}


@pytest.fixture
def fit(tmp_path, muge_root):
    """Trains a task for one epoch with a plain trainer: ``trainer, task = fit(**options_of_the_trainer)``."""

    def run(loaders=False, **options):
        torch.manual_seed(0)
        task = zoo.RetrievalTask(**OPTIONS)
        data = zoo.RetrievalDataModule(str(muge_root), batch_size=8, num_workers=0)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=tmp_path / "run",
            **options,
        )
        if loaders:
            data.trainer = trainer
            data.image_size = 32
            trainer.fit(task, data.train_dataloader())
        else:
            trainer.fit(task, datamodule=data)
        return trainer, task

    return run


def callbacks_of(trainer, kind):
    return [each for each in trainer.callbacks if isinstance(each, kind)]


def test_a_plain_trainer_evaluates_and_keeps_the_best(fit, tmp_path):
    trainer, task = fit()
    assert "val/mean_recall" in trainer.callback_metrics
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    again = zoo.load(tmp_path / "run")
    torch.testing.assert_close(again.encode_text(["红色"]), task.eval().encode_text(["红色"]))
    trainer.validate(task, datamodule=trainer.datamodule, verbose=False)
    assert len(callbacks_of(trainer, RetrievalEvaluation)) == 1  # not added once more


def test_a_checkpoint_keeps_dictionaries_and_gives_dataclasses_back(fit, tmp_path):
    fit()
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    kept = torch.load(path, weights_only=True)["hyper_parameters"]
    assert kept["evaluation"]["grid_queries"] == 0
    assert zoo.load(path).hparams["evaluation"] == RetrievalEvaluationOptions(grid_queries=0)


def test_without_checkpoints_there_is_no_best_one(fit, tmp_path):
    trainer, _ = fit(enable_checkpointing=False)
    assert "val/mean_recall" in trainer.callback_metrics
    assert not callbacks_of(trainer, BestCheckpoint)


def test_what_the_trainer_has_takes_the_place_of_the_tasks(fit, tmp_path):
    evaluation = RetrievalEvaluation(RetrievalEvaluationOptions(grid_queries=0))
    checkpoint = ModelCheckpoint(dirpath=tmp_path / "mine", monitor="val/loss", mode="min")
    trainer, _ = fit(callbacks=[evaluation, checkpoint])
    assert callbacks_of(trainer, RetrievalEvaluation) == [evaluation]
    assert callbacks_of(trainer, ModelCheckpoint) == [checkpoint]
    assert checkpoint.best_model_path


@pytest.mark.parametrize(
    ("callback", "instead"),
    [
        (BatchSizeFinder(), "data.batch_size"),
        (LearningRateFinder(), "model.learning_rate"),
        (GradientAccumulationScheduler({0: 2}), "trainer.accumulate_grad_batches"),
        (StochasticWeightAveraging(0.1), "the callback EMA"),
        (BackboneFinetuning(), "the model's own options of what is trained"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_who_changes_what_the_optimiser_was_made_for_is_refused(fit, callback, instead):
    with pytest.raises(UserError, match=f"leave it out, and give {instead}$") as caught:
        fit(callbacks=[callback])
    assert (caught.value.value, caught.value.valid) == (type(callback).__name__, instead)


def test_loaders_alone_train_without_an_evaluation_and_say_so(fit):
    with pytest.warns(UserWarning, match="no data module of the zoo, so nothing is evaluated"):
        trainer, _ = fit(loaders=True)
    assert trainer.global_step > 0
    assert not callbacks_of(trainer, RetrievalEvaluation)


class Poison(Callback):
    """Makes the gradient of the first step infinite, its loss no number, or the weights after the second."""

    def __init__(self, what):
        self.what = what

    def on_before_backward(self, trainer, task, loss):
        if self.what == "loss" and trainer.global_step == 0:
            loss.data.fill_(torch.nan)

    def on_after_backward(self, trainer, task):
        if self.what == "gradient" and trainer.global_step == 0:
            next(task.parameters()).grad.fill_(torch.inf)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if self.what == "weights" and trainer.global_step == 2:
            next(task.parameters()).data.fill_(torch.nan)


def test_anybodys_checkpoint_stays_finite_when_a_training_diverges(fit, tmp_path):
    every = ModelCheckpoint(tmp_path / "mine", "kept", every_n_train_steps=1, enable_version_counter=False)
    with pytest.raises(DivergedError, match=r"at step 2, .*/kept\.ckpt, of step 1, is good"):
        fit(callbacks=[Poison("weights"), every], limit_val_batches=0)
    kept = torch.load(tmp_path / "mine" / "kept.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_a_training_that_diverges_stops_at_its_end_though_nothing_is_logged_or_kept(fit, what):
    with pytest.raises(DivergedError, match=r"at step 1, .* no good checkpoint yet: begin anew") as raised:
        fit(callbacks=[Poison(what)], enable_checkpointing=False, limit_val_batches=0, log_every_n_steps=0)
    assert "trainer.gradient_clip_val" in str(raised.value)


def test_float16_leaves_out_a_step_whose_gradient_overflows(fit):
    options = {"plugins": [MixedPrecision("16-mixed", "cpu")], "limit_val_batches": 0, "enable_checkpointing": False}
    trainer, task = fit(callbacks=[Poison("gradient")], **options)
    assert all(parameter.isfinite().all() for parameter in task.parameters())
    assert trainer.precision_plugin.scaler.get_scale() < 65536
    with pytest.raises(DivergedError, match=r"or trainer\.precision 32-true"):
        fit(callbacks=[Poison("loss")], **{**options, "plugins": [MixedPrecision("16-mixed", "cpu")]})


def test_an_unknown_option_is_named():
    with pytest.raises(UserError, match=r"model\.evaluation has no 'grid_querys'\. Did you mean grid_queries"):
        zoo.RetrievalTask(**{**OPTIONS, "evaluation": {"grid_querys": 3}})
