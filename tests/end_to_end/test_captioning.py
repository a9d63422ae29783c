"""Captioning through ``python -m zoo``, on files, with loader workers: training, evaluation, prediction, scoring."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import zoo
from zoo.__main__ import main

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
OPTIONS = {
    "image_tower": "timm:test_vit",
    "image_tower_options": {"image_size": 32},
    "width": 32,
    "num_layers": 1,
    "num_heads": 2,
    "decoding": {"beams": 2, "max_tokens": 8},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, muge_root):
    """A folder with data and experiments: ``tiny``, and ``interrupted``, which learns the reward or the references."""
    place = tmp_path_factory.mktemp("captioning")
    shutil.copytree(muge_root / "ECommerce-IC", place / "data" / "ECommerce-IC")
    shutil.copytree(EXPERIMENTS, place / "experiments")
    experiment = {
        "model": {
            "class_path": "zoo.tasks.CaptioningTask",
            "init_args": {
                "captioner": "encoder_decoder_tiny",
                "captioner_options": OPTIONS,
                "image_pretrained": False,
                "language_pretrained": False,
                "learning_rate": 0.003,
                "optimizer": {"warmup_steps": 2},
                "evaluation": {"nearest_copy": True, "grid_images": 3},
            },
        },
        "data": {
            "class_path": "zoo.tasks.captioning.data.CaptioningDataModule",
            "init_args": {"root": str(place / "data"), "batch_size": 6, "eval_batch_size": 5, "num_workers": 1},
        },
        "trainer": {
            "max_epochs": 3,
            "accelerator": "cpu",
            "precision": "32-true",
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "interrupt.Interrupt"},
            ],
        },
    }
    (place / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    experiment["model"]["init_args"]["captioner_options"] = {**OPTIONS, "dropout": 0.2}
    experiment |= {"save_every": 3}
    (place / "experiments" / "interrupted.yaml").write_text(yaml.safe_dump(experiment))
    return place


@pytest.fixture(scope="module")
def trained(place, zoo_process):
    """A run, and what it printed."""
    code, out, err = zoo_process(place, "fit", "--config", "experiments/tiny.yaml")
    assert code == 0, err
    return next((place / "runs" / "tiny").iterdir()), out


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to evaluate."""
    return Path(shutil.copytree(trained[0], tmp_path / "runs" / "tiny" / "copy"))


def validations(run):
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/cider"]]
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def test_a_training_logs_every_score_with_its_controls(trained):
    run, printed = trained
    first, *_, last = validations(run)
    wanted = {"cider", "bleu1", "bleu4", "rouge_l", "distinct1", "distinct2", "repetition", "unknown", "loss"}
    wanted |= {f"{score}_{control}" for score in ("cider", "bleu4", "rouge_l") for control in ("shuffled", "nearest")}
    assert {f"val/{name}" for name in wanted} <= first.keys()
    assert last["val/loss"] < first["val/loss"]
    assert last["val/unknown"] == 0
    for words in ("the model's", "of other images", "nearest copied", "people's (8 images)", "case:lower"):
        assert words in printed
    assert min(Image.open(run / "grids" / "val-step000000.png").size) > 300


def test_a_training_starts_from_the_image_tower_of_a_run(place, trained, zoo_process):
    fit = ("fit", "--config", "experiments/tiny.yaml", "--trainer.max_epochs", "1", "--runs", "from_a_run")
    code, out, err = zoo_process(place, *fit, "--model.image_pretrained", "runs/tiny")
    assert code == 0, err
    checkpoint = next((place / "from_a_run" / "tiny").iterdir()) / "checkpoints" / "best.ckpt"
    weights = torch.load(checkpoint, weights_only=True)["weights"]
    assert weights == {"image_tower": f"tiny/{trained[0].name}/checkpoints/best.ckpt", "language": "random"}
    code, out, err = zoo_process(place, *fit, "--model.image_pretrained", "runs/none")
    assert code == 1
    assert "zoo fit: error: model.image_pretrained runs/none: no run is there. Train it first" in err


def test_score_gives_the_numbers_of_test(place, run, zoo_process):
    for verb in ("test", "predict"):
        code, out, err = zoo_process(place, verb, "--ckpt_path", run)
        assert code == 0, err
    assert "IC_test.jsonl: captions of 12 images" in out
    targets, predictions = place / "data/ECommerce-IC/IC_test_answers.jsonl", run / "predictions" / "IC_test.jsonl"
    ids = [json.loads(line)["image_id"] for line in predictions.read_text(encoding="utf-8").splitlines()]
    assert ids == [json.loads(line)["image_id"] for line in targets.read_text(encoding="utf-8").splitlines()]
    words = ["score", "captioning", "--targets", str(targets), "--predictions", str(predictions)]
    assert main([*words, "--output", str(run / "score.json")]) == 0
    tested, scored = (json.loads((run / name).read_text()) for name in ("test.json", "score.json"))
    for name, value in scored["metrics"].items():
        assert tested["metrics"][f"test/{name}"] == pytest.approx(value, rel=1e-6)
    assert tested["protocol"]["images"] == scored["protocol"]["images"] == 12


@pytest.mark.slow
@pytest.mark.ddp
def test_any_number_of_processes_scores_and_writes_what_one_does(place, run, zoo_process):
    found, submissions = {}, {}
    for processes in (1, 2, 3):
        for verb in ("test", "predict"):
            code, _, err = zoo_process(place, verb, "--ckpt_path", run, processes=processes)
            assert code == 0, err
        found[processes] = json.loads((run / "test.json").read_text())
        submissions[processes] = (run / "predictions" / "IC_test.jsonl").read_bytes()
    for processes in (2, 3):
        assert found[processes]["protocol"] == found[1]["protocol"]
        assert found[processes]["metrics"] == pytest.approx(found[1]["metrics"], rel=1e-6)
        assert submissions[processes] == submissions[1]


def test_a_training_goes_on_as_if_never_interrupted(place, tmp_path, zoo_process):
    """Learning references with dropout in its first epoch, and from the second the reward, which samples captions."""
    words = ("fit", "--config", "experiments/interrupted.yaml")
    words += ("--model.reward.samples", "3", "--model.reward.from_epoch", "1")
    code, _, err = zoo_process(place, *words, "--runs", tmp_path / "whole")
    assert code == 0, err
    code, _, err = zoo_process(place, *words, "--runs", tmp_path / "runs", INTERRUPT="raise forward 7 0")
    assert code == 1, err
    code, _, err = zoo_process(place, *words, "--runs", tmp_path / "runs", "--ckpt_path", "last")
    assert code == 0, err
    (whole,), (run,) = ((tmp_path / runs / "interrupted").iterdir() for runs in ("whole", "runs"))
    assert "train/reward" in (whole / "metrics.csv").read_text()
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_the_reward_needs_trained_weights(place, tmp_path, zoo_process):
    words = ("fit", "--config", "experiments/tiny.yaml", "--runs", tmp_path, "--model.reward.samples", "3")
    code, _, err = zoo_process(place, *words)
    assert code == 1
    assert "model.reward.samples is 3 and model.init_from is not set" in err


@pytest.mark.slow
def test_a_sweep_scores_every_way_of_decoding(place, run, zoo_process):
    precision = ("--trainer.precision", "bf16-mixed")
    words = ("validate", "--ckpt_path", run, "--config", "experiments/_overlays/caption_sweep.yaml")
    code, out, err = zoo_process(place, *words, *precision)
    assert code == 0, err
    rows = json.loads((run / "sweep.json").read_text())["rows"]
    assert len(rows) == 1 + 3 * 4  # one beam has no use for length penalties
    best = max(rows, key=lambda row: row["cider"])
    assert f"--model.captioner_options.decoding.beams {best['beams']}" in out
    code, out, err = zoo_process(
        place,
        *("validate", "--ckpt_path", run, "--model.captioner_options.decoding.beams", best["beams"]),
        *("--model.captioner_options.decoding.length_penalty", best["length_penalty"]),
        *precision,
    )
    assert code == 0, err
    assert re.search(rf"the model's +│ +{best['cider']:.2f} │", out)


def test_a_part_of_a_validation_is_called_so(place, run, zoo_process):
    code, out, err = zoo_process(place, "validate", "--ckpt_path", run, "--trainer.limit_val_batches", 1)
    assert code == 0, err
    assert "val_partial, step" in out
    assert "5 images" in out


def test_predict_wants_every_image(place, run, zoo_process):
    code, _, err = zoo_process(place, "predict", "--ckpt_path", run, "--trainer.limit_predict_batches", 1)
    assert code == 1
    assert "trainer.limit_predict_batches is set: a submission needs every image; drop it" in err
    assert not (run / "predictions").exists()


# --- caption -----------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, (colour, name) in enumerate([("red", "a.png"), ("blue", "b.jpg"), ("green", "c.webp")]):
        Image.new("RGB", (40 + number, 30), colour).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_caption_prints_a_line_for_each_image(run, images, capsys):
    assert main(["caption", str(run), str(images), str(images / "a.png")]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [Path(path).name for path, _ in lines] == ["a.png", "b.jpg", "c.webp", "a.png"]
    assert lines[0][1] == lines[3][1]
    task = zoo.load(run)
    pixels = task.captioner.image_tower.preprocess([Image.open(images / "b.jpg")])
    assert task.captioner.write(task.captioner.encode(pixels)) == [lines[1][1]]


def test_caption_decodes_as_it_is_told(run, images, capsys):
    assert main(["caption", str(run), str(images / "a.png"), "--json", "--decoding.max_tokens", "1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["text"]) == 1
    assert record["image"] == str(images / "a.png")


def test_caption_says_what_is_wrong(run, images, tmp_path, matcher_file, capsys):
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([run, tmp_path / "no.png"], "there is no such file or folder"),
        ([run, tmp_path / "empty"], "the folder has no images in it"),
        ([run, images / "notes.txt", images], "notes.txt: not an image"),
        ([run, images, "--decoding.beam", "3"], "--decoding: decoding has no 'beam'. Did you mean beams?"),
        ([matcher_file(), images], "it is of RetrievalTask, which writes no captions"),
    ):
        assert main(["caption", *map(str, words)]) == 1
        assert message in capsys.readouterr().err
