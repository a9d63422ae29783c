"""Rectified flow by hand: a network and a text tower of a few lines, whose losses and walks can be written out."""

import math

import pytest
import torch

from zoo.errors import UserError
from zoo.registry import IMAGE_TOKENIZERS
from zoo.tasks.text_to_image.generators.diffusion import RectifiedFlow, Sampling, assemble
from zoo.tasks.text_to_image.generators.flow import draw_times, mix, path_velocity
from zoo.tasks.text_to_image.generators.sampling import guide, seeded_noise

TEXTS = ["红色的苹果", "一只猫", "蓝色的圆形和黄色的三角形"]


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("guidance", 0.99, 1.0),
        ("guidance", float("inf"), 1e6),
        ("guidance_until", -0.01, 0.0),
        ("guidance_until", 1.01, 1.0),
    ],
)
def test_an_option_out_of_its_range_is_refused(name, bad, good):
    with pytest.raises(UserError) as caught:
        Sampling(**{name: bad})
    assert (caught.value.argument, caught.value.value) == (name, bad)
    assert getattr(Sampling(**{name: good}), name) == good


def test_options_without_effect_are_named():
    assert Sampling().idle() == {}
    assert set(Sampling(guidance=1.0).idle()) == {"guidance_until"}
    assert set(Sampling(guidance_until=0.0).idle()) == {"guidance"}
    assert Sampling(guidance_until=1.0, guidance=2.0).idle() == {}


class Tower(torch.nn.Module):
    """Makes each text a sequence of its characters' numbers."""

    width = 4

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.01))

    def sequence(self, texts):
        length = max(map(len, texts))
        numbers = torch.tensor([[ord(letter) for letter in text.ljust(length)] for text in texts])
        return (numbers % 97)[:, :, None] * self.scale.expand(4), numbers != ord(" ")


class Tokenizer(torch.nn.Module):
    """Makes of two by two pixels a latent of three channels, far from 0; what is decoded are its latents."""

    factor, channels = 2, 3

    def encode(self, images):
        return torch.nn.functional.avg_pool2d(images.float(), 2) + 1000

    def decode(self, latents):
        return latents


class Network(torch.nn.Module):
    """Foretells something of everything that it is told."""

    def forward(self, states, times, text, mask):
        told = (text.sum(dim=2) * mask).sum(dim=1) / mask.sum(dim=1)
        return states * 0.5 + (times + told)[:, None, None, None]


def rectified(**options):
    return RectifiedFlow(Network(), Tower(), image_size=8, **options)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_loss_is_the_mean_squared_error_of_the_velocity(shift):
    flow = rectified(time_shift=shift).eval()
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(5)
    found = flow.loss({"image": images, "text": TEXTS})["loss"]
    torch.manual_seed(5)
    data = images.float() / 127.5 - 1
    noise, times = torch.randn_like(data), draw_times(3, shift=shift)
    foretold = flow.network(mix(data, noise, times), times, *flow.text_tower.sequence(TEXTS))
    torch.testing.assert_close(found, (foretold - path_velocity(data, noise)).square().mean())


def test_a_network_may_give_the_image_that_the_velocity_leads_to():
    flow = rectified(prediction="image").eval()
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(5)
    found = flow.loss({"image": images, "text": TEXTS})["loss"]
    torch.manual_seed(5)
    data = images.float() / 127.5 - 1
    noise, times = torch.randn_like(data), draw_times(3)
    state = mix(data, noise, times)
    given = flow.network(state, times, *flow.text_tower.sequence(TEXTS))
    velocity = (state - given) / times.clamp(min=0.05)[:, None, None, None]
    torch.testing.assert_close(found, (velocity - path_velocity(data, noise)).square().mean())


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_network_that_knows_the_image_is_led_to_it_by_any_steps(solver):
    image = torch.linspace(-1, 1, 3 * 8 * 8).reshape(3, 8, 8)
    flow = RectifiedFlow(
        lambda state, *_: image.expand_as(state), Tower(), image_size=8, time_shift=3.0, prediction="image"
    )
    for steps in (1, 4, 30):
        found = flow.generate(TEXTS, seeds=[0, 1, 2], solver=solver, steps=steps, guidance=2.0)
        assert (found.float() / 127.5 - 1 - image).abs().max() < 0.01  # half a grey level, and rounding


def test_what_stands_for_no_text_begins_small():
    tower = Tower()
    tower.width = 10_000
    begun = RectifiedFlow(Network(), tower, image_size=8).no_text
    assert begun.std().item() == pytest.approx(0.02, rel=0.05)
    assert begun.abs().max() < 0.1


def test_a_tenth_of_the_texts_is_not_told_in_training_alone():
    flow, told = rectified(), []
    flow.network.register_forward_pre_hook(lambda _, given: told.append((given[2] == flow.no_text).all(dim=(1, 2))))
    texts = ["红色的苹果"] * 4000
    images = torch.zeros(4000, 3, 8, 8, dtype=torch.uint8)
    flow.loss({"image": images, "text": texts})
    assert told.pop().double().mean().item() == pytest.approx(0.1, abs=0.025)
    flow.eval().loss({"image": images, "text": texts})
    assert not told.pop().any()


def test_without_a_text_one_vector_is_seen_alone():
    flow = rectified()
    text, mask = flow._read(["ab", "abcd", "abc"])
    bare, bare_mask = flow._without_text(text, mask, torch.tensor([True, False, True]))
    assert torch.equal(bare[1], text[1])
    assert mask.tolist() == [[True] * 2 + [False] * 2, [True] * 4, [True] * 3 + [False]]
    assert bare_mask.tolist() == [[True] + [False] * 3, [True] * 4, [True] + [False] * 3]
    assert torch.equal(bare[[0, 2]], flow.no_text.expand(2, 4, 4))
    assert flow._without_text(text.bfloat16(), mask, torch.ones(3, dtype=torch.bool))[0].dtype == torch.bfloat16


@pytest.mark.parametrize(("guidance", "until"), [(3.0, 0.5), (1.0, 1.0), (2.0, 0.0), (2.0, 1.0)])
def test_a_walk_is_euler_by_hand(guidance, until):
    flow = rectified().eval()
    with torch.no_grad():
        start = torch.randn(3, 3, 8, 8)
        found = flow._walk(start, TEXTS, Sampling(steps=4, guidance=guidance, guidance_until=until))
        text, mask = flow._read(TEXTS)
        bare = flow._without_text(text, mask, torch.ones(3, dtype=torch.bool))
        state = start
        for time in (1.0, 0.75, 0.5, 0.25):
            foretold = flow.network(state, torch.full((3,), time), text, mask)
            if guidance > 1 and time <= until:
                foretold = guide(foretold, flow.network(state, torch.full((3,), time), *bare), guidance)
            state = state - 0.25 * foretold
    torch.testing.assert_close(found, state, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("strength", "times"), [(0.5, (0.5, 0.25)), (1.0, (1.0, 0.75, 0.5, 0.25))])
def test_an_image_is_drawn_anew_from_where_its_strength_brings_it(strength, times):
    flow = rectified().eval()
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    found = flow.image_to_image(images, TEXTS, seeds=[1, 2, 3], strength=strength, steps=4, guidance=1.0)
    with torch.no_grad():
        text, mask = flow._read(TEXTS)
        data = images.float() / 127.5 - 1
        state = (1 - strength) * data + strength * seeded_noise([1, 2, 3], (3, 8, 8))
        for time in times:
            state = state - 0.25 * flow.network(state, torch.full((3,), time), text, mask)
    expected = ((state + 1) * 127.5).clamp(0, 255)
    assert (found.float() - expected).abs().max() < 0.51


def test_latents_are_brought_to_mean_0_and_deviation_1():
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    flow = rectified(image_tokenizer=Tokenizer())
    assert flow.state_shape == (3, 4, 4)
    latents = flow.image_tokenizer.encode(images)
    mean, std = latents.mean(dim=(0, 2, 3)) + torch.tensor([1.0, 2.0, 3.0]), latents.std(dim=(0, 2, 3))
    flow.take_statistics(mean.tolist(), std.tolist())
    expected = (latents - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(flow._from_images(images), expected)
    torch.testing.assert_close(flow._standard(latents), expected)
    torch.testing.assert_close(flow._to_images(expected), latents)
    torch.manual_seed(0)
    whole = flow.eval().loss({"image": images, "text": ["a"] * 64})["loss"]
    torch.manual_seed(0)
    assert flow.loss({"latent": latents, "text": ["a"] * 64})["loss"] == whole
    assert flow.generate(["a", "b"], seeds=[1, 2], steps=2).shape == (2, 3, 4, 4)


def test_what_is_frozen_is_not_trained_and_never_in_training_mode():
    flow = rectified(image_tokenizer=Tokenizer(), freeze_text=True).train()
    assert (flow.training, flow.text_tower.training, flow.image_tokenizer.training) == (True, False, False)
    assert not flow.text_tower.scale.requires_grad
    text, _ = flow._read(TEXTS)
    assert not text.requires_grad
    free = rectified(image_tokenizer=Tokenizer())
    assert free.train().text_tower.training
    assert free._read(TEXTS)[0].requires_grad
    with torch.no_grad():
        assert not free._read(TEXTS)[0].requires_grad
    assert not free.eval().text_tower.training


def assembled(**options):
    """A generator put together of a network that keeps what it was told."""

    class Told(torch.nn.Module):
        def __init__(self, **told):
            super().__init__()
            self.told = told

    tower = {"text_tower": "bert_tiny_chinese", "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2}}
    usual = {"image_size": 16, "multiple": 4, "image_tokenizer": None, "freeze_text": False, "sampling": None}
    return assemble(Told, **{**usual, **tower, "time_shift": 1.0, "prediction": "velocity", **options})


def test_a_generator_is_put_together_of_what_is_asked_for():
    flow = assembled()
    assert flow.network.told == {"channels": 3, "side": 16, "text_width": 32}
    assert (flow.image_size, flow.image_tokenizer, flow.options) == (16, None, Sampling())
    assert all(parameter.requires_grad for parameter in flow.text_tower.parameters())
    other = assembled(multiple=16, freeze_text=True, time_shift=3.0, sampling={"steps": 7, "guidance": 2.0})
    assert (flow.time_shift, other.time_shift) == (1.0, 3.0)
    assert (flow.prediction, assembled(prediction="image").prediction) == ("velocity", "image")
    assert other.options == Sampling(steps=7, guidance=2.0)
    assert other.sampling == {"solver": "euler", "steps": 7, "guidance": 2.0, "guidance_until": 0.7}
    assert not any(parameter.requires_grad for parameter in other.text_tower.parameters())


def test_a_generator_of_latents_is_put_together_of_those_of_its_tokenizer(monkeypatch):
    class Latents(Tokenizer):
        channels, num_codes = 5, None

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

    asked = []
    monkeypatch.setattr(IMAGE_TOKENIZERS, "build", lambda name: asked.append(name) or Latents())
    flow = assembled(image_tokenizer="mine", image_size=24)
    assert asked == ["mine"]
    assert flow.network.told == {"channels": 5, "side": 12, "text_width": 32}
    assert isinstance(flow.network.told["side"], int)
    assert flow.state_shape == (5, 12, 12)
    assert not flow.image_tokenizer.weight.requires_grad
    with pytest.raises(UserError, match="image_size is 12: this network takes multiples of 8 pixels"):
        assembled(image_tokenizer="mine", image_size=12)
    monkeypatch.setattr(Latents, "num_codes", 7)
    with pytest.raises(UserError) as caught:
        assembled(image_tokenizer="mine", image_size=24)
    assert (caught.value.argument, caught.value.value) == ("image_tokenizer", "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple": 0}, "patch_size: give 1 or more"),
        ({"image_size": 0}, "image_size is 0: this network takes multiples of 4 pixels"),
        ({"image_size": 18}, "image_size is 18: this network takes multiples of 4 pixels"),
        ({"text_tower_options": {"depth": 3}}, "--model.text_tower_options null"),
        ({"time_shift": 0.5}, "time_shift is 0.5: give 1 (not at all) or more, such as 3"),
        ({"time_shift": math.inf}, "time_shift is inf"),
        ({"prediction": "noise"}, "prediction is noise: give velocity or image"),
        ({"sampling": {"step": 3}}, "sampling has no 'step'. Did you mean steps"),
    ],
)
def test_what_cannot_be_put_together_is_refused(options, message):
    with pytest.raises(UserError) as caught:
        assembled(**options)
    assert message in str(caught.value)


def test_it_may_be_of_one_pixel():
    assert assembled(image_size=1, multiple=1).network.told["side"] == 1
