"""Losses as parts: what owns the learned numbers, and a loss from another file."""

import pytest
import torch
import yaml
from torch.nn.functional import normalize

import zoo
from zoo.errors import UserError
from zoo.tasks.retrieval.losses.functional import clip_loss, siglip_loss

STRANGER = '''
import torch
from torch import nn
from torch.nn.functional import relu

from zoo.tasks.retrieval.registry import LOSSES


class Triplet(nn.Module):
    sharded = False

    def __init__(self, margin):
        super().__init__()
        self.margin = margin
        self.logit_scale = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def forward(self, images, texts, *, image_ids, query_ids, positives=None):
        scores = images @ texts.T
        return relu(self.margin + scores - scores.diagonal()[:, None]).mean()


@LOSSES.register
def triplet(*, margin: float = 0.2) -> Triplet:
    """Build a triplet loss of a shop."""
    return Triplet(margin)
'''


def test_a_loss_owns_what_it_learns():
    assert set(zoo.create("softmax").state_dict()) == {"logit_scale"}
    loss = zoo.create("sigmoid", temperature=0.5, learn_temperature=False, logit_bias=-3.0)
    assert loss.logit_scale.exp().item() == pytest.approx(2)
    assert not loss.logit_scale.requires_grad
    assert (loss.logit_bias.item(), loss.logit_bias.requires_grad) == (-3, True)


def test_a_loss_is_its_function_with_what_it_has_learned():
    images, texts = (normalize(torch.randn(5, 4), dim=1) for _ in range(2))
    ids = {"image_ids": torch.tensor([1, 2, 1, 3, 4]), "query_ids": torch.arange(5)}
    for options in ({}, {"text_to_image_weight": 0.9, "label_smoothing": 0.2}):
        loss = zoo.create("softmax", temperature=0.2, **options)
        expected = clip_loss(images, texts, torch.tensor(5.0), **ids, **options)
        torch.testing.assert_close(loss(images, texts, **ids), expected)
    loss = zoo.create("sigmoid", temperature=0.2, logit_bias=-3.0)
    expected = siglip_loss(images, texts, torch.tensor(5.0), torch.tensor(-3.0), **ids)
    torch.testing.assert_close(loss(images, texts, **ids), expected)
    expected = siglip_loss(images[2:4], texts, torch.tensor(5.0), torch.tensor(-3.0), first_row=2, **ids)
    torch.testing.assert_close(loss(images[2:4], texts, first_row=2, **ids), expected)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("softmax", "temperature", 0.0),
        ("sigmoid", "temperature", 3.0),
        ("softmax", "temperature", 0.009),
        ("softmax", "temperature", 1.01),
        ("softmax", "text_to_image_weight", 1.2),
        ("softmax", "label_smoothing", 1.0),
    ],
)
def test_a_number_out_of_its_range_is_refused(name, option, value):
    with pytest.raises(UserError) as caught:
        zoo.create(name, **{option: value})
    assert (caught.value.argument, caught.value.value) == (option, value)
    assert caught.value.valid in str(caught.value)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_the_ends_of_the_range_of_temperatures_are_taken(name, temperature):
    loss = zoo.create(name, temperature=temperature)
    assert loss.logit_scale.exp().item() == pytest.approx(1 / temperature)
    assert loss.logit_scale.requires_grad


def test_the_ends_of_the_ranges_of_shares_are_taken():
    for weight, smoothing in ((0.0, 0.0), (1.0, 0.99)):
        loss = zoo.create("softmax", text_to_image_weight=weight, label_smoothing=smoothing)
        assert (loss.text_to_image_weight, loss.label_smoothing) == (weight, smoothing)


@pytest.mark.ddp
def test_a_loss_from_another_file_trains_by_its_name(zoo_process, workplace, only_run):
    (workplace / "shop_losses.py").write_text(STRANGER)
    experiment = yaml.safe_load((workplace / "experiments" / "tiny.yaml").read_text())
    experiment["imports"] = ["shop_losses"]
    experiment["model"]["init_args"]["loss"] = "triplet"
    (workplace / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    words = ("--config", "experiments/tiny.yaml", "--model.loss_options.margin", "0.3")
    code, _, err = zoo_process(workplace, "fit", *words, processes=2)
    assert code == 0, err
    content = torch.load(only_run(workplace) / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["hyper_parameters"]["loss_options"] == {"margin": 0.3}
    assert "loss.logit_scale" in content["state_dict"]
