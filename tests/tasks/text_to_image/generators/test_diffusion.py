"""The diffusion generators: what they learn, how they draw, what guidance does."""

import numpy as np
import pytest
import torch

from zoo.errors import UserError
from zoo.registry import IMAGE_TOKENIZERS
from zoo.tasks.text_to_image.contracts import Generator
from zoo.tasks.text_to_image.generators.diffusion import RectifiedFlow, Sampling, assemble
from zoo.tasks.text_to_image.generators.flow import draw_times, mix, path_velocity
from zoo.tasks.text_to_image.generators.sampling import guide, seeded_noise
from zoo.tasks.text_to_image.registry import GENERATORS

TEXTS = ["红色的苹果", "一只猫", "蓝色的圆形和黄色的三角形"]
SMALL = {
    "unet_tiny": {"image_size": 16, "widths": (32, 64)},
    "dit_tiny": {"image_size": 16, "num_layers": 2, "num_heads": 1},
}


def build(name, seed=0, **options):
    """A small generator with small random weights everywhere: nothing stays at its zero."""
    torch.manual_seed(seed)
    tower = {"width": 32, "num_layers": 1, "num_heads": 2, "dropout": 0.0}
    generator = GENERATORS.build(name, **{**SMALL[name], "text_tower_options": tower, **options})
    with torch.no_grad():
        for parameter in generator.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return generator.eval()


def batch(size=16):
    images = torch.randint(0, 256, (len(TEXTS), 3, size, size), dtype=torch.uint8)
    return {"image": images, "text": TEXTS, "image_id": list("abc"), "row": torch.arange(3)}


@pytest.fixture(params=SMALL, scope="module")
def generator(request):
    return build(request.param, sampling={"steps": 4, "guidance": 3.0, "guidance_until": 0.8})


@pytest.mark.parametrize("name", SMALL)
def test_the_velocity_begins_as_zero(name):
    torch.manual_seed(0)
    generator = GENERATORS.build(name, **SMALL[name])
    text, mask = generator.text_tower.sequence(TEXTS)
    velocity = generator.network(torch.randn(3, 3, 16, 16), torch.rand(3), text, mask)
    assert not velocity.any()


def test_every_block_of_a_transformer_begins_as_the_identity():
    torch.manual_seed(0)
    model = GENERATORS.build("dit_tiny", **SMALL["dit_tiny"]).network.model
    tokens, text, time = torch.randn(2, 16, 64), torch.randn(2, 5, 64), torch.zeros(2, 6 * 64)
    for block in model.transformer_blocks:
        assert torch.equal(block(tokens, encoder_hidden_states=text, timestep=time), tokens)


@pytest.mark.parametrize("name", SMALL)
def test_it_learns_one_picture_by_heart(name):
    steps = {"unet_tiny": 100, "dit_tiny": 300}[name]
    generator = build(name, sampling={"steps": 20, "guidance": 1.0})
    one = torch.zeros(3, 16, 16, dtype=torch.uint8)
    one[0, :8], one[2, 8:] = 255, 255

    def error():
        return (generator.eval().generate(TEXTS, seeds=[0, 1, 2]).float() - one.float()).abs().mean().item()

    untrained = error()
    generator.train()
    optimizer = torch.optim.AdamW(generator.parameters(), lr=3e-3)
    to_zero = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)  # else the end is where rounding takes it
    for _ in range(steps):
        loss = generator.loss({**batch(), "image": one.expand(3, 3, 16, 16)})["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        to_zero.step()
    assert error() < 0.5 * untrained  # found: 0.17 to 0.23 with five seeds


def test_a_gradient_reaches_every_parameter(generator):
    generator.zero_grad()
    torch.manual_seed(1)
    generator.train().loss({**batch()})["loss"].backward()
    dropped = generator.text_drop
    generator.text_drop = 0.999  # the vector that stands for no text is only learnt where texts are dropped
    generator.loss({**batch()})["loss"].backward()
    generator.text_drop = dropped
    generator.eval()
    without = [name for name, parameter in generator.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_picture_is_of_its_text_and_seed_whatever_the_batch(generator):
    together = generator.generate(TEXTS, seeds=[5, 6, 7])
    assert together.dtype == torch.uint8
    assert together.shape == (3, 3, 16, 16)
    alone = torch.cat([generator.generate([text], seeds=[seed]) for text, seed in zip(TEXTS, [5, 6, 7], strict=True)])
    assert (together.int() - alone.int()).abs().max() <= 1
    assert torch.equal(generator.generate(TEXTS, seeds=[5, 6, 7]), together)


def test_text_and_seed_change_the_picture(generator):
    first = generator.generate(TEXTS[:1], seeds=[0])
    assert not torch.equal(generator.generate(TEXTS[1:2], seeds=[0]), first)
    assert not torch.equal(generator.generate(TEXTS[:1], seeds=[1]), first)


def test_guidance_of_one_draws_the_conditional(generator):
    conditional = generator.generate(TEXTS, seeds=[0, 1, 2], guidance=1.0)
    nearly = generator.generate(TEXTS, seeds=[0, 1, 2], guidance=1.0 + 1e-7)  # both branches are computed
    assert (conditional.int() - nearly.int()).abs().max() <= 1
    assert torch.equal(generator.generate(TEXTS, seeds=[0, 1, 2], guidance_until=0.0), conditional)
    assert not torch.equal(generator.generate(TEXTS, seeds=[0, 1, 2]), conditional)


def test_the_unconditional_branch_ignores_the_text(generator):
    state, time = torch.randn(3, 3, 16, 16), torch.rand(3)
    everything = torch.ones(3, dtype=torch.bool)
    found = []
    for texts in (TEXTS, TEXTS[::-1], ["完全不同的一句话，长得多，也没有任何关系"] * 3):
        text, mask = generator._without_text(*generator._read(texts), everything)
        found.append(generator.network(state, time, text, mask))
    for velocity in found[1:]:
        torch.testing.assert_close(velocity, found[0], atol=1e-5 * found[0].abs().max().item(), rtol=0)
    text, mask = generator._read(TEXTS)
    assert (generator.network(state, time, text, mask) - found[0]).abs().max() > 1e-3


def test_padding_changes_nothing(generator):
    state, time = torch.randn(1, 3, 16, 16), torch.rand(1)
    text, mask = generator._read(TEXTS[:1])
    longer, longer_mask = generator._read([TEXTS[0], TEXTS[2]])
    alone, padded = (generator.network(state, time, *read) for read in ((text, mask), (longer[:1], longer_mask[:1])))
    torch.testing.assert_close(alone, padded, atol=1e-5 * padded.abs().max().item(), rtol=0)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_guidance_outside_the_interval_is_not_computed(generator, solver, monkeypatch):
    sizes = []
    forward = generator.network.forward
    monkeypatch.setattr(
        generator.network,
        "forward",
        lambda state, time, *rest: sizes.append((len(state), time[0].item())) or forward(state, time, *rest),
    )
    generator.generate(TEXTS, seeds=[0, 1, 2], solver=solver, steps=5, guidance_until=0.6)
    assert {size for size, time in sizes if time > 0.61} == {3}
    assert {size for size, time in sizes if time < 0.61} == {6}


# --- from images ---------------------------------------------------------------------------------------------


def test_a_picture_hardly_changed_stays_and_one_wholly_changed_is_drawn_anew(generator):
    images = batch()["image"]
    drawn = {
        strength: generator.image_to_image(images, TEXTS, seeds=[0, 1, 2], strength=strength, steps=20, guidance=1.0)
        for strength in (0.05, 0.5, 1.0)
    }
    change = {strength: (picture.int() - images.int()).abs().float().mean() for strength, picture in drawn.items()}
    assert change[0.05] < change[0.5] < change[1.0]
    assert torch.equal(drawn[1.0], generator.generate(TEXTS, seeds=[0, 1, 2], steps=20, guidance=1.0))


def test_inpainting_keeps_what_is_known_to_the_pixel(generator):
    images = batch()["image"]
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    drawn = generator.inpaint(images, masks, TEXTS, seeds=[0, 1, 2])
    kept = ~masks[:, None].expand_as(images)
    assert torch.equal(drawn[kept], images[kept])
    assert not torch.equal(drawn, images)
    everything = torch.ones_like(masks)
    assert torch.equal(
        generator.inpaint(images, everything, TEXTS, seeds=[0, 1, 2]), generator.generate(TEXTS, seeds=[0, 1, 2])
    )


def test_what_is_known_guides_what_is_drawn(generator):
    """The network sees the known part, at the noise of the time, beside what it draws."""
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[:, :, 8:] = True
    black, white = torch.zeros(3, 3, 16, 16, dtype=torch.uint8), torch.full((3, 3, 16, 16), 255, dtype=torch.uint8)
    drawn = [generator.inpaint(images, masks, TEXTS, seeds=[0, 1, 2])[..., 8:] for images in (black, white)]
    assert not torch.equal(*drawn)


# --- options ---------------------------------------------------------------------------------------------------


def test_a_frozen_text_tower_stays_and_drops_nothing_out():
    generator = build("dit_tiny", freeze_text=True, text_tower_options={"width": 32, "num_layers": 1, "num_heads": 2})
    generator.train()
    assert not generator.text_tower.training
    generator.loss(batch())["loss"].backward()
    assert all(parameter.grad is None for parameter in generator.text_tower.parameters())
    assert generator.network.model.proj_out.weight.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, "image_size is 30: this network takes multiples of 4 pixels"),
        ({"sampling": {"step": 4}}, "sampling has no 'step'. Did you mean steps?"),
        ({"sampling": {"guidance": 0.5}}, "guidance is 0.5: give 1 (none) or more"),
        ({"sampling": {"guidance": float("nan")}}, "guidance is nan: give 1 (none) or more"),
        ({"patch_size": 0}, "patch_size: give 1 or more"),
        ({"image_tokenizer": "diffusers:/nowhere"}, "'diffusers:/nowhere': there is no such folder"),
        ({"sampling": {"guidance_until": 2}}, "guidance_until is 2: give a time from 0"),
        ({"sampling": {"steps": 2.5}}, "steps is 2.5: give something like 25"),
        ({"sampling": {"guidance": "high"}}, "guidance is 'high': give something like 4.0"),
        ({"sampling": {"solver": "ddim"}}, "solver 'ddim' is not one of euler, heun."),
        ({"text_tower": "bert"}, "There is no text tower 'bert'."),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(UserError) as error:
        GENERATORS.build("dit_tiny", **options)
    assert message in str(error.value)


def test_prompts_and_seeds_may_be_arrays(generator):
    drawn = generator.generate(np.array(TEXTS), seeds=np.arange(len(TEXTS)))
    assert torch.equal(drawn, generator.generate(TEXTS, seeds=list(range(len(TEXTS)))))


def test_what_cannot_be_drawn_is_refused(generator):
    images = batch()["image"]
    for call, message in [
        (lambda: generator.generate(TEXTS, seeds=[1]), "give two lists, as long as each other"),
        (lambda: generator.generate("红", seeds=[1]), "give two lists"),
        (lambda: generator.generate([None], seeds=[1]), "texts[0] is NoneType None: give a string"),
        (lambda: generator.generate(["红"], seeds=[2**64]), "a seed is a whole number from 0 to 2^63 - 1"),
        (lambda: generator.generate(["红"], seeds=[-1]), "seeds: -1 came"),
        (lambda: generator.generate(TEXTS, seeds=[1, 2, 3], top_k=5), "sampling has no 'top_k'"),
        (lambda: generator.image_to_image(images[:2], TEXTS, seeds=[1, 2, 3]), "takes torch.uint8 [3, 3, 16, 16]"),
        (lambda: generator.image_to_image(images.float(), TEXTS, seeds=[1, 2, 3]), "images: torch.float32"),
        (lambda: generator.inpaint(images, torch.ones(3, 16, 16), TEXTS, seeds=[1, 2, 3]), "masks: torch.float32"),
    ]:
        with pytest.raises(UserError) as error:
            call()
        assert message in str(error.value)


def test_noise_of_a_picture_is_bit_equal_in_any_batch(generator, monkeypatch):
    seen = []
    forward = generator.network.forward
    monkeypatch.setattr(generator.network, "forward", lambda state, *rest: seen.append(state) or forward(state, *rest))
    generator.generate(TEXTS, seeds=[5, 6, 7])
    generator.generate(TEXTS[1:2], seeds=[6])
    starts = [state for state in seen if len(state) in (1, 3)]
    assert torch.equal(starts[0][1], seeded_noise([6], (3, 16, 16))[0])
    assert any(torch.equal(state[0], starts[0][1]) for state in seen[1:] if len(state) == 1)


# --- the contract ----------------------------------------------------------------------------------------------


OTHERS = ("copying", "dalle_")  # tests/copying.py, tests/generators/test_dalle.py


@pytest.mark.parametrize("name", [name for name in GENERATORS.names() if not name.startswith(OTHERS)])
def test_every_generator_is_built_and_foretells_velocities_of_its_states(name):
    """On the meta device: nothing is allocated."""
    with torch.device("meta"):
        generator = GENERATORS.build(name, image_size=32)
        state, time = torch.randn(2, *generator.state_shape), torch.rand(2)
        text, mask = torch.randn(2, 5, generator.text_tower.width), torch.ones(2, 5, dtype=torch.bool)
        velocity = generator.network(state, time, text, mask)
    assert isinstance(generator, Generator)
    assert generator.image_size == 32
    assert velocity.shape == state.shape
    assert GENERATORS.describe(name).startswith("Build ")
    assert {"image_size", "text_tower", "sampling"} <= GENERATORS.options(name).keys()


# --- by hand -----------------------------------------------------------------------------------------------------


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


def test_the_loss_is_the_mean_squared_error_of_the_velocity():
    flow = rectified().eval()
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(5)
    found = flow.loss({"image": images, "text": TEXTS})["loss"]
    torch.manual_seed(5)
    data = images.float() / 127.5 - 1
    noise, times = torch.randn_like(data), draw_times(3)
    foretold = flow.network(mix(data, noise, times), times, *flow.text_tower.sequence(TEXTS))
    torch.testing.assert_close(found, (foretold - path_velocity(data, noise)).square().mean())


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
    return assemble(Told, **{**usual, **tower, **options})


def test_a_generator_is_put_together_of_what_is_asked_for():
    flow = assembled()
    assert flow.network.told == {"channels": 3, "side": 16, "text_width": 32}
    assert (flow.image_size, flow.image_tokenizer, flow.options) == (16, None, Sampling())
    assert all(parameter.requires_grad for parameter in flow.text_tower.parameters())
    other = assembled(multiple=16, freeze_text=True, sampling={"steps": 7, "guidance": 2.0})
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
        ({"sampling": {"step": 3}}, "sampling has no 'step'. Did you mean steps"),
    ],
)
def test_what_cannot_be_put_together_is_refused(options, message):
    with pytest.raises(UserError) as caught:
        assembled(**options)
    assert message in str(caught.value)


def test_it_may_be_of_one_pixel():
    assert assembled(image_size=1, multiple=1).network.told["side"] == 1
