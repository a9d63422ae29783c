"""The batch shrinks to the memory of a CPU, says so, and stays so when the run goes on."""

import lightning as L
import pytest
import torch
import yaml

from zoo.callbacks import memory
from zoo.tasks import RetrievalTask

TINY = ("--config", "experiments/tiny.yaml", "--trainer.callbacks+", "zoo.callbacks.memory.FitBatchToMemory")


def fit(zoo_main, workplace, monkeypatch, free, *words):
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    code, out, err = zoo_main("fit", *TINY, "--trainer.max_epochs", 1, *words)
    runs = sorted((workplace / "runs" / "tiny").glob("*/config.yaml"))
    used = yaml.safe_load(runs[-1].read_text())["data"]["init_args"]["batch_size"] if runs else None
    return code, out + err, used


@pytest.mark.parametrize("free", [None, 10**12])
def test_a_batch_that_fits_stays(zoo_main, workplace, monkeypatch, free):
    code, said, used = fit(zoo_main, workplace, monkeypatch, free)
    assert (code, used) == (0, 16), said
    assert "does not fit" not in said


def test_a_batch_that_does_not_fit_shrinks_and_stays_so(zoo_main, workplace, monkeypatch):
    monkeypatch.setattr(memory, "OPTIMIZER", 0)  # the weights of the tiny task weigh more than its pairs
    code, said, used = fit(zoo_main, workplace, monkeypatch, 2_000_000)
    assert code == 0, said
    assert 1 <= used < 16
    assert "data.batch_size 16 does not fit: a pair takes 0 MB and 0.0 GB are free" in said
    assert f"Training with {used}" in said
    code, said, again = fit(zoo_main, workplace, monkeypatch, 10**12, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert (code, again) == (0, used), said


def test_a_memory_that_holds_no_pair_is_an_error(zoo_main, workplace, monkeypatch):
    code, said, _ = fit(zoo_main, workplace, monkeypatch, 1000)
    assert code == 1
    assert "the memory does not hold a batch of one" in said


def test_measuring_leaves_the_task_as_it_was_and_grows_with_the_pairs():
    task = RetrievalTask("resnet10t", "bert_tiny_chinese", image_tower_options={"image_size": 32}, embedding_dim=8)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    two, four, eight = (memory.FitBatchToMemory()._kept(trainer, task, pairs) for pairs in (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=0.01)
    assert four > two
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
