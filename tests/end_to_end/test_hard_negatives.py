"""Mined batches on files, with loader workers: at the right time, the same when a run goes on or has more processes."""

import csv

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from zoo.tasks import RetrievalTask
from zoo.tasks.retrieval.data import RetrievalDataModule
from zoo.tasks.retrieval.hard_negatives import HardNegatives, mine_groups

SETTINGS = """\
save_every: 4
model: {init_args: {text_tower_options: {dropout: DROPOUT}}}
data: {init_args: {eval_batch_size: 4, flip: 0.5, crop_scale: [0.5, 1.0]}}
trainer:
  enable_progress_bar: false
  callbacks+:
    - class_path: zoo.tasks.retrieval.hard_negatives.HardNegatives
      init_args: {group_size: 4, from_epoch: 0}
    - class_path: interrupt.Interrupt
"""


@pytest.fixture
def fit(workplace, zoo_process):
    """Trains the tiny experiment in mined batches, or goes on with it: ``code, printed = fit(*words)``."""

    def run(*words, processes=1, batch_size=8, dropout=0.2, interrupt="never never -1 none"):
        overlay = workplace / "experiments" / "_overlays" / "mined.yaml"
        overlay.write_text(SETTINGS.replace("DROPOUT", str(dropout)))
        code, out, err = zoo_process(
            workplace,
            *("fit", "--config", "experiments/tiny.yaml", "--config", overlay),  # a second time it adds no callback
            *("--data.num_workers", 2, "--data.batch_size", batch_size // processes, *words),
            processes=processes,
            INTERRUPT=interrupt,
        )
        return code, out + err

    return run


@pytest.fixture(scope="module")
def uninterrupted():
    """What ``metrics.csv`` holds after a training without interruption, by number of processes."""
    return {}


slow = pytest.mark.slow
ddp = pytest.mark.ddp


@pytest.mark.parametrize(
    ("interrupt", "processes", "code"),
    [
        pytest.param("kill forward 5 0", 1, (-9, 1), marks=slow),  # goes on from step 4, amid epoch 0
        pytest.param("kill forward 9 0", 1, (-9, 1), marks=slow),  # from epoch 0's end: epoch 1 is mined again
        pytest.param("term end 9 all", 2, (143,), marks=[ddp, slow]),
    ],
)
def test_going_on_is_as_if_never_interrupted(fit, workplace, uninterrupted, interrupt, processes, code, only_run):
    """Train whole, once for each number of processes; train interrupted, then on; both must log the same."""
    if processes not in uninterrupted:
        done, printed = fit("--runs", "whole", processes=processes)
        assert done == 0, printed
        assert printed.count("HardNegatives, epoch ") == 2
        uninterrupted[processes] = (only_run(workplace, "whole") / "metrics.csv").read_text()
    done, printed = fit(processes=processes, interrupt=interrupt)
    assert done in code, printed
    run = only_run(workplace)
    assert (run / "metrics.csv").read_text() != uninterrupted[processes]
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["HardNegatives"]
    assert state["groups"].dtype == torch.int32
    done, printed = fit("--ckpt_path", "last", processes=processes)
    assert done == 0, printed
    assert (run / "metrics.csv").read_text() == uninterrupted[processes]


@pytest.mark.slow
def test_going_on_from_the_best_checkpoint_mines_for_the_next_epoch(fit, workplace, only_run):
    """It is written in a validation: Lightning goes on behind it without the hooks of a beginning epoch."""
    done, printed = fit("--trainer.max_epochs", "1")
    assert done == 0, printed
    checkpoints = only_run(workplace) / "checkpoints"
    assert torch.load(checkpoints / "best.ckpt", weights_only=True)["callbacks"]["HardNegatives"]["mined"] == 0
    done, printed = fit("--ckpt_path", "best", "--trainer.max_epochs", "2")
    assert done == 0, printed
    assert "HardNegatives, epoch 1: " in printed
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["callbacks"]["HardNegatives"]["mined"] == 1


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_trains_on_the_same_groups(fit, workplace, processes, only_run):
    losses, groups = {}, {}
    for count in (1, processes):
        done, printed = fit("--runs", f"runs-{count}", processes=count, batch_size=12, dropout=0.0)
        assert done == 0, printed
        assert printed.count("HardNegatives, epoch ") == 2  # by one process
        run = only_run(workplace, f"runs-{count}")
        rows = csv.DictReader((run / "metrics.csv").open())
        losses[count] = [float(row["train/loss"]) for row in rows if row["train/loss"]]
        state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        groups[count] = state["callbacks"]["HardNegatives"]["groups"]
    assert len(losses[1]) == 8
    assert losses[processes] == pytest.approx(losses[1], abs=1e-4)
    assert torch.equal(groups[processes], groups[1])


class Diary(Callback):
    """Notes the weights that each epoch begins with, and the ids of its batches."""

    def __init__(self):
        self.weights, self.batches = {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        ids = torch.stack([batch["query_id"], batch["image_id"]], dim=1).tolist()
        if trainer.current_epoch not in self.batches:
            self.weights[trainer.current_epoch] = {key: value.clone() for key, value in pl_module.state_dict().items()}
        self.batches.setdefault(trainer.current_epoch, []).append([tuple(pair) for pair in ids])


def own_groups(task, data, weights, epoch):
    """The groups of an epoch, mined by the test itself: ``{(query id, picture id): group}``."""
    task.load_state_dict(weights)
    queries, gallery = data.val_dataloader()  # the data below are validated on what they are trained on
    with torch.no_grad():
        texts = {int(i): e for b in queries for i, e in zip(b["query_id"], task.encode_text(b["text"]), strict=True)}
        images = {int(i): e for b in gallery for i, e in zip(b["image_id"], task.encode_image(b["image"]), strict=True)}
    targets = data.targets("valid")
    pairs = [(query, item) for query, items in zip(targets.query_ids, targets.positives, strict=True) for item in items]
    query_ids, image_ids = sorted({query for query, _ in pairs}), sorted({image for _, image in pairs})
    groups = mine_groups(
        torch.stack([texts[query] for query in query_ids]),
        torch.stack([images[image] for image in image_ids]),
        np.array([(query_ids.index(query), image_ids.index(image)) for query, image in pairs]),
        group_size=4,
        random=np.random.default_rng((0, epoch)),
    )
    return dict(zip(pairs, groups.tolist(), strict=True))


@pytest.mark.parametrize("from_epoch", [0, 1])
def test_an_epoch_is_dealt_by_the_weights_that_it_begins_with(muge_root, monkeypatch, from_epoch):
    """Workers read ahead, and Lightning starts the first epoch's loader before any hook of the training."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    torch.manual_seed(0)
    task = RetrievalTask(
        "timm:test_vit",
        "bert_tiny_chinese",
        image_tower_options={"image_size": 32},
        text_tower_options={"width": 32, "num_layers": 1, "num_heads": 2},
        image_pretrained=False,
        text_pretrained=False,
        learning_rate=0.05,  # every epoch has its own neighbours
        optimizer={"warmup_steps": 1},
    )
    data = RetrievalDataModule(str(muge_root), batch_size=8, num_workers=2, train_splits=("valid",))
    diary = Diary()
    L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        callbacks=[HardNegatives(group_size=4, from_epoch=from_epoch), diary],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    ).fit(task, data)
    task.eval()
    together = {}
    for epoch, batches in diary.batches.items():
        order = [pair for batch in batches for pair in batch]
        assert len(set(order)) == 24
        for groups_of in (0, 1, 2):
            groups = own_groups(task, data, diary.weights[groups_of], groups_of)
            names = [groups[pair] for pair in order]
            runs = 1 + sum(one != other for one, other in zip(names, names[1:], strict=False))
            together[epoch, groups_of] = runs == len(set(names))  # each group is dealt in one run
    expected = {(epoch, other): epoch == other >= from_epoch for epoch in (0, 1, 2) for other in (0, 1, 2)}
    assert together == expected
