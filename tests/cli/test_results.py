import json
from pathlib import Path

import pytest

from zoo.cli.results import find_tables, main
from zoo.errors import UserError

TABLES = {table.name: table for table in find_tables()}
MARKERS = {name: table.markers for name, table in TABLES.items()}
COMMAND = "python -m zoo fit --config experiments/clip_demo.yaml"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_place(tmp_path, "results", behind="\n\nThe end.\n")
    return tmp_path


def add_place(place, name, *, behind="\n"):
    """Give a table a place on its page, which is made where it is not there; the page."""
    page = place / TABLES[name].page
    page.parent.mkdir(parents=True, exist_ok=True)
    before = page.read_text() if page.exists() else "# A page\n\n"
    page.write_text(before + "\n".join(MARKERS[name]) + behind)
    return page


def make_run(place, seed, *, mean_recall=30.0, command=COMMAND, **changes):
    run = place / "runs" / "clip_demo" / f"2026010{seed + 1}-000000"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(f"seed_everything: {seed}\n")
    fit = {"experiment": "clip_demo", "command": f"{command} --seed_everything {seed}", "seconds": 120.0 + seed}
    (run / "fit.json").write_text(
        json.dumps({**fit, "resumed": False, "hardware": "2 CPU cores", **changes.get("fit", {})})
    )
    metrics = {f"test/{key}": 10.0 * place + seed for place, key in enumerate(("recall@1", "recall@5", "recall@10"))}
    metrics |= {"test/mean_recall": mean_recall + seed, "test/loss": 3.0}
    protocol = {"data": "demo-1, queries abc", "queries": 361, "images": 355, "checkpoint": "/somewhere/best.ckpt"}
    protocol["weights"] = changes.get("weights", {"image_tower": "random"})
    (run / "test.json").write_text(json.dumps({"metrics": metrics, "protocol": protocol}))
    return str(run)


def test_runs_become_a_result_and_a_table(place, capsys):
    runs = [make_run(place, seed) for seed in (0, 1, 2)]
    assert main(["--add", *runs]) == 0
    result = json.loads((place / "experiments" / "results" / "clip_demo.json").read_text())
    assert result["mean"]["test/mean_recall"] == pytest.approx(31.0)
    assert result["standard_deviation"]["test/mean_recall"] == pytest.approx(1.0)
    assert [run["fit"]["command"] for run in result["runs"]] == [f"{COMMAND} --seed_everything {s}" for s in (0, 1, 2)]
    assert "/somewhere" not in json.dumps(result)
    page = (place / TABLES["results"].page).read_text()
    assert (
        "| `clip_demo` | demo-1: 361 / 355 | 1.0 ± 1.0 | 11.0 ± 1.0 | 21.0 ± 1.0 | 31.0 ± 1.0 | – | – | 0, 1, 2 |"
        in page
    )
    assert page.endswith("\n\nThe end.\n")
    assert main(["--check"]) == 0


def test_check_tells_a_table_out_of_date_and_changes_nothing(place, capsys):
    main(["--add", make_run(place, 0)])
    page = place / TABLES["results"].page
    stale = page.read_text().replace("30.0", "99.0")
    page.write_text(stale)
    assert main(["--check"]) == 1
    assert page.read_text() == stale
    assert "run `python -m zoo results`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": f"{COMMAND} --model.learning_rate 1"}, "its command has more: --model.learning_rate 1"),
        ({"command": f"{COMMAND} --config experiments/_overlays/smoke.yaml"}, "its command has more: .*smoke"),
        ({"fit": {"resumed": True}}, "it was continued"),
        ({"weights": {"text_tower": "random (not available: no network)"}}, "text_tower started from random"),
    ],
)
def test_what_is_not_the_experiment_as_it_stands_is_refused(place, changes, message):
    with pytest.raises(UserError, match=message):
        main(["--add", make_run(place, 0, **changes)])
    assert not (place / "experiments").exists()


def test_an_unscored_run_and_a_repeated_seed_are_refused(place):
    run = make_run(place, 0)
    with pytest.raises(UserError, match="a seed of its own"):
        main(["--add", run, run])
    (place / "runs" / "clip_demo" / "20260101-000000" / "test.json").unlink()
    with pytest.raises(UserError, match=r"no test\.json: train with `fit`, score with `test"):
        main(["--add", run])


def test_a_page_without_a_place_for_the_table_is_an_error(place):
    page = place / TABLES["results"].page
    page.write_text("nothing")
    with pytest.raises(UserError, match="no place for a table"):
        main(["--add", make_run(place, 0)])
    page.unlink()
    with pytest.raises(UserError, match="no such page"):
        main([])


def test_benches_become_a_table_on_a_page_of_their_own(place):
    folder = place / "experiments" / "results" / "bench"
    folder.mkdir(parents=True)
    row = {
        "name": "plain",
        "unit": "pairs/s",
        "ours": 6642.9,
        "ours_is": "as float",
        "peer": 71.16,
        "peer_is": "cn-clip",
    }
    alone = {"name": "index", "unit": "GB/s", "ours": 3.62, "ours_is": "ours", "peer": None, "peer_is": None}
    rows = [{**row, "ratio": 93.35}, {**alone, "ratio": None}]
    (folder / "data.json").write_text(json.dumps({"bench": "data", "rows": rows}))
    (place / TABLES["speed"].page).write_text("nothing")
    with pytest.raises(UserError, match="no place for a table: add the lines <!-- speed"):
        main([])
    page = add_place(place, "speed")
    assert main([]) == 0
    assert "| `data` | plain | as float: 6,643 pairs/s | cn-clip: 71.2 | 93.35 |" in page.read_text()
    assert "| `data` | index | 3.62 GB/s | – | – |" in page.read_text()
    assert main(["--check"]) == 0


def test_controls_become_a_table_on_the_page_of_evaluation(place):
    folder = place / "experiments" / "results" / "controls"
    folder.mkdir(parents=True)
    true = {"fd_clip": 2e-15, "recall_clip": 100.0, "r_precision": 85.58, "r_precision_std": 1.61}
    blurred = {"fd_clip": 0.04058, "recall_clip": 73.1, "r_precision": 77.9, "r_precision_std": 2.47}
    result = {"controls": {"true": true, "blurred": blurred}, "protocol": {"split": "train", "generated": 3204}}
    (folder / "train.json").write_text(json.dumps(result))
    page = add_place(place, "controls")
    assert main([]) == 0
    assert "| split | images | fd_clip | recall_clip | R-precision |" in page.read_text()
    assert "| train, 3,204 | true | 0 | 100 | 85.6 ± 1.6 |" in page.read_text()
    assert "| train, 3,204 | blurred | 0.0406 | 73.1 | 77.9 ± 2.5 |" in page.read_text()
    assert main(["--check"]) == 0


def test_generators_have_a_table_of_their_own(place):
    run = Path(make_run(place, 0))
    scored = json.loads((run / "test.json").read_text())
    scored["metrics"] = {
        "test/r_precision": 5.25,
        "test/r_precision_true": 84.2,
        "test/r_precision_shuffled": 0.95,
        "test/fd_clip": 0.2134,
        "test/fd_clip_first_stage": 0.0766,
        "test/r_precision_first_stage": 50.0,
        "test/loss": 1.5,
        "test_train/r_precision": 25.0,
        "test_train/r_precision_true": 88.1,
        "test_train/r_precision_shuffled": 1.04,
        "test_train/fd_clip": 0.1,
    }
    scored["protocol"] |= {"generated": 361, "parameters": 13_489_835, "seconds_per_image": 0.0123}
    (run / "test.json").write_text(json.dumps(scored))
    page = add_place(place, "generation")
    (run / "metrics.csv").write_text("step,val/loss\n3,0.5\n")
    with pytest.raises(UserError, match="it was not evaluated before its first step"):
        main(["--add", str(run)])
    rows = ["step,val/loss,val/fd_clip,val_train/fd_clip", "0,1.9,2.0,", "0,,,2.1", "3,0.5,0.4,0.3"]
    (run / "metrics.csv").write_text("\n".join(rows))
    assert main(["--add", str(run)]) == 0
    text = page.read_text()
    held_out = "13 M | test, 361 | 5.2 | 50.0 | 84.2 | 0.9 | 0.213 | 0.077 | 2.000 | – | – | 0.012 s | 0 |"
    assert f"| `clip_demo` | {held_out}" in text
    assert "| `clip_demo` | 13 M | training | 25.0 | – | 88.1 | 1.0 | 0.100 | – | 2.100 | – | – | 0.012 s | 0 |" in text
    assert main(["--check"]) == 0


def test_image_tokenizers_have_a_table_of_their_own(place):
    run = Path(make_run(place, 0))
    scored = json.loads((run / "test.json").read_text())
    scored["metrics"] = {
        "test/psnr": 20.24,
        "test/ssim": 87.7,
        "test/fd_clip": 0.0765,
        "test/r_precision": 50.0,
        "test/r_precision_true": 77.8,
        "test/codebook_usage": 99.6,
    }
    sizes = {"generated": 361, "parameters": 2_904_660, "codes_per_image": 64, "codebook": 512}
    scored["protocol"] |= sizes
    (run / "test.json").write_text(json.dumps(scored))
    page = add_place(place, "tokenizers")
    assert main(["--add", str(run)]) == 0
    row = "| `clip_demo` | 3 M | 361 | 64, 512 | 20.2 | 87.7 | 0.076 | 50.0 | 77.8 | 99.6 | 0 | 2.0 min |"
    assert row in page.read_text()
    assert main(["--check"]) == 0


def test_captions_stand_beside_their_controls(place):
    run = Path(make_run(place, 0))
    scored = json.loads((run / "test.json").read_text())
    names = {"cider": 120.04, "cider_nearest": 95.0, "cider_shuffled": 14.0, "bleu4": 30.0, "rouge_l": 44.0}
    names["attributes_precision"] = 97.5
    scored["metrics"] = {f"test/{name}": value for name, value in names.items()}
    scored["protocol"]["references"] = 526
    (run / "test.json").write_text(json.dumps(scored))
    page = add_place(place, "captions")
    assert main(["--add", str(run)]) == 0
    text = page.read_text()
    assert (
        "| `clip_demo` | 355, 526 | the model's | 120.0 | 30.0 | 44.0 | – | 97.5 | – | – | 0 | 2.0 min | 2 CPU cores |"
        in text
    )
    assert "| `clip_demo` | 355, 526 | nearest copied | 95.0 | – | – | – | – | – | – | 0 |" in text
    assert main(["--check"]) == 0
