import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen3Config, Qwen3ForCausalLM

from zoo.errors import UserError
from zoo.tasks.captioning.captioners.decoding import Decoding
from zoo.tasks.captioning.captioners.prefix import PixelShuffle
from zoo.tasks.captioning.contracts import Captioner
from zoo.tasks.captioning.registry import CAPTIONERS

SIZE = 32
SMALL = {
    "image_tower": "timm:test_vit",  # 2 × 2 positions and a class token
    "image_tower_options": {"image_size": SIZE},
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
    "decoding": {"beams": 3, "max_tokens": 8},
}
NAMES = ["encoder_decoder_tiny", "prefix_tiny"]


def build(name="encoder_decoder_tiny", *, seed=0, sure=True, **options):
    """A captioner with random weights; ``sure`` makes it say different things of different images."""
    torch.manual_seed(seed)
    captioner = CAPTIONERS.build(name, **{**SMALL, **options}).eval()
    if sure:
        with torch.no_grad():
            for parameter in captioner.language.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(8)
    return captioner


def images(count=5, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


@pytest.fixture(params=NAMES)
def captioner(request):
    return build(request.param)


def test_contract(captioner):
    assert isinstance(captioner, Captioner)
    encoded = captioner.encode(images())
    captions = captioner.write(encoded)
    assert encoded.ndim == 3
    assert len(captions) == 5
    assert all(isinstance(caption, str) for caption in captions)
    assert len(set(captions)) > 1, "other images, other captions"


def test_pil_images_are_described_as_their_pixels(captioner):
    pixels = images(2)
    opened = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    captions = captioner.caption(opened)
    assert captions == captioner.caption(pixels) == captioner.write(captioner.encode(pixels))
    assert captioner.caption(opened, beams=1, max_tokens=2) != captions
    assert captioner.caption([]) == []
    with pytest.raises(UserError, match="decoding has no 'beam'"):
        captioner.caption(opened, beam=2)
    for wrong in (opened[0], "a.png", ["a.png"]):
        with pytest.raises(UserError, match="give a list of PIL images"):
            captioner.caption(wrong)


def test_images_of_a_notebook_are_described(captioner):
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images()]
    assert captioner.caption(tuple(arrays)) == captioner.caption(images())


def test_a_caption_does_not_depend_on_the_rest_of_its_batch(captioner):
    together = captioner.write(captioner.encode(images()))
    apart = [captioner.write(captioner.encode(image[None]))[0] for image in images()]
    assert together == apart


def test_cached_decoding_equals_uncached(captioner):
    encoded, vocabulary = captioner.encode(images()), captioner.vocabulary
    for beams in (1, 3):
        search = Decoding(beams=beams, max_tokens=8).search(vocabulary)
        cached = captioner.language.generate(encoded, vocabulary.start, search)
        search.use_cache = False
        assert torch.equal(cached, captioner.language.generate(encoded, vocabulary.start, search))


def logits_at(captioner, encoded, ids, positions):
    """The logits behind the tokens where ``positions [B, T] bool``."""
    return captioner.language.logits(encoded, ids, positions.flatten().nonzero()[:, 0])


def test_one_beam_is_the_likeliest_token_each_time(captioner):
    encoded, vocabulary = captioner.encode(images()), captioner.vocabulary
    ids = torch.full((5, 1), vocabulary.start)
    with torch.no_grad():
        for _ in range(8):
            last = torch.zeros_like(ids, dtype=torch.bool)
            last[:, -1] = True
            logits = logits_at(captioner, encoded, ids, last)
            logits[:, vocabulary.unspeakable] = -torch.inf
            ids = torch.cat([ids, logits.argmax(dim=1, keepdim=True)], dim=1)
    assert captioner.spell(ids[:, 1:]) == captioner.write(encoded, Decoding(beams=1, max_tokens=8))


def test_more_beams_find_likelier_captions():
    captioner = build(seed=3)
    encoded = captioner.encode(images(8))

    def likelihood(beams):
        search = Decoding(beams=beams, length_penalty=0.0, max_tokens=6).search(captioner.vocabulary)
        search.suppress_tokens = None
        ids = captioner.language.generate(encoded, captioner.vocabulary.start, search)
        ids = torch.cat([torch.full((8, 1), captioner.vocabulary.start), ids], dim=1)
        positions = torch.ones_like(ids[:, 1:], dtype=torch.bool)
        with torch.no_grad():
            logits = logits_at(captioner, encoded, ids[:, :-1], positions).view(8, -1, captioner.vocabulary.size)
        chosen = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
        ended = (ids[:, 1:] == captioner.end_token).cumsum(1) - (ids[:, 1:] == captioner.end_token).long()
        return (chosen * (ended < 1)).sum(dim=1)

    assert (likelihood(6) >= likelihood(1) - 1e-4).all()
    assert (likelihood(6) > likelihood(1) + 1e-4).any()


def test_padding_changes_no_logits(captioner):
    encoded = captioner.encode(images(2))
    ids, mask = captioner.tokenize(["红裙", "白色的长款连衣裙"])
    with torch.no_grad():
        together = logits_at(captioner, encoded, ids[:, :-1], mask[:, 1:])
        alone_ids, alone_mask = captioner.tokenize(["红裙"])
        alone = logits_at(captioner, encoded[:1], alone_ids[:, :-1], alone_mask[:, 1:])
    assert torch.allclose(together[: len(alone)], alone, atol=1e-4)


def test_a_token_is_told_from_those_before_it_alone(captioner):
    encoded = captioner.encode(images(1))
    ids, _ = captioner.tokenize(["白色的长款连衣裙"])
    changed = ids.clone()
    changed[0, 5:] = 3000
    positions = torch.zeros_like(ids, dtype=torch.bool)
    positions[:, :5] = True
    with torch.no_grad():
        assert torch.allclose(
            logits_at(captioner, encoded, ids, positions), logits_at(captioner, encoded, changed, positions), atol=1e-4
        )


def test_samples_open_with_the_start_and_are_masked_behind_the_end(captioner):
    torch.manual_seed(0)
    ids, mask = captioner.sample(captioner.encode(images()), 4)
    assert ids.shape == mask.shape
    assert len(ids) == 20
    assert (ids[:, 0] == captioner.vocabulary.start).all()
    for row, real in zip(ids.tolist(), mask.tolist(), strict=True):
        length = row.index(captioner.end_token) + 1 if captioner.end_token in row else len(row)
        assert real == [True] * length + [False] * (len(row) - length)


def test_samples_follow_the_models_distribution():
    captioner = build(sure=False, num_layers=1)
    encoded = captioner.encode(images(1))
    with torch.no_grad():
        bias = captioner.language.model.cls.predictions.bias
        bias.fill_(-20)
        bias[torch.tensor([2000, 3000])] = torch.tensor([0.0, 1.0])
        first = torch.ones(1, 1, dtype=torch.bool)
        logits = logits_at(captioner, encoded, torch.full((1, 1), captioner.vocabulary.start), first)
    torch.manual_seed(0)
    ids, _ = captioner.sample(encoded, 2000)
    share = (ids[:, 1] == 3000).double().mean()
    assert share.item() == pytest.approx(logits.softmax(-1)[0, 3000].item(), abs=0.04)


def test_tokens_that_are_no_text_are_never_written():
    captioner = build()
    with torch.no_grad():
        captioner.language.model.cls.predictions.bias[captioner.vocabulary.unspeakable] = 1000.0
    assert not any("[" in caption for caption in captioner.write(captioner.encode(images())))


@pytest.mark.parametrize("beams", [1, 3])
def test_no_caption_is_empty(beams):
    captioner = build()
    with torch.no_grad():
        captioner.language.model.cls.predictions.bias[captioner.end_token] = 1000.0
    assert all(captioner.caption(images(), beams=beams))


def test_pixel_shuffle_joins_neighbours_and_drops_the_class_token():
    sequence = torch.arange(17.0)[None, :, None].expand(1, 17, 2).clone()  # a class token, then 4 × 4
    shuffle = PixelShuffle(2, factor=2, out_width=8)
    shuffle.project = torch.nn.Identity()
    joined = shuffle(sequence)
    assert joined.shape == (1, 4, 8)
    assert sorted(set(joined[0, 0].tolist())) == [1, 2, 5, 6]
    with pytest.raises(UserError, match="shuffle is 3: the image tower's 4 x 4 positions"):
        PixelShuffle(2, factor=3, out_width=8)(sequence)


def test_only_words_that_were_kept_are_written_and_learnt():
    captioner, full = build(), build()
    ids, mask = full.tokenize(["红裙", "长裙"])
    captioner.keep_words(["红裙新款"])
    assert captioner.language.words.tolist() == sorted({101, 102, *full.tokenize(["红裙新款"])[0][0].tolist()})
    learnt = captioner.tokenize(["红裙", "长裙"])[1]
    assert learnt.tolist() == [[True] * 4, [True, False, True, True]]  # nobody says 长
    encoded = captioner.encode(images(2))
    places = learnt[:, 1:].flatten().nonzero()[:, 0]
    everywhere = full.language.logits(encoded, ids[:, :-1], places)[:, captioner.language.words]
    targets = torch.searchsorted(captioner.language.words, ids[:, 1:].flatten()[places])
    wanted = torch.nn.functional.cross_entropy(everywhere, targets, reduction="none")
    assert torch.allclose(captioner.losses(encoded, ids, places), wanted, atol=1e-5)
    captioner.losses(encoded, ids, places).sum().backward()
    words = captioner.language.written
    assert not captioner.language.model.cls.predictions.bias.grad[~words].any()
    with torch.no_grad():
        captioner.language.model.cls.predictions.bias[~words] += 1000.0
    assert set("".join(captioner.caption(images()))) <= set("红裙新款")
    ids, mask = captioner.sample(encoded.detach(), 50)
    assert words[ids[mask]].all()


def test_kept_words_are_loaded_with_the_weights_and_may_change():
    captioner, other = build(), build()
    captioner.keep_words(["红裙"])
    other.load_state_dict(captioner.state_dict())
    assert torch.equal(other.language.words, captioner.language.words)
    assert torch.equal(pickle.loads(pickle.dumps(other)).language.words, captioner.language.words)
    bias = other.language.model.cls.predictions.bias
    with torch.no_grad():
        bias[captioner.end_token] = 0.5
    other.keep_words(["长裙"])
    assert other.tokenize(["红长"])[1].tolist() == [[True, False, True, True]]
    assert bias[captioner.end_token] == 0.5
    assert bias[other.tokenize(["长"])[0][0, 1]] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoding": {"beam": 3}}, r"decoding has no 'beam'\. Did you mean beams\?"),
        ({"decoding": {"beams": 0}}, "beams is 0: give 1 or more"),
        ({"decoding": {"beams": 2.5}}, "beams is 2.5: give something like 5"),
        ({"decoding": {"max_tokens": 0}}, "max_tokens is 0: give 1 or more"),
        ({"decoding": {"length_penalty": 40}}, "length_penalty is 40: give -10 to 10"),
        ({"context_length": 2}, "context_length is 2: give 3 or more"),
        ({"width": 33}, "33"),
        *(({option: 0}, f"{option} is 0") for option in ("width", "num_layers", "num_heads")),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        build(**options)


def test_any_causal_language_model_of_a_folder(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<|end|>", "红", "裙", "新", "款"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|end|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(tmp_path)
    config = Qwen3Config(
        vocab_size=5, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, head_dim=16,
        num_key_value_heads=2, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(tmp_path)
    options = {name: SMALL[name] for name in ("image_tower", "image_tower_options", "decoding")}
    captioner = CAPTIONERS.build(f"prefix:{tmp_path}", **options).eval()
    ids, mask = captioner.tokenize(["红裙", "新款红裙"])
    assert ids.tolist() == [[0, 1, 2, 0, 0, 0], [0, 3, 4, 1, 2, 0]]
    assert mask.sum(dim=1).tolist() == [4, 6]
    assert captioner.spell(ids[:, 1:])[1].replace(" ", "") == "新款红裙"
    assert len(captioner.write(captioner.encode(images(2)))) == 2

    from zoo.core.weights import load_pretrained

    load_pretrained(captioner.language, True)
    assert torch.equal(captioner.language.model.lm_head.weight, model.lm_head.weight)


def test_the_decoder_starts_from_a_published_bert(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    from zoo.core.weights import load_pretrained
    from zoo.tasks.captioning.captioners.encoder_decoder import CrossAttendingBert

    shape = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    published = BertForMaskedLM(BertConfig(**shape, intermediate_size=128))
    published.save_pretrained(tmp_path)
    decoder = CrossAttendingBert(width=32, num_layers=1, num_heads=2, dropout=0.0, vocabulary_size=50)
    before = {name: value.clone() for name, value in decoder.model.state_dict().items()}
    load_pretrained(decoder, str(tmp_path))
    for name, value in decoder.model.state_dict().items():
        kept = before[name] if "crossattention" in name else published.state_dict()[name]
        assert torch.equal(value, kept), name
    other = CrossAttendingBert(width=64, num_layers=1, num_heads=2, dropout=0.0, vocabulary_size=50)
    with pytest.raises(UserError, match="bert"):
        load_pretrained(other, str(tmp_path))


@pytest.mark.parametrize("name", CAPTIONERS.names())
def test_every_registered_captioner_is_built_and_described(name):
    with torch.device("meta"):
        captioner = CAPTIONERS.build(name)
    assert isinstance(captioner, Captioner)
    assert CAPTIONERS.describe(name).startswith("Build ")
    assert {"image_tower", "image_tower_options", "context_length", "decoding"} <= CAPTIONERS.options(name).keys()
