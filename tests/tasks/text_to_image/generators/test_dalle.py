"""The autoregressive generator: what a code depends on, what is learnt, how codes are drawn."""

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from zoo.errors import UserError
from zoo.tasks.text_to_image.contracts import Generator
from zoo.tasks.text_to_image.generators import dalle
from zoo.tasks.text_to_image.generators.sampling import CodeSampling, draw_codes, guide
from zoo.tasks.text_to_image.registry import GENERATORS

TEXTS = ["红色的苹果", "一只猫", "蓝色的圆形和黄色的三角形"]
LENGTH, SIDE, CODES = 6, 4, 24  # the third text is longer, the second has room
SMALL = {
    "image_size": 8,
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
    "context_length": LENGTH,
    "image_tokenizer_options": {"width": 32, "multipliers": (1, 2), "patch_size": 1, "num_codes": CODES},
}


def build(seed=0, **options):
    """A small generator whose weights are large enough to tell everything apart."""
    torch.manual_seed(seed)
    generator = GENERATORS.build("dalle_tiny", **{**SMALL, **options})
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if not name.startswith("image_tokenizer.") and parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return generator.eval()


@pytest.fixture(scope="module")
def generator():
    return build()


@pytest.fixture
def codes():
    return torch.randint(CODES, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(generator, texts, codes):
    return generator.logits(texts, codes)


def drawn_from(generator, monkeypatch, texts, codes=None, **sampling):
    """The logits ``[B, side², K]`` from which `write` draws; with ``codes`` those are written, whatever comes."""
    seen = []

    def draw(logits, noise, options):
        seen.append(logits)
        return draw_codes(logits, noise, options) if codes is None else codes.flatten(1)[:, len(seen) - 1]

    with monkeypatch.context() as patch:
        patch.setattr(dalle, "draw_codes", draw)
        written = generator.write(texts, seeds=list(range(len(texts))), **sampling)
    if codes is not None:
        assert torch.equal(written, codes)
    return torch.stack(seen, dim=1)


# --- what a code depends on ------------------------------------------------------------------------------------


def test_codes_are_drawn_from_the_logits_that_are_learnt(generator, codes, monkeypatch):
    """One place at a time, with a cache, as all places at once."""
    found = drawn_from(generator, monkeypatch, TEXTS, codes, guidance=1.0)
    expected = logits(generator, TEXTS, codes)
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


def test_guidance_goes_away_from_the_logits_without_text(generator, codes, monkeypatch):
    found = drawn_from(generator, monkeypatch, TEXTS, codes, guidance=4.0)
    expected = guide(logits(generator, TEXTS, codes), logits(generator, [""] * 3, codes), 4.0)
    largest = expected.abs().max().item()
    torch.testing.assert_close(found, expected, atol=7e-5 * largest, rtol=0)  # 4 times one's rounding, 3 the other's
    assert (expected - logits(generator, TEXTS, codes)).abs().max() > 0.1


def test_at_temperature_zero_each_code_is_the_likeliest_given_those_before(generator):
    written = generator.write(TEXTS, seeds=[0, 1, 2], temperature=0.0, guidance=2.0)
    guided = guide(logits(generator, TEXTS, written), logits(generator, [""] * 3, written), 2.0)
    assert torch.equal(guided.argmax(dim=2), written.flatten(1))
    assert len(written.unique()) > 3


@pytest.mark.parametrize("place", [0, 5, 14])
def test_a_code_depends_on_those_before_it_alone(generator, codes, place):
    changed = codes.clone()
    changed.view(3, -1)[:, place] = (changed.view(3, -1)[:, place] + 1) % CODES
    before, after = logits(generator, TEXTS, codes), logits(generator, TEXTS, changed)
    assert torch.equal(before[:, : place + 1], after[:, : place + 1])
    assert ((before - after).abs().amax(dim=2)[:, place + 1 :] > 1e-4).all()


def test_the_last_code_is_no_input(generator, codes):
    changed = codes.clone()
    changed[:, -1, -1] = (changed[:, -1, -1] + 1) % CODES
    assert torch.equal(logits(generator, TEXTS, codes), logits(generator, TEXTS, changed))


def test_a_code_is_told_its_own_row_and_column(codes):
    generator = build()
    before = logits(generator, TEXTS, codes).view(3, SIDE, SIDE, CODES)
    with torch.no_grad():
        generator.row[2] += 1
    changed = (logits(generator, TEXTS, codes).view_as(before) - before).abs().amax(dim=(0, 3)) > 1e-5
    assert not changed[:2].any()
    assert changed[2:].all()  # later ones through those of that row
    generator = build()
    with torch.no_grad():
        generator.column[:, 1] += 1
    changed = (logits(generator, TEXTS, codes).view_as(before) - before).abs().amax(dim=(0, 3)) > 1e-5
    assert not changed[0, 0]
    assert changed.flatten()[1:].all()


def test_every_token_of_a_text_reaches_the_first_code(generator, codes):
    texts = ["红黄蓝绿黑白"[:count] for count in range(LENGTH + 1)]
    texts += ["红黄蓝绿黑紫", "紫黄蓝绿黑白", "黄红蓝绿黑白"]  # another last token, first, order
    first = logits(generator, texts, codes[:1].expand(len(texts), -1, -1))[:, 0]
    assert torch.pdist(first).min() > 1e-3


def test_a_longer_text_is_cut(generator, codes):
    texts = ["红黄蓝绿黑白", "红黄蓝绿黑白紫", "红黄蓝绿黑白的大苹果"]
    found = logits(generator, texts, codes[:1].expand(3, -1, -1))
    torch.testing.assert_close(found[1:], found[:1].expand(2, -1, -1), atol=1e-6, rtol=0)


def test_without_a_text_none_is_seen(generator):
    """What stands for no text is learnt, place by place, and is no token."""
    assert torch.equal(generator._embed([""])[0], generator.no_token)
    embedded = generator._embed(["一只猫"])[0]
    assert torch.equal(embedded[3:], generator.no_token[3:])
    assert not (embedded[:3] == generator.no_token[:3]).any()


# --- drawing ---------------------------------------------------------------------------------------------------


def test_codes_are_of_text_and_seed_whatever_the_batch(generator):
    texts = [*TEXTS, "红", "一只黑白的猫和一只狗", "", "a"]
    seeds = [5, 6, 7, 5, 9, 2**40, 0]
    together = generator.write(texts, seeds=seeds)
    assert together.dtype == torch.int64
    assert together.shape == (7, SIDE, SIDE)
    alone = [generator.write([text], seeds=[seed]) for text, seed in zip(texts, seeds, strict=True)]
    assert torch.equal(torch.cat(alone), together)
    order = [3, 0, 6, 1]
    some = generator.write([texts[place] for place in order], seeds=[seeds[place] for place in order])
    assert torch.equal(some, together[order])
    assert len(together.flatten(1).unique(dim=0)) == 7


def test_text_and_seed_change_the_codes(generator):
    first = generator.write(TEXTS[:1], seeds=[0])
    assert torch.equal(generator.write(TEXTS[:1], seeds=[0]), first)
    assert not torch.equal(generator.write(TEXTS[1:2], seeds=[0]), first)
    assert not torch.equal(generator.write(TEXTS[:1], seeds=[1]), first)


def test_a_picture_is_what_its_codes_decode_to(generator):
    pictures = generator.generate(TEXTS, seeds=[0, 1, 2])
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (3, 3, 8, 8)
    written = generator.write(TEXTS, seeds=[0, 1, 2])
    assert torch.equal(pictures, generator.image_tokenizer.decode(written))


def test_a_nearly_greedy_choice_is_the_greedy_one(generator):
    likeliest = generator.write(TEXTS, seeds=[0, 1, 2], temperature=0.0)
    for sampling in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}):
        assert torch.equal(generator.write(TEXTS, seeds=[3, 4, 5], **sampling), likeliest), sampling
    assert not torch.equal(generator.write(TEXTS, seeds=[3, 4, 5]), likeliest)


DRAWS = 20_000
LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.5, -2.0, 1.0, -0.5])


def shares(**sampling):
    noise = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = draw_codes(LOGITS.expand(DRAWS, -1), noise, CodeSampling(**sampling))
    return torch.bincount(drawn, minlength=len(LOGITS)) / DRAWS


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        ({}, range(8)),
        ({"temperature": 2.0}, range(8)),
        ({"temperature": 0.5, "top_k": 3}, (2, 4, 6)),
        ({"top_k": 100}, range(8)),
        ({"top_p": 0.60}, (2, 4)),  # 40 % and 25 %: the second reaches it
        ({"top_p": 0.70}, (2, 4, 6)),
        ({"top_k": 4, "top_p": 0.75}, (2, 4, 6)),  # of the four that are left
    ],
)
def test_draws_follow_the_distribution_of_what_is_possible(sampling, possible):
    scaled = LOGITS.double() / sampling.get("temperature", 1.0)
    expected = torch.zeros(8, dtype=torch.float64)
    expected[list(possible)] = scaled[list(possible)].softmax(dim=0)
    found = shares(**sampling).double()
    assert (found > 0).nonzero().flatten().tolist() == list(possible)
    error = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((found - expected).abs() <= 4 * error).all()


def test_the_ends_of_the_noise_draw_what_is_possible():
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw_codes(LOGITS.expand(2, -1), ends, CodeSampling()).tolist() == [0, 7]
    assert draw_codes(LOGITS.expand(2, -1), ends, CodeSampling(top_k=3)).tolist() == [2, 6]


# --- learning --------------------------------------------------------------------------------------------------


def batch(**contents):
    return {"text": TEXTS, "image_id": list("abc"), "row": torch.arange(3), **contents}


def test_the_loss_is_the_codes_cross_entropy(generator, codes):
    with torch.no_grad():
        found = generator.loss(batch(codes=codes))["loss"]
    probabilities = log_softmax(logits(generator, TEXTS, codes).double(), dim=2)
    naive = [
        -probabilities[sample, place, codes[sample].flatten()[place]] for sample in range(3) for place in range(SIDE**2)
    ]
    assert found.item() == pytest.approx(sum(naive).item() / len(naive), rel=1e-5)


def test_pictures_are_learnt_as_their_codes(generator):
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = generator.loss(batch(image=images))["loss"]
        cached = generator.loss(batch(codes=generator.image_tokenizer.encode(images)))["loss"]
        others = generator.loss(batch(codes=generator.image_tokenizer.encode(255 - images)))["loss"]
    assert torch.equal(found, cached)
    assert not torch.equal(found, others)


def test_texts_are_dropped_in_training_alone(codes, monkeypatch):
    generator = build()
    generator.text_drop = 0.5
    seen = []
    monkeypatch.setattr(generator, "_embed", lambda texts, embed=generator._embed: seen.extend(texts) or embed(texts))
    many = {**batch(codes=codes[:1].expand(400, -1, -1)), "text": ["红"] * 400}
    with torch.no_grad():
        generator.loss(many)
        assert seen == ["红"] * 400
        seen.clear()
        torch.manual_seed(0)
        generator.train().loss(many)
    assert 150 < seen.count("") < 250
    assert seen.count("") + seen.count("红") == 400


def test_a_gradient_reaches_every_parameter_but_the_image_tokenizers(codes):
    generator = build().train()
    generator.loss(batch(codes=codes))["loss"].backward()
    without = {name for name, parameter in generator.named_parameters() if parameter.grad is None}
    assert without == {f"image_tokenizer.{name}" for name, _ in generator.image_tokenizer.named_parameters()}
    assert not any(parameter.requires_grad for parameter in generator.image_tokenizer.parameters())
    assert generator.trunk.training
    assert not generator.image_tokenizer.training


def test_it_learns_texts_and_their_codes_by_heart(codes):
    torch.manual_seed(0)
    generator = GENERATORS.build("dalle_tiny", **SMALL).train()
    generator.text_drop = 0.0
    optimizer = torch.optim.AdamW([p for p in generator.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        loss = generator.loss(batch(codes=codes))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.3
    assert torch.equal(generator.eval().write(TEXTS, seeds=[0, 1, 2], guidance=1.0, temperature=0.0), codes)


# --- options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 7}, "image_size is 7: this image tokenizer takes multiples of 2"),
        ({"image_size": 0}, "image_size is 0"),
        ({"width": 30, "num_heads": 4}, "give a multiple of 8, 2 times num_heads"),
        ({"num_layers": 0}, "num_layers is 0: give 1 or more"),
        ({"context_length": 0}, "context_length is 0: give 1 or more"),
        ({"image_tokenizer": "vqgan"}, "There is no image tokenizer 'vqgan'. Did you mean vqgan_"),
        ({"image_tokenizer_options": {"codes": 4}}, "image tokenizer 'vqgan_tiny' has no option 'codes'"),
        ({"sampling": {"top_q": 4}}, "sampling has no 'top_q'. Did you mean top_"),
        ({"sampling": {"steps": 4}}, "sampling has no 'steps'. It has guidance, temperature, top_k, top_p"),
        ({"sampling": {"guidance": 0.5}}, "guidance is 0.5: give 1 (none) or more"),
        ({"sampling": {"guidance": float("nan")}}, "guidance is nan: give 1 (none) or more"),
        ({"sampling": {"temperature": -1.0}}, "temperature is -1.0: give 0 or more"),
        ({"sampling": {"temperature": float("inf")}}, "temperature is inf"),
        ({"sampling": {"top_k": -1}}, "top_k is -1: give 1 or more, or 0 for all codes"),
        ({"sampling": {"top_k": 2.5}}, "top_k is 2.5: give something like 0"),
        ({"sampling": {"top_p": 0}}, "top_p is 0: give a probability above 0"),
        ({"sampling": {"top_p": 1.5}}, "top_p is 1.5"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(UserError) as error:
        GENERATORS.build("dalle_tiny", **{**SMALL, **options})
    assert message in str(error.value)


@pytest.fixture
def autoencoder_folder(tmp_path):
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=3,
    )
    model.save_pretrained(tmp_path)
    return tmp_path


def test_codes_and_latents_are_not_mistaken_for_each_other(autoencoder_folder):
    without_codes = {**SMALL, "image_tokenizer": f"diffusers:{autoencoder_folder}", "image_tokenizer_options": None}
    with pytest.raises(UserError, match="it has no codes; take a VQGAN, such as vqgan_tiny"):
        GENERATORS.build("dalle_tiny", **without_codes)
    with pytest.raises(UserError, match="vqgan_tiny"):
        GENERATORS.build("dit_tiny", image_size=32, image_tokenizer="vqgan_tiny")


def test_prompts_and_seeds_may_be_arrays(generator):
    drawn = generator.generate(np.array(TEXTS), seeds=np.arange(len(TEXTS)))
    assert torch.equal(drawn, generator.generate(TEXTS, seeds=list(range(len(TEXTS)))))


def test_what_cannot_be_drawn_is_refused(generator):
    for call, message in [
        (lambda: generator.generate(TEXTS, seeds=[1]), "give two lists, as long as each other"),
        (lambda: generator.generate("红", seeds=[1]), "give two lists"),
        (lambda: generator.generate([None], seeds=[1]), "texts[0] is NoneType None: give a string"),
        (lambda: generator.generate(["红"], seeds=[-1]), "seeds: -1 came"),
        (lambda: generator.generate(["红"], seeds=[1], steps=5), "sampling has no 'steps'"),
        (lambda: generator.generate(["红"], seeds=[1], top_p=2.0), "top_p is 2.0"),
    ]:
        with pytest.raises(UserError) as error:
            call()
        assert message in str(error.value)


@pytest.mark.parametrize("name", [name for name in GENERATORS.names() if name.startswith("dalle_")])
def test_every_generator_of_codes_is_built_and_foretells_those_of_its_image_tokenizer(name):
    """On the meta device: nothing is allocated."""
    with torch.device("meta"):
        generator = GENERATORS.build(name, image_size=32, num_layers=1)
        embedded = torch.randn(2, generator.context_length + 1, generator.trunk.config.hidden_size)
        found = generator.head(generator._read(embedded, None))
    assert isinstance(generator, Generator)
    assert generator.image_size == 32
    assert found.shape == (2, generator.context_length + 1, generator.image_tokenizer.num_codes)
    assert GENERATORS.describe(name).startswith("Build a DALL·E ")
    assert generator.image_tokenizer.published is None
