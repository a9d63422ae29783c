"""Published pipelines as generators: compared with diffusers' own, of tiny networks with random weights."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import mse_loss

from zoo.core.checkpoint import load_initial_weights
from zoo.core.hubs import UnavailableError, local_name
from zoo.core.weights import load_pretrained, weights_hash
from zoo.errors import UserError
from zoo.registry import IMAGE_TOKENIZERS
from zoo.tasks import TextToImageTask
from zoo.tasks.text_to_image.contracts import Generator
from zoo.tasks.text_to_image.generators.sampling import seeded_noise
from zoo.tasks.text_to_image.registry import GENERATORS

FAMILIES = ("taiyi", "clip", "hunyuan", "z_image")
TEXTS = ["红色连衣裙", "黑色双肩包 a" * 3]
SEEDS = [3, 2**40 + 4]
NONE = {"z_image": 0.0}  # what a pipeline calls no guidance, where it is not 1
MORE = {"hunyuan": {"use_resolution_binning": False}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Writes a pipeline: ``folder = saved("taiyi", prediction_type="v_prediction")``; read only."""
    made = {}

    def write(family, **changes):
        key = (family, *changes.items())
        if key not in made:
            made[key] = tiny_pipelines.write(family, tmp_path_factory.mktemp(family) / "model", **changes)
        return made[key]

    return write


def build(folder, **options):
    """The generator of a pipeline of 16 px, or of its own size, with its weights."""
    if "z_image" in str(folder):
        options = {"image_size": 16, **options}
    generator = GENERATORS.build(f"diffusers:{folder}", **options)
    load_pretrained(generator, True)
    return generator.eval()


def original(folder):
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call(pipeline, family, size, *, guidance=4.0, steps=3, **options):
    """The pipeline itself, called as its documentation says."""
    options = {"generator": [torch.Generator().manual_seed(seed) for seed in SEEDS], **options}
    scale = guidance - 1 + NONE.get(family, 1.0)
    options |= {"height": size, "width": size, "num_inference_steps": steps, "guidance_scale": scale}
    return pipeline(prompt=list(TEXTS), **options, **MORE.get(family, {})).images


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_it_samples_what_the_pipeline_samples(saved, family, guidance):
    generator, pipeline = build(saved(family)), original(saved(family))
    assert isinstance(generator, Generator)
    latents = generator.sample_latents(TEXTS, seeds=SEEDS, steps=3, guidance=guidance)
    wanted = call(pipeline, family, generator.image_size, guidance=guidance, output_type="latent")
    torch.testing.assert_close(latents, wanted, rtol=0, atol=1e-4)
    assert (latents[0] - latents[1]).abs().max() > 0.1
    images = generator.generate(TEXTS, seeds=SEEDS, steps=3, guidance=guidance)
    levels = 255 * call(pipeline, family, generator.image_size, guidance=guidance, output_type="np")
    assert (images.permute(0, 2, 3, 1).float() - torch.from_numpy(levels)).abs().max() <= 1
    assert images.float().std() > 10


@pytest.mark.parametrize("family", ["taiyi", "clip", "z_image"])
def test_its_noise_is_that_of_other_generators(saved, family):
    generator, pipeline = build(saved(family)), original(saved(family))
    noise = seeded_noise(SEEDS, generator.state_shape)
    wanted = call(pipeline, family, generator.image_size, latents=noise, output_type="latent")
    torch.testing.assert_close(
        generator.sample_latents(TEXTS, seeds=SEEDS, steps=3, guidance=4.0), wanted, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_a_function_of_its_text_and_its_seed(saved, family):
    generator = build(saved(family))
    together = generator.generate(TEXTS, seeds=SEEDS, steps=3)
    for place in (1, 0):
        alone = generator.generate([TEXTS[place]], seeds=[SEEDS[place]], steps=3)
        assert (alone[0].int() - together[place].int()).abs().max() <= 1
    other = generator.generate(TEXTS, seeds=[5, 6], steps=3)
    assert (other.int() - together.int()).abs().max() > 10


class CalledError(Exception):
    """What a pipeline tells its network."""


def told(pipeline, denoiser, **options):
    """The keywords with which a pipeline calls its network, without guidance."""

    def record(*args, **kwargs):
        raise CalledError(args, kwargs)

    getattr(pipeline, denoiser).forward = record
    with pytest.raises(CalledError) as caught:
        call(pipeline, guidance=1.0, output_type="latent", **options)
    del getattr(pipeline, denoiser).forward
    return caught.value.args


def ddpm_states(pipeline, data, noise, times, prediction):
    """Noised data and target by the formulas of the papers, in float64."""
    steps = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - steps, dim=0)[times].float()[:, None, None, None]
    states = kept.sqrt() * data + (1 - kept).sqrt() * noise
    return states, noise if prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * data


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("taiyi", {}),
        ("clip", {"prediction_type": "v_prediction"}),
        ("hunyuan", {}),
        ("hunyuan", {"prediction_type": "epsilon"}),
        ("z_image", {}),
        ("z_image", {"use_dynamic_shifting": True}),
    ],
)
def test_it_learns_what_the_network_was_trained_by(saved, family, changes):
    folder = saved(family, **changes)
    generator, pipeline = build(folder), original(folder)
    size = generator.image_size
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    torch.manual_seed(7)
    loss = generator.loss({"text": TEXTS, "image": images})["loss"]
    torch.manual_seed(7)
    with torch.no_grad():
        config = pipeline.vae.config
        data = pipeline.vae.encode(images / 127.5 - 1).latent_dist.mean
        data = (data - (config.shift_factor or 0)) * config.scaling_factor
        noise = torch.randn_like(data)
        if family == "z_image":
            even = torch.sigmoid(torch.randn(2))
            shift = torch.tensor(0.5 + (16 - 256) / (4096 - 256) * 0.65).exp() if changes else 3.0  # 16 places
            time = shift * even / (1 + (shift - 1) * even)
            mixed = [(1 - each) * clean + each * dirt for each, clean, dirt in zip(time, data, noise, strict=True)]
            args, kwargs = told(pipeline, "transformer", family=family, size=size)
            found = pipeline.transformer([each[:, None] for each in mixed], 1 - time, args[2], **kwargs)[0]
            expected = mse_loss(-torch.stack(found)[:, :, 0], noise - data)
        else:
            times = torch.randint(1000, (2,))
            prediction = pipeline.scheduler.config.prediction_type
            states, target = ddpm_states(pipeline, data, noise, times, prediction)
            part = generator.family.denoiser
            _, kwargs = told(pipeline, part, family=family, size=size)
            found = getattr(pipeline, part)(states, times.float(), **kwargs)[0]
            expected = mse_loss(found[:, :4], target)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropped_texts_are_the_empty_one(saved, family):
    generator = build(saved(family))
    size = generator.image_size
    batch = {"text": TEXTS, "image": torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)}

    def loss(**changes):
        torch.manual_seed(7)
        return generator.loss({**batch, **changes})["loss"]

    kept, empty = loss(), loss(text=["", ""])
    assert abs(kept - empty) > 2e-4
    generator.train()
    generator.text_drop = 1.0
    torch.testing.assert_close(loss(), empty)
    generator.text_drop = 0.0
    torch.testing.assert_close(loss(), kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_beside_the_attention_alone_and_change_nothing_at_first(saved, family):
    plain, generator = build(saved(family)), build(saved(family), lora_rank=2)
    trained = {name for name, value in generator.named_parameters() if value.requires_grad}
    assert trained
    assert all(name.startswith("denoiser.") and ".lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rpartition(".to_")[2] for name in trained} == {"q", "k", "v", "out.0"}
    sampled = [each.sample_latents(TEXTS, seeds=SEEDS, steps=2) for each in (plain, generator)]
    assert torch.equal(*sampled)
    trained = {name for name, value in plain.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in plain.named_parameters() if name.startswith("denoiser.")}


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_all_that_is_trained(saved, family):
    for rank in (0, 2):
        generator = build(saved(family), lora_rank=rank).train()
        size = generator.image_size
        images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
        generator.loss({"text": TEXTS, "image": images})["loss"].backward()
        assert not [n for n, p in generator.named_parameters() if p.requires_grad != (p.grad is not None)]
        frozen = [generator.text_encoders, generator.image_tokenizer]
        assert not any(module.training for part in frozen for module in part.modules())


def test_latents_are_scaled_as_the_pipeline_scales_them(saved):
    folder = saved("z_image")
    generator = build(folder)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    tokenizer = IMAGE_TOKENIZERS.build(f"diffusers:{folder}")
    load_pretrained(tokenizer, True)
    assert weights_hash(tokenizer) == weights_hash(generator.image_tokenizer)
    losses = []
    for more in ({"image": images}, {"latent": tokenizer.encode(images)}):
        torch.manual_seed(1)
        losses.append(generator.loss({"text": TEXTS, **more})["loss"])
    torch.testing.assert_close(*losses)


def test_a_text_is_encoded_once_and_alone(saved):
    generator, without = build(saved("taiyi")), build(saved("taiyi"), text_cache=0)
    seen = []
    for each in (generator, without):
        each.text_encoders["text_encoder"].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    first, second = generator.embed([TEXTS[0]]), generator.embed([*TEXTS, TEXTS[0]])
    assert seen == [1, 1]
    assert torch.equal(first[0][0], second[2][0])
    for found, wanted in zip(second, without.embed([*TEXTS, TEXTS[0]]), strict=True):
        assert torch.equal(found[0], wanted[0])
    without.embed(TEXTS)
    assert seen == [1] * 6
    generator.load_state_dict(generator.state_dict())  # the encoder may be another now
    generator.embed(TEXTS)
    assert seen == [1] * 8


def test_the_cache_is_bounded(saved):
    generator = build(saved("hunyuan"), text_cache=1)
    generator.embed([f"红色连衣裙 {number}" for number in range(150)])  # 13 KB each
    kept = generator.text_cache.kept
    assert 10 < len(kept) < 150
    assert sum(each.nbytes for embedded in kept.values() for each in embedded) <= 2**20


def test_weights_are_loaded_whole_or_not_at_all(saved, tmp_path):
    folder = shutil.copytree(saved("hunyuan"), tmp_path / "model")
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    generator = GENERATORS.build(f"diffusers:{folder}")
    before = weights_hash(generator)
    for asked in (True, "auto"):
        with pytest.raises(UserError, match=r"the weights of text_encoder_2 cannot be read \(.*model.safetensors"):
            load_pretrained(generator, asked)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "num_layers": 6}))
    shutil.copy(saved("hunyuan") / "text_encoder_2" / "model.safetensors", folder / "text_encoder_2")
    with pytest.raises(UserError, match=r"missing +denoiser\.blocks\.4"):
        load_pretrained(GENERATORS.build(f"diffusers:{folder}"), True)
    assert weights_hash(generator) == before


def test_files_of_torch_are_read_where_there_are_no_safetensors(saved, tmp_path):
    tiny_pipelines.clip().save_pretrained(tmp_path / "bin", safe_serialization=False)
    assert (tmp_path / "bin" / "unet" / "diffusion_pytorch_model.bin").is_file()
    generator = build(tmp_path / "bin")
    for name, value in original(tmp_path / "bin").unet.state_dict().items():
        assert torch.equal(generator.denoiser.state_dict()[name], value)


def test_a_pipeline_of_modelscope_is_read_and_its_autoencoder_alone(saved, tmp_path, modelscope):
    tiny_pipelines.clip().save_pretrained(tmp_path / "bin", safe_serialization=False)
    for folder in (tmp_path / "bin", saved("taiyi")):
        name = modelscope(f"pipeline_{folder.name}", folder)
        assert weights_hash(build(name)) == weights_hash(build(folder))
        alone = IMAGE_TOKENIZERS.build(f"diffusers:{name}")
        alone.load_published(name)
        assert weights_hash(alone) == weights_hash(build(folder).image_tokenizer)


def test_weights_that_are_there_in_part_are_not_taken_for_whole(saved, modelscope):
    folder = saved("taiyi")
    name = modelscope("pipeline_part", folder)
    place = Path(local_name(name, ["*.json"]))
    index = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "diffusion_pytorch_model-2.safetensors"}}
    (place / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE is set"):
        local_name(name, ["*.safetensors"])


@pytest.mark.parametrize("family", ["taiyi", "hunyuan", "z_image"])
def test_more_steps_than_the_scheduler_has_are_refused(saved, family):
    with pytest.raises(UserError, match="steps is 1001: give 1 to ") as error:
        build(saved(family)).generate(TEXTS[:1], seeds=[0], steps=1001)
    assert error.value.argument == "steps"


def test_names_of_older_autoencoders_are_read(saved, tmp_path):
    """As diffusers wrote them in 2022, and Taiyi has them."""
    folder = shutil.copytree(saved("taiyi"), tmp_path / "model")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights, names = load_file(file), {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {re.sub("|".join(names), lambda found: names[found[0]], name): value for name, value in weights.items()}
    assert len(older.keys() - weights.keys()) == 16
    save_file(older, file, metadata={"format": "pt"})
    assert weights_hash(build(folder)) == weights_hash(build(saved("taiyi")))


def test_a_hub_name_is_read_from_the_cache(saved, put_in_cache):
    with pytest.raises(UserError, match="'diffusers:nowhere': there is no such folder, and it is no hub name"):
        GENERATORS.build("diffusers:nowhere")
    with pytest.raises(UserError, match=r"'diffusers:shop/taiyi': its configuration and tokenizers cannot be had"):
        GENERATORS.build("diffusers:shop/taiyi")
    put_in_cache("shop/taiyi", saved("taiyi"))
    cached = GENERATORS.build("diffusers:shop/taiyi")
    assert load_pretrained(cached, True).text == "shop/taiyi"
    assert weights_hash(cached) == weights_hash(build(saved("taiyi")))
    tokenizer = IMAGE_TOKENIZERS.build("diffusers:shop/taiyi")
    load_pretrained(tokenizer, True)
    assert weights_hash(tokenizer) == weights_hash(cached.image_tokenizer)


def test_a_task_with_adapters_starts_from_one_without(saved, tmp_path):
    options = {"generator": f"diffusers:{saved('taiyi')}"}
    task = TextToImageTask(**options, generator_options={"lora_rank": 2})
    load_initial_weights(task, saved("taiyi"))
    wanted = build(saved("taiyi")).sample_latents(TEXTS, seeds=SEEDS, steps=2)
    assert torch.equal(task.eval().generator.sample_latents(TEXTS, seeds=SEEDS, steps=2), wanted)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, "is a StableDiffusionXLPipeline; generators are StableDiff"),
        ({"text_encoder": ["my_code", "MyEncoder"]}, "text_encoder is a MyEncoder; it can be CLIPTextModel or BertMo"),
        ({"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, "scheduler is a FlowMatchEulerDiscrete"),
    ],
)
def test_other_pipelines_and_classes_are_refused(saved, tmp_path, changes, words):
    folder = shutil.copytree(saved("taiyi"), tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
    with pytest.raises(UserError, match=words):
        GENERATORS.build(f"diffusers:{folder}")


def test_a_tokenizer_is_never_made_up(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved("hunyuan"), tmp_path / "model")
    (folder / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="there is no vocabulary: none of spiece.model, tokenizer.json"):
        GENERATORS.build(f"diffusers:{folder}")
    (folder / "tokenizer_2" / "spiece.model").write_bytes(b"")
    monkeypatch.setattr("zoo.models.pipelines.find_spec", lambda name: None)
    with pytest.raises(UserError, match="sentencepiece is not installed, which reads it: pip install sentencepiece"):
        GENERATORS.build(f"diffusers:{folder}")


@pytest.mark.parametrize(
    ("options", "argument", "words"),
    [
        ({"image_size": 20}, "image_size", "multiples of 16 pixels"),
        ({"lora_rank": -1}, "lora_rank", "or 0 for no adapters"),
        ({"lora_alpha": 0.0}, "lora_alpha", "above 0"),
        ({"lora_dropout": 1.0}, "lora_dropout", "below 1"),
        ({"text_cache": -1}, "text_cache", "0 for none"),
        ({"sampling": {"steps": 0}}, "steps", "give 1 or more"),
        ({"sampling": {"guidance": 0.0}}, "guidance", "give 1"),
    ],
)
def test_options_out_of_range_are_named(saved, options, argument, words):
    with pytest.raises(UserError, match=words) as caught:
        GENERATORS.build(f"diffusers:{saved('hunyuan')}", **options)
    assert caught.value.argument == argument


def test_a_network_that_gives_the_image_is_refused(saved):
    with pytest.raises(UserError, match="prediction_type sample; generators have epsilon or v_prediction"):
        GENERATORS.build(f"diffusers:{saved('clip', prediction_type='sample')}")
