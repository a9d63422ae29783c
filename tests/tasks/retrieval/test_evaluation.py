"""What validate and test tell: recall by what queries ask for; the thresholds in the file, and when there is one."""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from rich.cells import cell_len

import zoo
from zoo.data.formats import read_queries
from zoo.errors import UserError
from zoo.tasks.retrieval.data import RetrievalDataModule
from zoo.tasks.retrieval.evaluation import (
    RetrievalEvaluationOptions,
    print_recall,
    print_thresholds,
    write_thresholds,
)
from zoo.tasks.retrieval.thresholds import MarginThreshold, ScoreThreshold

TINY = ("--config", "experiments/tiny.yaml")
WANTED = [20, 25, 30, 50, 95]


@pytest.fixture
def trained(zoo_main, workplace):
    tiny = workplace / "experiments" / "tiny.yaml"
    tiny.write_text(tiny.read_text().replace("grid_queries: 0}", f"grid_queries: 0, precisions: {WANTED}}}"))
    code, _, err = zoo_main("fit", *TINY)
    assert code == 0, err
    (run,) = (workplace / "runs" / "tiny").iterdir()
    return run


def matrix(run, root, split):
    """All scores and truths of a split, from the task that ``zoo.load`` gives."""
    task = zoo.load(run)
    data = RetrievalDataModule(str(root), image_size=task.image_size, num_workers=0)
    data.setup({"valid": "validate"}.get(split, split))
    queries, gallery = data.val_dataloader() if split == "valid" else data.test_dataloader()
    texts = torch.cat([task.encode_text(batch["text"]) for batch in queries]).numpy()
    images = torch.cat([task.encode_image(batch["image"]) for batch in gallery]).numpy()
    targets = data.targets(split)
    return texts @ images.T, np.array([[image in own for image in targets.image_ids] for own in targets.positives])


def least(values, true, wanted):
    """The least value from which on enough are true, how many those are, and how many of them are true."""
    for value in np.unique(values):
        taken = values >= value
        if 100 * true[taken].sum() / taken.sum() >= wanted:
            return value, taken.sum(), true[taken].sum()
    return None


def expected(scores, true, wanted):
    pairs = least(scores, true, wanted)
    pairs = pairs and (pairs[0], 100 * pairs[2] / pairs[1], 100 * pairs[2] / true.sum(), pairs[1] / len(scores))
    best = np.sort(scores, axis=1)[:, ::-1]
    right = true[np.arange(len(scores)), scores.argmax(axis=1)]
    answers = least(best[:, 0] - best[:, 1], right, wanted)
    answers = answers and (answers[0], 100 * answers[2] / answers[1], 100 * answers[1] / len(scores))
    return pairs or (None,) * 4, answers or (None,) * 3


def about(values):
    return [None if value is None else pytest.approx(value, abs=1e-5) for value in values]


def asking(folder, split):
    """By label, the indices of the queries that ask for it: each is looked through for every word."""
    words = json.loads((folder / "attributes.json").read_text())["words"]
    shown = list(map(json.loads, (folder / f"attributes_{split}.jsonl").read_text().splitlines()))
    shown = {each["image_id"]: each["attributes"] for each in shown}
    queries = read_queries(folder / f"MR_{split}_{'answers' if split == 'test' else 'queries'}.jsonl")
    found = defaultdict(set)
    for index, query in enumerate(queries):
        found[query.kind].add(index)
        for kind, values in words.items():
            relevant = {shown[image].get(kind) for image in query.item_ids}
            if len(relevant) == 1 and any(word in query.text for word in values.get(*relevant, ())):
                often = 2 * sum(kind in each for each in shown.values()) >= len(shown)
                found[kind if often else "details"].add(index)
    return queries, {label: members for label, members in found.items() if len(members) < len(queries)}


def test_recall_is_logged_by_what_queries_ask_for(zoo_main, workplace):
    """Recall by label is that of the ten images that ``predict`` ranks first."""
    assert zoo_main("data", "catalogue", "shop", "--size", 96, "--image_size", 32)[0] == 0
    folder = workplace / "shop" / "Multimodal_Retrieval"
    tiny = workplace / "experiments" / "tiny.yaml"
    tiny.write_text(tiny.read_text().replace("grid_queries: 0}", "grid_queries: 0, complete_labels: true}"))
    only = ("--trainer.max_epochs", 1, "--trainer.limit_train_batches", 1)
    code, _, err = zoo_main("fit", *TINY, "--data.root", "shop", *only)
    assert code == 0, err
    (run,) = (workplace / "runs" / "tiny").iterdir()
    columns = (run / "metrics.csv").read_text().partition("\n")[0].split(",")
    logged = {name.removeprefix("val/recall@5/") for name in columns if name.startswith("val/recall@5/")}
    assert logged == asking(folder, "valid")[1].keys()
    code, printed, err = zoo_main("test")
    assert code == 0, err
    numbers = json.loads((run / "test.json").read_text())["metrics"]
    assert zoo_main("predict")[0] == 0
    ranked = [query.item_ids for query in read_queries(run / "predictions" / "MR_test_queries.jsonl")]
    queries, labels = asking(folder, "test")
    assert {"颜色", "图案", "details"} <= labels.keys()
    assert {name.removeprefix("test/ndcg@10/") for name in numbers if "ndcg@10/" in name} == labels.keys()
    for label, members in labels.items():
        for k in (1, 5, 10):
            hits = [bool({*ranked[index][:k]} & {*queries[index].item_ids}) for index in members]
            assert numbers[f"test/recall@{k}/{label}"] == pytest.approx(100 * sum(hits) / len(hits), rel=1e-6)
        assert f"│ {label} " in printed
    code, printed, err = zoo_main("validate", "--trainer.limit_val_batches", 1, "--data.eval_batch_size", 1)
    assert code == 0, err  # of most labels no query came
    assert "val_partial" in printed


def test_validate_then_test_write_the_thresholds_of_both(zoo_main, trained, muge_root):
    file = trained / "thresholds.json"
    assert not file.exists()  # a training tells none
    code, validated, err = zoo_main("validate")
    assert code == 0, err
    assert list(json.loads(file.read_text())) == ["valid"]
    code, tested, err = zoo_main("test")
    assert code == 0, err
    written = json.loads(file.read_text())
    assert list(written) == ["valid", "test"]
    found = []
    for split, printed in (("valid", validated), ("test", tested)):
        scores, true = matrix(trained, muge_root, split)
        for wanted, pairs, margins in zip(WANTED, written[split]["scores"], written[split]["margins"], strict=True):
            by_score, by_margin = expected(scores, true, wanted)
            assert list(pairs) == ["wanted", "score", "precision", "recall", "pairs_per_query"]
            assert list(margins) == ["wanted", "margin", "precision", "answered"]
            assert list(pairs.values()) == about([wanted, *by_score])
            assert list(margins.values()) == about([wanted, *by_margin])
            found += [by_score[0], by_margin[0]]
        protocol = written[split]["protocol"]
        assert (protocol["split"], protocol["queries"], protocol["images"]) == (split, 15, 12)
        assert protocol["checkpoint"] == str(trained / "checkpoints" / "best.ckpt")
        assert "lower bound" in protocol["pairs"]
        assert "not on test" in protocol["holds_for"]
        assert f"{split}: pairs by score" in printed
        assert "of this checkpoint and a gallery of 12 images" in printed
        assert printed.index("R@10") < printed.index("pairs by score")
    assert sum(value is not None for value in found[::2]) >= 4  # scores
    assert sum(value is not None for value in found[1::2]) >= 4  # margins
    assert None in found


def test_precisions_are_options(zoo_main, trained, workplace):
    overlay = workplace / "experiments" / "_overlays" / "other.yaml"
    words = ("validate", "--config", "experiments/_overlays/other.yaml")
    for given, wanted in (("{}", WANTED), ("{precisions: [30, 62.5]}", [30, 62.5]), ("{precisions: []}", None)):
        overlay.write_text(f"model: {{init_args: {{evaluation: {given}}}}}\n")
        (trained / "thresholds.json").unlink(missing_ok=True)
        code, out, err = zoo_main(*words)
        assert code == 0, err
        assert ("pairs by score" in out) == (wanted is not None)
        assert (trained / "thresholds.json").exists() == (wanted is not None)
        if wanted:
            written = json.loads((trained / "thresholds.json").read_text())["valid"]
            assert [one["wanted"] for one in written["scores"]] == wanted
            assert [one["wanted"] for one in written["margins"]] == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[100]", "precisions is [100.0]: give percents above 0 and below 100"),
        ("few", "model.evaluation.precisions is 'few': give a list, each a number"),
    ],
)
def test_faulty_precisions_are_said(zoo_main, workplace, given, said):
    tiny = workplace / "experiments" / "tiny.yaml"
    tiny.write_text(tiny.read_text().replace("grid_queries: 0}", f"precisions: {given}}}"))
    code, _, err = zoo_main("fit", *TINY)
    assert code != 0
    assert said in err
    assert "Traceback" not in err


def test_an_evaluation_cut_short_tells_none(zoo_main, trained):
    words = ("--trainer.limit_val_batches", 1, "--data.eval_batch_size", 8)
    code, out, err = zoo_main("validate", *words)
    assert code == 0, err
    assert "val_partial" in out
    assert "pairs by score" not in out
    assert not (trained / "thresholds.json").exists()


@pytest.mark.ddp
def test_two_processes_write_what_one_does(zoo_main, zoo_process, trained, workplace):
    file = trained / "thresholds.json"
    code, _, err = zoo_main("test")
    assert code == 0, err
    alone = json.loads(file.read_text())["test"]
    file.unlink()
    code, _, err = zoo_process(workplace, "test", processes=2, timeout=120)
    assert code == 0, err
    both = json.loads(file.read_text())["test"]
    for kind in ("scores", "margins"):
        for one, other in zip(alone[kind], both[kind], strict=True):
            assert list(other.values()) == about(one.values())


def test_a_damaged_file_is_replaced_and_other_splits_are_kept(tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text('{"test": ')
    scores, margins = [ScoreThreshold(80.0)], [MarginThreshold(80.0, 0.1, 81.0, 20.0)]
    write_thresholds(path, "valid", scores, margins, {"split": "valid"})
    write_thresholds(path, "test", scores, margins, {"split": "test"})
    write_thresholds(path, "valid", scores, [], {"split": "valid"})
    written = json.loads(path.read_text())
    assert list(written) == ["valid", "test"]
    assert written["test"]["scores"] == [
        {"wanted": 80.0, "score": None, "precision": None, "recall": None, "pairs_per_query": None}
    ]
    assert written["test"]["margins"] == [{"wanted": 80.0, "margin": 0.1, "precision": 81.0, "answered": 20.0}]
    assert written["valid"]["margins"] == []
    assert [file.name for file in tmp_path.iterdir()] == ["thresholds.json"]


def test_recall_of_each_kind_is_printed_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    labels = ["", "/details", "/new", "/防水等级和材质", "/颜色"]
    metrics = ("recall@1", "recall@5", "recall@10", "mean_recall")
    values = {f"{metric}{label}": 100.0 for label in labels for metric in metrics}
    protocol = {"step": 7, "queries": 5004, "images": 30399, "image_size": 224, "precision": "bf16-mixed"}
    print_recall(values, "val_train_partial", protocol)
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [[label.removeprefix("/") or "all", *["100.00"] * 4] for label in labels]
    assert max(map(cell_len, lines)) <= 80


def test_what_is_not_reached_is_said_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    scores = [ScoreThreshold(50.0, 0.31239, 50.125, 71.25, 2.5), ScoreThreshold(99.5)]
    print_thresholds(scores, [MarginThreshold(50.0, 0.0125, 60.0, 42.5), MarginThreshold(99.5)], "valid", 30000)
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert rows == [
        ["50", "0.3124", "50.12", "71.25", "2.50"],
        ["99.5", "not reached", "", "", ""],
        ["50", "0.0125", "60.00", "42.50"],
        ["99.5", "not reached", "", ""],
    ]
    assert "a gallery of 30000 images" in out
    assert "lower bound" in out


@pytest.mark.parametrize("precisions", [[0], [100], [80, -1]])
def test_a_precision_out_of_range_is_refused(precisions):
    with pytest.raises(UserError, match="precisions is"):
        RetrievalEvaluationOptions(precisions=precisions)
