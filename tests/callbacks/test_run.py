"""What every run does: here, that it learns until its end."""

import lightning as L
import pytest
import torch
from torch import nn

from zoo.callbacks.run import IdleRates
from zoo.errors import UserError


class Line(L.LightningModule):
    """A weight whose learning rate is 0.1 times what ``ratio`` says of each step."""

    def __init__(self, ratio, rate=0.1):
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.ratio, self.rate = ratio, rate

    def training_step(self, batch, batch_idx):
        return (self.line(batch) ** 2).mean()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.ratio)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(folder, task, **options):
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        callbacks=[IdleRates()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(task, torch.utils.data.DataLoader(torch.ones(8, 1)))
    return trainer.global_step


@pytest.mark.parametrize(
    ("task", "accumulated"),
    [
        (Line(lambda step: (step >= 3) / 2), 1),  # a warm-up from 0
        (Line(lambda step: step < 7), 1),  # 0 at the last step alone
        (Line(lambda step: step < 3), 2),  # at the last step, of two batches
        (Line(lambda step: step != 3), 1),  # at one step amid it
        (Line(lambda step: 1, rate=0.0), 1),  # asked for
    ],
)
def test_a_training_learns_to_its_end(tmp_path, task, accumulated):
    assert train(tmp_path, task, accumulate_grad_batches=accumulated) == 8 // accumulated


def test_a_training_that_learns_nothing_more_is_stopped(tmp_path):
    with pytest.raises(UserError, match="all learning rates are 0 from step 3 on") as caught:
        train(tmp_path, Line(lambda step: step < 3))
    assert caught.value.argument == "trainer.max_epochs"
