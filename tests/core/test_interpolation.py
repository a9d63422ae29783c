"""Weights between those that a training began with and its last: what they are, what they score, what is written."""

import json
import re
import sys
from pathlib import Path

import pytest
import tiny
import torch
import yaml

import zoo
from zoo.core.interpolation import between, interpolate
from zoo.errors import UserError

ALPHAS = [0.0, 0.5, 1.0]


def test_weights_lie_on_the_line_between_both():
    start = {"weight": torch.tensor([1.0, 3.0]), "steps": torch.tensor(4)}
    end = {"weight": torch.tensor([2.0, -1.0]), "steps": torch.tensor(9)}
    assert between(start, end, 0.25)["weight"].tolist() == [1.25, 2.0]
    assert between(start, end, 0.25)["steps"] == 9  # a counter is no weight
    assert between(start, end, 0) == start
    assert between(start, end, 1) == end


def run(command, *words):
    from zoo.__main__ import main

    assert main([command, *map(str, words)]) == 0


@pytest.fixture(scope="module", params=["whole", "adapters"])
def trained(request, tmp_path_factory, muge_root):
    """A run that began with another's weights; with adapters, which are added to them."""
    place = tmp_path_factory.mktemp(request.param)
    start = tiny.write_matcher(place / "start.ckpt")
    experiment = yaml.safe_load(tiny.EXPERIMENT.replace("ROOT", str(muge_root)))
    options = experiment["model"]["init_args"]
    options |= {"init_from": str(start), "learning_rate": 1e-2}
    if request.param == "adapters":
        options["finetuning"] = {"lora_rank": 2}
    (place / "_base.yaml").write_text("trainer: {use_distributed_sampler: false, num_sanity_val_steps: 0}\n")
    (place / "tuned.yaml").write_text(yaml.safe_dump(experiment))
    run("fit", "--config", place / "tuned.yaml", "--runs", place / "runs")
    return start, place / "runs" / "tuned"


def validated(place, *words):
    """What ``validate`` measures."""
    import contextlib
    import io
    import re

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run("validate", *words, "--runs", place / "runs")
    return float(re.search(r"│ all .*│ +([\d.]+) │", printed.getvalue())[1])


def test_the_command_scores_as_validate_does_and_leaves_a_run(trained, tmp_path, capsys):
    start, experiment = trained
    run("interpolate", experiment, tmp_path / "out", "--alphas", ALPHAS)
    printed = capsys.readouterr().out
    curve = json.loads((tmp_path / "out" / "interpolation.json").read_text())
    assert curve["alphas"] == ALPHAS
    (values,) = curve["values"].values()
    assert values[2] == pytest.approx(validated(tmp_path, "--ckpt_path", next(experiment.glob("*"))), abs=0.006)
    config = next(experiment.glob("*/config.yaml"))
    first = validated(tmp_path, "--config", config, "--ckpt_path", "null")
    assert values[0] == pytest.approx(first, abs=0.006)
    assert values[curve["alphas"].index(curve["best"])] == max(values)
    assert f"{max(values):.2f}  the best" in printed
    assert (tmp_path / "out" / "interpolation.png").stat().st_size > 1000
    best = zoo.load(tmp_path / "out")
    ends = (zoo.load(source).state_dict() for source in (start, experiment))
    wanted = between(*ends, curve["best"])
    assert all(torch.equal(value, wanted[name]) for name, value in best.state_dict().items())
    assert best.weights["interpolated"].startswith(f"{curve['best']:g} of ")
    assert validated(tmp_path, "--ckpt_path", tmp_path / "out") == pytest.approx(max(values), abs=0.006)


def test_the_best_is_that_of_the_mean_over_all_folders(trained, tmp_path, tmp_path_factory):
    start, experiment = trained
    other = tiny.write_muge(tmp_path_factory.mktemp("other"), apart=True)
    roots = [
        str(yaml.safe_load(next(experiment.glob("*/config.yaml")).read_text())["data"]["init_args"]["root"]),
        str(other),
    ]
    curve = interpolate(experiment, tmp_path / "out", start=str(start), alphas=ALPHAS, data=roots)
    means = [sum(each) / 2 for each in zip(*curve.values.values(), strict=True)]
    assert [*curve.values] == roots
    assert curve.best == ALPHAS[means.index(max(means))]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"alphas": [0.5, 1.5]}, "--alphas"),
        ({"alphas": []}, "--alphas"),
        ({"start": "nothing.ckpt"}, "--start"),
        ({"data": ["auto", "nowhere"]}, "--data"),
        ({"data": ["auto", "auto"]}, "--data"),
    ],
)
def test_wrong_options_are_named(trained, tmp_path, options, argument):
    with pytest.raises(UserError) as error:
        interpolate(trained[1], tmp_path / "out", **options)
    assert error.value.argument == argument
    assert not (tmp_path / "out").exists()


def test_a_model_that_began_at_random_needs_another(tmp_path):
    alone = tiny.write_matcher(tmp_path / "alone.ckpt")
    with pytest.raises(UserError, match="--start CHECKPOINT"):
        interpolate(alone, tmp_path / "out")
    with pytest.raises(UserError, match="of no run") as error:
        interpolate(alone, tmp_path / "out", start=str(alone))
    assert error.value.argument == "--data"


def test_another_models_weights_are_refused(trained, tmp_path):
    other = tiny.write_matcher(tmp_path / "other.ckpt", embedding_dim=8)
    with pytest.raises(UserError, match="not of this model"):
        interpolate(trained[1], tmp_path / "out", start=str(other))


def test_nothing_is_written_over(trained, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        interpolate(trained[1], tmp_path)


def test_the_script_of_the_page_halves_a_catalogue(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "pages" / "models.md").read_text(encoding="utf-8")
    code = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "half_of" in code)
    run("data", "catalogue", tmp_path / "whole", "--size", 60, "--image_size", 32)
    monkeypatch.setattr(sys, "argv", ["halves.py", str(tmp_path / "whole"), str(tmp_path / "halves")])
    exec(compile(code, "halves.py", "exec"), {})
    asked = {}
    for half in "ab":
        data = zoo.RetrievalDataModule(str(tmp_path / "halves" / half), image_size=32, num_workers=0)
        data.setup("fit")
        asked[half] = {int(image_id) for image_id in data.training_pairs()[:, 1]}
    assert asked["a"]
    assert asked["b"]
    assert not asked["a"] & asked["b"]
