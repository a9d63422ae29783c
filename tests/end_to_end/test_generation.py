"""Text to image through ``python -m zoo``, on files, with loader workers: evaluation, prediction, scoring."""

import csv
import importlib
import io
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
from zoo.data.attributes import write_attributes, write_vocabulary
from zoo.data.formats import write_image_tsv, write_text_tsv
from zoo.errors import UserError
from zoo.io import write_json_lines
from zoo.tasks import TextToImageTask
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors
from zoo.tasks.text_to_image.task import image_seed

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
COUNTS = {"train": 29, "val": 21, "test": 19}


def write_split(folder, split, first):
    """Images of two random colours, half and half, with different prompts; image lines in another order.

    What images show is written beside them: whether they are light or dark, which their prompts say.
    """
    random = np.random.default_rng(first)
    ids, pictures, shades = [], [], []
    for _ in range(COUNTS[split]):
        pixels = np.empty((40, 40, 3), dtype=np.uint8)
        pixels[:20], pixels[20:] = random.integers(0, 256, (2, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
        shades.append("浅色" if pixels.mean() > 128 else "深色")
        ids.append(random.bytes(16).hex())
    order = random.permutation(len(ids))
    write_image_tsv(folder / f"T2I_{split}.img.tsv", [(ids[place], pictures[place]) for place in order])
    prompts = [(id_, f"第{first + n}款{shade}短裤") for n, (id_, shade) in enumerate(zip(ids, shades, strict=True))]
    write_text_tsv(folder / f"T2I_{split}.txt.tsv", prompts)
    shown = [(id_, {"深浅": shade}) for id_, shade in zip(ids, shades, strict=True)]
    write_attributes(folder, {"val": "valid"}.get(split, split), shown)
    write_vocabulary(folder, {"深浅": {"浅色": ["浅色"], "深色": ["深色"]}}, ())


@pytest.fixture(scope="module")
def place(tmp_path_factory, inception_file, matcher_file):
    """A folder with data, a matcher, Inception and an experiment."""
    place = tmp_path_factory.mktemp("generation")
    shutil.copyfile(inception_file, place / "inception.pth")
    for number, split in enumerate(COUNTS):
        write_split(place / "data" / "ECommerce-T2I", split, 1000 * number)
    shutil.copyfile(matcher_file(), place / "matcher.ckpt")
    (place / "experiments").mkdir()
    (place / "experiments" / "_base.yaml").write_text((EXPERIMENTS / "_base.yaml").read_text())
    experiment = {
        "model": {
            "class_path": "zoo.tasks.TextToImageTask",
            "init_args": {
                "generator": "copying",
                "generator_options": {"root": str(place / "data")},
                "learning_rate": 0.1,
                "optimizer": {"warmup_steps": 1},
                "evaluation": {
                    "monitor": "val/fd_clip",
                    "matcher": str(place / "matcher.ckpt"),
                    "inception": str(place / "inception.pth"),
                    "grid_seeds": 2,
                },
            },
        },
        "data": {
            "class_path": "zoo.tasks.text_to_image.data.TextToImageDataModule",
            "init_args": {"root": str(place / "data"), "batch_size": 6, "eval_batch_size": 4, "num_workers": 1},
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "precision": "32-true",
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "copying.Registered"},
                {"class_path": "zoo.callbacks.ema.EMA", "init_args": {"decay": 0.9}},
            ],
        },
    }
    (place / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(experiment, allow_unicode=True))
    experiment["model"]["init_args"]["evaluation"]["inception"] = "none"  # it takes most of the time
    experiment["trainer"]["callbacks"].append({"class_path": "interrupt.Interrupt"})
    experiment |= {"save_every": 4, "trainer": {**experiment["trainer"], "max_epochs": 2, "log_every_n_steps": 1}}
    (place / "experiments" / "interrupted.yaml").write_text(yaml.safe_dump(experiment, allow_unicode=True))
    return place


@pytest.fixture(scope="module")
def trained(place, zoo_process):
    """A run, and what it printed."""
    code, out, err = zoo_process(place, "fit", "--config", "experiments/tiny.yaml")
    assert code == 0, err
    return next((place / "runs" / "tiny").iterdir()), out


@pytest.fixture
def run(place, trained, tmp_path):
    """A copy of the run, to evaluate."""
    return Path(shutil.copytree(trained[0], tmp_path / "runs" / "tiny" / "copy"))


def numbers(run, step):
    """What was logged of one validation, by name."""
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == str(step) and row["val/fd_clip"]]
    assert len(rows) == 1
    return {key: float(value) for key, value in rows[0].items() if value and key.startswith("val")}


def last_step(run):
    with (run / "metrics.csv").open() as file:
        return max(int(row["step"]) for row in csv.DictReader(file) if row["val/fd_clip"])


def test_a_training_logs_every_score_with_its_controls(trained):
    run, printed = trained
    first, last = numbers(run, 0), numbers(run, last_step(run))
    wanted = {"fd_clip", "kid", "is", "precision_clip", "recall_inception", "r_precision", "r_precision_true", "loss"}
    wanted |= {"r_precision_shuffled", "r_precision_chance", "copied", "nearest_training"}
    wanted |= {f"attribute_accuracy{which}{kind}" for which in ("", "_true", "_shuffled") for kind in ("", "/深浅")}
    assert {f"val/{name}" for name in wanted} <= first.keys()
    assert {f"val/{name}" for name in wanted} <= last.keys()
    assert "val/fid" not in first  # 21 images, 2,048 features
    assert last["val/loss"] < first["val/loss"]
    assert first["val/r_precision_chance"] == pytest.approx(100 / 21)
    assert "R-precision" in printed
    assert "16 features, weights" in printed
    assert "No Fréchet distance by inception" in printed
    grid, nearest = (Image.open(run / "grids" / f"val{name}-step000000.png") for name in ("", "-nearest"))
    assert min(grid.size) > 500
    assert min(nearest.size) > 500
    distractors = (run / "distractors_valid.jsonl").read_text().splitlines()
    assert len(distractors) == 21
    assert len(json.loads(distractors[0])["distractors"]) == 20


@pytest.mark.slow
@pytest.mark.ddp
def test_any_number_of_processes_scores_and_draws_what_one_does(place, run, zoo_process):
    found, submissions = {}, {}
    for processes in (1, 2, 3):
        shutil.rmtree(run / "predictions", ignore_errors=True)
        for verb in ("test", "predict"):
            code, _, err = zoo_process(place, verb, "--ckpt_path", run, processes=processes, ZOO_CACHE=str(run / verb))
            assert code == 0, err
        found[processes] = json.loads((run / "test.json").read_text())
        assert found[processes]["protocol"].pop("seconds_per_image") > 0  # it alone differs
        submissions[processes] = (run / "predictions" / "T2I_test.tsv").read_bytes()
        shutil.rmtree(run / "test")  # the next one looks at the true images again
    one = found[1]
    assert one["protocol"]["generated"] == one["protocol"]["true"] == COUNTS["test"]
    assert one["protocol"]["averaged_weights"]
    for processes in (2, 3):
        assert found[processes]["protocol"] == one["protocol"]
        assert found[processes]["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
        assert submissions[processes] == submissions[1]


@pytest.mark.slow
def test_predict_goes_on_where_it_stopped(place, run, zoo_process, tmp_path):
    words = ("predict", "--ckpt_path", run)
    code, _, err = zoo_process(place, *words)
    assert code == 0, err
    whole = (run / "predictions" / "T2I_test.tsv").read_bytes()
    shutil.rmtree(run / "predictions")
    code, _, err = zoo_process(place, *words, COPYING_STOPS_AFTER="12")
    assert code == 1
    assert not (run / "predictions" / "T2I_test.tsv").exists()  # the images so far are kept beside it
    code, out, err = zoo_process(place, *words, "--model.sample_seed", "1")
    assert code == 0, err
    assert "generated already" not in out  # those are of another seed
    other = (run / "predictions" / "T2I_test.tsv").read_bytes()
    assert other != whole
    (part,) = (run / "predictions").glob(".T2I_test.*.parts/*.tsv")
    with part.open("ab") as file:
        file.write(b"12\tiVBORw0KGgo")  # a line that the end of the process cut short
    code, out, err = zoo_process(place, *words, COPYING_STOPS_AFTER="7")  # but 7 are left
    assert code == 0, err
    assert "12 of 19 images are generated already: resuming" in out
    assert (run / "predictions" / "T2I_test.tsv").read_bytes() == whole
    assert sorted(path.name for path in (run / "predictions").iterdir()) == ["T2I_test.json", "T2I_test.tsv"]
    part.parent.mkdir()  # as if it had stopped when all was drawn and nothing put together
    part.write_bytes(b"".join(b"%d\t%s\n" % (n, line.split(b"\t")[1]) for n, line in enumerate(whole.splitlines())))
    (run / "predictions" / "T2I_test.tsv").unlink()
    code, _, err = zoo_process(place, *words, processes=2)
    assert code == 0, err
    assert (run / "predictions" / "T2I_test.tsv").read_bytes() == whole


@pytest.mark.slow
def test_averages_go_on_as_if_never_interrupted(place, tmp_path, zoo_process):
    """The end comes in a validation, where the averages stand in for the weights."""
    words = ("fit", "--config", "experiments/interrupted.yaml")
    code, _, err = zoo_process(place, *words, "--runs", tmp_path / "whole")
    assert code == 0, err
    code, _, err = zoo_process(place, *words, "--runs", tmp_path / "runs", INTERRUPT="term validation 4 0")
    assert code == 143, err
    code, _, err = zoo_process(place, *words, "--runs", tmp_path / "runs", "--ckpt_path", "last")
    assert code == 0, err
    (whole,), (run,) = ((tmp_path / runs / "interrupted").iterdir() for runs in ("whole", "runs"))
    assert "val/fd_clip" in (whole / "metrics.csv").read_text()
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    ends = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (whole, run)]
    averages = [end["callbacks"]["EMA"] for end in ends]
    assert averages[0]["updates"] == averages[1]["updates"] == 8
    name = "generator.gain"
    assert torch.equal(averages[0]["averages"][name], averages[1]["averages"][name])
    assert torch.equal(ends[0]["state_dict"][name], ends[1]["state_dict"][name])
    assert not torch.equal(ends[0]["state_dict"][name], averages[0]["averages"][name])


def test_score_gives_the_numbers_of_test(place, run, zoo_process):
    for verb in ("test", "predict"):
        code, _, err = zoo_process(place, verb, "--ckpt_path", run)
        assert code == 0, err
    code, _, err = zoo_process(
        place,
        *("score", "text_to_image", "--targets", "data", "--predictions", run / "predictions" / "T2I_test.tsv"),
        *("--matcher", "matcher.ckpt", "--inception", place / "inception.pth", "--output", run / "score.json"),
    )
    assert code == 0, err
    tested, scored = (json.loads((run / name).read_text()) for name in ("test.json", "score.json"))
    own = {key.removeprefix("test/"): value for key, value in tested["metrics"].items() if key != "test/loss"}
    assert scored["metrics"] == pytest.approx(own, rel=1e-5)
    assert scored["protocol"]["extractors"] == tested["protocol"]["extractors"]


def test_the_matcher_cannot_be_the_reranker(place, tmp_path, capsys, matcher_file):
    importlib.import_module("copying")  # registers the generator
    task = TextToImageTask(
        "copying",
        generator_options={"root": str(place / "data")},
        candidates=2,
        reranker=str(place / "matcher.ckpt"),
    )
    extractors = FeatureExtractors(inception="none", matcher=str(place / "matcher.ckpt"))
    with pytest.raises(UserError, match="is the model that re-ranked these images"):
        extractors.refuse(task.sampling["reranker"])
    predictions = tmp_path / "T2I_test.tsv"
    shutil.copyfile(place / "data" / "ECommerce-T2I" / "T2I_test.img.tsv", predictions)
    predictions.with_suffix(".json").write_text(json.dumps({"sampling": task.sampling}))
    words = [
        "score",
        "text_to_image",
        "--targets",
        str(place / "data"),
        "--predictions",
        str(predictions),
        "--inception",
        "none",
    ]
    assert main([*words, "--matcher", str(place / "matcher.ckpt")]) == 1
    assert "is the model that re-ranked these images" in capsys.readouterr().err
    assert main([*words, "--matcher", str(matcher_file(seed=1)), "--output", str(tmp_path / "score.json")]) == 0
    scores = json.loads((tmp_path / "score.json").read_text())["metrics"]
    assert scores["fd_clip"] == pytest.approx(0, abs=1e-5)  # the true images as they are
    assert scores["r_precision"] == scores["r_precision_true"]


def test_a_reranker_keeps_the_nearest_candidate(place):
    importlib.import_module("copying")
    options = {"generator_options": {"root": str(place / "data"), "noise": 60.0}}
    one, best = (
        TextToImageTask("copying", **options),
        TextToImageTask("copying", **options, candidates=3, reranker=str(place / "matcher.ckpt")),
    )
    matcher = zoo.load(place / "matcher.ckpt")
    texts, rows = list(one.generator.pictures)[:6], list(range(6))
    embedded = matcher.encode_text(texts)
    drawn = [one.generator.generate(texts, seeds=[image_seed(0, row, c) for row in rows]) for c in range(3)]
    likeness = torch.stack([(matcher.encode_image(pictures) * embedded).sum(1) for pictures in drawn])
    kept = best.generate(texts, rows)
    for row, candidate in enumerate(likeness.argmax(dim=0).tolist()):
        assert torch.equal(kept[row], drawn[candidate][row])
    assert likeness.argmax(dim=0).unique().numel() > 1


def test_every_fault_of_a_submission_is_listed_and_nothing_scored(place, tmp_path, capsys):
    lines = (place / "data" / "ECommerce-T2I" / "T2I_test.img.tsv").read_text().splitlines()
    cut = lines[2].split("\t")
    broken = [lines[0], lines[0], f"{cut[0]}\t{cut[1][:60]}", *lines[3:]]
    predictions = tmp_path / "T2I_test.tsv"
    predictions.write_text("\n".join(broken) + "\n")
    words = ["score", "text_to_image", "--targets", str(place / "data"), "--predictions", str(predictions)]
    assert main([*words, "--output", str(tmp_path / "score.json")]) == 1
    err = capsys.readouterr().err
    assert f"image {lines[1].split(chr(9))[0]}: is missing" in err
    assert f"T2I_test.tsv:2: image {lines[0].split(chr(9))[0]}: the id is already on line 1" in err
    assert f"T2I_test.tsv:3: image {cut[0]}" in err
    assert "The submission is not valid: 3 error(s)." in err
    assert not (tmp_path / "score.json").exists()


def test_a_list_of_distractors_must_be_of_the_split(place, tmp_path, capsys):
    ids = [line.split("\t")[0] for line in (place / "data/ECommerce-T2I/T2I_test.txt.tsv").read_text().splitlines()]
    listed = tmp_path / "distractors.jsonl"
    predictions = place / "data" / "ECommerce-T2I" / "T2I_test.img.tsv"
    words = [
        "score",
        "text_to_image",
        "--targets",
        str(place / "data"),
        "--predictions",
        str(predictions),
        "--inception",
        "none",
    ]
    words += ["--matcher", str(place / "matcher.ckpt"), "--distractors", str(listed)]
    write_json_lines(listed, [{"image_id": id_, "distractors": [ids[n - 1]]} for n, id_ in enumerate(ids)])
    assert main(words) == 0
    assert "chance 50" in capsys.readouterr().out
    write_json_lines(listed, [{"image_id": ids[0], "distractors": ["abc"]}])
    assert main(words) == 1
    assert "distractors.jsonl:1: 'abc' is no id of the test split" in capsys.readouterr().err
    for distractors in ("abc", [3], None):
        write_json_lines(listed, [{"image_id": ids[0], "distractors": distractors}])
        assert main(words) == 1
        assert "distractors.jsonl:1: give an object with image_id, a string, and" in capsys.readouterr().err
    for distractors in ([ids[0], ids[1]], [ids[1], ids[1]]):
        write_json_lines(listed, [{"image_id": ids[0], "distractors": distractors}])
        assert main(words) == 1
        assert "has a prompt twice, or its own, among them" in capsys.readouterr().err
    write_json_lines(listed, [])
    assert main(words) == 1
    assert "holds no rows" in capsys.readouterr().err
    write_json_lines(listed, [{"image_id": ids[0], "distractors": ids[1:3]}])
    assert main(words) == 1
    assert "each of the 19 ids of the test split needs the same number" in capsys.readouterr().err


def test_spoiled_pictures_score_as_they_should(place, tmp_path, capsys):
    words = ["score", "text_to_image-controls", "--targets", str(place / "data"), "--image_size", "32"]
    words += ["--matcher", str(place / "matcher.ckpt"), "--inception", "none", "--output", str(tmp_path / "c.json")]
    assert main(words) == 0
    controls = json.loads((tmp_path / "c.json").read_text())["controls"]
    true, blurred, noised, noise, tenth, exchanged, training = controls.values()
    assert true["fd_clip"] == pytest.approx(0, abs=1e-5)
    assert true["r_precision"] == true["r_precision_true"]
    assert min(noised["fd_clip"], tenth["fd_clip"]) > 10 * abs(true["fd_clip"])
    assert blurred["fd_clip"] > abs(true["fd_clip"])
    assert tenth["recall_clip"] < true["recall_clip"] == 100
    assert exchanged["fd_clip"] == true["fd_clip"]
    assert noise["fd_clip"] > max(noised["fd_clip"], blurred["fd_clip"])
    assert noise["recall_clip"] < 100
    assert training["copied"] == 100
    assert 0 < training["fd_clip"] < noise["fd_clip"]
    assert "| valid, 21 | noise alone |" in capsys.readouterr().out
    assert main([*words, "--image_size", "4"]) == 1
    assert "--image_size is 4: give 8 or more pixels" in capsys.readouterr().err


def test_an_output_takes_no_inputs_place(place, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "data")
    folder = tmp_path / "data" / "ECommerce-T2I"
    predictions = Path(shutil.copyfile(folder / "T2I_test.img.tsv", tmp_path / "T2I_test.tsv"))
    matcher = Path(shutil.copyfile(place / "matcher.ckpt", tmp_path / "matcher.ckpt"))
    words = ["score", "text_to_image", "--targets", str(tmp_path / "data"), "--predictions", str(predictions)]
    words += ["--matcher", str(matcher), "--inception", "none", "--output"]
    for file in (predictions, predictions.with_suffix(".json"), matcher, folder / "T2I_val.txt.tsv"):
        before = file.read_bytes() if file.exists() else None
        assert main([*words, str(file)]) == 1
        assert f"--output {file} is one of the files to score" in capsys.readouterr().err
        assert (file.read_bytes() if file.exists() else None) == before
    assert main([*words, str(tmp_path)]) == 1
    assert "is a folder; name a file in it" in capsys.readouterr().err


def test_a_name_that_does_not_tell_the_split_is_asked_for_it(place, tmp_path, capsys):
    words = ["score", "text_to_image", "--targets", str(place / "data"), "--predictions"]
    assert main([*words, str(tmp_path / "latest.tsv")]) == 1
    assert "give --split train, valid or test" in capsys.readouterr().err
    assert main(["score", "text_to_image", "--targets", "", "--predictions", "T2I_test.tsv"]) == 1
    assert "--targets '': there is no such folder" in capsys.readouterr().err


def test_a_checkpoint_is_loaded_with_its_averages(trained):
    importlib.import_module("copying")  # registers the generator
    run = trained[0]
    (path,) = (run / "checkpoints").glob("best.ckpt")
    contents = torch.load(path, weights_only=True)
    task = zoo.load(run)
    name = "generator.gain"
    assert torch.equal(task.state_dict()[name], contents["callbacks"]["EMA"]["averages"][name])
    assert not torch.equal(task.state_dict()[name], contents["state_dict"][name])
