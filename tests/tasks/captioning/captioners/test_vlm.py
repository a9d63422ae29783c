"""Vision-language models of transformers as captioners: compared with their own processor, forward pass and search."""

import json
import shutil

import pytest
import torch
from PIL import Image
from tiny_vlm import CLASSES
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from zoo.core.weights import load_pretrained
from zoo.errors import UserError
from zoo.tasks.captioning.captioners.decoding import Decoding
from zoo.tasks.captioning.contracts import Captioner
from zoo.tasks.captioning.registry import CAPTIONERS

FAMILIES = list(CLASSES)
TEXTS = ["红色方块", "一个漂亮的绿色条纹", "Nike 蓝色圆球"]
PLACES = [0, 1, 1]  # the image that each text is of


def size_of(family):
    return CLASSES[family][1]


def build(folder, family, **options):
    """A captioner with the folder's weights."""
    options = {"image_size": size_of(family), "instruction": "写"} | options
    options = {"decoding": {"beams": 3, "max_tokens": 8}} | options
    captioner = CAPTIONERS.build(f"vlm:{folder}", **options).eval()
    load_pretrained(captioner.language, True)
    return captioner


def images(family, count=3, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size_of(family))


class Own:
    """A model by transformers alone: its processor, its chat template, its forward pass."""

    def __init__(self, folder, instruction):
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
        self.model.generation_config = GenerationConfig()  # what the folder's says of chats is for chats
        self.instruction = instruction

    def inputs(self, pixels, texts=None):
        """What the processor makes of a conversation on each image: a question, and the answer where there is one."""
        made = []
        for place, image in enumerate(pixels):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            content = [{"type": "image", "image": picture}, {"type": "text", "text": self.instruction}]
            turns = [{"role": "user", "content": content}]
            if texts is not None:
                turns.append({"role": "assistant", "content": [{"type": "text", "text": texts[place]}]})
            made.append(turns)
        options = {"return_tensors": "pt", "padding": True, "padding_side": "right"}
        return self.processor.apply_chat_template(
            made, tokenize=True, return_dict=True, add_generation_prompt=texts is None, processor_kwargs=options
        )


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_it_feeds_what_the_models_own_processor_makes(saved_vlm, family, monkeypatch):
    captioner = build(saved_vlm(family), family)
    own = Own(saved_vlm(family), captioner.language.instruction)
    wanted = own.inputs(images(family))
    fed = {}
    features = captioner.language.model.get_image_features
    monkeypatch.setattr(
        captioner.language.model, "get_image_features", lambda **given: fed.update(given) or features(**given)
    )
    generate = captioner.language.model.generate
    monkeypatch.setattr(captioner.language.model, "generate", lambda **given: fed.update(given) or generate(**given))
    captioner.caption(images(family))
    for name in wanted:
        assert torch.equal(fed[name], wanted[name]), name
    assert fed["pixel_values"].dtype == torch.float32


@torch.no_grad()
def test_losses_are_the_models_own(saved_vlm, family):
    captioner = build(saved_vlm(family), family)
    assert isinstance(captioner, Captioner)
    own = Own(saved_vlm(family), captioner.language.instruction)
    pixels = images(family, 2)
    encoded = captioner.encode(pixels)
    ids, mask = captioner.tokenize(TEXTS)
    places = mask[:, 1:].flatten().nonzero()[:, 0]
    found = captioner.losses(encoded[PLACES], ids, places)
    inputs = own.inputs(pixels[PLACES], TEXTS)
    begin = own.inputs(pixels)["input_ids"].shape[1]
    learnt = mask[:, 1:]
    targets = inputs["input_ids"][:, begin : begin + learnt.shape[1]]
    assert torch.equal(targets[learnt], ids[:, 1:][learnt])
    assert (targets[learnt] == captioner.end_token).sum() == len(TEXTS)  # the end is learnt too
    logits = own.model(**inputs).logits[:, begin - 1 : begin - 1 + learnt.shape[1]][learnt]
    assert logits.std() > 0.5
    torch.testing.assert_close(
        captioner.language.logits(encoded[PLACES], ids[:, :-1], places), logits, rtol=0, atol=1e-4
    )
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, begin : begin + learnt.shape[1]][learnt] = targets[learnt]
    torch.testing.assert_close(found.mean(), own.model(**inputs, labels=labels).loss, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_of_the_models_own_search(saved_vlm, family, beams):
    captioner = build(saved_vlm(family), family)
    own = Own(saved_vlm(family), captioner.language.instruction)
    pixels = images(family, 8)
    decoding = Decoding(beams=beams, max_tokens=8, length_penalty=0.5, no_repeat_ngram=2)
    inputs = own.inputs(pixels)
    ids = own.model.generate(**inputs, generation_config=decoding.search(captioner.vocabulary))
    wanted = own.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    found = captioner.write(captioner.encode(pixels), decoding)
    assert found == [caption.strip() for caption in wanted]
    assert len(set(found)) > 1, "other images, other captions"


@torch.no_grad()
def test_a_caption_and_its_loss_do_not_depend_on_the_batch(saved_vlm, family):
    captioner = build(saved_vlm(family), family)
    pixels = images(family, 5)
    encoded = captioner.encode(pixels)
    together = captioner.write(encoded)
    assert together == [captioner.write(captioner.encode(image[None]))[0] for image in pixels]
    ids, mask = captioner.tokenize(TEXTS)
    places = mask[:, 1:].flatten().nonzero()[:, 0]
    losses = captioner.losses(encoded[:3], ids, places)
    captioner.write(encoded[:2])  # leaves nothing behind in the model
    alone_ids, alone_mask = captioner.tokenize(TEXTS[:1])
    alone = captioner.losses(captioner.encode(pixels[:1]), alone_ids, alone_mask[:, 1:].flatten().nonzero()[:, 0])
    torch.testing.assert_close(losses[: len(alone)], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_samples_follow_the_models_distribution_and_can_be_learnt_from(saved_vlm, family):
    captioner = build(saved_vlm(family), family, decoding={"max_tokens": 4})
    encoded = captioner.encode(images(family, 1))
    torch.manual_seed(0)
    ids, mask = captioner.sample(encoded, 400)
    assert (ids[:, 0] == captioner.vocabulary.start).all()
    first = captioner.language.logits(encoded, ids[:1, :1], torch.tensor([0])).softmax(-1)[0]
    shares = torch.bincount(ids[:, 1], minlength=len(first)) / len(ids)
    assert ((shares - first).abs() <= 5 * (first * (1 - first) / len(ids)).sqrt() + 0.01).all()
    ids[0, 1] = captioner.language.model.config.image_token_id  # of random weights, say
    places = mask[:, 1:].flatten().nonzero()[:, 0]
    assert captioner.losses(encoded.expand(400, -1, -1), ids, places).isfinite().all()
    assert len(captioner.spell(ids[:, 1:])) == 400


@torch.no_grad()
def test_it_computes_in_bf16_under_autocast(saved_vlm, family):
    captioner = build(saved_vlm(family), family)
    pixels = images(family, 2)
    ids, mask = captioner.tokenize(TEXTS)
    places = mask[:, 1:].flatten().nonzero()[:, 0]
    exact = captioner.losses(captioner.encode(pixels)[PLACES], ids, places)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = captioner.encode(pixels)
        rounded = captioner.losses(encoded[PLACES], ids, places)
        assert len(captioner.write(encoded)) == 2
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded.mean(), exact.mean(), rtol=0.05, atol=0)


def test_adapters_begin_as_the_model_and_are_trained_alone(saved_vlm, family):
    plain = build(saved_vlm(family), family)
    captioner = build(saved_vlm(family), family, lora_rank=2, lora_alpha=4)
    pixels = images(family, 2)
    assert captioner.caption(pixels) == plain.caption(pixels)
    trained = [name for name, parameter in captioner.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora_" in name and ".language_model." in name for name in trained)
    ids, mask = captioner.tokenize(TEXTS)
    places = mask[:, 1:].flatten().nonzero()[:, 0]
    captioner.losses(captioner.encode(pixels)[PLACES], ids, places).sum().backward()
    grown = [name for name, parameter in captioner.named_parameters() if parameter.grad is not None]
    assert grown == trained


def test_gradients_reach_the_vision_side_without_adapters(saved_vlm, family):
    captioner = build(saved_vlm(family), family)
    ids, mask = captioner.tokenize(TEXTS)
    encoded = captioner.encode(images(family, 2))
    captioner.losses(encoded[PLACES], ids, mask[:, 1:].flatten().nonzero()[:, 0]).sum().backward()
    lacking = [name for name, value in captioner.named_parameters() if value.grad is None or not value.grad.any()]
    assert not [name for name in lacking if "mask_token" not in name], lacking


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ("qwen2_5_vl", {"image_size": 60}, "image_size is 60: give a multiple of 28, from 28 to 280"),
        ("qwen3_vl", {"image_size": 56}, "image_size is 56: give a multiple of 32, from 32 to 256"),
        ("qwen2_vl", {"image_size": 560}, "image_size is 560: give a multiple of 28, from 28 to 280"),
        ("internvl", {"image_size": 112}, "image_size is 112: give 56, which the model reads as one tile"),
        ("internvl", {"image_size": 0}, "image_size is 0: give 1 or more"),
        ("internvl", {"lora_rank": -1}, "lora_rank is -1: give 1 or more, or 0"),
        ("internvl", {"lora_alpha": 0.0}, "lora_alpha is 0.0: give a number above 0"),
        ("internvl", {"lora_dropout": 1.0}, "lora_dropout is 1.0: give a share"),
        ("internvl", {"context_length": 2}, "context_length is 2"),
        ("internvl", {"instructions": "?"}, "instructions"),
    ],
)
def test_options_out_of_range_are_refused(saved_vlm, given, options, words):
    with pytest.raises(UserError, match=words):
        CAPTIONERS.build(f"vlm:{saved_vlm(given)}", **{"image_size": size_of(given), **options})


def test_other_models_and_folders_are_refused_by_name(saved_vlm, tmp_path):
    with pytest.raises(UserError, match="its configuration and processor cannot be had"):
        CAPTIONERS.build(f"vlm:{tmp_path / 'nowhere'}")
    folder = tmp_path / "model"
    shutil.copytree(saved_vlm("internvl"), folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        CAPTIONERS.build(f"vlm:{folder}")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "got_ocr2"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"is a got_ocr2; known are qwen2_vl \(Qwen2-VL\)"):
        CAPTIONERS.build(f"vlm:{folder}")


def test_weights_of_another_shape_are_refused_whole(saved_vlm, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(saved_vlm("qwen2_5_vl"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 40
    (folder / "config.json").write_text(json.dumps(config))
    captioner = CAPTIONERS.build(f"vlm:{folder}", image_size=56)
    before = {name: value.clone() for name, value in captioner.state_dict().items()}
    with pytest.raises(UserError, match=r"mis-shaped .*mlp\.gate_proj"):
        load_pretrained(captioner.language, True)
    assert all(torch.equal(before[name], value) for name, value in captioner.state_dict().items())
