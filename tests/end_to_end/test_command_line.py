"""The command line: what it says to a slip of the fingers, and which configuration, folder and weights a run gets."""

import csv
import json
import shutil
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
import yaml

from zoo.__main__ import main
from zoo.callbacks.run import RandomWeightsBanner
from zoo.data.formats import read_queries

TINY = ("--config", "experiments/tiny.yaml")
CALLBACK = "EMA"


def config_of(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def recalls(run):
    return [float(row["val/mean_recall"]) for row in rows(run) if row["val/mean_recall"]]


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def is_short(err):
    return "Traceback" not in err and len(err.strip().splitlines()) <= 5


# --- slips of the fingers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--trainer.max_epoch 2", "no option 'trainer.max_epoch'. Did you mean trainer.max_epochs"),
        ("--trainer.max_epoch=2", "no option 'trainer.max_epoch'. Did you mean trainer.max_epochs"),
        ("--model.learning_rat 1", "no option 'model.learning_rat'. Did you mean model.learning_rate?"),
        ("--model.init_args.learning_rat 1", "no option 'model.learning_rat'. Did you mean model.learning_rate?"),
        (
            "--model.evaluation.grid_querys 3",
            "no option 'model.evaluation.grid_querys'. Did you mean model.evaluation.grid_queries?",
        ),
        ("--data.rot x", "no option 'data.rot'. Did you mean data.root?"),
        ("--data.flp 0.1", "no option 'data.flp'. Did you mean data.flip?"),
        ("--learning_rate 1", "Did you mean model.learning_rate,"),
        ("--seed 1", "Did you mean seed_everything, data.seed?"),
        ("more", "'more' is no option: options begin with --"),
        ("--model.learning_rate", "--model.learning_rate needs a value"),
        ("--model.learning_rate -.inf", "--model.learning_rate needs a value"),
        ("--data.image_size big", "data.image_size is 'big': give auto or a whole number."),
        ("--data.batch_size 1.5", "data.batch_size is '1.5': give a whole number."),
        ("--model.learning_rate fast", "model.learning_rate is 'fast': give a number."),
        ("--model.evaluation.precisions few", "model.evaluation.precisions is 'few': give a list, each a number."),
        ("--model.evaluation.mode mx", "model.evaluation.mode is 'mx': give max or min. Did you mean max?"),
        ("--data.on_error skp", "data.on_error is 'skp': give raise or skip. Did you mean skip?"),
        ("--data.crop_scale 0.9", "data.crop_scale is '0.9': give a list of 2, each a number."),
        ("--trainer.max_epochs two", "trainer.max_epochs is 'two': give a whole number."),
        ("--trainer.precision bf17", "or bf16. Did you mean bf16?"),
        ("--seed_everything abc", "seed_everything is 'abc': give true or false or a whole number."),
        ("--save_every few", "save_every is 'few': give a whole number."),
        ("--save_every 1.5", "save_every is '1.5': give a whole number."),
        ("--trainer.callbacks+ ModelCheckpont", "Did you mean ModelCheckpoint"),
    ],
)
def test_a_wrong_flag_is_answered_in_one_line(zoo_main, words, said):
    code, _, err = zoo_main("fit", *TINY, *words.split())
    assert code == 2
    assert said in err
    assert is_short(err)
    assert err.strip().endswith("The options: python -m zoo fit --help")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer: {max_epoch: 3}", ":1: there is no option 'trainer.max_epoch'. Did you mean trainer.max_epochs"),
        (
            "model:\n  init_args:\n    learning_rat: 1",
            ":3: there is no option 'model.learning_rat'. Did you mean model.l",
        ),
        (
            "model:\n  init_args:\n    evaluation: {grid_querys: 3}",
            ":3: there is no option 'model.evaluation.grid_querys'. Did you mean model.evaluation.grid_queries?",
        ),
        (
            "model:\n  init_args:\n    evaluation:\n      precisions: few",
            ":4: model.evaluation.precisions is 'few': give a list, each a number.",
        ),
        ("data: {init_args: {rot: 1}}", ":1: there is no option 'data.rot'. Did you mean data.root?"),
        ("optimiser: 1", ":1: there is no option 'optimiser': they begin with model, data or trainer"),
        ("model: {class_path: zoo.tasks.RetrievalTsk}", "Did you mean RetrievalTask?"),
        ("data: {class_path: RetrievalDataModul}", "Did you mean RetrievalDataModule?"),
        ("data: {class_path: [1]}", "data is"),
        ("data: _data/retrieval.yml", "there is no file '_data/retrieval.yml' beside"),
        (f"trainer: {{callbacks+: [{{class_path: {CALLBACK[:-1]}}}]}}", ":1: trainer.callbacks: there is no class"),
        (
            f"trainer: {{callbacks+: [{{class_path: {CALLBACK}, init_args: {{decai: 3}}}}]}}",
            ":1: EMA has no option 'decai'. Did you mean decay?",
        ),
        (
            f"trainer: {{callbacks+: [{{class_path: {CALLBACK}, init_args: {{decay: few}}}}]}}",
            ":1: trainer.callbacks.decay is 'few': give a number.",
        ),
    ],
)
def test_a_wrong_configuration_is_answered_with_its_file_and_line(zoo_main, workplace, text, said):
    (workplace / "experiments" / "wrong.yaml").write_text(text + "\n")
    code, _, err = zoo_main("fit", *TINY, "--config", "experiments/wrong.yaml")
    assert code == 2
    assert err.startswith("zoo fit: error: experiments/wrong.yaml:")
    assert said in err
    assert is_short(err)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer: {a: [\n", "wrong.yaml:2: this is no YAML"),
        ("trainer:\n\tmax_epochs: 1\n", "wrong.yaml:2: this is no YAML: found character '\\t'"),
        ("- a\n", "wrong.yaml:1: it holds a list"),
        ("data: {}\nmodel: {}\ndata: {}\n", "wrong.yaml:3: data is given twice in one mapping, first on line 1"),
        ("model:\n  init_args:\n    optimizer: [1]\n", "wrong.yaml:3: model.optimizer is [1]: give a mapping"),
        ("model:\n  init_args: {evaluation: null}\n", "wrong.yaml:2: model.evaluation is null: give a mapping"),
        ("model:\n  init_args: {learning_rate: null}\n", "wrong.yaml:2: model.learning_rate is null: give a number"),
        ("model:\n  init_args: {optimizer: {eps: null}}\n", "wrong.yaml:2: model.optimizer.eps is null: give a number"),
        ("data:\n  init_args: {on_error: null}\n", "wrong.yaml:2: data.on_error is null: give raise or skip"),
        ("trainer: {max_steps: null}\n", "wrong.yaml:1: trainer.max_steps is null: give a whole number"),
        (
            "model:\n  init_args: {learning_rate: .nan}\n",
            "wrong.yaml:2: model.learning_rate is nan: give a finite number",
        ),
        (
            "model:\n  init_args: {text_tower_options: {dropout: .inf}}\n",
            "wrong.yaml:2: model.text_tower_options.dropout is inf: give a finite number",
        ),
        ("data: null\n", "no configuration names the data"),
        ("imports: [null]\n", "wrong.yaml: imports is [None]: list modules"),
        ("", "wrong.yaml: it holds nothing"),
    ],
)
def test_malformed_yaml_names_the_file(zoo_main, workplace, text, said):
    (workplace / "experiments" / "wrong.yaml").write_text(text)
    code, _, err = zoo_main("fit", *TINY, "--config", "experiments/wrong.yaml")
    assert code == 1
    assert said in err
    assert is_short(err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model.image_tower resnet50x", "no image tower 'resnet50x'. Did you mean resnet50"),
        ("--model.image_tower timm:resnet5", "timm has no model 'resnet5'. Did you mean resnet50"),
        ("--model.text_tower bert_tiny", "no text tower 'bert_tiny'. Did you mean bert_tiny_chinese?"),
        ("--model.image_tower_options.image_sze 32", "has no option 'image_sze'. Did you mean image_size?"),
        ("--model.text_tower_options.widht 32", "has no option 'widht'. Did you mean width?"),
        ("--data.batch_size 0", "data.batch_size is 0: give 1 or more"),
        ("--save_every 0", "save_every is 0: give 1 or more steps"),
        ("--save_every -500", "save_every is -500: give 1 or more steps"),
        ("--seed_everything -1", "seed_everything is -1: give 0 or more"),
        ("--seed_everything 4294967296", "seed_everything is 4294967296: give less than 2 ** 32"),
        ("--trainer.accumulate_grad_batches -1", "trainer.accumulate_grad_batches is -1: give 1 or more"),
        ("--trainer.log_every_n_steps -1", "trainer.log_every_n_steps is -1: give 0 or more"),
        ("--data.seed -1", "data.seed is -1: give 0 or more"),
        ("--model.optimizer.betas [0.9,1.5]", "model.optimizer.betas is [0.9, 1.5]: give two numbers, 0 to below 1"),
        ("--model.evaluation.grid_queries -1", "model.evaluation.grid_queries is -1: give 0 or more"),
        ("--data.root /nowhere", "data.root is /nowhere: there is no such folder"),
        ("--data.root experiments", "has neither a folder 'Multimodal_Retrieval'"),
        ("--model.image_pretrained nowhere.bin", "'nowhere.bin' does not exist"),
        ("--model.init_from nowhere.ckpt", "nowhere.ckpt: there is no such checkpoint"),
        ("--model.init_from=", "model.init_from '' came for a checkpoint"),
        ("--ckpt_path nowhere.ckpt", "--ckpt_path nowhere.ckpt: there is no such file"),
        ("--ckpt_path last", "no run of tiny under"),
        ("--trainer.accelerator cpux", "`accelerator='cpux'`. Did you mean cpu"),
        ("--trainer.strategy ddpp", "`strategy='ddpp'`. Did you mean ddp"),
        ("--trainer.devices two", "trainer: `devices` selected with `CPUAccelerator` should be an int > 0.\n"),
    ],
)
def test_what_cannot_work_is_said_and_leaves_no_folder(zoo_main, workplace, words, said):
    code, _, err = zoo_main("fit", *TINY, *words.split())
    assert code == 1
    assert said in err
    assert is_short(err)
    assert not list(workplace.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, ""),
        (("--help",), 0, ""),
        (("fitt",), 2, "there is no command 'fitt'. Did you mean fit"),
        (("fit",), 1, "fit needs an experiment: --config experiments/NAME.yaml"),
        (("fit", "--config", "experiments/tny.yaml"), 1, "there is no such file. Did you mean experiments/tiny.yaml?"),
        (("fit", "--config", "experiments"), 1, "experiments: there is no such file."),
        (("test",), 1, "no run under"),
        (("predict", "--ckpt_path", "bset"), 1, "there is no such file. Did you mean best?"),
    ],
)
def test_the_command_itself(zoo_main, words, code, said):
    came, _, err = zoo_main(*words)
    assert came == code
    assert said in err
    assert "Traceback" not in err


def test_help_explains_every_option_of_task_and_data_in_80_columns(zoo_main, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = zoo_main("fit", "--help")
    assert code == 0
    assert "--model.learning_rate (a number; default 5e-05)\n        Peak learning rate of AdamW." in out
    assert "--data.on_error (raise or skip; default raise)" in out
    assert "--trainer.max_epochs" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "--save_every (a whole number; default 500)" in out
    assert len(out.splitlines()) < 410  # four tasks and their data


@pytest.mark.parametrize(
    "command",
    [
        *("", "fit", "validate", "test", "predict", "score", "score retrieval", "bench", "bench data", "bench eval"),
        *("bench step", "results", "list"),  # data: tests/commands/test_data.py
    ],
)
def test_help_fits_80_columns(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "80")
    with suppress(SystemExit):
        main([*command.split(), "--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m zoo {command}")
    assert max(map(len, out.splitlines())) <= 80


# --- layers and folders ------------------------------------------------------------------------------------------


def test_base_then_experiment_then_overlays_then_flags(zoo_main, workplace, only_run):
    (workplace / "experiments" / "over.yaml").write_text(
        "model: {init_args: {optimizer: {weight_decay: 0.5}}}\ndata: {init_args: {batch_size: 8, flip: 0.5}}\n"
    )
    code, _, err = zoo_main(
        "fit", *TINY, "--config", "experiments/over.yaml", "--data.flip=0.25", "--trainer.max_epochs=1"
    )
    assert code == 0, err
    config = config_of(only_run(workplace))
    trainer, model, data = config["trainer"], config["model"]["init_args"], config["data"]["init_args"]
    assert trainer["use_distributed_sampler"] is False  # the base's
    assert trainer["log_every_n_steps"] == 1  # the experiment's, over the base's 10
    assert model["optimizer"]["weight_decay"] == 0.5  # the overlay's
    assert data["batch_size"] == 8  # the overlay's, over the experiment's 16
    assert data["flip"] == 0.25  # the flag's, over the overlay's
    assert model["text_tower_options"] == {"width": 32, "num_layers": 1, "num_heads": 2}
    callbacks = [callback["class_path"].rpartition(".")[2] for callback in trainer["callbacks"]]
    assert callbacks == ["RunProgressBar", "LearningRateMonitor"]  # the task brings its own
    assert set(config) == {"imports", "seed_everything", "save_every", "trainer", "model", "data"}


def test_a_part_may_lie_in_a_file_beside_the_experiment(zoo_main, workplace, muge_root, monkeypatch, only_run):
    tiny = yaml.safe_load((workplace / "experiments" / "tiny.yaml").read_text())
    tiny["data"] = "_data/small.yaml"
    (workplace / "experiments" / "_data" / "small.yaml").write_text(
        f"class_path: RetrievalDataModule\ninit_args: {{root: {muge_root}, num_workers: 0}}\n"
    )
    (workplace / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    code, _, err = zoo_main("fit", "--config", "../experiments/tiny.yaml", "--trainer.max_epochs", 1)
    assert code == 0, err
    assert config_of(only_run(workplace / "elsewhere"))["data"]["init_args"]["root"] == str(muge_root)


def test_a_run_is_a_folder(zoo_main, workplace):
    code, out, err = zoo_main("fit", *TINY, "--runs", "elsewhere")
    assert code == 0, err
    (run,) = (workplace / "elsewhere" / "tiny").iterdir()
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert found == {"config.yaml", "metrics.csv", "fit.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert [row["step"] for row in rows(run) if row["val/loss"]] == ["0", "2", "5"]  # before training, and each epoch
    fit = json.loads((run / "fit.json").read_text())
    assert fit["experiment"] == "tiny"
    assert (fit["steps"], fit["resumed"], fit["processes"]) == (6, False, 1)
    assert f"The run: elsewhere/tiny/{run.name} (checkpoints/, config.yaml, fit.json, metrics.csv)\n" in out
    assert err.count("Logging to") == 1
    assert f"Logging to {run}/metrics.csv (W&B has no key" in err


def test_the_seed_decides_everything(zoo_main, workplace):
    scores = []
    for number, seed in enumerate([3, 3, 4]):
        code, _, err = zoo_main("fit", *TINY, "--seed_everything", seed, "--runs", f"runs{number}")
        assert code == 0, err
        (run,) = (workplace / f"runs{number}" / "tiny").iterdir()
        scores.append(
            [{key: value for key, value in row.items() if "loss" in key or "recall" in key} for row in rows(run)]
        )
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]


def test_a_trial_step_leaves_no_run(zoo_main, workplace):
    code, _, err = zoo_main("fit", *TINY, "--trainer.fast_dev_run", "true", "--model.image_pretrained", "auto")
    assert code == 0, err
    assert "RANDOM WEIGHTS" in err  # without a network
    assert not list(workplace.glob("runs/*/*/checkpoints"))


def test_validation_cut_short_chooses_the_best_by_what_there_is(zoo_main, workplace, only_run):
    words = ("--trainer.limit_val_batches", 1, "--data.eval_batch_size", 8, "--trainer.max_epochs", 1)
    code, out, err = zoo_main("fit", *TINY, *words)
    assert code == 0, err
    assert "8 queries, 8 images, 32 px" in out
    run = only_run(workplace)
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert "val/mean_recall" not in rows(run)[0]
    assert rows(run)[0]["val_partial/mean_recall"]


# --- resuming ----------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(zoo_main, workplace, only_run):
    code, _, err = zoo_main("fit", *TINY)
    assert code == 0, err
    return only_run(workplace)


def test_a_run_that_was_moved_keeps_its_best_checkpoint(zoo_main, trained, workplace):
    best = (trained / "checkpoints" / "best.ckpt").read_bytes()
    moved = trained.rename(workplace / "elsewhere")
    code, out, err = zoo_main("fit", "--ckpt_path", moved, "--trainer.max_epochs", 3, "--model.learning_rate", 5)
    assert code == 0, err
    validations = [float(row["val/mean_recall"]) for row in rows(moved) if row["val/mean_recall"]]
    assert validations[-1] < max(validations[:-1])
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best
    assert f"val/mean_recall {max(validations):.2f}" in out


def test_a_resumed_run_goes_on_in_its_folder(zoo_main, trained, workplace, only_run):
    before, best = rows(trained), (trained / "checkpoints" / "best.ckpt").read_bytes()
    last = weights(trained / "checkpoints" / "last.ckpt")
    words = ("--ckpt_path", "last", "--trainer.max_epochs", 4, "--model.learning_rate", 0)
    code, _, err = zoo_main("fit", *TINY, *words)
    assert code == 0, err
    assert only_run(workplace) == trained
    assert rows(trained)[: len(before)] == [{**dict.fromkeys(rows(trained)[0], ""), **row} for row in before]
    assert [row["step"] for row in rows(trained) if row["val/loss"]] == ["0", "2", "5", "8", "11"]
    assert (trained / "checkpoints" / "best.ckpt").read_bytes() == best  # the score is not better: it is remembered
    resumed = weights(trained / "checkpoints" / "last.ckpt")
    assert all(torch.equal(last[key], resumed[key]) for key in last)  # at the command line's learning rate, 0
    assert config_of(trained)["trainer"]["max_epochs"] == 4
    assert config_of(trained)["model"]["init_args"]["learning_rate"] == 0
    assert json.loads((trained / "fit.json").read_text())["resumed"]


def test_resuming_is_as_if_never_interrupted(zoo_main, workplace, only_run):
    (workplace / "experiments" / "keep.yaml").write_text(
        "trainer: {callbacks+: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
        "init_args: {filename: '{step}', save_top_k: -1, every_n_train_steps: 4}}]}\n"
    )
    code, _, err = zoo_main("fit", *TINY, "--config", "experiments/keep.yaml", "--trainer.max_epochs", 3)
    assert code == 0, err
    run = only_run(workplace)
    straight = weights(run / "checkpoints" / "last.ckpt")
    code, _, err = zoo_main("fit", "--ckpt_path", run / "checkpoints" / "step=4.ckpt")  # one step into the second epoch
    assert code == 0, err
    resumed = weights(run / "checkpoints" / "last.ckpt")
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert json.loads((run / "fit.json").read_text())["steps"] == 9


def test_a_checkpoint_that_does_not_fit_leaves_the_run_as_it_was(zoo_main, trained):
    config = (trained / "config.yaml").read_text()
    code, _, err = zoo_main("fit", *TINY, "--ckpt_path", "last", "--model.embedding_dim", 8)
    assert code == 1
    assert "these weights are not of this model" in err
    assert "image_projection.weight [16, 64], wanted [8, 64]" in err
    assert "Traceback" not in err
    assert (trained / "config.yaml").read_text() == config


def test_weights_of_another_run_are_a_start_and_not_a_continuation(zoo_main, trained, workplace):
    code, _, err = zoo_main("fit", *TINY, "--model.init_from", trained, "--runs", "new", "--model.learning_rate", 0)
    assert code == 0, err
    (run,) = (workplace / "new" / "tiny").iterdir()
    start, source = weights(run / "checkpoints" / "last.ckpt"), weights(trained / "checkpoints" / "best.ckpt")
    assert all(torch.equal(start[key], source[key]) for key in source)
    assert not json.loads((run / "fit.json").read_text())["resumed"]
    code, _, err = zoo_main("fit", *TINY, "--model.init_from", trained, "--model.embedding_dim", 8)
    assert code == 1
    assert "model.init_from" in err
    assert is_short(err)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"], ids=["empty", "cut"])
def test_a_damaged_checkpoint_is_said(zoo_main, workplace, content):
    (workplace / "damaged.ckpt").write_bytes(content)
    for words in (("fit", *TINY, "--ckpt_path"), ("fit", *TINY, "--model.init_from"), ("test", *TINY, "--ckpt_path")):
        code, _, err = zoo_main(*words, "damaged.ckpt")
        assert code == 1
        assert "damaged.ckpt: no checkpoint, or a damaged one" in err
        assert is_short(err)


@pytest.mark.parametrize("half", ["cut", "code"])
def test_a_last_checkpoint_that_cannot_be_trusted_is_left_alone(zoo_main, trained, half):
    last, ran = trained / "checkpoints" / "last.ckpt", trained / "ran"
    if half == "cut":
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    else:
        torch.save({"state_dict": Runs(f"open({str(ran)!r}, 'w')")}, last)
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    code, _, err = zoo_main("fit", *TINY, "--ckpt_path", "last")
    assert code == 1
    assert {"cut": "no checkpoint, or a damaged one", "code": "more than weights and plain data (eval)"}[half] in err
    assert is_short(err)
    assert not ran.exists()
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


class Runs:
    """Unpickled without care, it runs a line of code."""

    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return eval, (self.code,)


@pytest.mark.parametrize("runs", ["file/runs", "/sys/zoo", "/proc/zoo"], ids=["no-folder", "read-only", "no-place"])
def test_a_folder_that_takes_no_file_is_said(zoo_main, workplace, runs):
    (workplace / "file").touch()
    code, _, err = zoo_main("fit", *TINY, "--runs", runs)
    assert code == 1
    assert runs in err
    assert is_short(err)


def test_what_lightning_can_switch_off_goes_off(zoo_main, workplace, only_run):
    words = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false")
    code, out, err = zoo_main("fit", *TINY, *words, "--trainer.enable_checkpointing", "false")
    assert code == 0, err
    assert {path.name for path in only_run(workplace).iterdir()} == {"config.yaml", "fit.json"}
    assert f"The run: runs/tiny/{only_run(workplace).name} (config.yaml, fit.json)\n" in out


# --- validate, test, predict -------------------------------------------------------------------------------------


def test_the_other_verbs_need_no_configuration(zoo_main, trained, muge_root):
    assert zoo_main("validate")[0] == 0
    assert zoo_main("test")[0] == 0
    code, out, err = zoo_main("predict")
    assert code == 0, err
    found = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert {"test.json", "predictions/MR_test_queries.jsonl"} <= found
    submission = read_queries(trained / "predictions" / "MR_test_queries.jsonl")
    asked = read_queries(muge_root / "Multimodal_Retrieval" / "MR_test_queries.jsonl")
    assert [query.query_id for query in submission] == [query.query_id for query in asked]
    test = json.loads((trained / "test.json").read_text())
    assert test["protocol"]["checkpoint"] == str(trained / "checkpoints" / "best.ckpt")
    assert test["protocol"]["image_size"] == 32  # the trained tower's option


def test_flags_win_over_the_run(zoo_main, trained, workplace, muge_root):
    shutil.copytree(muge_root, workplace / "copy")
    answers = workplace / "copy" / "Multimodal_Retrieval" / "MR_test_answers.jsonl"
    answers.write_text("\n".join(answers.read_text().splitlines()[::-1]))
    queries = workplace / "copy" / "Multimodal_Retrieval" / "MR_test_queries.jsonl"
    queries.write_text("\n".join(queries.read_text().splitlines()[:5]))
    code, _, err = zoo_main("test", "--data.root", "copy", "--trainer.precision", "bf16-mixed", "--ckpt_path", "last")
    assert code == 0, err
    protocol = json.loads((trained / "test.json").read_text())["protocol"]
    assert (protocol["queries"], protocol["precision"]) == (5, "bf16-mixed")
    assert protocol["checkpoint"].endswith("last.ckpt")
    assert config_of(trained)["trainer"]["precision"] == "32-true"  # the run's own is left alone


def test_an_overlay_lies_over_the_run(zoo_main, trained, workplace):
    (workplace / "experiments" / "_overlays" / "half.yaml").write_text("trainer: {precision: bf16-mixed}\n")
    code, _, err = zoo_main("test", "--config", "experiments/_overlays/half.yaml")
    assert code == 0, err
    assert json.loads((trained / "test.json").read_text())["protocol"]["precision"] == "bf16-mixed"


def test_a_checkpoint_apart_from_its_run_brings_its_own_model(zoo_main, workplace, only_run):
    code, _, err = zoo_main("fit", *TINY, "--model.text_tower_options.width", 16, "--trainer.max_epochs", 1)
    assert code == 0, err
    shutil.copy(only_run(workplace) / "checkpoints" / "best.ckpt", workplace / "mine.ckpt")
    shutil.rmtree(workplace / "runs")
    code, _, err = zoo_main("test", "--ckpt_path", "mine.ckpt")
    assert code == 1
    assert "it lies in no run" in err
    assert "--config experiments/NAME.yaml" in err
    code, _, err = zoo_main("test", "--ckpt_path", "mine.ckpt", *TINY)
    assert code == 0, err
    assert json.loads((only_run(workplace) / "test.json").read_text())["protocol"]["image_size"] == 32


def test_a_submission_of_a_part_is_refused(zoo_main, trained):
    code, _, err = zoo_main("predict", "--trainer.limit_predict_batches", 1, "--data.eval_batch_size", 4)
    assert code == 1
    assert "trainer.limit_predict_batches is set: a submission needs every query and image" in err
    assert is_short(err)


# --- while it runs -----------------------------------------------------------------------------------------------


def test_a_broken_picture_is_named_by_file_line_and_id(zoo_main, workplace, muge_root):
    shutil.copytree(muge_root, workplace / "copy")
    pictures = workplace / "copy" / "Multimodal_Retrieval" / "MR_train_imgs.tsv"
    lines = pictures.read_text().splitlines()
    lines[4] = lines[4].replace("\t", "\t!!!!")
    pictures.write_text("\n".join(lines) + "\n")
    code, _, err = zoo_main("fit", *TINY, "--data.root", "copy", "--data.num_workers", 1)
    assert code == 1
    assert "MR_train_imgs.tsv:5: image 1004: not base64" in err
    assert is_short(err)


def test_random_weights_that_were_not_wanted_are_announced(zoo_main, workplace, monkeypatch):
    monkeypatch.setattr("zoo.core.hubs.unreachable", lambda: "no network")
    monkeypatch.setattr("zoo.core.hubs.cached_file", lambda *_: None)
    words = ("--model.image_pretrained", "auto", "--trainer.max_epochs", 1)
    code, _, err = zoo_main("fit", *TINY, *words)
    assert code == 0, err
    assert "RANDOM WEIGHTS" in err
    assert "image_tower: (pretrained weights not available: no network)" in err
    assert "text_tower" not in err  # was told to start at random
    code, _, err = zoo_main("test")
    assert code == 0
    assert "RANDOM WEIGHTS" in err


def test_one_reason_for_random_weights_is_said_once(capsys):
    no_network = "not available: no network)"
    weights = {
        "init_from": f"random (published weights {no_network}",
        "image_tower": f"random (pretrained weights {no_network}",
        "text_tower": "random (pretrained weights not available: they are not on the hub)",
    }
    trainer = SimpleNamespace(is_global_zero=True, loggers=[])
    RandomWeightsBanner().on_fit_start(trainer, SimpleNamespace(weights=weights))
    assert capsys.readouterr().err.splitlines()[2:-1] == [
        f"  init_from, image_tower: (published weights {no_network}",
        "  text_tower: (pretrained weights not available: they are not on the hub)",
    ]


@pytest.mark.ddp
def test_two_processes_have_nothing_to_complain_of(zoo_process, workplace, only_run):
    words = ("fit", *TINY, "--data.num_workers", 1, "--trainer.max_epochs", 1)
    code, _, err = zoo_process(workplace, *words, processes=2, timeout=120)
    assert code == 0, err
    assert "arning" not in err
    assert len(err.strip().splitlines()) <= 5, err
    assert json.loads((only_run(workplace) / "fit.json").read_text())["processes"] == 2


def test_as_a_process(zoo_process, workplace):
    code, out, err = zoo_process(workplace, "fit", *TINY, "--data.rot", "x", timeout=60)
    assert code == 2
    assert err.startswith("zoo fit: error: there is no option 'data.rot'. Did you mean data.root?\n")
    assert out == ""


def test_the_next_command_is_quoted_where_the_path_needs_it(tmp_path):
    from zoo.cli.train import closing_words

    run = tmp_path / "my run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").touch()
    assert closing_words(SimpleNamespace(checkpoint_callbacks=[]), run).endswith(f"test --ckpt_path '{run}'")
