import math
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

import zoo
from zoo.core.optim import OptimizerOptions
from zoo.tasks.retrieval.collapse_alarm import CollapseAlarm
from zoo.tasks.retrieval.task import RetrievalTask

TASK = SimpleNamespace(
    hparams={"learning_rate": 1.0, "optimizer": OptimizerOptions(warmup_steps=0)},
    collapsed_loss=lambda batch: torch.tensor(math.log(64)),
)


def train(alarm, losses, accumulate=1):
    trainer = SimpleNamespace(accumulate_grad_batches=accumulate)
    for step, loss in enumerate(losses):
        outputs = {"loss": torch.tensor(loss / accumulate)}
        alarm.on_train_batch_start(trainer, TASK, {}, step)
        alarm.on_train_batch_end(trainer, TASK, outputs, {}, step)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_loss_stuck_at_guessing_is_told_once(accumulate):
    with pytest.warns(RuntimeWarning, match=r"collapsed\. Lower model\.learning_rate \(1\.0\)") as caught:
        train(CollapseAlarm(), [math.log(64)] * 400, accumulate)
    assert len(caught) == 1


def test_a_falling_loss_is_left_alone():
    alarm = CollapseAlarm()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(alarm, [math.log(64) * (1 if step < 90 else 0.9) for step in range(400)])
    assert alarm.stuck == 0
    assert not alarm.warned


def fit(steps, *callbacks, **options):
    """Train a tiny task on one batch in which an image stands twice."""
    torch.manual_seed(0)
    task = RetrievalTask(
        "timm:test_vit",
        "bert_tiny_chinese",
        image_tower_options={"image_size": 32},
        text_tower_options={"width": 32, "num_layers": 1, "num_heads": 2},
        image_pretrained=False,
        text_pretrained=False,
        embedding_dim=16,
        optimizer={"warmup_steps": 0},
        **options,
    )
    batch = {
        "image": torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8),
        "text": ["红裙", "蓝色长裤", "帽子", "鞋"],
        "image_id": torch.tensor([0, 0, 1, 2]),
        "query_id": torch.arange(4),
    }
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(task, DataLoader([batch] * steps, batch_size=None, collate_fn=lambda batch: batch))
    return task, batch


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_loss_of_guessing_is_computed_for_the_alarm_alone_at_every_tenth_step(monkeypatch, loss):
    computed = []
    kind = type(zoo.create(loss))
    own = kind.forward
    monkeypatch.setattr(kind, "forward", lambda part, *args, **ids: computed.append(1) or own(part, *args, **ids))
    fit(11, loss=loss, loss_options={"temperature": 0.1})
    assert len(computed) == 11
    fit(11, CollapseAlarm(), loss=loss, loss_options={"temperature": 0.1})
    assert len(computed) == 11 + 11 + 2


def test_a_collapsed_training_rings(monkeypatch):
    class Collapsed(L.Callback):
        def on_train_start(self, trainer, task):
            for projection in (task.image_projection, task.text_projection):
                torch.nn.init.zeros_(projection.weight)

    monkeypatch.setattr("zoo.tasks.retrieval.collapse_alarm.STEPS", 20)
    alarm = CollapseAlarm()
    with pytest.warns(RuntimeWarning, match="the embeddings have collapsed"):
        task, batch = fit(11, alarm, Collapsed(), learning_rate=1e-12)
    assert alarm.stuck == 20
    assert task.collapsed_loss(batch) < math.log(4)  # an image that stands twice is not its own negative
