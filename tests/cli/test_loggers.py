"""W&B and CSV: what a run leaves behind, read back from the files on disk."""

import json
import struct
import sys
import time

import pytest

from zoo.cli.loggers import RunCSVWriter, why_no_wandb
from zoo.errors import UserError

TINY = ("--config", "experiments/tiny.yaml")


def records(path, patience=20.0):
    """The records of a finished offline run; W&B's own process may write them a moment after the run's end."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = list(parse(path))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def parse(path):
    """The records of an offline W&B file: blocks of 32 KiB in LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, []
    while place + 7 <= len(data):
        left_of_block = 32768 - place % 32768
        if left_of_block < 7:
            place += left_of_block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if place + 7 + length > len(data):
            return  # still being written
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def runs_of(path):
    return [record.run for record in records(path) if record.WhichOneof("record_type") == "run"]


def history(path):
    steps = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            steps.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    return steps


@pytest.fixture
def offline(workplace, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    return workplace


def test_an_offline_run_is_whole(zoo_main, offline):
    pictures = offline / "experiments" / "tiny.yaml"
    pictures.write_text(pictures.read_text().replace("grid_queries: 0", "grid_queries: 2"))
    code, _, err = zoo_main("fit", *TINY, "--seed_everything", 7, "--trainer.max_epochs", 1)
    assert code == 0, err
    (folder,) = (offline / "runs" / "tiny").iterdir()
    assert f"Logging to {folder}/metrics.csv and W&B" in err
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")

    run = runs_of(file)[-1]
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["seed_everything"] == 7
    assert config["trainer"]["max_epochs"] == 1
    assert config["trainer"]["callbacks"][0]["class_path"] == "zoo.callbacks.RunProgressBar"
    assert config["model"]["class_path"] == "zoo.RetrievalTask"
    assert config["model"]["init_args"]["text_tower_options"] == {"width": 32, "num_layers": 1, "num_heads": 2}
    assert config["data"]["init_args"]["batch_size"] == 16
    assert run.run_id == run.display_name == f"tiny-{folder.name}"
    assert (run.project, run.run_group, run.job_type) == ("zoo", "retrieval", "fit")
    assert {"tiny", "timm:test_vit", "bert_tiny_chinese"} <= set(run.tags)

    metrics = {record.metric.name: record.metric for record in records(file) if record.HasField("metric")}
    assert metrics["val/mean_recall"].summary.max
    assert metrics["val/loss"].summary.min
    assert metrics["val/mean_recall"].step_metric == "trainer/global_step"

    steps = history(file)
    before = next(step for step in steps if "val/mean_recall" in step)
    assert before["trainer/global_step"] == 0
    assert not any("train/loss" in step for step in steps[: steps.index(before)])
    assert any("train/loss" in step for step in steps)
    assert any("val/top10/filenames" in step for step in steps)
    assert list(folder.glob("wandb/offline-run-*/files/media/images/val/*.png"))

    outside = {path for path in offline.rglob("*") if path.is_file()} - set(folder.rglob("*"))
    outside -= set((offline / "experiments").rglob("*"))
    assert {path.parent.name for path in outside} <= {"logs"}  # of W&B's own process


def test_a_resumed_run_goes_on_in_wandb_and_a_test_stands_beside_it(zoo_main, offline):
    for words in (("fit", *TINY, "--trainer.max_epochs", 1), ("fit", *TINY, "--ckpt_path", "last"), ("test",)):
        code, _, err = zoo_main(*words)
        assert code == 0, err
    (folder,) = (offline / "runs" / "tiny").iterdir()
    runs = [runs_of(file)[-1] for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
    assert [(run.run_id, run.job_type) for run in runs] == [
        (f"tiny-{folder.name}", "fit"),
        (f"tiny-{folder.name}", "fit"),
        (f"tiny-{folder.name}-test", "test"),
    ]


def test_random_weights_that_were_not_wanted_are_in_tag_and_name(zoo_main, offline, monkeypatch):
    monkeypatch.setattr("zoo.core.hubs.unreachable", lambda: "no network")
    monkeypatch.setattr("zoo.core.hubs.cached_file", lambda *_: None)
    code, _, err = zoo_main("fit", *TINY, "--model.image_pretrained", "auto", "--trainer.max_epochs", 1)
    assert code == 0, err
    (file,) = offline.glob("runs/tiny/*/wandb/offline-run-*/*.wandb")
    run = runs_of(file)[-1]
    assert "random-weights" in run.tags
    assert run.display_name == f"{run.run_id}-random-weights"


def test_a_failed_run_is_failed_in_wandb_and_the_next_is_its_own(zoo_main, offline):
    assert zoo_main("fit", *TINY, "--data.root", "/nowhere")[0] == 1
    assert sys.modules["wandb"].run is None
    (file,) = offline.glob("runs/tiny/*/wandb/offline-run-*/*.wandb")
    assert [record.exit.exit_code for record in records(file) if record.HasField("exit")] == [1]


def test_where_wandb_does_not_answer_there_is_csv(zoo_main, workplace, monkeypatch):
    import wandb

    def refuse(**_):
        raise wandb.errors.CommError("no route to host\nand more")

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(wandb, "init", refuse)
    code, _, err = zoo_main("fit", *TINY, "--trainer.max_epochs", 1)
    assert code == 0, err
    assert "W&B: no route to host\n" in err
    assert "metrics.csv (W&B does not answer)" in err


def test_wandb_wants_a_key_or_offline(workplace, monkeypatch):
    assert "wandb login" in why_no_wandb()
    (workplace / "home").mkdir()
    netrc = workplace / "home" / ".netrc"
    netrc.write_text("machine api.wandb.ai login user password 0123\n")
    netrc.chmod(0o600)
    assert why_no_wandb() is None
    netrc.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert why_no_wandb() is None
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert why_no_wandb() == "WANDB_MODE is disabled"
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match="WANDB_MODE is 'ofline'.*Did you mean offline"):
        why_no_wandb()


def test_csv_goes_on_where_the_checkpoint_stands_and_takes_new_columns(tmp_path):
    for step, values in ((0, {"a": 1.0}), (1, {"a": 9.0}), (1, {"a": 2.0, "b": 3.0})):
        writer = RunCSVWriter(str(tmp_path), done_steps=1)
        writer.log_metrics(values, step=step)
        writer.save()
        with (tmp_path / "metrics.csv").open("a") as file:
            file.write("7.0,")  # killed while it wrote
    RunCSVWriter(str(tmp_path), done_steps=2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ["a,b,step", "1.0,,0", "2.0,3.0,1"]


def test_a_batch_that_was_lowered_is_in_the_configuration(zoo_main, offline, monkeypatch):
    monkeypatch.setattr("zoo.callbacks.memory.available_memory", lambda: 2_000_000)
    monkeypatch.setattr("zoo.callbacks.memory.OPTIMIZER", 0)
    words = ("--trainer.callbacks+", "zoo.callbacks.memory.FitBatchToMemory", "--trainer.max_epochs", 1)
    code, _, err = zoo_main("fit", *TINY, *words)
    assert code == 0, err
    (file,) = offline.glob("runs/tiny/*/wandb/offline-run-*/*.wandb")
    updates = [update for record in records(file) for update in record.config.update if record.HasField("config")]
    batches = [json.loads(update.value_json)["init_args"]["batch_size"] for update in updates if update.key == "data"]
    assert 1 <= batches[-1] < 16
