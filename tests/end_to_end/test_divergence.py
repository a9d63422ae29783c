"""A training that diverges stops in one line, and leaves only checkpoints that are finite."""

import re

import pytest
import torch
import yaml
from gpu.test_command_line import DATA, MODELS

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
