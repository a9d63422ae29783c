"""A training that diverges stops in one line, and leaves only checkpoints that are finite."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
import yaml
from gpu.test_command_line import DATA, MODELS
from lightning.fabric.plugins.environments import TorchElasticEnvironment

from zoo.cli.restore import check_restorable
from zoo.errors import UserError

EPOCH = 4  # steps
ddp = pytest.mark.ddp
slow = pytest.mark.slow


@pytest.fixture
def experiment(workplace, muge_root, matcher_file, monkeypatch):
    """Writes a task's experiment: the words that train it, poisoned as told."""

    def write(poison, task="retrieval", **options):
        monkeypatch.setenv("POISON", poison)
        name, model = MODELS[task]
        model = {**model, "learning_rate": 1e-3, "optimizer": {"warmup_steps": 4}}
        if "evaluation" in model:
            model["evaluation"] = {**model["evaluation"], "matcher": str(matcher_file())}
        if task == "image_tokenizer":
            model["discriminator_start"] = 0
        data = {"root": str(muge_root), "batch_size": 6, "eval_batch_size": 5, "num_workers": 0, **DATA.get(task, {})}
        trainer = {
            "accelerator": "cpu",
            "precision": "32-true",
            "max_epochs": 2,
            "limit_train_batches": EPOCH,
            "log_every_n_steps": 100,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "poison.Poison"}, {"class_path": "EMA"}],
            **options,
        }
        contents = {
            "save_every": 2,
            "model": {"class_path": name, "init_args": model},
            "data": {"class_path": name.replace("Task", "DataModule"), "init_args": data},
            "trainer": trainer,
        }
        (workplace / "experiments" / "poisoned.yaml").write_text(yaml.safe_dump(contents))
        return "fit", "--config", "experiments/poisoned.yaml"

    return write


@pytest.fixture
def kept(workplace, only_run):
    """What the run keeps: ``kept()`` gives each checkpoint's step by its name, and that all numbers are finite."""

    def tensors(contents):
        if isinstance(contents, torch.Tensor):
            yield contents
        for each in contents.values() if isinstance(contents, dict) else contents if isinstance(contents, list) else ():
            yield from tensors(each)

    def read():
        steps = {}
        for path in (only_run(workplace, experiment="poisoned") / "checkpoints").glob("*"):
            contents = torch.load(path, weights_only=True)
            parts = [contents["state_dict"], contents["optimizer_states"], contents["callbacks"]["EMA"]]
            assert all(tensor.isfinite().all() for tensor in tensors(parts))
            steps[path.name] = contents["global_step"]
        return steps

    return read


def the_line(err):
    """The one line that says it; there is nothing of Python."""
    assert "Traceback" not in err
    (line,) = (line for line in err.splitlines() if "diverged" in line)
    assert line.startswith("zoo fit: error: the training has diverged: ")
    return line


@pytest.mark.parametrize("task", MODELS)
def test_the_line_says_where_it_began_what_is_good_and_what_to_change(task, experiment, zoo_main, kept):
    """Noted at step 3, found before the checkpoint of step 4; that of step 2 is good."""
    words = experiment("gradient 3 all go", task, limit_val_batches=0)
    code, _, err = zoo_main(*words)
    assert code == 1
    line = the_line(err)
    assert "at step 3, at learning rate 0.00075, a loss, gradient or weight is not finite. " in line
    assert "/checkpoints/last.ckpt, of step 2, is good: go on from it with --ckpt_path runs/poisoned/" in line
    assert "Give a smaller model.learning_rate" in line
    assert (" or trainer.gradient_clip_val 1" in line) == (task != "image_tokenizer")  # which refuses to clip
    assert kept() == {"last.ckpt": 2}
    if task == "captioning":
        good = re.search("--ckpt_path ([^ ]*ckpt)", line)[1]
        code, _, err = zoo_main(*words, "--ckpt_path", good, "--model.learning_rate", "1e-4", "--trainer.callbacks=[]")
        assert code == 0, err


@pytest.mark.parametrize(
    ("task", "poison", "words", "step"),
    [
        ("retrieval", "loss 3 all go", [], 2),  # the weights themselves stay finite
        ("retrieval", "weights 4 all go", ["--save_every", "3", "--trainer.limit_val_batches", "0"], 3),  # an epoch
        ("captioning", "weights 8 all go", [], 6),  # a validation, which has a best checkpoint
        ("retrieval", "weights 3 all raise", [], 2),
        ("retrieval", "gradient 3 all term", [], 2),
        ("retrieval", "averages 4 all go", ["--trainer.limit_val_batches", "0"], 2),
        ("image_tokenizer", "discriminator 4 all go", ["--trainer.limit_val_batches", "0"], 2),
        pytest.param("retrieval", "weights 5 all go", ["--trainer.limit_val_batches", "0"], 4, marks=slow),
        pytest.param("retrieval", "gradient 3 all raise", [], 2, marks=slow),
        pytest.param("retrieval", "weights 3 all term", [], 2, marks=slow),
        pytest.param("retrieval", "loss 7 all go", ["--trainer.log_every_n_steps", "1"], 6, marks=slow),
        pytest.param("text_to_image", "averages 4 all go", ["--trainer.limit_val_batches", "0"], 2, marks=slow),
        pytest.param("image_tokenizer", "averages 4 all go", ["--trainer.limit_val_batches", "0"], 2, marks=slow),
    ],
)
def test_nothing_is_written_that_is_not_finite(task, poison, words, step, experiment, zoo_main, kept):
    code, _, err = zoo_main(*experiment(poison, task), *words)
    assert code == 1
    the_line(err)
    assert kept()["last.ckpt"] == step


@ddp
@pytest.mark.parametrize("poison", ["loss 3 1 go", pytest.param("weights 3 0 go", marks=slow)])
def test_all_processes_stop_together(poison, experiment, zoo_process, workplace, kept):
    """One of them has something that is not finite; none waits for another, nor is ended by it."""
    words = experiment(poison, limit_val_batches=0)
    code, out, err = zoo_process(workplace, *words, processes=2, POISON=poison)
    assert code == 1
    the_line(err)
    assert kept() == {"last.ckpt": 2}


RESTORE = ("--model.optimizer.on_divergence", "restore")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=[ddp, slow])])
def test_a_training_is_restored_at_half_the_learning_rates(processes, experiment, zoo_process, workplace, only_run):
    """The rates of the second half are half of those of a training that went well, and the run says what became of it.

    With one process the poison is too strong once more, at step 7, and the training is restored from step 6.
    """
    poison = "gradient 3,7 all go" if processes == 1 else "loss 3 1 go"
    words = (*experiment(poison, limit_val_batches=0, log_every_n_steps=1), "--save_every", "1", *RESTORE)
    code, _, err = zoo_process(workplace, *words, processes=processes, POISON=poison)
    assert code == 0, err
    assert "Traceback" not in err
    first, *second = (line for line in err.splitlines() if "diverged" in line)
    assert "at step 3, at learning rate 0.00075, a loss, gradient or weight is not finite. It goes on from " in first
    assert "/checkpoints/last.ckpt, of step 2, with half the learning rates (restored 1 of at most 3 times)" in first
    assert len(second) == (processes == 1)
    run = only_run(workplace, experiment="poisoned")
    factors = [0.5, 0.25] if processes == 1 else [0.5]
    divergences = [
        {"diverged_at": bad, "restored_from": bad - 1, "rate_factor": factor}
        for bad, factor in zip((3, 7), factors, strict=False)
    ]
    assert json.loads((run / "divergences.json").read_text()) == divergences
    assert json.loads((run / "fit.json").read_text())["divergences"] == divergences
    assert (
        yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["optimizer"]["rate_factor"]
        == (factors[-1])
    )
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    peaks = {group["initial_lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]}
    assert peaks == {1e-3 * factors[-1]}


@slow
def test_it_is_restored_no_more_often_than_asked(experiment, zoo_process, workplace, only_run):
    poison = "gradient 3,4 all go"
    words = (*experiment(poison, limit_val_batches=0), "--save_every", "1", *RESTORE)
    code, _, err = zoo_process(workplace, *words, "--model.optimizer.max_restores", "1", POISON=poison)
    assert code == 1
    assert "It was restored as often as model.optimizer.max_restores says, 1" in err
    assert "Traceback" not in err


def test_without_a_good_checkpoint_nothing_is_restored(experiment, zoo_main):
    code, _, err = zoo_main(*experiment("gradient 2 all go", limit_val_batches=0), *RESTORE)
    assert code == 1
    assert "There is no good checkpoint yet: begin anew" in the_line(err)
    assert "There is nothing to restore" in the_line(err)


def test_processes_that_another_program_started_are_not_started_again():
    trainer = SimpleNamespace(strategy=SimpleNamespace(cluster_environment=TorchElasticEnvironment()))
    check_restorable(trainer, "stop")
    with pytest.raises(UserError) as caught:
        check_restorable(trainer, "restore")
    assert caught.value.argument == "model.optimizer.on_divergence"
    assert "TorchElasticEnvironment" in str(caught.value)
    check_restorable(SimpleNamespace(strategy=SimpleNamespace()), "restore")
