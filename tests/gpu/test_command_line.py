"""The command line on a pretended GPU, on files: every task is trained, scored and used."""

import json

import pytest
import yaml
from gpu.pretend_cuda import pretend_cuda
from gpu.tasks import TEXT
from PIL import Image

SMALL_VIT = {"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}}
RANDOM = {"image_pretrained": False, "text_pretrained": False}
MODELS = {
    "retrieval": (
        "RetrievalTask",
        {"text_tower": "bert_tiny_chinese", "embedding_dim": 16, **SMALL_VIT, **RANDOM},
    ),
    "text_to_image": (
        "TextToImageTask",
        {
            "generator": "dit_tiny",
            "generator_options": {
                "image_size": 16,
                "num_layers": 1,
                "text_tower_options": TEXT,
                "sampling": {"steps": 2},
            },
            "evaluation": {"inception": "none", "grid_seeds": 1},
        },
    ),
    "captioning": (
        "CaptioningTask",
        {
            "captioner": "prefix_tiny",
            "captioner_options": {**SMALL_VIT, **TEXT, "decoding": {"beams": 2, "max_tokens": 4}},
            "image_pretrained": False,
            "language_pretrained": False,
        },
    ),
    "image_tokenizer": (
        "ImageTokenizerTask",
        {
            "image_tokenizer": "vqgan_tiny",
            "image_size": 16,
            "discriminator_layers": 1,
            "perceptual": "laplacian",
            "evaluation": {"inception": "none"},
        },
    ),
}
DATA = {"text_to_image": {"train_images": 7}}
USES = {"text_to_image": ("generate", "红色连衣裙", "--seeds", "2"), "captioning": ("caption", "image.png")}


@pytest.fixture
def gpu_main(zoo_main, workplace, muge_root, matcher_file):
    """Runs words on a pretended GPU: ``gpu_main(task, verb, *words)``; what it printed."""

    def run(task, *words):
        name, options = MODELS[task]
        if "evaluation" in options:
            options["evaluation"]["matcher"] = str(matcher_file())
        data = {"root": str(muge_root), "batch_size": 6, "eval_batch_size": 5, "num_workers": 0, **DATA.get(task, {})}
        experiment = {
            "model": {"class_path": name, "init_args": options},
            "data": {"class_path": name.replace("Task", "DataModule"), "init_args": data},
            "trainer": {"accelerator": "gpu", "devices": 1, "max_epochs": 1, "enable_model_summary": False},
        }
        (workplace / "experiments" / "on_gpu.yaml").write_text(yaml.safe_dump(experiment))
        with pretend_cuda():
            code, out, err = zoo_main(*words)
        assert code == 0, err
        return out

    return run


@pytest.mark.parametrize("task", MODELS)
def test_every_verb_of_a_task(task, gpu_main, workplace, muge_root):
    gpu_main(task, "fit", "--config", "experiments/on_gpu.yaml")
    (run,) = (workplace / "runs" / "on_gpu").iterdir()
    assert json.loads((run / "fit.json").read_text())["hardware"] == "1 x pretended"
    gpu_main(task, "validate", "--ckpt_path", run)
    gpu_main(task, "test", "--ckpt_path", run)
    assert json.loads((run / "test.json").read_text())["metrics"]
    if task != "image_tokenizer":
        gpu_main(task, "predict", "--ckpt_path", run)
        assert any((run / "predictions").iterdir())
    if task in USES:
        Image.new("RGB", (40, 30), "red").save("image.png")
        verb, *words = USES[task]
        gpu_main(task, verb, run, *words, "--precision", "bf16-mixed")


def test_a_gpu_without_bfloat16_trains_an_image_tokenizer_in_float32(gpu_main, workplace, monkeypatch):
    """The others are trained in float16 there, with scaled losses, which two optimisers do not share."""
    monkeypatch.setattr("zoo.cli.train.best_precision", lambda: "16-mixed")
    gpu_main("image_tokenizer", "fit", "--config", "experiments/on_gpu.yaml", "--trainer.max_steps", "1")
    (run,) = (workplace / "runs" / "on_gpu").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "32-true"
