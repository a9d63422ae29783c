"""A run that was ended in the middle goes on with exactly the losses of one that was not."""

import csv
import json
import resource
import time
from pathlib import Path

import pytest
import torch

STEPS, EPOCH = 12, 6
SETTINGS = """\
save_every: 4
model: {init_args: {text_tower_options: {dropout: 0.2}}}
data: {init_args: {eval_batch_size: 4, flip: 0.5, crop_scale: [0.5, 1.0]}}
trainer: {enable_progress_bar: false, callbacks+: [{class_path: interrupt.Interrupt}]}
"""


@pytest.fixture
def fit(workplace, zoo_process):
    """Trains the tiny experiment: ``code, printed = fit(*words)``; ``limit`` is the most bytes of a file."""
    (workplace / "experiments" / "_overlays" / "interrupted.yaml").write_text(SETTINGS)
    layers = ("--config", "experiments/tiny.yaml", "--config", "experiments/_overlays/interrupted.yaml")

    def run(*words, processes=1, workers=0, interrupt="never never -1 none", limit=None, fresh=False):
        code, out, err = zoo_process(
            workplace,
            *("fit", *layers, "--data.num_workers", workers, "--data.batch_size", 8 // processes, *words),
            processes=processes,
            fresh=fresh or limit is not None,
            before=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
            INTERRUPT=interrupt,
        )
        return code, out + err

    return run


@pytest.fixture(scope="module")
def uninterrupted():
    """What ``metrics.csv`` holds after a training without interruption, by number of processes."""
    return {}


FAILED, KILLED, TERMINATED, CTRL_C = (1,), (-9, 1), (143,), (130,)
slow = pytest.mark.slow
ddp = pytest.mark.ddp


@pytest.mark.parametrize(
    ("interrupt", "processes", "workers", "code"),
    [
        ("kill end 6 0", 1, 0, KILLED),  # after an epoch's last step, before its validation
        ("term end 9 0", 1, 1, TERMINATED),
        ("int forward 8 0", 1, 0, CTRL_C),
        pytest.param("int end 7 all", 2, 1, CTRL_C, marks=[ddp, slow]),
        pytest.param("term validation 6 all", 2, 0, TERMINATED, marks=ddp),
        pytest.param("raise forward 8 0", 1, 0, FAILED, marks=slow),
        pytest.param("term validation 6 0", 1, 0, TERMINATED, marks=slow),
        pytest.param("term end 7 all", 2, 1, TERMINATED, marks=[ddp, slow]),
        pytest.param("term validation 6 1", 2, 0, TERMINATED, marks=[ddp, slow]),
        pytest.param("kill forward 5 0", 1, 1, KILLED, marks=slow),
        pytest.param("kill validation 6 0", 1, 1, KILLED, marks=slow),
        pytest.param("raise validation 6 0", 1, 1, FAILED, marks=slow),
        pytest.param("raise forward 6 0", 1, 1, FAILED, marks=slow),  # on an epoch's first step
        pytest.param("term end 6 0", 1, 1, TERMINATED, marks=slow),
        pytest.param("kill end 9 1", 2, 0, KILLED, marks=[ddp, slow]),
        pytest.param("kill end 6 all", 2, 1, KILLED, marks=[ddp, slow]),
        # Lightning kills the first process when a child fails, unless it ends by itself before: either may be first.
        pytest.param("raise forward 8 1", 2, 1, KILLED, marks=[ddp, slow]),
        pytest.param("term end 7 1", 2, 0, TERMINATED, marks=[ddp, slow]),
        pytest.param("term end 6 all", 2, 1, TERMINATED, marks=[ddp, slow]),
    ],
)
def test_going_on_is_as_if_never_interrupted(
    fit, workplace, uninterrupted, interrupt, processes, workers, code, only_run
):
    """Train whole, once for each number of processes; train interrupted, then on; both must log the same."""
    if processes not in uninterrupted:
        done, printed = fit("--runs", "whole", processes=processes, workers=workers)
        assert done == 0, printed
        uninterrupted[processes] = (only_run(workplace, "whole") / "metrics.csv").read_text()
    whole = uninterrupted[processes]
    assert len([row for row in whole.splitlines()[1:] if row]) > STEPS
    done, printed = fit(processes=processes, workers=workers, interrupt=interrupt)
    assert done in code, printed
    assert ("SIGTERM: stopping after step " in printed) == (code == TERMINATED)
    assert ("SIGINT: stopping after step " in printed) == (code == CTRL_C)
    run = only_run(workplace)
    assert (run / "metrics.csv").read_text() != whole
    done, printed = fit("--ckpt_path", "last", processes=processes, workers=workers, fresh=code == KILLED)
    assert done == 0, printed
    assert only_run(workplace) == run
    assert (run / "metrics.csv").read_text() == whole


@pytest.mark.parametrize("interrupt", ["term validation 9 0", "raise forward 9 0"])
def test_a_validation_within_an_epoch_is_not_its_end(fit, workplace, only_run, interrupt):
    """Batches follow on it, and rows are numbered on."""
    words = ("--trainer.val_check_interval", "3", "--save_every", "1")
    done, printed = fit("--runs", "whole", *words)
    assert done == 0, printed
    fit(*words, interrupt=interrupt)
    done, printed = fit("--ckpt_path", "last", *words)
    assert done == 0, printed
    assert (only_run(workplace) / "metrics.csv").read_text() == (
        only_run(workplace, "whole") / "metrics.csv"
    ).read_text()


@pytest.mark.slow
def test_a_run_that_stopped_in_a_validation_may_stop_again(fit, workplace, only_run):
    """What was counted of the first one is not taken for a second one that is under way."""
    words = ("--trainer.val_check_interval", "2", "--save_every", "1", "--data.eval_batch_size", "2")
    done, printed = fit("--runs", "whole", *words)
    assert done == 0, printed
    for resumed, interrupt in (((), "term validation 2 0"), (("--ckpt_path", "last"), "raise forward 4 0")):
        done, printed = fit(*resumed, *words, interrupt=interrupt)
        assert done != 0, printed
    done, printed = fit("--ckpt_path", "last", *words)
    assert done == 0, printed
    assert (only_run(workplace) / "metrics.csv").read_text() == (
        only_run(workplace, "whole") / "metrics.csv"
    ).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interrupt", "code", "options"),
    [
        ("term end 2 0", 143, ()),  # batch 7 of 12: step 3 is a third done
        # Before the first step, behind the evaluation before training; batch norms have moved already.
        ("term forward 0 0", 143, ("--trainer.num_sanity_val_steps", "-1")),
        ("term validation 2 0", 143, ("--trainer.val_check_interval", "4")),  # behind batch 8
        ("raise forward 3 0", 1, ("--trainer.val_check_interval", "3")),  # on the step behind a validation
    ],
)
def test_accumulated_batches_are_repeated_whole(fit, workplace, only_run, interrupt, code, options):
    """Ended amid the batches of one optimiser step: the checkpoint stands before the first of them."""
    words = ("--trainer.accumulate_grad_batches", "3", "--data.batch_size", "4", "--trainer.max_epochs", "1")
    words += ("--save_every", "1", "--model.image_tower", "timm:test_resnet", *options)
    done, printed = fit("--runs", "whole", *words)
    assert done == 0, printed
    done, printed = fit(*words, interrupt=interrupt)
    assert done == code, printed
    done, printed = fit("--ckpt_path", "last", *words)
    assert done == 0, printed
    run, whole = only_run(workplace), only_run(workplace, "whole")
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    weights, expected = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (run, whole)
    )
    assert any("running_mean" in name for name in weights)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_the_last_checkpoint_knows_the_newest_best(fit, workplace, only_run):
    """Else a run that resumes forgets the last epoch's, and a worse checkpoint takes its place."""
    own = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"monitor": "val/loss", "filename": "mine"},
    }
    (workplace / "experiments" / "_overlays" / "own.yaml").write_text(json.dumps({"trainer": {"callbacks+": [own]}}))
    overlay = ("--config", "experiments/_overlays/own.yaml", "--model.evaluation.monitor", "val/mean_recall")
    for words in (overlay, ("--model.evaluation.monitor", "val/recall@1")):
        done, printed = fit(*words, "--trainer.max_epochs", "1")
        assert done == 0, printed
    for run in (workplace / "runs" / "tiny").iterdir():
        with (run / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["val/loss"]]
        kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
        states = [state for name, state in kept.items() if "Checkpoint" in name]
        assert states
        for state in states:
            assert state["current_score"] == pytest.approx(float(rows[-1][state["monitor"]]))
            assert state["best_k_models"]


def test_a_full_disk_is_one_line_and_loses_nothing(fit, workplace, only_run):
    """A limit on file sizes stands for the disk: what fails is the same write."""
    done, printed = fit("--trainer.max_epochs", "1")
    assert done == 0, printed
    checkpoints = only_run(workplace) / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    limit = min(map(len, before.values())) // 2
    full = ("--ckpt_path", "last", "--trainer.max_epochs", "2")
    done, printed = fit(*full, limit=limit)
    assert done == 1, printed
    assert "the checkpoint cannot be written (File too large; " in printed
    assert "Traceback" not in printed
    assert {path.name: path.read_bytes() for path in checkpoints.iterdir()} == before
    done, printed = fit(*full)
    assert done == 0, printed


@ddp
def test_a_process_that_fails_ends_those_that_wait_for_it(fit, workplace, only_run):
    """They would for ten minutes here, and for half an hour under NCCL; what was trained is kept first."""
    began = time.monotonic()
    done, printed = fit(processes=2, interrupt="alone forward 5 all")
    assert done == 1, printed
    assert time.monotonic() - began < 60
    other = Path("/proc") / (workplace / "hanging").read_text() / "stat"
    assert not other.exists() or other.read_text().rpartition(")")[2].split()[0] == "Z"  # gone, if not yet buried
    kept = torch.load(only_run(workplace) / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 5


def test_full_memory_is_one_line(fit):
    done, printed = fit(interrupt="memory forward 2 0")
    assert done == 1, printed
    assert (
        "zoo fit: error: the GPU's memory is full (11.50 MiB of 79.11 GiB were free): give a smaller data.batch_size"
        " than 8, or model.chunk_size 64"
    ) in " ".join(printed.split())
    assert "model.gradient_checkpointing true" in printed
    assert "Traceback" not in printed
