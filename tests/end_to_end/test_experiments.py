"""Every experiment is built and takes a step, with small towers and pictures where its own are large."""

import shutil
from pathlib import Path

import pytest
import tiny_pipelines
import yaml
from tiny_vlm import write_embedder, write_vlm

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SINGLE = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml") if not path.name.startswith("_"))
EACH_TASK = ("clip_demo", "caption_demo", "diffusion_demo", "vqgan_demo")
OVERLAYS = sorted(path.stem for path in (EXPERIMENTS / "_overlays").glob("*.yaml"))

# What makes a task's experiments small, by its class.
SMALL = {
    "RetrievalTask": {
        "image_tower": "timm:test_vit",
        "text_tower": "bert_tiny_chinese",
        "image_pretrained": False,
        "text_pretrained": False,
        "init_from": None,
    },
    "TextToImageTask": {"generator": "dit_tiny", "text_pretrained": False},
    "CaptioningTask": {
        "captioner": "encoder_decoder_tiny",
        "image_pretrained": False,
        "language_pretrained": False,
    },
    "ImageTokenizerTask": {
        "image_tokenizer": "vqgan_tiny",
        "image_size": 16,
        "init_from": None,
        "perceptual": "laplacian",
        "discriminator_start": 1,
        "discriminator_width": 8,
        "discriminator_layers": 1,
    },
    "dalle": {"generator": "dalle_tiny"},
    "vlm": {"captioner": "vlm:vlm"},
    "embedder": {"image_tower": "vlm:vlm", "text_tower": "vlm:vlm"},
}
TOKENIZER = {"width": 32, "num_codes": 32}
SMALL_OPTIONS = {
    "RetrievalTask": {
        "image_tower_options": {"image_size": 32},
        "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
    },
    "TextToImageTask": {
        "generator_options": {
            "image_size": 16,
            "num_layers": 1,
            "num_heads": 1,
            "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
            "sampling": {"steps": 2},
        },
    },
    "CaptioningTask": {
        "captioner_options": {
            "image_tower": "timm:test_vit",
            "image_tower_options": {"image_size": 32},
            "width": 32,
            "num_layers": 1,
            "num_heads": 2,
            "decoding": {"beams": 2, "max_tokens": 6},
        },
    },
    "ImageTokenizerTask": {"image_tokenizer_options": TOKENIZER},
    "vlm": {"captioner_options": {"image_size": 64, "lora_rank": 2, "decoding": {"beams": 2, "max_tokens": 6}}},
    "embedder": {"image_tower_options": {"image_size": 64}, "chunk_size": 2},
    "dalle": {
        "generator_options": {
            "image_size": 16,
            "width": 32,
            "num_layers": 1,
            "num_heads": 1,
            "context_length": 4,
            "image_tokenizer": "vqgan_tiny",
            "image_tokenizer_options": TOKENIZER,
            "image_tokenizer_weights": "tokenizer.ckpt",
        },
    },
}
SMALL_DATA = {"TextToImageTask": {"latents": None}}
# The Fréchet distance by which checkpoints are chosen needs more pictures than the small data has.
MONITOR = {"TextToImageTask": ("val/loss", "min"), "ImageTokenizerTask": ("val/psnr", "max")}
STABLE_DIFFUSION = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 256,
}
BATCH = {"batch_size": 8, "eval_batch_size": 8, "num_workers": 0}


def small_file(name, path):
    """A checkpoint of a small task, for what goes on from one."""
    import torch

    import zoo.tasks

    options = SMALL[name] | SMALL_OPTIONS[name]
    task = getattr(zoo.tasks, name)(**options)
    contents = {"state_dict": task.state_dict(), "hyper_parameters": options, "global_step": 0}
    task.on_save_checkpoint(contents)
    torch.save(contents, path)
    return str(path)


def smaller(experiment, root, matcher, folder):
    """The experiment's text with its towers, options, data and trainer replaced by small ones."""
    config = yaml.safe_load((EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8"))
    task = config["model"]["class_path"]
    assert task in SMALL, f"say in {__file__} what makes {task} small"
    if task == "CaptioningTask" and "init_from" in config["model"]["init_args"]:
        config["model"]["init_args"]["init_from"] = small_file("CaptioningTask", folder / "captioner.ckpt")
    if "distillation" in config["model"]["init_args"]:
        config["model"]["init_args"]["distillation"]["teacher"] = str(matcher)
    kind = task
    if config["model"]["init_args"].get("generator", "").startswith("dalle_"):
        kind = "dalle"
        small_file("ImageTokenizerTask", folder / "tokenizer.ckpt")
    if config["model"]["init_args"].get("captioner", "").startswith("vlm:"):
        kind = "vlm"
        write_vlm(folder / "vlm", "qwen3_vl")
    if config["model"]["init_args"].get("image_tower", "").startswith("vlm:"):
        kind = "embedder"
        write_embedder(folder / "vlm", "qwen3_vl")
    config["model"]["init_args"] |= SMALL[kind] | SMALL_OPTIONS[kind]
    data = config.setdefault("data", {"init_args": {}})
    if isinstance(data, str):
        data = config["data"] = yaml.safe_load((EXPERIMENTS / data).read_text(encoding="utf-8"))
    data.setdefault("init_args", {}).update({"root": str(root), **BATCH, **SMALL_DATA.get(task, {})})
    trainer = config.setdefault("trainer", {})
    trainer |= {"accelerator": "cpu", "strategy": "auto", "devices": 1, "precision": "32-true"}
    trainer |= {"max_epochs": 1, "check_val_every_n_epoch": 1, "limit_train_batches": 2}
    if task in MONITOR:
        monitor, mode = MONITOR[task]
        scored = {"monitor": monitor, "mode": mode, "matcher": str(matcher), "inception": "none"}
        config["model"]["init_args"]["evaluation"] |= scored
    return yaml.safe_dump(config, allow_unicode=True)


@pytest.mark.parametrize("experiment", SINGLE)
def test_an_experiment_takes_a_step(zoo_main, workplace, muge_root, matcher_file, experiment):
    text = smaller(experiment, muge_root, matcher_file(), workplace)
    (workplace / "experiments" / f"{experiment}.yaml").write_text(text, encoding="utf-8")
    code, _, err = zoo_main("fit", "--config", f"experiments/{experiment}.yaml")
    assert code == 0, err
    (run,) = (workplace / "runs" / experiment).iterdir()
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("experiment", EACH_TASK)
def test_a_cosine_needs_an_end(zoo_main, workplace, muge_root, matcher_file, experiment):
    config = f"experiments/{experiment}.yaml"
    (workplace / config).write_text(smaller(experiment, muge_root, matcher_file(), workplace), encoding="utf-8")
    code, _, err = zoo_main("fit", "--config", config, "--trainer.max_epochs", -1, "--trainer.max_time", "00:00:01:00")
    assert code == 1
    assert "trainer.max_epochs is -1: the learning rate falls along a cosine, which needs an end: give" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("experiment", EACH_TASK)
def test_a_training_without_validation_needs_its_training_files_alone(
    zoo_main, workplace, muge_root, matcher_file, experiment
):
    def others(folder, names):
        return [name for name in names if name.partition("_")[2].startswith(("val", "test"))]

    shutil.copytree(muge_root, workplace / "train", ignore=others)
    config = f"experiments/{experiment}.yaml"
    text = smaller(experiment, workplace / "train", matcher_file(), workplace)
    (workplace / config).write_text(text, encoding="utf-8")
    code, out, err = zoo_main("fit", "--config", config, "--trainer.limit_val_batches", 0)
    assert code == 0, err
    (run,) = (workplace / "runs" / experiment).iterdir()
    assert out.endswith(f"Next: python -m zoo test --ckpt_path runs/{experiment}/{run.name}/checkpoints/last.ckpt\n")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What stands for published models, by their names: tiny ones of the same classes."""
    folder = tmp_path_factory.mktemp("published")
    return {
        "IDEA-CCNL/Taiyi-Stable-Diffusion-1B-Chinese-v0.1": tiny_pipelines.write("taiyi", folder / "taiyi"),
        "Qwen/Qwen3-VL-4B-Instruct": write_vlm(folder / "qwen", "qwen3_vl", largest=448),
        "Qwen/Qwen3-VL-Embedding-2B": write_embedder(folder / "embedding", "qwen3_vl", largest=448),
    }


@pytest.mark.parametrize("experiment", SINGLE)
def test_an_experiment_is_built_as_it_is(workplace, experiment, monkeypatch, published, put_in_cache):
    """Its own towers and options, on the meta device: names and options exist, nothing is allocated."""
    import torch

    from zoo.cli.classes import task_classes
    from zoo.core.options import plain
    from zoo.models import autoencoder

    configurations = {"stabilityai/sd-vae-ft-mse": STABLE_DIFFUSION}
    monkeypatch.setattr(autoencoder, "_read_configuration", configurations.__getitem__)
    for name, folder in published.items():
        put_in_cache(name, folder)
    config = yaml.safe_load((EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8"))
    task = task_classes()[config["model"]["class_path"]]
    options = config["model"]["init_args"]
    with torch.device("meta"):
        built = task(**options)
    for name, given in options.items():
        kept = plain(built.hparams)[name]
        assert given == ({key: kept[key] for key in given} if isinstance(given, dict) else kept)
    assert {parameter.device.type for parameter in built.parameters()} == {"meta"}


@pytest.mark.parametrize("experiment", SINGLE)
def test_an_experiment_says_what_it_is(experiment):
    text = (EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8")
    comment = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert text.startswith("#"), "open with a comment: what it is, the command, hardware, time, result, on what data"
    assert f"python -m zoo fit --config experiments/{experiment}.yaml" in comment


# ddp: tests/test_cli.py; fsdp: tests/test_exactness.py; caption_sweep: tests/test_captioning.py
ELSEWHERE = ("ddp", "fsdp", "caption_sweep")


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay not in ELSEWHERE])
def test_an_overlay_lies_over_an_experiment(zoo_main, workplace, overlay):
    overlay = f"experiments/_overlays/{overlay}.yaml"
    code, _, err = zoo_main("fit", "--config", "experiments/tiny.yaml", "--config", overlay)
    assert code == 0, err


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "_overlays").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_overlay_says_how_to_use_it(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#")
    assert f"--config experiments/_overlays/{path.name}" in text
