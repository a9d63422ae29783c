"""The diffusion generators: what they learn, how they draw, what guidance does."""

import numpy as np
import pytest
import torch

from zoo.errors import UserError
from zoo.tasks.text_to_image.contracts import Generator
from zoo.tasks.text_to_image.generators.sampling import seeded_noise
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


def test_a_unet_may_take_squares_of_pixels_for_one_place():
    generator = build("unet_tiny", patch_size=2)
    whole = generator.network.model
    assert (whole.config.in_channels, whole.config.sample_size) == (12, 8)
    text, mask = generator.text_tower.sequence(TEXTS)
    state, time = torch.randn(3, 3, 16, 16), torch.rand(3)
    squares = torch.stack([state[:, c, y::2, x::2] for c in range(3) for y in (0, 1) for x in (0, 1)], dim=1)
    mean = (text * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    wanted = whole(squares, 1000 * time, text, class_labels=mean, encoder_attention_mask=mask).sample
    found = generator.network(state, time, text, mask)
    torch.testing.assert_close(found[:, 1, 1::2, 0::2], wanted[:, 1 * 4 + 1 * 2 + 0])
    with pytest.raises(UserError, match="image_size is 18: this network takes multiples of 4 pixels"):
        build("unet_tiny", patch_size=2, image_size=18)


def test_a_unet_may_see_maps_of_the_text_beside_its_states():
    network = build("unet_tiny", patch_size=2, text_maps=3).network
    assert network.model.config.in_channels == 12 + 3
    seen = []
    network.model.conv_in.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    text, mask = torch.randn(2, 5, 32), torch.tensor([[True] * 5, [True, True, False, False, False]])
    state = torch.randn(2, 3, 16, 16)
    network(state, torch.rand(2), text, mask)
    linear = network.map_text[0]
    maps = linear(torch.stack([text[0].mean(dim=0), text[1, :2].mean(dim=0)])).reshape(2, 3, 8, 8)
    torch.testing.assert_close(seen[0], torch.cat([torch.nn.functional.pixel_unshuffle(state, 2), maps], dim=1))
    assert "map_text" not in dict(build("unet_tiny").network.named_children())  # as networks were without them
    with pytest.raises(UserError, match="text_maps is -1: give 0"):
        build("unet_tiny", text_maps=-1)


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
