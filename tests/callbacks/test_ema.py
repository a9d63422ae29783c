"""The moving average of the weights: its value, when it stands in for them, and that it survives."""

import lightning as L
import pytest
import torch
from torch import nn

from zoo.callbacks.ema import EMA
from zoo.errors import UserError


class Line(L.LightningModule):
    """One trained weight, one frozen one; it remembers what validation saw."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.line = nn.Linear(1, 1, bias=False)
        self.frozen = nn.Linear(1, 1, bias=False).requires_grad_(False)
        nn.init.ones_(self.line.weight)
        self.raw, self.seen, self.fail_at = [], [], fail_at

    def training_step(self, batch, batch_idx):
        return (self.line(batch) ** 2).mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.raw.append(self.line.weight.item())

    def validation_step(self, batch, batch_idx):
        self.seen.append(self.line.weight.item())
        if len(self.seen) == self.fail_at:
            raise RuntimeError("amid a validation")

    def configure_optimizers(self):
        return torch.optim.SGD([self.line.weight], lr=0.1)


def trainer(folder, *callbacks, **options):
    options = {"max_epochs": 1, "num_sanity_val_steps": -1, **options}
    return L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        **options,
    )


def batches(number):
    return torch.utils.data.DataLoader(torch.ones(number, 1), batch_size=1)


def average(raw, decay, start=None):
    """Written out by hand: the first step starts from the weights after it."""
    value = raw[0] if start is None else start
    for updates, weight in enumerate(raw):
        keep = min(decay, (1 + updates) / (10 + updates))
        value = keep * value + (1 - keep) * weight
    return value


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_validation_sees_the_average_and_training_goes_on_from_the_raw_weights(tmp_path, decay):
    task, ema = Line(), EMA(decay)
    trainer(tmp_path, ema).fit(task, batches(20), batches(1))
    assert task.seen[0] == 1  # before the first step: the weights as they are
    assert task.seen[1] == pytest.approx(average(task.raw, decay))
    assert task.line.weight.item() == task.raw[-1]
    assert list(ema.averages) == ["line.weight"]
    alone = Line()
    trainer(tmp_path).fit(alone, batches(20), batches(1))
    assert alone.raw == task.raw


def test_a_batch_that_accumulates_gradients_is_no_step(tmp_path):
    ema = EMA(0.5)
    trainer(tmp_path, ema, accumulate_grad_batches=4).fit(Line(), batches(20), batches(1))
    assert ema.updates == 5


def test_an_exception_in_validation_leaves_the_raw_weights_for_the_checkpoint(tmp_path):
    task, ema = Line(fail_at=2), EMA(0.9)
    with pytest.raises(RuntimeError, match="amid a validation"):
        trainer(tmp_path, ema).fit(task, batches(20), batches(1))
    assert task.seen[1] != task.raw[-1]
    assert task.line.weight.item() == task.raw[-1]
    assert ema.state_dict()["averages"]["line.weight"].item() == pytest.approx(average(task.raw, 0.9))


def test_it_goes_on_from_a_checkpoint_and_evaluates_it(tmp_path):
    whole, ema = Line(), EMA(0.9)
    trainer(tmp_path, ema, max_epochs=2).fit(whole, batches(10), batches(1))
    first = Line()
    running = trainer(tmp_path, EMA(0.9), max_epochs=1)
    running.fit(first, batches(10), batches(1))
    running.save_checkpoint(tmp_path / "half.ckpt")
    second, resumed = Line(), EMA(0.9)
    trainer(tmp_path, resumed, max_epochs=2, num_sanity_val_steps=0).fit(
        second, batches(10), batches(1), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert resumed.updates == 20
    assert resumed.averages["line.weight"].item() == pytest.approx(ema.averages["line.weight"].item(), abs=1e-9)
    tested = Line()
    trainer(tmp_path, EMA(0.9)).validate(tested, batches(1), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert tested.seen[-1] == pytest.approx(first.seen[-1])
    assert tested.line.weight.item() == first.raw[-1]


def test_averages_of_other_parameters_are_refused(tmp_path):
    ema = EMA()
    ema.load_state_dict({"updates": 3, "averages": {"other.weight": torch.zeros(1)}})
    with pytest.raises(UserError, match="not of the parameters"):
        trainer(tmp_path, ema).validate(Line(), batches(1))


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(UserError, match="decay is 1: give a share"):
        EMA(1)
