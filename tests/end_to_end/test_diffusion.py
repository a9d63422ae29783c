"""The diffusion generator through ``python -m zoo``, on files, with loader workers: train, resume, draw, encode."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from zoo.__main__ import main
from zoo.core.contracts import ImageTokenizer
from zoo.registry import IMAGE_TOKENIZERS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TOWER = {"width": 32, "num_layers": 1, "num_heads": 2, "dropout": 0.1}
FIT = ("fit", "--config", "experiments/flow.yaml")


@pytest.fixture(scope="module")
def autoencoder_folder(tmp_path_factory):
    """A small autoencoder of diffusers with random weights, as ``save_pretrained`` writes it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=3,
    )
    folder = tmp_path_factory.mktemp("autoencoder")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, muge_root, matcher_file):
    """A folder with data, a matcher and an experiment."""
    place = tmp_path_factory.mktemp("diffusion")
    shutil.copytree(muge_root, place / "data")
    (place / "experiments").mkdir()
    shutil.copyfile(EXPERIMENTS / "_base.yaml", place / "experiments" / "_base.yaml")
    experiment = {
        "save_every": 2,
        "model": {
            "class_path": "zoo.tasks.TextToImageTask",
            "init_args": {
                "generator": "dit_tiny",
                "generator_options": {
                    "image_size": 16,
                    "num_layers": 2,
                    "num_heads": 1,
                    "text_tower_options": TOWER,
                    "sampling": {"steps": 3},
                },
                "learning_rate": 3e-3,
                "optimizer": {"warmup_steps": 2},
                "evaluation": {"matcher": str(matcher_file()), "inception": "none", "grid_seeds": 2},
            },
        },
        "data": {
            "class_path": "zoo.tasks.text_to_image.data.TextToImageDataModule",
            "init_args": {
                "root": str(place / "data"),
                "batch_size": 6,
                "eval_batch_size": 5,
                "num_workers": 1,
                "train_images": 7,
                "flip": 0.5,
            },
        },
        "trainer": {
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "precision": "32-true",
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "zoo.callbacks.ema.EMA", "init_args": {"decay": 0.9}},
                {"class_path": "interrupt.Interrupt"},
            ],
        },
    }
    (place / "experiments" / "flow.yaml").write_text(yaml.safe_dump(experiment, allow_unicode=True))
    return place


@pytest.fixture(scope="module")
def trained(place, zoo_process):
    """An uninterrupted run of eight steps."""
    code, _, err = zoo_process(place, *FIT, "--runs", "whole")
    assert code == 0, err
    return next((place / "whole" / "flow").iterdir())


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_training_logs_the_scores_of_held_out_and_of_training_descriptions(trained):
    by_step = {step: {} for step in ("0", "3", "7")}  # before, between and after two epochs of four steps
    for row in rows(trained):
        if row["step"] in by_step:
            by_step[row["step"]] |= {name: value for name, value in row.items() if value}
    logged = list(by_step.values())
    for name in ("r_precision", "r_precision_true", "r_precision_shuffled", "loss", "precision_clip"):
        assert all(f"val/{name}" in row and f"val_train/{name}" in row for row in logged)
    assert all("val/nearest_training" in row for row in logged)
    assert "val_train/nearest_training" not in logged[0]
    assert float(logged[-1]["val/loss"]) < float(logged[0]["val/loss"])
    assert logged[0]["val/loss"] != logged[0]["val_train/loss"]
    pictures = {path.name for path in (trained / "grids").iterdir()}
    assert {"val-step000008.png", "val_train-step000008.png", "val-nearest-step000008.png"} <= pictures


def test_a_checkpoint_draws_again_what_the_end_of_training_drew(place, trained, tmp_path, zoo_process):
    run = Path(shutil.copytree(trained, tmp_path / "flow" / "again"))
    shutil.rmtree(run / "grids")
    code, _, err = zoo_process(place, "validate", "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert code == 0, err
    for name in ("val-step000008.png", "val_train-step000008.png", "val-nearest-step000008.png"):
        again, then = (np.asarray(Image.open(path / "grids" / name)) for path in (run, trained))
        assert np.array_equal(again, then), name


@pytest.mark.slow
def test_going_on_is_as_if_never_interrupted(place, trained, tmp_path, zoo_process):
    """Noise, times and dropped texts are functions of seed and step."""
    code, _, err = zoo_process(place, *FIT, "--runs", tmp_path / "runs", INTERRUPT="kill forward 7 0")
    assert code == -9, err
    code, _, err = zoo_process(place, *FIT, "--runs", tmp_path / "runs", "--ckpt_path", "last")
    assert code == 0, err
    (run,) = (tmp_path / "runs" / "flow").iterdir()
    assert (run / "metrics.csv").read_text() == (trained / "metrics.csv").read_text()
    for name in ("val-step000008.png", "val_train-step000008.png"):
        assert (run / "grids" / name).read_bytes() == (trained / "grids" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.ddp
def test_any_number_of_processes_and_any_batch_draws_the_same(place, trained, tmp_path, zoo_process):
    """Bit for bit whatever the number of processes; within a grey level whatever the batch."""
    drawn = {}
    for processes, batch in ((1, 5), (2, 5), (1, 12)):
        run = Path(shutil.copytree(trained, tmp_path / f"{processes}-{batch}"))
        words = ("predict", "--ckpt_path", run, "--data.eval_batch_size", batch)
        code, _, err = zoo_process(place, *words, processes=processes)
        assert code == 0, err
        drawn[processes, batch] = (run / "predictions" / "T2I_test.tsv").read_bytes()
    assert drawn[2, 5] == drawn[1, 5]
    few, many = (pictures_of(drawn[key]) for key in ((1, 5), (1, 12)))
    assert np.abs(few - many).max() <= 1


def test_sampling_options_are_typed_behind_the_command(place, trained, tmp_path, zoo_process):
    """As the README types them: numbers, deep inside a dictionary, and the rest of the dictionary stays."""
    run = Path(shutil.copytree(trained, tmp_path / "flow" / "guided"))
    words = ("test", "--ckpt_path", run, "--model.generator_options.sampling.guidance", "6.5")
    code, _, err = zoo_process(place, *words, "--model.generator_options.text_tower_options.dropout=0.2")
    assert code == 0, err
    sampling = json.loads((run / "test.json").read_text())["protocol"]["sampling"]
    assert sampling["guidance"] == 6.5
    assert sampling["steps"] == 3  # of the experiment
    assert sampling["generator_options"]["text_tower_options"] == {**TOWER, "dropout": 0.2}
    code, _, err = zoo_process(place, *words[:3], "--model.generator_options.text_tower_options", "null")
    assert code == 1
    assert "these weights are not of this model" in err  # the tower with its defaults is wider
    code, _, err = zoo_process(place, *words[:3], "--model.generater_options.sampling.guidance", "6.5")
    assert code == 1
    assert "--model.generater_options: this task has no such options. Did you mean gener" in err


def pictures_of(submission):
    from zoo.data.images import decode, decode_base64

    encoded = [line.split(b"\t")[1] for line in submission.splitlines()]
    return np.stack([decode(decode_base64(text)) for text in encoded]).astype(int)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_train(place, tmp_path, zoo_process):
    """All parameters have gradients in every step, the vector that stands for no text too."""
    code, _, err = zoo_process(place, *FIT, "--runs", tmp_path, "--trainer.max_epochs", "1", processes=2)
    assert code == 0, err


# --- generate --------------------------------------------------------------------------------------------------


def test_generate_writes_a_sheet_or_a_folder(trained, tmp_path, capsys):
    words = ["generate", str(trained), "红色方块", "蓝色/圆球", "--seeds", "3"]
    assert main([*words, "--out", str(tmp_path / "grid.png")]) == 0
    assert "grid.png: 2 x 3 images of 16 px" in capsys.readouterr().out
    assert Image.open(tmp_path / "grid.png").width > 3 * 192
    assert main([*words, "--out", str(tmp_path / "all"), "--first_seed", "5"]) == 0
    names = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert len(names) == 7
    assert names[0] == "0-红色方块-seed5.png"
    assert "1-蓝色_圆球-seed7.png" in names
    generator = zoo.load(trained).generator
    picture = np.asarray(Image.open(tmp_path / "all" / "1-蓝色_圆球-seed7.png")).astype(int)
    alone = generator.generate(["蓝色/圆球"], seeds=[7])[0].permute(1, 2, 0).numpy()
    assert np.abs(picture - alone).max() <= 1


def test_generate_takes_the_generators_sampling_options(trained, tmp_path, capsys):
    words = ["generate", str(trained), "红色方块", "--seeds", "1", "--out"]
    for place, sampling in (("a", ["--sampling.guidance", "1"]), ("b", ["--sampling", "{guidance: 9, solver: heun}"])):
        assert main([*words, str(tmp_path / place), *sampling]) == 0
    a, b = (np.asarray(Image.open(tmp_path / place / "0-红色方块-seed0.png")) for place in "ab")
    assert not np.array_equal(a, b)
    capsys.readouterr()
    assert main([*words, str(tmp_path / "c"), "--sampling.guidence", "3"]) == 1
    assert "--sampling: sampling has no 'guidence'. Did you mean guidance" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_generate_refuses_what_it_cannot_do(trained, tmp_path, capsys, matcher_file):
    (tmp_path / "file").write_text("mine")
    for words, message in [
        ([str(matcher_file()), "红"], "it is of RetrievalTask, which generates no images"),
        ([str(trained), "红", "--out", "sheet.jpg"], "--out sheet.jpg: image grids are PNG files"),
        (
            [str(trained), "红", "--out", str(tmp_path / "file")],
            "is a file: give a name that ends in .png, or a folder",
        ),
        ([str(tmp_path / "nothing"), "红"], "nothing"),
    ]:
        assert main(["generate", *words]) == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    for words in ([str(trained), "红", "--seeds", "0"], [str(trained), " "], [str(trained)]):
        with pytest.raises(SystemExit):
            main(["generate", *words])


# --- latents ---------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(place, tmp_path, autoencoder_folder):
    """The data, and the latents of its training images at 16 px."""
    shutil.copytree(place / "data", tmp_path / "data")
    words = ["data", "encode", str(tmp_path / "data"), "--image_tokenizer", f"diffusers:{autoencoder_folder}"]
    assert main([*words, "--image_size", "16", "--flipped", "--batch_size", "5", "--num_workers", "1"]) == 0
    return tmp_path / "data"


def test_latents_are_those_of_the_image_tokenizer_with_measured_statistics(encoded, autoencoder_folder):
    folder = encoded / "ECommerce-T2I" / "latents-16"
    assert sorted(path.name for path in folder.iterdir()) == ["latents.json", "train.npy"]
    array, facts = np.load(folder / "train.npy"), json.loads((folder / "latents.json").read_text())
    assert array.shape == (24, 2, 3, 8, 8)
    np.testing.assert_allclose(facts["mean"], array.astype(float).mean(axis=(0, 1, 3, 4)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(facts["std"], array.astype(float).std(axis=(0, 1, 3, 4)), rtol=1e-6)
    from zoo.core.weights import load_pretrained

    tokenizer = IMAGE_TOKENIZERS.build(f"diffusers:{autoencoder_folder}")
    load_pretrained(tokenizer, True)
    assert isinstance(tokenizer, ImageTokenizer)
    assert (tokenizer.num_codes, tokenizer.channels) == (None, 3)
    data = zoo.TextToImageDataModule(str(encoded), image_size=16, num_workers=0)
    picture = next(iter(data.images_loader("train")))["image"]
    with torch.inference_mode():
        for view, pixels in enumerate((picture, picture.flip(-1))):
            np.testing.assert_allclose(array[: len(picture), view], tokenizer.encode(pixels).numpy(), atol=2e-3)


def test_encoding_goes_on_where_it_stopped(encoded, autoencoder_folder, capsys, monkeypatch):
    folder = encoded / "ECommerce-T2I" / "latents-16"
    whole = [(folder / name).read_bytes() for name in ("train.npy", "latents.json")]
    shutil.rmtree(folder)
    from zoo.tasks.text_to_image.latents import LatentsWriter

    write, left = LatentsWriter.write, iter([True, True])
    monkeypatch.setattr(LatentsWriter, "write", lambda self, part: write(self, part) if next(left, False) else 1 / 0)
    words = ["data", "encode", str(encoded), "--image_tokenizer", f"diffusers:{autoencoder_folder}"]
    words += ["--image_size", "16"]
    words += ["--flipped", "--num_workers", "0", "--batch_size", "5"]
    with pytest.raises(ZeroDivisionError):
        main(words)
    monkeypatch.undo()
    assert not (folder / "train.npy").exists()
    capsys.readouterr()
    assert main(words) == 0
    assert "10 of 24 images are encoded already: resuming" in capsys.readouterr().err
    assert [(folder / name).read_bytes() for name in ("train.npy", "latents.json")] == whole
    assert main(words) == 0
    assert "these latents are there already" in capsys.readouterr().out
    (folder / "latents.json").unlink()
    finish = LatentsWriter.finish
    monkeypatch.setattr(LatentsWriter, "finish", lambda self: 1 / 0)  # all is encoded and nothing measured
    with pytest.raises(ZeroDivisionError):
        main(words)
    monkeypatch.setattr(LatentsWriter, "finish", finish)
    assert main(words) == 0
    assert "24 of 24 images are encoded already: resuming" in capsys.readouterr().err
    assert [(folder / name).read_bytes() for name in ("train.npy", "latents.json")] == whole


def latent_words(encoded, folder):
    options = {
        "image_tokenizer": f"diffusers:{folder}",
        "image_size": 16,
        "patch_size": 2,
        "num_layers": 2,
        "num_heads": 1,
        "text_tower_options": TOWER,
        "sampling": {"steps": 3},
    }
    words = ["--model.generator_options", json.dumps(options), "--data.root", str(encoded)]
    return [*words, "--trainer.max_epochs", "1"]


def test_a_generator_learns_latents_and_draws_pictures(place, encoded, autoencoder_folder, tmp_path, zoo_process):
    words = [*FIT, *latent_words(encoded, autoencoder_folder), "--runs", tmp_path / "runs"]
    code, _, err = zoo_process(place, *words)
    assert code == 1
    assert "data.latents names none: write them once with `python -m zoo data encode ROOT --image_tokenizer" in err
    code, _, err = zoo_process(place, *words, "--data.latents", "latents-16")
    assert code == 0, err
    run = next(path for path in (tmp_path / "runs" / "flow").iterdir() if (path / "checkpoints" / "last.ckpt").exists())
    assert float([row for row in rows(run) if row["val/loss"]][-1]["val/loss"]) > 0
    last = str(run / "checkpoints" / "last.ckpt")
    code, _, err = zoo_process(place, *words, "--model.init_from", last)
    assert code == 1
    assert "data.latents names none" in err  # also where the weights come from elsewhere
    generator = zoo.load(run).generator
    facts = json.loads((encoded / "ECommerce-T2I" / "latents-16" / "latents.json").read_text())
    torch.testing.assert_close(generator.latent_mean, torch.tensor(facts["mean"]))
    torch.testing.assert_close(generator.latent_std, torch.tensor(facts["std"]))
    pictures = generator.generate(["红色方块", "蓝色圆球"], seeds=[0, 1])
    assert pictures.shape == (2, 3, 16, 16)
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, 3:9, 3:9] = True
    drawn = generator.inpaint(pictures, masks, ["红色方块", "蓝色圆球"], seeds=[2, 3])
    kept = ~masks[:, None].expand_as(pictures)
    assert torch.equal(drawn[kept], pictures[kept])


def test_latents_of_other_pictures_or_weights_are_refused(place, encoded, autoencoder_folder, tmp_path, zoo_process):
    words = [*FIT, *latent_words(encoded, autoencoder_folder), "--runs", tmp_path / "runs", "--data.latents"]
    folder = encoded / "ECommerce-T2I" / "latents-16"
    facts = json.loads((folder / "latents.json").read_text())
    for change, message in [
        ({"weights": "0" * 12}, "encode the images again, or name the same ones"),
        ({"source": "others"}, "are of others, and the training images are"),
        ({"flipped": False}, "data.flip is 0.5 and the latents of"),
    ]:
        (folder / "latents.json").write_text(json.dumps({**facts, **change}))
        code, _, err = zoo_process(place, *words, "latents-16")
        assert code == 1
        assert message in err
    (folder / "latents.json").write_text(json.dumps(facts))
    code, _, err = zoo_process(place, *FIT, "--data.root", encoded, "--data.latents", "latents-16")
    assert code == 1
    assert "and this generator learns pixels: leave it out" in err
    code, _, err = zoo_process(place, *words, "nowhere")
    assert code == 1
    assert "data.latents is nowhere: no latents can be read there" in err
