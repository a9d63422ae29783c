import math
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, RichProgressBar
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from zoo.core.optim import (
    OptimizerOptions,
    adamw,
    layer_rates,
    parameter_groups,
    refuse_late_changes,
    training_steps,
    two_cosines_ratio,
    warmup_cosine,
    warmup_cosine_ratio,
)
from zoo.errors import UserError
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.convolution = nn.Conv2d(3, 4, 2)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight  # shared
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))


def test_matrices_decay_and_the_rest_does_not():
    model = Model()
    decayed, undecayed = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert undecayed["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(model.table.weight), id(model.convolution.weight)}
    assert {id(p) for p in undecayed["params"]} == {
        id(p) for p in (model.convolution.bias, model.norm.weight, model.norm.bias, model.logit_scale)
    }


@pytest.mark.parametrize(
    "build",
    [Model, lambda: IMAGE_TOWERS.build("timm:test_vit"), lambda: TEXT_TOWERS.build("bert_tiny_chinese", width=64)],
)
def test_each_trainable_parameter_is_in_one_group(build):
    model = build()
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}


def test_an_empty_group_is_left_out():
    assert [group["weight_decay"] for group in parameter_groups(nn.Linear(2, 2), 0)] == [0, 0]
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


@pytest.mark.parametrize(
    ("model", "weight_decay", "message"),
    [
        (nn.Identity(), 0.1, "Identity has no trainable parameter"),
        (nn.Linear(2, 2), -1, "weight_decay is -1: give 0 or more"),
    ],
)
def test_faulty_groups(model, weight_decay, message):
    with pytest.raises(UserError, match=message):
        parameter_groups(model, weight_decay)


def schedule(steps, **options):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = warmup_cosine(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates, scheduler


def test_golden_rates():
    rates, _ = schedule(12, warmup_steps=4, total_steps=10, min_ratio=0.1)
    ratios = [0.25, 0.5, 0.75, 1.0, 1.0, *(0.1 + 0.45 * (1 + math.cos(math.pi * k / 6)) for k in range(1, 6)), 0.1, 0.1]
    assert rates == pytest.approx([2 * ratio for ratio in ratios])


def test_a_schedule_may_be_of_one_step_or_fall_not_at_all():
    assert schedule(2, warmup_steps=0, total_steps=1)[0] == [2.0, 0.0]
    assert schedule(4, warmup_steps=0, total_steps=3, min_ratio=1)[0] == [2.0] * 4
    assert schedule(4, warmup_steps=0, total_steps=3)[0][-1] == 0


def test_without_warm_up_the_peak_comes_first():
    rates, _ = schedule(4, warmup_steps=0, total_steps=4)
    assert rates == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])


def test_a_training_shorter_than_its_warm_up_only_climbs():
    rates, _ = schedule(2, warmup_steps=100, total_steps=2)
    assert rates == pytest.approx([0.02, 0.04])


def test_a_resumed_schedule_goes_on_and_can_be_longer():
    whole, _ = schedule(10, warmup_steps=2, total_steps=10)
    _, stopped = schedule(5, warmup_steps=2, total_steps=10)
    state = torch.load(_saved(stopped.state_dict()), weights_only=True)
    for total, expected in ((10, whole[5]), (20, 2 * warmup_cosine_ratio(5, warmup_steps=2, total_steps=20))):
        _, resumed = schedule(0, warmup_steps=2, total_steps=total)
        resumed.load_state_dict(state)
        resumed.optimizer.step()
        assert resumed.lr_lambdas[0](resumed.last_epoch) * resumed.base_lrs[0] == pytest.approx(expected)


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_the_schedule_pickles():
    _, scheduler = schedule(3, warmup_steps=2, total_steps=10)
    again = pickle.loads(pickle.dumps(scheduler))
    assert again.get_last_lr() == scheduler.get_last_lr()
    assert again.lr_lambdas[0](7) == scheduler.lr_lambdas[0](7)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"warmup_steps": -1, "total_steps": 5}, "warmup_steps"),
        ({"warmup_steps": 0, "total_steps": 0}, "total_steps"),
        ({"warmup_steps": 0, "total_steps": 5, "min_ratio": 2}, "min_ratio"),
    ],
)
def test_faulty_schedules(options, argument):
    with pytest.raises(UserError) as raised:
        schedule(1, **options)
    assert (raised.value.argument, raised.value.value) == (argument, options[argument])


def limits(estimated, **options):
    """A trainer's limits of a training, by default none."""
    limits = {"max_epochs": -1, "max_steps": -1, "limit_train_batches": 1.0, **options}
    return SimpleNamespace(estimated_stepping_batches=estimated, **limits)


def test_a_training_has_as_many_steps_as_the_trainer_says():
    assert training_steps(limits(7, max_epochs=2)) == 7
    assert training_steps(limits(1, max_steps=1)) == 1
    assert training_steps(limits(math.inf, max_epochs=0)) == 1
    assert training_steps(limits(math.inf, max_steps=0)) == 1
    assert training_steps(limits(-1, max_epochs=2, limit_train_batches=0)) == 1


@pytest.mark.parametrize(
    ("estimated", "epochs", "argument"),
    [(math.inf, -1, "trainer.max_epochs"), (-1, 2, "trainer.max_steps"), (0, 2, "trainer.max_steps")],
)
def test_a_training_without_an_end_is_refused(estimated, epochs, argument):
    with pytest.raises(UserError, match="the learning rate falls along a cosine, which needs an end") as caught:
        training_steps(limits(estimated, max_epochs=epochs))
    assert (caught.value.argument, caught.value.value) == (argument, -1)


def test_a_second_phase_has_a_peak_and_a_cosine_of_its_own():
    def ratio(step):
        return two_cosines_ratio(step, warmup_steps=10, first_steps=100, total_steps=160, second_ratio=0.3)

    for step in range(100):
        assert ratio(step) == warmup_cosine_ratio(step, warmup_steps=10, total_steps=100)
    assert ratio(99) < 0.001
    assert ratio(100) == pytest.approx(0.3)
    assert ratio(130) == pytest.approx(0.15)
    assert ratio(160) == ratio(200) == pytest.approx(0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("weight_decay", value) for value in (-1.0, math.nan, math.inf)),
        *(("eps", value) for value in (-1e-9, math.nan)),
        *(("betas", value) for value in ((1.0, 0.9), (0.9, -0.1), (math.nan, 0.9))),
        ("warmup_steps", -1),
    ],
)
def test_an_option_of_adamw_out_of_its_range_is_refused(option, value):
    with pytest.raises(UserError) as error:
        OptimizerOptions(**{option: value})
    assert error.value.argument == f"model.optimizer.{option}"


def test_an_option_of_adamw_may_be_0():
    options = {"weight_decay": 0.0, "warmup_steps": 0, "eps": 0.0, "betas": (0.0, 0.0)}
    made = OptimizerOptions(**options)
    assert {name: getattr(made, name) for name in options} == options


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_a_learning_rate_that_is_none_is_refused(rate):
    with pytest.raises(UserError) as error:
        adamw(Model(), rate, OptimizerOptions())
    assert error.value.argument == "model.learning_rate"


def test_a_part_has_a_learning_rate_of_its_own():
    model = Model()
    groups = parameter_groups(model, 0.1, dict.fromkeys(model.convolution.parameters(), 0.5))
    own = [group for group in groups if group.get("lr") == 0.5]
    assert {id(p) for group in own for p in group["params"]} == {id(p) for p in model.convolution.parameters()}
    assert sum(len(group["params"]) for group in groups) == len([p for p in model.parameters() if p.requires_grad])
    still = parameter_groups(model, 0.1, dict.fromkeys(model.convolution.parameters(), 0.0))
    assert sorted(group.get("lr", 1.0) for group in still) == [0.0, 0.0, 1.0, 1.0]
    with pytest.raises(UserError, match="learning rates"):
        parameter_groups(model, 0.1, dict.fromkeys(model.convolution.parameters(), -1.0))


def by_hand(start, gradients, rate, options):
    """AdamW as its paper has it (Loshchilov and Hutter 2019, arXiv:1711.05101), over a matrix."""
    weights, mean, square = start.double(), torch.zeros(()), torch.zeros(())
    for step, gradient in enumerate(gradients, start=1):
        first, second = options.betas
        mean = first * mean + (1 - first) * gradient.double()
        square = second * square + (1 - second) * gradient.double() ** 2
        weights = weights * (1 - rate * options.weight_decay)
        weights = weights - rate * (mean / (1 - first**step)) / ((square / (1 - second**step)).sqrt() + options.eps)
    return weights.float()


USUAL = OptimizerOptions(weight_decay=0.1, betas=(0.8, 0.7), eps=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        USUAL,
        replace(USUAL, betas=(0.5, 0.7)),
        replace(USUAL, betas=(0.8, 0.99)),
        replace(USUAL, eps=0.5),
        replace(USUAL, weight_decay=2.0),
        replace(USUAL, rate_factor=0.25),
    ],
)
def test_adamw_heeds_all_its_options(options):
    layer = nn.Linear(3, 2, bias=False)
    start, gradients = layer.weight.detach().clone(), torch.randn(4, 2, 3)
    optimizer = adamw(layer, 0.1, options)
    for gradient in gradients:
        layer.weight.grad = gradient.clone()
        optimizer.step()
    rate = 0.1 * options.rate_factor
    torch.testing.assert_close(layer.weight.detach(), by_hand(start, gradients, rate, options), rtol=1e-5, atol=1e-6)


def test_a_factor_is_on_the_rates_of_parts_too():
    model = Model()
    options = OptimizerOptions(rate_factor=0.5)
    optimizer = adamw(model, 0.2, options, dict.fromkeys(model.convolution.parameters(), 0.01))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in model.convolution.parameters()} == {0.005}
    assert rates[id(model.table.weight)] == rates[id(model.logit_scale)] == 0.1


def test_lightning_clips_the_gradients_of_adamw_in_mixed_precision():
    layer = nn.Linear(3, 2)
    optimizer = adamw(layer, 0.1, OptimizerOptions())
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu")).clip_gradients(optimizer, clip_val=1.0)
    assert torch.cat([parameter.grad.flatten() for parameter in layer.parameters()]).norm().item() == pytest.approx(1)


def test_a_negative_learning_rate_is_refused_and_none_is_not():
    with pytest.raises(UserError) as caught:
        adamw(Model(), -0.1, OptimizerOptions())
    assert caught.value.argument == "model.learning_rate"
    assert adamw(Model(), 0.0, OptimizerOptions()).defaults["lr"] == 0
    assert adamw(Model(), 0.0, OptimizerOptions()).defaults["fused"] is None  # PyTorch's own choice on a CPU


def test_each_layer_learns_slower_than_the_next():
    layers = [[nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))], [nn.Parameter(torch.zeros(1))]]
    rates = layer_rates(layers, 0.8, 0.5)
    assert [[rates[p] for p in layer] for layer in layers] == [[0.2, 0.2], [0.4]]
    assert set(layer_rates(layers, 0.8, 1.0).values()) == {0.8}


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("on_divergence", "go on", "restore"),
        ("max_restores", 0, 1),
        ("rate_factor", 0.0, 1e-9),
        ("rate_factor", math.inf, 7.0),
        ("rate_factor", math.nan, 1.0),
    ],
)
def test_an_option_out_of_its_range_is_refused(name, bad, good):
    with pytest.raises(UserError) as caught:
        OptimizerOptions(**{name: bad})
    assert caught.value.argument == f"model.optimizer.{name}"
    assert getattr(OptimizerOptions(**{name: good}), name) == good


def test_restores_have_no_effect_where_a_training_stops():
    assert set(OptimizerOptions(on_divergence="stop").idle()) == {"max_restores"}
    assert OptimizerOptions(on_divergence="restore").idle() == {}


def test_a_callback_that_changes_the_learning_rate_is_refused_among_others():
    refuse_late_changes([RichProgressBar()])
    with pytest.raises(UserError) as caught:
        refuse_late_changes([RichProgressBar(), LearningRateFinder()])
    found = (caught.value.argument, caught.value.value, caught.value.valid)
    assert found == ("trainer.callbacks", "LearningRateFinder", "model.learning_rate")
