"""Published pipelines of diffusers through ``python -m zoo``, on files: scored, fine-tuned by adapters, handed on."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import tiny
import tiny_pipelines
import torch
import yaml
from PIL import Image

import zoo
from zoo.core.export import export
from zoo.errors import UserError

FAMILIES = ("taiyi", "hunyuan", "z_image")
PROMPT = "红色连衣裙"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Writes a pipeline of a family: its folder; read only."""
    made = {}

    def write(family):
        if family not in made:
            made[family] = tiny_pipelines.write(family, tmp_path_factory.mktemp(family) / "model")
        return made[family]

    return write


@pytest.fixture
def experiment(saved, muge_root, workplace, matcher_file):
    """Writes an experiment: ``config = experiment("taiyi", lora_rank=2)``; options are the generator's."""

    def write(family, *, data=None, **options):
        size = 32 if family == "hunyuan" else 16
        options = {"image_size": size, "sampling": {"steps": 2, "guidance": 3.0}, **options}
        model = {
            "generator": f"diffusers:{saved(family)}",
            "generator_options": options,
            "learning_rate": 1e-2,
            "optimizer": {"warmup_steps": 2},
            "evaluation": {
                "monitor": "val/loss",
                "mode": "min",
                "matcher": str(matcher_file()),
                "inception": "none",
                "grid_seeds": 1,
            },
        }
        loader = {"root": str(muge_root), "batch_size": 8, "num_workers": 0, "valid_images": 8, "test_images": 8}
        config = {
            "model": {"class_path": "TextToImageTask", "init_args": model},
            "data": {"class_path": "TextToImageDataModule", "init_args": {**loader, **(data or {})}},
            "trainer": {"accelerator": "cpu", "precision": "32-true", "max_epochs": 7, "log_every_n_steps": 1}
            | {"check_val_every_n_epoch": 7, "enable_progress_bar": False}
            | {"callbacks": [{"class_path": "interrupt.Interrupt"}]},
        }
        path = workplace / "experiments" / f"{family}.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True))
        return path

    return write


def validation_losses(run):
    with (run / "metrics.csv").open() as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_shot_by_the_command(saved, experiment, zoo_main, workplace, family):
    config = experiment(family)
    code, _, err = zoo_main("test", "--config", config, "--ckpt_path", "null")
    assert code == 0, err
    assert f"Scoring initial weights: generator: {saved(family)}" in err
    (written,) = (workplace / "runs" / family).rglob("test.json")
    sampling = json.loads(written.read_text())["protocol"]["sampling"]
    assert (sampling["steps"], sampling["guidance"]) == (2, 3.0)
    assert sampling["scheduler"].endswith("Scheduler")


@pytest.mark.parametrize("family", ["taiyi", "hunyuan"])
def test_images_of_a_folder_by_the_command(saved, zoo_main, workplace, family):
    folder = saved(family)
    words = ("--seeds", 1, "--out", "drawn", "--sampling.steps", 3, "--sampling.guidance", 2)
    code, _, err = zoo_main("generate", folder, PROMPT, *words)
    assert code == 0, err
    drawn = np.asarray(Image.open(workplace / "drawn" / f"0-{PROMPT}-seed0.png")).astype(int)
    from diffusers import DiffusionPipeline

    more = {"use_resolution_binning": False} if family == "hunyuan" else {}
    options = {"num_inference_steps": 3, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(0)}
    wanted = DiffusionPipeline.from_pretrained(folder)(PROMPT, **options, **more).images[0]
    assert drawn.std() > 10
    assert np.abs(drawn - np.asarray(wanted)).max() <= 1


@pytest.fixture
def trained(experiment, zoo_main, workplace, only_run):
    """Trains 21 steps of adapters by the command: the run's folder."""

    def train(family):
        config = experiment(family, lora_rank=4, lora_alpha=8.0)
        code, _, err = zoo_main("fit", "--config", config)
        assert code == 0, err
        return only_run(workplace, experiment=family)

    return train


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_trained_and_handed_on(saved, trained, zoo_main, workplace, monkeypatch, family):
    run = trained(family)
    before, after = validation_losses(run)  # of the same noise
    assert after < 0.97 * before
    task = zoo.load(run)
    seeds, texts = [0, 1], [PROMPT, "黑色双肩包"]
    own = task.generator.sample_latents(texts, seeds=seeds)
    published = zoo.load(saved(family)).generator
    published.image_size, published.state_shape = task.generator.image_size, task.generator.state_shape
    assert (published.sample_latents(texts, seeds=seeds, steps=2, guidance=3.0) - own).abs().max() > 1e-2

    code, _, err = zoo_main("export", run, "whole", "--format", "diffusers")
    assert code == 0, err
    read = zoo.load(workplace / "whole").generator
    read.image_size = task.generator.image_size
    again = read.sample_latents(texts, seeds=seeds, steps=2, guidance=3.0)
    torch.testing.assert_close(again, own, rtol=0, atol=1e-4)

    code, _, err = zoo_main("export", run, "adapters", "--format", "diffusers_lora")
    if family == "hunyuan":
        assert code == 1
        assert "diffusers' HunyuanDiTPipeline reads no adapters. Formats that can hold it: diffusers, safet" in err
    else:
        assert code == 0, err
        assert {path.name for path in (workplace / "adapters").iterdir()} == {
            "README.md",
            "pytorch_lora_weights.safetensors",
        }
    wanted = task.generator.generate([PROMPT], seeds=[0])[0].permute(1, 2, 0).numpy().astype(int)
    for name in ("whole",) if family == "hunyuan" else ("whole", "adapters"):
        card = (workplace / name / "README.md").read_text()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        exec(compile(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], "card", "exec"), {})
        assert np.abs(np.asarray(Image.open("dress.png")).astype(int) - wanted).max() <= 1


@pytest.mark.slow
def test_a_training_of_adapters_resumes_as_if_never_interrupted(experiment, zoo_process, workplace, only_run):
    """Also where texts that were embedded before the interruption are embedded again behind it."""
    fit = ("fit", "--config", experiment("z_image", lora_rank=4, lora_dropout=0.1), "--trainer.max_epochs", 2)
    fit += ("--save_every", 2)
    code, _, err = zoo_process(workplace, *fit, "--runs", "whole")
    assert code == 0, err
    code, _, err = zoo_process(workplace, *fit, "--runs", "part", INTERRUPT="kill forward 5 0")
    assert code == -9, err
    code, _, err = zoo_process(workplace, *fit, "--runs", "part", "--ckpt_path", "last")
    assert code == 0, err
    whole, part = (only_run(workplace, runs=runs, experiment="z_image") for runs in ("whole", "part"))
    assert (part / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, part)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("rank", [0, 2])
def test_two_processes_train(experiment, zoo_process, workplace, rank):
    """All that is trained has gradients in every step; what is frozen has none."""
    config = experiment("hunyuan", lora_rank=rank)
    code, _, err = zoo_process(workplace, "fit", "--config", config, "--trainer.max_epochs", 1, processes=2)
    assert code == 0, err


def test_training_reads_latents_of_the_pipelines_own_autoencoder(saved, experiment, zoo_main, muge_root, workplace):
    shutil.copytree(muge_root, workplace / "data")
    for family in ("taiyi", "z_image"):
        words = ("--image_tokenizer", f"diffusers:{saved(family)}", "--image_size", 16, "--num_workers", 0)
        code, out, err = zoo_main("data", "encode", "data", *words, "--out", f"latents-{family}")
        assert code == 0, err
        assert "24 images as [4, 8, 8]" in out
    data = {"root": str(workplace / "data"), "latents": str(workplace / "latents-taiyi"), "flip": 0.0}
    words = ("--trainer.max_epochs", 1, "--trainer.check_val_every_n_epoch", 1)
    code, _, err = zoo_main("fit", "--config", experiment("taiyi", data=data, lora_rank=2), *words)
    assert code == 0, err
    data["latents"] = str(workplace / "latents-z_image")
    code, _, err = zoo_main("fit", "--config", experiment("taiyi", data=data, lora_rank=2), *words)
    assert code == 1
    assert f"were made by diffusers:{saved('z_image')} (weights" in err
    assert "encode the images again, or name the same ones" in err


def test_what_is_no_pipeline_or_has_no_adapters_is_refused(saved, experiment, zoo_main, tmp_path):
    with pytest.raises(
        UserError, match=r"The generator has no adapters \(lora_rank\)\. Formats .*: diffusers, safeten"
    ):
        export(saved("taiyi"), tmp_path / "out", kind="diffusers_lora")
    flow = {"generator": "dit_tiny", "generator_options": {"image_size": 16}, "text_pretrained": False}
    with pytest.raises(UserError, match=r"The generator is none of diffusers' pipelines .*can hold it: safetensors"):
        export(tiny.write_task(tmp_path / "a.ckpt", zoo.TextToImageTask, flow), tmp_path / "out", kind="diffusers")
    code, _, err = zoo_main("fit", "--config", experiment("taiyi"), "--model.generator_pretrained", "nowhere")
    assert code == 1
    assert "model.generator_pretrained: 'nowhere' does not exist" in err
    code, _, err = zoo_main("test", "--config", experiment("taiyi", image_size=9), "--ckpt_path", "null")
    assert code == 1
    assert "image_size is 9: this pipeline takes multiples of 2 pixels" in err


def test_a_run_goes_on_from_another_runs_generator(experiment, zoo_main, trained, workplace, only_run):
    run = trained("taiyi")
    words = ("--trainer.max_steps", 1, "--trainer.max_epochs", -1, "--model.learning_rate", 0)
    config = experiment("taiyi", lora_rank=4, lora_alpha=8.0)
    code, _, err = zoo_main("fit", "--config", config, *words, "--runs", "on", "--model.generator_pretrained", run)
    assert code == 0, err
    last = only_run(workplace, runs="on", experiment="taiyi") / "checkpoints" / "last.ckpt"
    own, its = (zoo.load(place).state_dict() for place in (run, last))
    assert [name for name, value in own.items() if not torch.equal(its[name], value)] == []
