import os
import time

import pytest

from zoo.core.runs import deep_set, make_plan, run_of, spell_nulls, take_deep_options, take_option
from zoo.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_RUN", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("_base", "clip_demo", "other", "overlay"):
        path = tmp_path / "experiments" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    return tmp_path


def make_run(place, experiment, name, *checkpoints):
    folder = place / "runs" / experiment / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("{}")
    for checkpoint in checkpoints:
        (folder / "checkpoints" / checkpoint).write_bytes(b"x")
    return folder


def configs(plan):
    return take_option(plan.words[1:], ("--config",))[0]


def test_fit_reads_base_then_experiment_then_overlays(place):
    plan = make_plan(
        ["fit", "--config", "experiments/clip_demo.yaml", "-c=experiments/overlay.yaml", "--data.root", "x"]
    )
    assert configs(plan) == ["experiments/_base.yaml", "experiments/clip_demo.yaml", "experiments/overlay.yaml"]
    assert plan.words[-2:] == ["--data.root", "x"]
    assert plan.folder.parent == place / "runs" / "clip_demo"
    assert not plan.continued


def test_every_new_run_has_a_folder_of_its_own(place, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    make_run(place, "clip_demo", "20260102-030405")
    assert make_plan(["fit", "--config=experiments/clip_demo.yaml"]).folder.name == "20260102-030405-2"


def test_processes_that_ddp_starts_share_the_folder(place, monkeypatch):
    first = make_plan(["fit", "--config=experiments/clip_demo.yaml"]).folder
    first.mkdir(parents=True)
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    assert make_plan(["fit", "--config=experiments/clip_demo.yaml"]).folder == first


def test_resuming_takes_the_newest_run_of_this_experiment_and_its_configuration(place):
    make_run(place, "clip_demo", "20260101-000000", "last.ckpt")
    newest = make_run(place, "clip_demo", "20260102-000000", "last.ckpt")
    make_run(place, "clip_demo", "20260103-000000")  # died before its first checkpoint
    make_run(place, "other", "20260104-000000", "last.ckpt")
    plan = make_plan(["fit", "--config=experiments/clip_demo.yaml", "--ckpt_path", "last", "--model.learning_rate=1"])
    assert plan.checkpoint.resolve() == newest / "checkpoints" / "last.ckpt"
    assert plan.folder.resolve() == newest
    assert plan.continued
    assert configs(plan) == [str(newest / "config.yaml")]
    assert "--model.learning_rate=1" in plan.words


def test_test_defaults_to_the_best_checkpoint_of_the_newest_run(place):
    make_run(place, "clip_demo", "20260101-000000", "best.ckpt")
    newest = make_run(place, "other", "20260102-000000", "best.ckpt", "last.ckpt")
    assert make_plan(["test"]).folder.resolve() == newest
    assert make_plan(["test", "--config=experiments/clip_demo.yaml"]).experiment == "clip_demo"


def test_a_run_folder_names_its_best_checkpoint(place):
    run = make_run(place, "clip_demo", "20260101-000000", "best.ckpt")
    assert make_plan(["predict", "--ckpt_path", str(run)]).checkpoint == run / "checkpoints" / "best.ckpt"


def test_a_checkpoint_at_any_depth_is_of_its_run(place):
    run = make_run(place, "clip_demo", "20260101-000000")
    for file in ("last.ckpt", "epoch=1-val/recall@10=55.00.ckpt", "a/checkpoints/b.ckpt"):
        assert run_of(run / "checkpoints" / file) == run
        assert make_run_words(run, file) == ["test", str(run / "config.yaml")]
    assert run_of(run / "other" / "last.ckpt") is None


def make_run_words(run, file):
    path = run / "checkpoints" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    plan = make_plan(["test", "--ckpt_path", str(path)])
    return [plan.words[0], *configs(plan)]


@pytest.mark.parametrize(
    ("words", "lacking"),
    [
        (("test", "--ckpt_path", "RUN"), "this run has no checkpoints/best.ckpt"),
        (("test",), "no run under .* has a best.ckpt"),
        (("predict", "--config", "experiments/clip_demo.yaml"), "no run of clip_demo under .* has a best.ckpt"),
    ],
)
def test_a_run_without_the_checkpoint_says_which_it_has(place, words, lacking):
    run = make_run(place, "clip_demo", "20260101-000000", "last.ckpt")
    words = [str(run) if word == "RUN" else word for word in words]
    with pytest.raises(UserError, match=f"{lacking}. Give another: {run}/checkpoints/last.ckpt"):
        make_plan(words)
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=f"{lacking}. Train one with fit first"):
        make_plan(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit"], "needs an experiment"),
        (["fit", "--config"], "needs a value"),
        (["fit", "--config", "experiments/clip_dmo.yaml"], "Did you mean experiments/clip_demo.yaml"),
        (["fit", "--config", "experiments/clip_demo.yaml", "--ckpt_path", "last"], "no run of clip_demo"),
        (["test"], "no run under"),
        (["test", "--ckpt_path", "nowhere.ckpt"], "no such file"),
    ],
)
def test_what_cannot_be_found_is_said(place, words, message):
    with pytest.raises(UserError, match=message):
        make_plan(words)


def test_a_missing_base_is_an_error(place):
    (place / "experiments" / "_base.yaml").unlink()
    with pytest.raises(UserError, match=r"there is no experiments/_base\.yaml"):
        make_plan(["fit", "--config", "experiments/clip_demo.yaml"])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("words", [("test",), ("fit", "--config", "experiments/clip_demo.yaml")])
def test_a_file_beside_published_weights_is_no_checkpoint(place, name, words):
    (place / name).touch()
    with pytest.raises(
        UserError, match=f"^--ckpt_path {name}: this is no checkpoint. Give a .ckpt file, a run's folder"
    ):
        make_plan([*words, "--ckpt_path", name])


def test_imports_of_all_layers_and_flags_are_gathered(place):
    for name, modules in (("_base", "[a.b]"), ("clip_demo", "[c]"), ("overlay", "[a.b, d]")):
        (place / "experiments" / f"{name}.yaml").write_text(f"imports: {modules}")
    words = ["--config=experiments/clip_demo.yaml", "--config", "experiments/overlay.yaml", "--imports", "e"]
    plan = make_plan(["fit", *words])
    assert list(plan.imports) == ["a.b", "c", "d", "e"]
    assert plan.imports["d"] == "experiments/overlay.yaml"
    assert plan.imports["e"] == "--imports"
    assert take_option(plan.words, ("--imports",))[0] == ['["a.b", "c", "d", "e"]']


def test_a_resumed_run_imports_what_it_was_trained_with(place):
    run = make_run(place, "clip_demo", "20260101-000000", "last.ckpt")
    (run / "config.yaml").write_text("imports: [a]")
    plan = make_plan(["fit", "--config", "experiments/clip_demo.yaml", "--ckpt_path", "last", "--imports", "b"])
    assert plan.imports == {"a": str(run / "config.yaml"), "b": "--imports"}


def test_options_deep_in_a_dictionary_are_taken_out_of_the_words():
    words = ["--a", "1", "--model.g_options.x.y", "2", "--model.g_options", "3", "--model.init_args.g_options.z=4=5"]
    others, deep = take_deep_options(words)
    assert others == ["--a", "1", "--model.g_options", "3"]
    assert deep == [("g_options", ["x", "y"], "2"), ("g_options", ["z"], "4=5")]
    assert take_deep_options([*words, "--print_config"]) == ([*words, "--print_config"], [])
    with pytest.raises(UserError, match="--model.g_options.x.y needs a value"):
        take_deep_options(["--model.g_options.x.y"])


def test_one_value_deep_in_a_dictionary_is_set_and_the_rest_stays():
    options = {"x": {"y": 1, "z": 2}, "w": 3}
    assert deep_set(options, ["x", "y"], 9) == {"x": {"y": 9, "z": 2}, "w": 3}
    assert options["x"]["y"] == 1
    assert deep_set(None, ["x", "y"], 9) == {"x": {"y": 9}}
    assert deep_set({"x": None}, ["x", "y"], 9) == {"x": {"y": 9}}


def test_null_of_an_option_inside_others_is_spelled_as_their_dictionary():
    words = [
        "fit",
        "--model.evaluation.monitor",
        "null",
        "--model.init_from",
        "null",
        "--model.optimizer.eps=null",
        "x",
    ]
    monitor, eps = ["--model.evaluation", '{"monitor": null}'], ["--model.optimizer", '{"eps": null}']
    assert spell_nulls(words) == ["fit", *monitor, "--model.init_from", "null", *eps, "x"]
    assert spell_nulls(["--model.init_args.init_from", "null"]) == ["--model.init_args.init_from", "null"]
    assert spell_nulls(["--model.evaluation.monitor"]) == ["--model.evaluation.monitor"]
