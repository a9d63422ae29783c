"""The autoregressive generator through ``python -m zoo``, on files, with loader workers: tokenizer, codes, DALL·E."""

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
from zoo.data.images import decode, decode_base64

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
VQGAN = {"width": 32, "multipliers": [1, 2], "patch_size": 1, "num_codes": 32}
TOKENIZER = ("fit", "--config", "experiments/vqgan.yaml")
DALLE = ("fit", "--config", "experiments/dalle.yaml")
SIZE, SIDE = 16, 8


def model(task, **options):
    return {"class_path": f"zoo.tasks.{task}", "init_args": options}


def callback(path, **options):
    return {"class_path": path, "init_args": options}


def experiment(task, data_module, *callbacks, **data):
    return {
        "save_every": 2,
        "model": task,
        "data": {
            "class_path": f"zoo.tasks.{data_module}",
            "init_args": {"batch_size": 6, "eval_batch_size": 5, "num_workers": 1, "flip": 0.5, **data},
        },
        "trainer": {
            "max_epochs": 2,  # of four steps
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "precision": "32-true",
            "enable_progress_bar": False,
            "callbacks": [*callbacks, {"class_path": "interrupt.Interrupt"}],
        },
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory, muge_root, matcher_file):
    """A folder with data, a matcher and two experiments."""
    place = tmp_path_factory.mktemp("dalle")
    shutil.copytree(muge_root, place / "data")
    (place / "experiments").mkdir()
    shutil.copyfile(EXPERIMENTS / "_base.yaml", place / "experiments" / "_base.yaml")
    extractors = {"matcher": str(matcher_file()), "inception": "none"}
    tokenizer = experiment(
        model(
            "ImageTokenizerTask",
            image_tokenizer="vqgan_tiny",
            image_tokenizer_options=VQGAN,
            image_size=SIZE,
            learning_rate=1e-3,
            optimizer={"warmup_steps": 2},
            discriminator_start=3,
            discriminator_width=8,
            discriminator_layers=1,
            restart_after=2,
            evaluation=extractors,
        ),
        "image_tokenizer.data.ImageTokenizerDataModule",
        root=str(place / "data"),
    )
    generator = {
        "image_size": SIZE,
        "width": 32,
        "num_layers": 2,
        "num_heads": 2,
        "context_length": 8,
        "image_tokenizer": "vqgan_tiny",
        "image_tokenizer_options": VQGAN,
        "image_tokenizer_weights": "whole/vqgan",
    }
    dalle = experiment(
        model(
            "TextToImageTask",
            generator="dalle_tiny",
            generator_options=generator,
            learning_rate=3e-3,
            optimizer={"warmup_steps": 2},
            evaluation={**extractors, "grid_seeds": 2},
        ),
        "text_to_image.data.TextToImageDataModule",
        callback("zoo.callbacks.ema.EMA", decay=0.9),
        root=str(place / "data"),
        train_images=7,
        latents="codes-16",
    )
    for name, contents in (("vqgan", tokenizer), ("dalle", dalle)):
        (place / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(contents, allow_unicode=True))
    return place


@pytest.fixture(scope="module")
def tokenizer(place, zoo_process):
    """An uninterrupted run of eight steps, whose discriminator begins with the fourth."""
    code, _, err = zoo_process(place, *TOKENIZER, "--runs", "whole")
    assert code == 0, err
    return next((place / "whole" / "vqgan").iterdir())


@pytest.fixture(scope="module")
def codes(place, tokenizer):
    """The folder of the training images' codes, in the data."""
    assert main(encode_words(place, tokenizer, workers=1)) == 0
    return place / "data" / "ECommerce-T2I" / "codes-16"


@pytest.fixture(scope="module")
def trained(place, codes, zoo_process):
    """An uninterrupted run of eight steps on codes from disk."""
    code, _, err = zoo_process(place, *DALLE, "--runs", "whole")
    assert code == 0, err
    return next((place / "whole" / "dalle").iterdir())


@pytest.fixture
def here(place, zoo_main, monkeypatch):
    """Runs a command line in this process, in that folder: ``code, out, err = here("fit", …)``."""
    monkeypatch.chdir(place)
    return zoo_main


def encode_words(place, source, *, workers):
    words = ["data", "encode", str(place / "data"), "--image_tokenizer", str(source), "--image_size", str(SIZE)]
    return [*words, "--flipped", "--batch_size", "5", "--num_workers", str(workers)]


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(run, name):
    """The values of one name, by step."""
    return {int(row["step"]): float(row[name]) for row in rows(run) if row.get(name)}


# --- training --------------------------------------------------------------------------------------------------


def test_a_tokenizer_logs_its_losses_and_scores(tokenizer):
    assert list(logged(tokenizer, "train/loss")) == list(range(8))
    assert list(logged(tokenizer, "train/discriminator")) == [3, 4, 5, 6, 7]
    assert list(logged(tokenizer, "train/adversarial_weight")) == [3, 4, 5, 6, 7]
    assert list(logged(tokenizer, "train/codebook_usage")) == [3, 7]
    for name in ("psnr", "ssim", "codebook_usage", "r_precision", "r_precision_true", "r_precision_shuffled"):
        assert list(logged(tokenizer, f"val/{name}")) == [0, 3, 7], name
    likeness = logged(tokenizer, "train/likeness")
    assert likeness[7] < likeness[0]
    assert (tokenizer / "grids" / "val-step000008.png").is_file()


def test_a_generator_logs_the_scores_of_held_out_and_of_training_descriptions(trained):
    for split in ("val", "val_train"):
        for name in ("loss", "r_precision", "precision_clip"):
            assert list(logged(trained, f"{split}/{name}")) == [0, 3, 7], name
    loss = logged(trained, "val/loss")
    assert loss[0] == pytest.approx(np.log(VQGAN["num_codes"]), abs=0.1)
    assert loss[7] < loss[0]
    assert (trained / "grids" / "val-step000008.png").is_file()


def test_a_generator_learns_the_same_from_images_as_from_their_codes(codes, here, tmp_path):
    """Which views are flipped is generated otherwise, so without; otherwise codes from disk are those of the images."""
    runs = {}
    for name, value in (("disk", "codes-16"), ("pictures", "null")):
        words = ("--data.latents", value, "--data.flip", "0", "--trainer.max_epochs", "1", "--data.num_workers", "0")
        code, _, err = here(*DALLE, "--runs", tmp_path / name, *words, "--trainer.limit_val_batches", "0")
        assert code == 0, err
        (runs[name],) = (tmp_path / name / "dalle").iterdir()
    found = [logged(runs[name], "train/loss") for name in ("disk", "pictures")]
    assert list(found[0]) == [0, 1, 2, 3]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "interrupt"),
    [
        ("vqgan", "raise second 5 0"),  # between the discriminator's step and the VQGAN's
        pytest.param("vqgan", "term end 3 0", marks=pytest.mark.slow),  # before the discriminator's first step
        ("dalle", "term end 3 0"),
    ],
)
def test_going_on_is_as_if_never_interrupted(place, tokenizer, trained, tmp_path, zoo_process, name, interrupt):
    """The same metrics to the byte, and the same images."""
    whole = {"vqgan": tokenizer, "dalle": trained}[name]
    fit = ("fit", "--config", f"experiments/{name}.yaml", "--runs", tmp_path / "runs")
    code, _, err = zoo_process(place, *fit, INTERRUPT=interrupt)
    assert code in {"kill": (-9,), "term": (143,), "raise": (1,)}[interrupt.split()[0]], err
    (run,) = (tmp_path / "runs" / name).iterdir()
    assert (run / "metrics.csv").read_text() != (whole / "metrics.csv").read_text()
    code, _, err = zoo_process(place, *fit, "--ckpt_path", "last")
    assert code == 0, err
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    picture = "val-step000008.png"
    assert (run / "grids" / picture).read_bytes() == (whole / "grids" / picture).read_bytes()
    state, expected = (weights(folder / "checkpoints" / "last.ckpt") for folder in (run, whole))
    different = [key for key in expected if not torch.equal(state[key], expected[key])]
    # The step that was not finished may have looked at its batch: running means, which no training reads.
    assert [key for key in different if "discriminator" not in key or key.endswith((".weight", ".bias"))] == []


# --- what an image tokenizer may be ---------------------------------------------------------------------------------


def test_an_image_tokenizer_must_be_a_trained_tokenizer_that_fits(here, trained, tmp_path, matcher_file):
    wanted = "--model.generator_options.image_tokenizer_weights"
    other = ["--model.generator_options.image_tokenizer_options.num_codes", "48"]
    for words, messages in [
        ([wanted, "null"], ["its weights are not named", "image_tokenizer_weights=runs/vqgan_demo", "experiments/vq"]),
        ([wanted, matcher_file()], ["it is of zoo.tasks.RetrievalTask, which has no image_tokenizer, but image_"]),
        ([wanted, "runs/nothing"], ["no run is there. Train it first: python -m zoo fit --config"]),
        (other, ["these weights are not of this model"]),
    ]:
        code, _, err = here(*DALLE, "--runs", tmp_path / "runs", *words)
        assert code == 1, words
        assert "Traceback" not in err
        for message in ("model.generator_options.image_tokenizer", *messages):
            assert message in err


def test_checkpoints_are_not_chosen_by_what_will_not_be_there(here, tmp_path):
    words = ("--config", "experiments/vqgan.yaml", "--model.evaluation.monitor", "val/fd_clip")
    code, _, err = here("fit", *words, "--runs", str(tmp_path))
    assert code == 1
    assert "checkpoints are chosen by val/fd_clip, which needs more images" in err


def test_a_reranker_is_of_retrieval(here, trained, tokenizer, tmp_path):
    words = ("test", "--ckpt_path", str(trained), "--model.candidates", "2", "--model.reranker", str(tokenizer))
    code, _, err = here(*words, "--runs", str(tmp_path))
    assert code == 1
    assert "it is of ImageTokenizerTask, and retrieval is wanted" in err


def test_a_trained_generator_needs_its_tokenizers_run_no_longer(tokenizer, trained):
    hidden = tokenizer.parent.rename(tokenizer.parent.with_name("hidden"))
    try:
        task = zoo.load(trained)
        pictures = task.generator.generate(["红色方块"], seeds=[0])
    finally:
        hidden.rename(tokenizer.parent)
    image_tokenizer = zoo.load(tokenizer).image_tokenizer
    for key, value in image_tokenizer.state_dict().items():
        assert torch.equal(task.generator.image_tokenizer.state_dict()[key], value), key
    assert torch.equal(image_tokenizer.decode(task.generator.write(["红色方块"], seeds=[0])), pictures)
    assert task.weights["image_tokenizer"].endswith("checkpoints/best.ckpt")


# --- evaluation, submission, drawing ---------------------------------------------------------------------------


def test_test_writes_its_numbers_with_their_protocol(here, tokenizer, trained, tmp_path):
    run = Path(shutil.copytree(tokenizer, tmp_path / "vqgan" / "again"))
    code, _, err = here("test", "--ckpt_path", run)
    assert code == 0, err
    found = json.loads((run / "test.json").read_text())
    assert 5 < found["metrics"]["test/psnr"] < 60
    assert 0 < found["metrics"]["test/codebook_usage"] <= 100
    assert found["protocol"]["image_tokenizer_options"] == VQGAN
    assert found["protocol"]["generated"] == 12
    run = Path(shutil.copytree(trained, tmp_path / "dalle" / "again"))
    words = ("--model.generator_options.sampling.guidance", "2", "--model.generator_options.sampling.top_k", "5")
    code, _, err = here("test", "--ckpt_path", run, *words)
    assert code == 0, err
    found = json.loads((run / "test.json").read_text())
    assert {"test/loss", "test/r_precision"} <= found["metrics"].keys()
    sampling = found["protocol"]["sampling"]
    assert (sampling["guidance"], sampling["top_k"], sampling["temperature"]) == (2, 5, 1.0)


def test_a_submission_holds_a_picture_of_each_description(here, trained, tmp_path):
    """Whatever the batch: the same codes, and so the same bytes within one grey level."""
    drawn = {}
    for batch in (5, 12):
        run = Path(shutil.copytree(trained, tmp_path / str(batch)))
        code, _, err = here("predict", "--ckpt_path", run, "--data.eval_batch_size", batch)
        assert code == 0, err
        drawn[batch] = pictures_of((run / "predictions" / "T2I_test.tsv").read_bytes())
    assert drawn[5].shape == (12, SIZE, SIZE, 3)
    assert np.abs(drawn[5] - drawn[12]).max() <= 1
    assert len(np.unique(drawn[5].reshape(12, -1), axis=0)) == 12


def pictures_of(submission):
    encoded = [line.split(b"\t")[1] for line in submission.splitlines()]
    return np.stack([decode(decode_base64(text)) for text in encoded]).astype(int)


def test_generate_draws_what_the_generator_draws(trained, tmp_path, capsys):
    words = ["generate", str(trained), "红色方块", "蓝色圆球", "--seeds", "2", "--out"]
    assert main([*words, str(tmp_path / "grid.png")]) == 0
    assert "grid.png: 2 x 2 images of 16 px" in capsys.readouterr().out
    options = ["--sampling.guidance", "1.5", "--sampling.temperature", "0.7", "--sampling.top_p", "0.9"]
    assert main([*words, str(tmp_path / "all"), "--first_seed", "5", *options]) == 0
    picture = np.asarray(Image.open(tmp_path / "all" / "1-蓝色圆球-seed6.png")).astype(int)
    sampling = {"guidance": 1.5, "temperature": 0.7, "top_p": 0.9}
    alone = zoo.load(trained).generator.generate(["蓝色圆球"], seeds=[6], **sampling)[0].permute(1, 2, 0).numpy()
    assert np.abs(picture - alone).max() <= 1
    capsys.readouterr()
    assert main([*words, str(tmp_path / "no"), "--sampling.top_q", "3"]) == 1
    assert "--sampling: sampling has no 'top_q'. Did you mean top_" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


# --- codes on disk ---------------------------------------------------------------------------------------------


def test_codes_are_those_of_the_pictures_and_of_their_mirror_images(place, codes, tokenizer):
    assert sorted(path.name for path in codes.iterdir()) == ["latents.json", "train.npy"]
    array, facts = np.load(codes / "train.npy"), json.loads((codes / "latents.json").read_text())
    assert array.shape == (24, 2, SIDE, SIDE)
    assert array.dtype == np.int32
    assert (facts["mean"], facts["std"], facts["image_tokenizer"]) == ([], [], "vqgan_tiny")
    image_tokenizer = zoo.load(tokenizer).image_tokenizer
    data = zoo.TextToImageDataModule(str(place / "data"), image_size=SIZE, num_workers=0)
    pictures = next(iter(data.images_loader("train")))["image"]
    for view, pixels in enumerate((pictures, pictures.flip(-1))):
        np.testing.assert_array_equal(array[: len(pixels), view], image_tokenizer.encode(pixels).numpy())


def test_encoding_goes_on_where_it_stopped(place, codes, tokenizer, tmp_path, capsys, monkeypatch):
    from zoo.tasks.text_to_image.latents import LatentsWriter

    folder = tmp_path / "codes"
    words = [*encode_words(place, tokenizer, workers=0), "--out", str(folder)]
    write, left = LatentsWriter.write, iter([True, True])
    monkeypatch.setattr(LatentsWriter, "write", lambda self, part: write(self, part) if next(left, False) else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(words)
    monkeypatch.undo()
    assert not (folder / "train.npy").exists()
    capsys.readouterr()
    assert main(words) == 0
    assert "10 of 24 images are encoded already: resuming" in capsys.readouterr().err
    for name in ("train.npy", "latents.json"):
        assert (folder / name).read_bytes() == (codes / name).read_bytes()
    assert main(words) == 0
    assert "these codes are there already" in capsys.readouterr().out


def test_codes_of_other_weights_or_pictures_are_refused(here, codes, tmp_path):
    facts = json.loads((codes / "latents.json").read_text())
    for change, message in [
        ({"weights": "0" * 12}, "encode the images again, or name the same ones"),
        ({"image_size": 32}, "encode the images again, or name the same ones"),
        ({"source": "others"}, "are of others, and the training images are"),
        ({"flipped": False}, "data.flip is 0.5 and the latents of"),
    ]:
        changed = Path(shutil.copytree(codes, tmp_path / next(iter(change))))
        (changed / "latents.json").write_text(json.dumps({**facts, **change}))
        code, _, err = here(*DALLE, "--runs", tmp_path / "runs", "--data.latents", changed)
        assert code == 1
        assert message in err
        assert "Traceback" not in err


def test_what_has_no_codes_to_encode_is_refused(place, trained, matcher_file, capsys):
    for source, message in [
        (matcher_file(), "it is of RetrievalTask, and an image tokenizer is wanted"),
        ("vqgan_tiny", "that is its kind; give a trained one"),
        (trained, "it is of TextToImageTask, and an image tokenizer is wanted"),
    ]:
        assert main(encode_words(place, source, workers=0)) == 1
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def autoencoder_folder(tmp_path_factory):
    """A small autoencoder of diffusers with random weights, as ``save_pretrained`` writes it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model = AutoencoderKL(**blocks, block_out_channels=(8, 8), norm_num_groups=4, latent_channels=3)
    model.save_pretrained(folder)
    return folder


def test_codes_are_learnt_by_a_generator_of_codes_alone(here, codes, autoencoder_folder, tmp_path):
    diffusion = {
        "image_size": SIZE,
        "patch_size": 2,
        "num_layers": 1,
        "num_heads": 1,
        "image_tokenizer": f"diffusers:{autoencoder_folder}",
        "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
    }
    words = ("--model.generator", "dit_tiny", "--model.generator_options", json.dumps(diffusion))
    code, _, err = here(*DALLE, "--runs", tmp_path / "runs", *words)
    assert code == 1
    assert "data.latents" in err


def test_latents_are_no_codes(here, trained, place, autoencoder_folder, tmp_path):
    words = encode_words(place, f"diffusers:{autoencoder_folder}", workers=0)
    assert main([*words, "--out", str(tmp_path / "latents")]) == 0
    code, _, err = here(*DALLE, "--runs", tmp_path / "runs", "--data.latents", tmp_path / "latents")
    assert code == 1
    assert "were made by diffusers:" in err


def test_a_tokenizer_predicts_and_draws_nothing(here, tokenizer):
    code, _, err = here("predict", "--ckpt_path", tokenizer)
    assert code == 1
    assert "an image tokenizer predicts nothing; `python -m zoo data encode` writes" in err
    code, _, err = here("generate", tokenizer, "红")
    assert code == 1
    assert "it is of ImageTokenizerTask, which generates no images" in err


# --- processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("name", ["vqgan", "dalle"])
def test_any_number_of_processes_tests_the_same(place, tokenizer, trained, tmp_path, zoo_process, name):
    whole = {"vqgan": tokenizer, "dalle": trained}[name]
    found, submissions = {}, {}
    for processes in (1, 2, 3):
        run = Path(shutil.copytree(whole, tmp_path / str(processes)))
        for verb in ("test", "predict") if name == "dalle" else ("test",):
            code, _, err = zoo_process(place, verb, "--ckpt_path", run, processes=processes)
            assert code == 0, err
        found[processes] = json.loads((run / "test.json").read_text())["metrics"]
        submission = run / "predictions" / "T2I_test.tsv"
        submissions[processes] = submission.read_bytes() if submission.is_file() else None
    for processes in (2, 3):
        assert found[processes] == pytest.approx(found[1], rel=1e-6, abs=1e-6)
        assert submissions[processes] == submissions[1]
    assert (submissions[1] is not None) == (name == "dalle")


ON_TWO = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "3")


@pytest.mark.slow
@pytest.mark.ddp
def test_a_tokenizers_first_step_on_two_processes_is_that_of_one(place, tmp_path, zoo_process):
    """Before the discriminator, whose batch norms see a process's images alone; later a code may fall otherwise."""
    gradients, counts = {}, {}
    for name, on in (("one", ()), ("two", ON_TWO)):
        words = ("--model.discriminator_start", "null", "--trainer.max_steps", "1", "--runs", tmp_path / name)
        words += ("--trainer.num_sanity_val_steps", "0", "--trainer.limit_val_batches", "0")
        words += ("--trainer.callbacks+", "save_gradients.SaveGradients", "--trainer.callbacks.path", tmp_path / "step")
        code, _, err = zoo_process(place, *TOKENIZER, *words, *on)
        assert code == 0, err
        saved = torch.load(tmp_path / "step", weights_only=True)["gradients"]
        gradients[name] = {key: value for key, value in saved.items() if value is not None}
        (run,) = (tmp_path / name / "vqgan").iterdir()
        counts[name] = weights(run / "checkpoints" / "last.ckpt")["counts"]
    assert torch.equal(counts["two"], counts["one"])
    assert counts["one"].sum() == 6 * SIDE**2
    largest = max(gradient.abs().max() for gradient in gradients["one"].values())
    assert largest > 0.01
    assert gradients["two"].keys() == gradients["one"].keys()
    for key, gradient in gradients["one"].items():
        torch.testing.assert_close(gradients["two"][key], gradient, rtol=0, atol=1e-5 * float(largest))


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_keep_the_same_tokenizer(place, tmp_path, zoo_process):
    """Its discriminator's weights too, and the codes that were moved to where images of both are."""
    more = ["--trainer.callbacks+", "save_weights.SaveWeights", "--trainer.callbacks.path", tmp_path / "weights"]
    code, _, err = zoo_process(place, *TOKENIZER, "--runs", tmp_path / "runs", *ON_TWO, *more)
    assert code == 0, err
    one, two = (torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    kept = [key for key in one if "running_" not in key]  # the statistics of each process's own images
    assert {key.partition(".")[0] for key in kept} >= {"image_tokenizer", "discriminator", "idle", "counts"}
    assert [key for key in kept if not torch.equal(one[key], two[key])] == []


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_train_the_generator(place, codes, tmp_path, zoo_process):
    """All parameters that are trained have gradients in every step."""
    words = ("--runs", tmp_path, "--trainer.max_epochs", "1", "--data.batch_size", "3")
    code, _, err = zoo_process(place, *DALLE, *words, processes=2)
    assert code == 0, err
