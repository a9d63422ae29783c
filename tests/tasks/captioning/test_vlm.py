"""Vision-language models through ``python -m zoo``: scored as they came, trained by adapters, handed back."""

import json
import re
import shutil

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image
from tiny_vlm import CLASSES
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

import zoo
from zoo.core.checkpoint import load_initial_weights
from zoo.core.export import export, sample_images
from zoo.core.weights import load_pretrained
from zoo.errors import UserError
from zoo.tasks.captioning.export.transformers import TransformersFolder

FAMILY = "qwen3_vl"  # the one whose features enter several layers
SIZE = CLASSES[FAMILY][1]
OPTIONS = {"image_size": SIZE, "instruction": '写"好"\\的\n', "decoding": {"beams": 2, "max_tokens": 8}}
LORA = {"lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.1}


def experiment(folder, muge_root, path, options=OPTIONS, **changes):
    """Write the experiment of a vision-language model; gives its path."""
    model = {"captioner": f"vlm:{folder}", "captioner_options": options, "evaluation": {"grid_images": 2}, **changes}
    config = {
        "model": {"class_path": "CaptioningTask", "init_args": model},
        "data": {
            "class_path": "CaptioningDataModule",
            "init_args": {"root": str(muge_root), "batch_size": 8, "num_workers": 1, "captions_per_image": 2},
        },
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_epochs": 2, "enable_model_summary": False},
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path


def own_captions(folder, images, decoding, instruction=OPTIONS["instruction"]):
    """What transformers itself writes of images, from a folder alone."""
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    model.generation_config = GenerationConfig()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    found = []
    for image in images:
        content = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids = model.generate(**inputs, generation_config=decoding)[0, inputs["input_ids"].shape[1] :]
        found.append(processor.decode(ids, skip_special_tokens=True).strip())
    return found


def test_zero_shot_by_the_command_is_what_transformers_writes(saved_vlm, workplace, zoo_main, muge_root, only_run):
    config = experiment(saved_vlm(FAMILY), muge_root, workplace / "experiments" / "vlm.yaml")
    code, out, err = zoo_main("test", "--config", config, "--ckpt_path", "null")
    assert code == 0, err
    assert f"language: {saved_vlm(FAMILY)}" in err
    assert "the model's" in out
    code, _, err = zoo_main("predict", "--config", config, "--ckpt_path", "null")
    assert code == 0, err
    (predictions,) = workplace.glob("runs/vlm/*/predictions/IC_test.jsonl")
    written = [json.loads(line)["text"] for line in predictions.read_text().splitlines()]
    data = zoo.CaptioningDataModule(str(muge_root), image_size=SIZE)
    loader = data.images_loader("test")
    squares = [Image.fromarray(image.permute(1, 2, 0).numpy()) for batch in loader for image in batch["image"]]
    task = zoo.CaptioningTask(f"vlm:{saved_vlm(FAMILY)}", captioner_options=OPTIONS)
    decoding = task.captioner.decoding.search(task.captioner.vocabulary)
    assert written == own_captions(saved_vlm(FAMILY), squares, decoding)
    assert len(set(written)) > 1


@pytest.fixture(scope="module")
def trained(saved_vlm, tmp_path_factory, muge_root, zoo_process):
    """A run of 20 steps of adapters, by the command; read only."""
    place = tmp_path_factory.mktemp("vlm")
    (place / "experiments").mkdir()
    base = "trainer: {use_distributed_sampler: false}\n"
    (place / "experiments" / "_base.yaml").write_text(base)
    experiment(
        saved_vlm(FAMILY),
        muge_root,
        place / "experiments" / "vlm.yaml",
        options={**OPTIONS, **LORA},
        learning_rate=5e-3,
        optimizer={"warmup_steps": 2},
    )
    words = ("--trainer.max_steps", 20, "--trainer.max_epochs", -1, "--trainer.log_every_n_steps", 1)
    code, _, err = zoo_process(place, "fit", "--config", "experiments/vlm.yaml", *words)
    assert code == 0, err
    (run,) = (place / "runs" / "vlm").iterdir()
    return run


def losses_of(run):
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("train/loss")
    return [float(row[column]) for row in rows[1:] if row[column]]


def test_twenty_steps_of_adapters_lower_the_loss(trained, saved_vlm):
    losses = losses_of(trained)
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    task, state = zoo.load(trained), AutoModelForImageTextToText.from_pretrained(saved_vlm(FAMILY)).state_dict()
    own = task.captioner.language.model.state_dict()
    plain = {name.replace(".base_layer.", "."): value for name, value in own.items() if ".lora_" not in name}
    assert all(torch.equal(plain[name], value) for name, value in state.items())  # nothing else has changed


def test_a_training_of_adapters_is_resumed(trained, tmp_path, zoo_process):
    run = shutil.copytree(trained, tmp_path / "runs" / "vlm" / "copy")
    shutil.copytree(trained.parents[2] / "experiments", tmp_path / "experiments")
    words = ("--config", "experiments/vlm.yaml", "--ckpt_path", "last", "--trainer.max_steps", 22)
    code, _, err = zoo_process(tmp_path, "fit", *words, "--trainer.max_epochs", -1, "--trainer.log_every_n_steps", 1)
    assert code == 0, err
    assert losses_of(run)[:20] == losses_of(trained)
    assert len(losses_of(run)) == 22


def test_adapters_go_on_from_those_of_a_run_and_begin_beside_whole_weights(trained, saved_vlm, tmp_path):
    def begun(source, options):
        task = zoo.CaptioningTask(f"vlm:{saved_vlm(FAMILY)}", captioner_options=options)
        load_initial_weights(task, source)
        return task.eval()

    images = sample_images(SIZE, 3)
    further = begun(trained, {**OPTIONS, **LORA})
    assert all(torch.equal(further.state_dict()[name], value) for name, value in zoo.load(trained).state_dict().items())
    export(trained, tmp_path / "whole", kind="transformers")
    anew = begun(tmp_path / "whole", {**OPTIONS, **LORA})
    assert anew.captioner.caption(images) == further.captioner.caption(images)
    with pytest.raises(UserError, match="These weights have adapters, and this captioner has none"):
        begun(trained, OPTIONS)


def test_trained_adapters_are_rewarded_further(trained, saved_vlm, zoo_process):
    place = trained.parents[2]
    words = ("--model.init_from", trained, "--model.reward.samples", 3, "--trainer.max_steps", 2, "--runs", "rewarded")
    code, _, err = zoo_process(
        place, "fit", "--config", "experiments/vlm.yaml", *words, "--trainer.log_every_n_steps", 1
    )
    assert code == 0, err
    (run,) = (place / "rewarded" / "vlm").iterdir()
    assert "train/reward" in (run / "metrics.csv").read_text()


@pytest.fixture(scope="module", params=["transformers", "peft"])
def exported(request, trained, tmp_path_factory):
    """The run as a folder of another library: ``kind, folder, found``; read only."""
    folder = tmp_path_factory.mktemp(request.param) / "out"
    return request.param, folder, export(trained, folder, kind=request.param)


def test_other_libraries_write_the_same(exported, trained, saved_vlm, monkeypatch, capsys):
    kind, folder, (logits, captions) = exported
    assert 0 <= logits.difference < 1e-4
    assert captions.difference == 0
    image = sample_images(SIZE, 1)[0]
    image.save(folder.parent / "dress.png")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    exec(compile(code.replace("dress.jpg", "dress.png"), "card", "exec"), {})
    wanted = zoo.load(trained).captioner.caption([image])
    assert capsys.readouterr().out.strip() == wanted[0]
    assert (folder / "adapter_config.json").is_file() == (kind == "peft")


def test_the_whole_folder_is_read_back(trained, tmp_path, zoo_main):
    code, out, err = zoo_main("export", trained, tmp_path / "out", "--format", "transformers")
    assert code == 0, err
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    task, read = zoo.load(trained), zoo.load(moved)
    assert read.hparams["captioner"] == f"vlm:{moved}"
    assert read.captioner.language.lora is None
    images = sample_images(SIZE, 3)
    assert read.captioner.caption(images) == task.captioner.caption(images)
    images[0].save(tmp_path / "dress.png")
    code, out, err = zoo_main("caption", moved, tmp_path / "dress.png")
    assert code == 0, err
    assert out == f"{tmp_path / 'dress.png'}\t{task.captioner.caption(images[:1])[0]}\n"


@pytest.mark.parametrize("family", CLASSES)
def test_a_model_leaves_as_it_came(saved_vlm, family, tmp_path):
    folder = saved_vlm(family)
    task = zoo.CaptioningTask(f"vlm:{folder}", captioner_options={**OPTIONS, "image_size": CLASSES[family][1]})
    load_pretrained(task.captioner.language, True)
    TransformersFolder().write(task.eval(), tmp_path)
    came, left = (AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in (folder, tmp_path))
    assert came.keys() == left.keys()
    assert all(torch.equal(left[name], value) for name, value in came.items())


def test_scores_are_not_compared(trained, tmp_path):
    with pytest.raises(UserError, match="--data: of captioners logits and captions are compared"):
        export(trained, tmp_path / "out", kind="transformers", data="auto")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("captioner", "kind", "words"),
    [
        ("encoder_decoder_tiny", "transformers", "Only vision-language models"),
        ("encoder_decoder_tiny", "peft", "Only vision-language models"),
        ("vlm", "peft", "trained without adapters"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(saved_vlm, tmp_path, captioner, kind, words):
    options = {"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}, "width": 32, "num_heads": 2}
    given = {"captioner": f"vlm:{saved_vlm(FAMILY)}", "captioner_options": OPTIONS}
    given = given if captioner == "vlm" else {"captioner": captioner, "captioner_options": options}
    checkpoint = tiny.write_task(tmp_path / "model.ckpt", zoo.CaptioningTask, given)
    with pytest.raises(UserError, match=words) as caught:
        export(checkpoint, tmp_path / "out", kind=kind)
    assert (caught.value.argument, caught.value.value) == ("--format", kind)
    assert ("transformers" in caught.value.valid) == (captioner == "vlm")


def test_adapters_beside_other_weights_than_the_published_are_not_handed_on(saved_vlm, tmp_path):
    """Random weights stand in for a model that was trained whole before it got adapters."""
    given = {"captioner": f"vlm:{saved_vlm(FAMILY)}", "captioner_options": {**OPTIONS, **LORA}}
    checkpoint = tiny.write_task(tmp_path / "model.ckpt", zoo.CaptioningTask, given)
    with pytest.raises(UserError, match="they were trained beside other weights. Take --format transformers"):
        export(checkpoint, tmp_path / "out", kind="peft")
    assert not (tmp_path / "out").exists()


def test_adapters_alone_are_not_read_back(exported):
    kind, folder, _ = exported
    if kind == "peft":
        with pytest.raises(UserError, match="adapters alone"):
            zoo.load(folder)
    else:
        assert zoo.load(folder).captioner.language.published == str(folder)


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl"])
def test_a_published_model_is_loaded_by_its_folder_alone(saved_vlm, tmp_path, capsys, family):
    from zoo.__main__ import main

    folder = saved_vlm(family)
    captioner = zoo.load(folder).captioner
    size = captioner.image_size
    wanted = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in captioner.language.model.state_dict().items())
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8))
    image.save(tmp_path / "product.png")
    words = ["caption", str(folder), str(tmp_path / "product.png"), "--decoding.max_tokens", "4"]
    assert main(words) == 0
    assert capsys.readouterr().out.split("\t")[1].strip() == captioner.caption([image], max_tokens=4)[0]
