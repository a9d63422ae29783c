"""The trainer's options on the command line: what of Lightning's cannot be, and trainings without this or that."""

import csv

import pytest
import yaml
from lightning.pytorch.callbacks import Callback

TINY = ("--config", "experiments/tiny.yaml")
LOGGERS, CALLBACKS = "lightning.pytorch.loggers", "lightning.pytorch.callbacks"


def is_one_line(err):
    return "Traceback" not in err and err.count("error: ") == 1 and err.rstrip().splitlines()[-1].startswith("zoo ")


def lay_over(workplace, trainer):
    """An overlay that sets the trainer's options: the words that lay it over the tiny experiment."""
    (workplace / "experiments" / "over.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    return (*TINY, "--config", "experiments/over.yaml")


def checkpointing(**options):
    return {"callbacks+": [{"class_path": f"{CALLBACKS}.ModelCheckpoint", "init_args": options}]}


# --- the number of steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["max_epochs", "max_steps", "limit_train_batches"])
def test_a_training_of_no_step_leaves_no_checkpoint_and_names_none(zoo_main, option):
    code, out, err = zoo_main("fit", *TINY, f"--trainer.{option}", 0, "--trainer.num_sanity_val_steps", 0)
    assert code == 0, err
    assert "The run: " in out
    assert "Next: " not in out


# --- checkpoints -------------------------------------------------------------------------------------------------


def test_a_checkpoint_named_by_a_metric_is_of_its_run(zoo_main, workplace, only_run):
    options = checkpointing(monitor="val/recall@10", mode="max", filename="{epoch}-{val/recall@10:.2f}")
    code, out, err = zoo_main("fit", *lay_over(workplace, options), "--trainer.max_epochs", 1)
    assert code == 0, err
    run = only_run(workplace)
    (file,) = run.glob("checkpoints/epoch=0-val/recall@10=*.ckpt")
    assert f"The best: val/recall@10 100.00 ({file.relative_to(run)})\n" in out
    assert out.endswith(f"Next: python -m zoo test --ckpt_path {file.relative_to(workplace)}\n")
    code, _, err = zoo_main("test", "--ckpt_path", file)
    assert code == 0, err
    assert (run / "test.json").is_file()
    code, _, err = zoo_main("fit", "--ckpt_path", file, "--trainer.max_epochs", 2)
    assert code == 0, err
    assert only_run(workplace) == run


def test_a_best_checkpoint_apart_from_its_run_is_named_where_it_is(zoo_main, workplace):
    options = checkpointing(monitor="val/loss", dirpath="apart", filename="mine")
    code, out, err = zoo_main("fit", *lay_over(workplace, options), "--trainer.max_epochs", 1)
    assert code == 0, err
    assert "(apart/mine.ckpt)\n" in out
    assert out.endswith("/checkpoints/last.ckpt\n")  # whose run tells what the model is


def test_two_callbacks_of_one_state_are_refused(zoo_main, workplace):
    options = checkpointing(monitor="val/loss", filename="a")
    options["callbacks+"] += checkpointing(monitor="val/loss", filename="b")["callbacks+"]
    code, _, err = zoo_main("fit", *lay_over(workplace, options))
    assert code == 1
    assert "trainer.callbacks is two ModelCheckpoint: they keep one state in a checkpoint. Leave yours out" in err
    assert is_one_line(err)


def test_the_weights_alone_are_no_run_to_go_on_with(zoo_main, workplace, only_run):
    options = checkpointing(filename="weights", save_weights_only=True)
    assert zoo_main("fit", *lay_over(workplace, options), "--trainer.max_epochs", 1)[0] == 0
    code, _, err = zoo_main("fit", "--ckpt_path", only_run(workplace) / "checkpoints" / "weights.ckpt")
    assert code == 1
    assert "checkpoint contains only the model" in err
    assert is_one_line(err)


# --- what cannot be built ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"--trainer.logger {LOGGERS}.MLFlowLogger", "trainer.logger: MLFlowLogger needs mlflow: pip install mlflow"),
        (
            "--trainer.profiler lightning.pytorch.profilers.XLAProfiler",
            "trainer.profiler: XLAProfiler needs torch_xla: pip install torch_xla",
        ),
        ("--trainer.profiler xla", "Requirement 'torch_xla>=1.13' not met"),
        (
            "--trainer.plugins lightning.pytorch.plugins.BitsandbytesPrecision --trainer.plugins.mode nf4",
            "trainer.plugins: BitsandbytesPrecision needs bitsandbytes: pip install bitsandbytes",
        ),
        ("--trainer.precision transformer-engine", "Requirement 'transformer_engine>=0.11.0' not met"),
        (
            f"--trainer.callbacks+ {CALLBACKS}.ModelCheckpoint --trainer.callbacks.mode avg",
            "trainer.callbacks: `mode` can be min, max but got avg",
        ),
    ],
)
def test_what_cannot_be_built_is_named_by_its_option(zoo_main, workplace, words, said):
    code, _, err = zoo_main("fit", *TINY, *words.split())
    assert code == 1
    assert said in err
    assert is_one_line(err)
    assert not list(workplace.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--trainer.plugins lightning.pytorch.plugins.TransformerEnginePrecision",
            "trainer.plugins: TransformerEnginePrecision needs weights_dtype: --trainer.plugins.weights_dtype VALUE\n",
        ),
        (
            f"--trainer.callbacks+ {CALLBACKS}.EarlyStopping",
            "trainer.callbacks: EarlyStopping needs monitor: --trainer.callbacks.monitor VALUE\n",
        ),
        (
            "--trainer.callbacks+ HardNegatives --trainer.callbacks.group_size few",
            "trainer.callbacks.group_size is 'few': give a whole number.",
        ),
    ],
)
def test_an_option_that_a_class_needs_is_named(zoo_main, words, said):
    code, _, err = zoo_main("fit", *TINY, *words.split())
    assert code == 2
    assert said in err


def test_a_logger_writes_into_the_run_also_where_that_moves(zoo_main, workplace, only_run):
    code, _, err = zoo_main("fit", *TINY, "--trainer.logger", f"{LOGGERS}.CSVLogger", "--trainer.max_epochs", 1)
    assert code == 0, err
    run = only_run(workplace)
    (written,) = run.rglob("metrics.csv")
    with written.open(newline="") as file:
        assert any(row["val/mean_recall"] for row in csv.DictReader(file))
    moved = run.rename(workplace / "moved")
    code, _, err = zoo_main("fit", "--ckpt_path", moved, "--trainer.max_epochs", 2)
    assert code == 0, err
    assert not run.exists()
    assert len(list(moved.rglob("metrics.csv"))) == 2


# --- what nobody measures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"--trainer.callbacks+ {CALLBACKS}.EarlyStopping --trainer.callbacks.monitor val_loss", "EarlyStopping"),
        (f"--trainer.callbacks+ {CALLBACKS}.ModelCheckpoint --trainer.callbacks.monitor loss", "ModelCheckpoint"),
        ("--model.evaluation.monitor val/los", "model.evaluation.monitor"),
    ],
)
def test_a_number_that_no_validation_measures_is_refused_before_the_first_epoch(zoo_main, workplace, words, said):
    code, out, err = zoo_main("fit", *TINY, *words.split())
    assert code == 1
    assert f"{said} is {words.split()[-1]}: no validation measures it. Did you mean val/loss" in err
    assert "? There are val/loss, val/mean_recall, " in err
    assert is_one_line(err)
    assert "Epoch" not in out
    assert not list(workplace.glob("runs/*/*/checkpoints/*"))


class LogsLater(Callback):
    """Logs a number in trainings alone."""

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            pl_module.log("val/mine", 1.0)


def test_a_number_that_ones_own_callback_may_measure_is_not(zoo_main, workplace):
    options = checkpointing(monitor="val/mine", filename="mine")
    options["callbacks+"].append({"class_path": f"{__name__}.LogsLater"})
    code, out, err = zoo_main("fit", *lay_over(workplace, options), "--trainer.max_epochs", 1)
    assert code == 0, err
    assert "The best: val/mine 1.00 (checkpoints/mine.ckpt)" in out


@pytest.mark.parametrize("every", [1, 2])  # after an epoch, and after a validation
def test_stopping_early_goes_by_what_a_partial_validation_measures(zoo_main, workplace, every):
    stopping = {"monitor": "val/mean_recall", "mode": "max", "stopping_threshold": 1.0}
    options = {"callbacks+": [{"class_path": f"{CALLBACKS}.EarlyStopping", "init_args": stopping}]}
    options |= {"limit_val_batches": 1, "max_epochs": 4, "check_val_every_n_epoch": every}
    code, out, err = zoo_main("fit", *lay_over(workplace, options), "--data.eval_batch_size", 8)
    assert code == 0, err
    assert f"Epoch {every - 1}/3" in out
    assert f"Epoch {every}/3" not in out


def test_slurm_is_answered_in_one_line(zoo_main, monkeypatch):
    for name, value in (("JOB_ID", "1"), ("NTASKS", "2"), ("JOB_NAME", "train")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    code, _, err = zoo_main("fit", *TINY)
    assert code == 1
    assert "--ntasks-per-node=2" in err
    assert is_one_line(err)


class Fails(Callback):
    """Fails by itself, in a hook."""

    def on_train_start(self, trainer, pl_module):
        raise RuntimeError("mine")


def test_what_is_not_lightnings_own_refusal_keeps_its_traceback(zoo_main, workplace):
    with pytest.raises(RuntimeError, match="mine"):
        zoo_main("fit", *lay_over(workplace, {"callbacks+": [{"class_path": f"{__name__}.Fails"}]}))


def test_a_number_of_the_validation_is_refused_where_there_is_none(zoo_main):
    words = ("--trainer.callbacks+", f"{CALLBACKS}.EarlyStopping", "--trainer.callbacks.monitor", "val/loss")
    code, _, err = zoo_main("fit", *TINY, *words, "--trainer.limit_val_batches", 0)
    assert code == 1
    assert "monitor of EarlyStopping is val/loss: trainer.limit_val_batches is 0" in err
    assert is_one_line(err)


# --- who changes an option too late ------------------------------------------------------------------------------


def test_a_larger_batch_that_ends_the_cosine_early_is_said(zoo_main, workplace, only_run):
    code, _, err = zoo_main("fit", *TINY, "--data.batch_size", 4)  # 24 steps
    assert code == 0, err
    words = ("--ckpt_path", only_run(workplace), "--data.batch_size", 16, "--trainer.max_epochs", 4)  # 12 steps
    code, _, err = zoo_main("fit", *words)
    assert code == 1
    assert "all learning rates are 0 from step 24 on, and the training is not at its end" in err
    assert is_one_line(err)
