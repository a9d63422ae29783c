import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from zoo.tasks.retrieval.collapse import CollapseAlarm

TASK = SimpleNamespace(hparams={"learning_rate": 1.0, "warmup_steps": 0})


def train(alarm, losses, accumulate=1):
    trainer = SimpleNamespace(accumulate_grad_batches=accumulate)
    for step, loss in enumerate(losses):
        outputs = {"loss": torch.tensor(loss / accumulate), "collapse_loss": torch.tensor(math.log(64))}
        alarm.on_train_batch_end(trainer, TASK, outputs, {}, step)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_loss_stuck_at_guessing_is_told_once(accumulate):
    with pytest.warns(RuntimeWarning, match=r"collapsed\. Lower model\.learning_rate \(1\.0\)") as caught:
        train(CollapseAlarm(steps=100), [math.log(64)] * 400, accumulate)
    assert len(caught) == 1


def test_a_falling_loss_is_left_alone():
    alarm = CollapseAlarm(steps=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(alarm, [math.log(64) * (1 if step < 90 else 0.9) for step in range(400)])
    assert alarm.stuck == 0
    assert not alarm.warned
