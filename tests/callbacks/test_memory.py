"""The batch shrinks to the memory of a CPU, says so, and stays so when the run goes on."""

import pytest
import yaml

from zoo.callbacks import memory

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
