"""The guard of a fine-tuning: when it warns, what it advises, and that it remembers step 0."""

import re
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from zoo.core.optim import OptimizerOptions
from zoo.errors import UserError
from zoo.tasks.retrieval.evaluation import RetrievalEvaluation, RetrievalEvaluationOptions
from zoo.tasks.retrieval.zero_shot import ZeroShotGuard, starts_trained

TINY = ("--config", "experiments/tiny.yaml")
PUBLISHED = {"init_from": "OFA-Sys/chinese-clip-vit-base-patch16"}
NOT_THERE = {
    "init_from": "random (published weights not available: no network)",
    "image_tower": "random",
    "text_tower": "random (pretrained weights not available: no network)",
}


class Run:
    """A training as the guard sees it: ``validate`` is one evaluation, and gives the warnings it caused."""

    def __init__(self, guard, *, weights=PUBLISHED, rate=2e-5, batch=48, processes=2, accumulate=1, ckpt_path=None):
        self.guard, self.evaluation = guard, RetrievalEvaluation()
        self.task = SimpleNamespace(
            weights=weights, hparams={"learning_rate": rate, "optimizer": OptimizerOptions(warmup_steps=7)}
        )
        self.trainer = SimpleNamespace(
            state=SimpleNamespace(fn="fit"),
            callbacks=[guard, self.evaluation],
            ckpt_path=ckpt_path,
            datamodule=SimpleNamespace(batch_size=batch),
            world_size=processes,
            accumulate_grad_batches=accumulate,
            max_epochs=3,
        )
        guard.setup(self.trainer, self.task, "fit")

    def validate(self, recall, *, step=0, sanity=False, name="val"):
        self.trainer.global_step, self.trainer.sanity_checking = step, sanity
        self.evaluation.numbers = {f"{name}/mean_recall": recall}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.guard.on_validation_end(self.trainer, self.task)
        return [str(warning.message) for warning in caught]


def after_step_0(recall=50.0, **options):
    run = Run(ZeroShotGuard(), **options)
    assert run.validate(recall, sanity=True) == []
    return run


def test_every_validation_below_step_0_is_told_once():
    run = after_step_0(50.0)
    assert run.validate(55.0, step=100) == []
    (first,) = run.validate(49.99, step=200)
    assert "val/mean_recall is 49.99 after step 200, below the 50.00 of step 0" in first
    (second,) = run.validate(30.0, step=300)
    assert "val/mean_recall is 30.00 after step 300, below the 50.00 of step 0" in second
    assert run.validate(50.0, step=400) == []  # as good is not below
    assert run.validate(60.0, step=500) == []
    assert len(run.validate(10.0, step=600)) == 1


@pytest.mark.parametrize("weights", [NOT_THERE, {"image_tower": "random", "text_tower": "random"}, {}])
def test_random_weights_have_nothing_to_lose(weights):
    run = after_step_0(50.0, weights=weights)
    assert run.validate(10.0, step=100) == []


@pytest.mark.parametrize(
    ("weights", "trained"),
    [
        ({"init_from": "random-crops/1/checkpoints/best.ckpt"}, True),  # an experiment of that name
        ({"init_from": "random (published weights not available: …)", "image_tower": "a", "text_tower": "b"}, True),
        ({"image_tower": "timm/resnet50.a1_in1k", "text_tower": "path bert.bin"}, True),
        ({"image_tower": "timm/resnet50.a1_in1k", "text_tower": "random"}, False),
        ({"image_tower": "random (…)", "text_tower": "path bert.bin"}, False),
    ],
)
def test_what_counts_as_trained(weights, trained):
    assert starts_trained(SimpleNamespace(weights=weights)) == trained


def test_evaluations_cut_short_are_not_compared():
    run = after_step_0(50.0)
    assert run.validate(10.0, step=100, name="val_partial") == []
    run = Run(ZeroShotGuard())
    run.validate(50.0, sanity=True, name="val_partial")
    assert run.validate(10.0, step=100) == []


@pytest.mark.parametrize(
    ("options", "batch", "suggested"),
    [
        ({"batch": 48, "processes": 2, "rate": 2e-5}, 96, "4.69e-06"),  # users: falls below its step 0
        ({"batch": 128, "processes": 4, "rate": 5e-5}, 512, "2.5e-05"),
        ({"batch": 32, "processes": 2, "accumulate": 4, "rate": 1e-3}, 256, "1.25e-05"),
    ],
)
def test_a_learning_rate_too_high_for_the_batch_is_told_with_one_that_suits(options, batch, suggested):
    (said,) = after_step_0(**options).validate(10.0, step=100)
    parts = (options["batch"], options["processes"], options.get("accumulate", 1))
    assert f"A step takes {batch} pairs (data.batch_size {parts[0]} × {parts[1]} process(es)" in said
    assert f"trainer.accumulate_grad_batches {parts[2]})" in said
    assert f"suggests a learning rate of {suggested}; model.learning_rate is {options['rate']:g}" in said
    assert f"--model.learning_rate {suggested}" in said
    assert "image_trainable_layers" not in said


@pytest.mark.parametrize("rate", [5e-5, 1e-5])
def test_a_learning_rate_that_suits_gets_other_advice(rate):
    (said,) = after_step_0(batch=128, processes=8, rate=rate).validate(10.0, step=100)
    assert f"suggests a learning rate of 5e-05; model.learning_rate is {rate:g}" in said
    assert "Lower it" not in said
    for name in (
        "trainer.max_epochs 3",
        "model.optimizer.warmup_steps 7",
        "model.finetuning.image_trainable_layers",
        "model.finetuning.layer_decay",
    ):
        assert name in said


def test_the_suggested_rate_as_printed_is_low_enough():
    (said,) = after_step_0(batch=41, processes=1, rate=1e-3).validate(10.0, step=100)
    suggested = float(re.search(r"--model\.learning_rate (\S+),", said)[1])
    assert suggested == pytest.approx(5e-5 * 41 / 1024, rel=0.005)
    (said,) = after_step_0(batch=41, processes=1, rate=suggested).validate(10.0, step=100)
    assert "Lower it" not in said


def test_the_batch_is_the_one_that_is_trained_with():
    run = after_step_0(batch=128, processes=1)
    run.trainer.datamodule.batch_size = 16  # FitBatchToMemory's
    assert "A step takes 16 pairs" in run.validate(10.0, step=100)[0]


def test_the_reference_is_an_option():
    run = Run(ZeroShotGuard(reference_learning_rate=3e-6, reference_batch_size=48), batch=96, processes=1, rate=1e-5)
    run.validate(50.0, sanity=True)
    assert "by 3e-06 for 48 pairs, that suggests a learning rate of 6e-06" in run.validate(10.0, step=100)[0]


@pytest.mark.parametrize("sanity", [None, 10.0])  # the command line leaves it out, a trainer in Python does not
def test_a_resumed_run_compares_with_its_own_step_0(sanity):
    state = after_step_0(50.0).guard.state_dict()
    resumed = Run(ZeroShotGuard(), ckpt_path="last.ckpt")
    resumed.guard.load_state_dict(state)
    if sanity is not None:
        assert resumed.validate(sanity, step=100, sanity=True) == []
    (said,) = resumed.validate(40.0, step=200)
    assert "below the 50.00 of step 0" in said


def test_a_new_training_has_a_step_0_of_its_own():
    guard = after_step_0(50.0).guard
    assert Run(guard).validate(10.0, step=100) == []  # num_sanity_val_steps: 0
    again = Run(guard)
    again.validate(5.0, sanity=True)
    assert again.validate(10.0, step=100) == []


def test_it_needs_an_evaluation():
    guard = ZeroShotGuard()
    with pytest.raises(UserError, match="no zoo.tasks.retrieval.evaluation.RetrievalEvaluation"):
        guard.setup(SimpleNamespace(callbacks=[guard]), None, "fit")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reference_learning_rate": 0.0}, "reference_learning_rate is 0.0: give a number above 0"),
        ({"reference_batch_size": 0}, "reference_batch_size is 0: give 1 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        ZeroShotGuard(**options)


# --- through the command line --------------------------------------------------------------------------------------


@pytest.fixture
def trained(zoo_main, workplace):
    code, _, err = zoo_main("fit", *TINY, "--runs", "first")
    assert code == 0, err
    (run,) = (workplace / "first" / "tiny").iterdir()
    return run


def guarded(workplace, evaluation):
    """Put the guard into the tiny experiment, before the task's evaluation or behind one of the trainer's."""
    path = workplace / "experiments" / "tiny.yaml"
    callbacks = {"task": ["ZeroShotGuard"], "trainer": ["RetrievalEvaluation", "ZeroShotGuard"]}[evaluation]
    lines = ["  callbacks+:", *(f"    - class_path: {callback}" for callback in callbacks)]
    path.write_text(path.read_text() + "\n".join(lines) + "\n")


def fit(zoo_main, *words):
    """Warnings of a training, and what it printed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        code, out, err = zoo_main("fit", *TINY, *words)
    assert code == 0, err
    recalls = [float(line.split("│")[5]) for line in out.splitlines() if line.startswith("│ all")]
    return [str(warning.message) for warning in caught if "of step 0" in str(warning.message)], recalls


@pytest.mark.parametrize("evaluation", ["task", "trainer"])
def test_an_absurd_learning_rate_is_told_also_by_a_resumed_run(zoo_main, workplace, trained, evaluation):
    guarded(workplace, evaluation)
    said, recalls = fit(zoo_main, "--model.init_from", trained, "--model.learning_rate", 0.05)
    zero_shot, *later = recalls
    below = [recall for recall in later if recall < zero_shot]
    assert below
    assert len(said) == len(below)
    assert f"val/mean_recall is {below[0]:.2f} after step 3, below the {zero_shot:.2f} of step 0" in said[0]
    assert "data.batch_size 16 × 1 process(es) × trainer.accumulate_grad_batches 1" in said[0]
    assert "--model.learning_rate 7.81e-07" in said[0]
    words = ("--model.init_from", trained, "--model.learning_rate", 0.05, "--trainer.max_epochs", 3)
    said, recalls = fit(zoo_main, "--ckpt_path", "last", *words)
    assert len(recalls) == 1  # no step 0
    assert recalls[0] < zero_shot
    assert len(said) == 1
    assert f"val/mean_recall is {recalls[0]:.2f} after step 9, below the {zero_shot:.2f} of step 0" in said[0]


def test_a_trainer_in_python_that_resumes_compares_with_step_0(workplace, trained, muge_root):
    """Its sanity check, of weights that have been spoiled already, is not step 0."""
    from zoo.core.checkpoint import load
    from zoo.tasks.retrieval.data import RetrievalDataModule

    def train(epochs, **options):
        task = type(load(trained))(**{**load(trained).hparams, "init_from": str(trained), "learning_rate": 0.05})
        guard, evaluation = ZeroShotGuard(), RetrievalEvaluation(RetrievalEvaluationOptions(grid_queries=0))
        trainer = L.Trainer(
            callbacks=[guard, evaluation],
            default_root_dir=workplace,
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            num_sanity_val_steps=-1,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        torch.manual_seed(0)
        data = RetrievalDataModule(str(muge_root), batch_size=16, num_workers=0)
        trainer.fit(task, datamodule=data, weights_only=True, **options)
        trainer.save_checkpoint(workplace / "here.ckpt")
        return guard.zero_shot

    with pytest.warns(RuntimeWarning, match="of step 0"):
        zero_shot = train(1)
    with pytest.warns(RuntimeWarning, match=rf"below the {zero_shot:.2f} of step 0"):
        assert train(2, ckpt_path=workplace / "here.ckpt") == zero_shot


def test_random_weights_and_a_harmless_rate_are_left_alone(zoo_main, workplace, trained):
    guarded(workplace, "task")
    said, _ = fit(zoo_main, "--model.learning_rate", 0.05)
    assert said == []
    said, recalls = fit(zoo_main, "--model.init_from", trained, "--model.learning_rate", 0)
    assert said == []
    assert set(recalls) == {recalls[0]}
