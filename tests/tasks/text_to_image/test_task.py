"""The text-to-image task apart from any generator of the zoo's."""

import pytest
import torch
from torch import nn

import zoo
from zoo.errors import UserError
from zoo.tasks import TextToImageTask
from zoo.tasks.text_to_image.task import image_seed


class Grey(nn.Module):
    """An image of one grey level that its seed draws; its loss draws from torch's own noise."""

    image_size = 4

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5))

    def loss(self, batch):
        return {"loss": (self.level * torch.randn(len(batch["text"]))).square().mean()}

    def generate(self, texts, *, seeds):
        levels = [torch.randint(256, (), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(levels).to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)


def batch(rows):
    return {"text": ["裙"] * len(rows), "row": torch.tensor(rows), "image": torch.zeros(len(rows), 3, 4, 4)}


def test_a_picture_is_a_function_of_its_row_and_the_sample_seed():
    task, other = TextToImageTask(Grey()), TextToImageTask(Grey(), sample_seed=1)
    rows = list(range(40))
    together = task.generate(["裙"] * 40, rows)
    apart = torch.cat([task.generate(["裙"], [row]) for row in reversed(rows)]).flip(0)
    assert torch.equal(together, apart)
    assert (together != other.generate(["裙"] * 40, rows)).flatten(1).any(1).float().mean() > 0.9
    assert len(together.flatten(1)[:, 0].unique()) > 30


def test_seeds_differ_where_the_generator_looks():
    seeds = {image_seed(s, r, c) & 0xFFFFFFFF for s in range(5) for r in range(500) for c in range(4)}
    assert len(seeds) == 10_000
    assert max(image_seed(0, row) for row in range(1000)) < 2**63


def test_an_evaluation_has_the_same_noise_every_time_and_takes_none_from_training():
    task = TextToImageTask(Grey())
    torch.manual_seed(7)
    first = task.validation_step(batch([3, 4]), 0)
    drawn = torch.rand(())
    torch.manual_seed(7)
    assert torch.equal(torch.rand(()), drawn)
    torch.manual_seed(8)
    again = task.validation_step(batch([3, 4]), 5)
    assert torch.equal(first["loss"], again["loss"])
    assert torch.equal(first["images"], again["images"])
    assert not torch.equal(first["loss"], task.validation_step(batch([9, 4]), 0)["loss"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "candidates is 0: give 1 or more"),
        ({"candidates": 4}, "several candidates need a reranker"),
        ({"reranker": "x.ckpt"}, "a reranker needs several"),
        ({"generator_options": {"a": 1}}, "generator is a built module: generator_options"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TextToImageTask(Grey(), **options)


def test_what_is_no_generator_is_refused():
    with pytest.raises(UserError, match="Linear has no image_size, loss, generate"):
        TextToImageTask(nn.Linear(1, 1))
    small = Grey()
    small.image_size = 8
    with pytest.raises(UserError, match=r"Grey.generate gave torch.uint8 \[2, 3, 4, 4\]; a Generator gives .*8, 8"):
        TextToImageTask(small).generate(["裙", "裤"], [0, 1])


def test_an_unknown_generator_is_named():
    with pytest.raises(UserError, match="generator 'dalee'"):
        TextToImageTask("dalee")


def test_a_checkpoint_of_a_built_module_says_how_to_load_it(tmp_path):
    task = TextToImageTask(Grey())
    contents = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams), "global_step": 3}
    task.on_save_checkpoint(contents)
    torch.save(contents, tmp_path / "grey.ckpt")
    with pytest.raises(UserError, match=r"its generator was a module built in Python.*load_from_checkpoint\(path, gen"):
        zoo.load(tmp_path / "grey.ckpt")
