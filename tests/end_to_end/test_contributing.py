"""What CONTRIBUTING.md adds by a diff or a file is applied to a copy of the repository, held to its rules, and run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import COLOURS

from zoo.data.formats import read_queries

REPOSITORY = Path(__file__).parents[2]
BACKBONE = "patch_mixer_tiny"
TASK = "zoo/tasks/classification"
QUICK = """\
save_every: 2
model: {init_args: {image_tower: timm:test_vit}}
data: {init_args: {root: ROOT, num_workers: 0, batch_size: 4}}
trainer:
  accelerator: cpu
  max_epochs: 3
  check_val_every_n_epoch: 1
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks+: [{class_path: interrupt.Interrupt}]
"""


def block(heading, language):
    """The one block of a language under a heading of CONTRIBUTING.md."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return found


def run(package, *words, folder=None, **environment):
    """Run Python where a package comes before the installed one; returns the exit code and what it printed."""
    path = os.pathsep.join([*map(str, [package] if isinstance(package, Path) else package), str(REPOSITORY / "tests")])
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **environment}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder or package,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A copy of what the diffs and the tests of them need, with the diffs applied."""
    copy = tmp_path_factory.mktemp("contributing")
    for name in ("zoo", "experiments", "tests/models"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "tests/conftest.py", "tests/test_architecture.py"):
        shutil.copy(REPOSITORY / name, copy / name)
    for heading in ("Add a backbone", "Add a task", "Add a category to the catalogue"):
        done = subprocess.run(
            ["git", "apply", "-"],
            cwd=copy,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)},  # it is no part of a repository
            input=block(heading, "diff"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"CONTRIBUTING.md's diff of {heading!r} no longer applies:\n{done.stderr}"
    return copy


def passed(printed):
    return " passed" in printed and not re.search(r"skipped|failed", printed)


# --- a category ------------------------------------------------------------------------------------------------


def test_a_category_is_drawn_named_and_trained_on(patched, tmp_path):
    words = ("-m", "zoo", "data", "catalogue", tmp_path / "shop", "--size", "480", "--image_size", "32")
    code, printed = run(patched, *words)
    assert code == 0, printed
    lines = (tmp_path / "shop" / "catalogue_train.jsonl").read_text("utf-8").splitlines()
    boxes = [record for record in map(json.loads, lines) if record["attributes"]["类别"] == "礼盒"]
    assert {box["attributes"]["大小"] for box in boxes} == {"大礼盒", "小礼盒"}
    assert all(re.search("礼盒|礼物盒|礼品盒", box["title"]) for box in boxes)
    queries = read_queries(tmp_path / "shop" / "Multimodal_Retrieval" / "MR_train_queries.jsonl")
    ids = {box["image_id"] for box in boxes}
    about = [query for query in queries if re.search("礼盒|礼物盒|礼品盒", query.text)]
    assert about
    assert all(ids >= set(query.item_ids) for query in about)
    code, printed = run(
        patched,
        *("-m", "zoo", "fit", "--config", "experiments/clip_demo.yaml", "--config", "experiments/_overlays/smoke.yaml"),
        *("--runs", tmp_path, "--data.root", tmp_path / "shop"),
        *("--model.image_tower", "timm:test_resnet", "--data.num_workers", 0, "--data.batch_size", 8),
        *("--model.evaluation.complete_labels", "true", "--trainer.limit_val_batches", "1.0"),
    )
    assert code == 0, printed
    (metrics,) = tmp_path.glob("clip_demo/*/metrics.csv")
    assert {"val/recall@5/new", "val/recall@5/seen", "val/ndcg@10"} <= set(
        metrics.read_text().partition("\n")[0].split(",")
    )


# --- a backbone ------------------------------------------------------------------------------------------------


def test_a_backbone_is_one_new_file_and_one_line_of_yaml():
    diff = block("Add a backbone", "diff")
    added = re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE)
    assert added == ["experiments/clip_demo.yaml", "zoo/models/patch_mixer.py"]
    assert re.findall(r"^[+-] .*$", diff.partition("diff --git a/zoo")[0], re.MULTILINE) == [
        "-    image_tower: resnet10t",
        f"+    image_tower: {BACKBONE}",
    ]


def test_the_new_tower_keeps_the_contract(patched):
    contract = "tests/models/test_tower_contract.py"
    options = ("-q", "-n0", "-p", "no:cacheprovider", contract, "-k", "patch_mixer or documented")
    code, printed = run(patched, "-m", "pytest", *options)
    assert code == 0, printed
    assert passed(printed)


def test_the_new_tower_trains(patched, muge_root, tmp_path):
    code, printed = run(
        patched,
        *("-m", "zoo", "fit", "--config", "experiments/clip_demo.yaml", "--config", "experiments/_overlays/smoke.yaml"),
        *("--runs", tmp_path, "--data.root", muge_root, "--data.num_workers", 0, "--data.batch_size", 4),
        *("--model.text_tower_options", "{width: 32, num_layers: 1}", "--trainer.num_sanity_val_steps", 0),
    )
    assert code == 0, printed
    (folder,) = (tmp_path / "clip_demo").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["init_args"]["image_tower"] == BACKBONE
    assert (folder / "checkpoints" / "last.ckpt").is_file()


# --- a metric --------------------------------------------------------------------------------------------------


def test_the_new_metric_is_the_naive_mean():
    namespace = {}
    exec(block("Add a metric", "python"), namespace)
    metric = namespace["MeanSimilarity"]()
    embeddings = torch.nn.functional.normalize(torch.randn(9, 5), dim=1)
    for part in embeddings.split(4):
        metric.update(part, "image")
        metric.update(-part, "query")
    naive = [float(a @ b) for i, a in enumerate(embeddings) for j, b in enumerate(embeddings) if i != j]
    assert metric.compute().item() == pytest.approx(100 * np.mean(naive), abs=1e-4)


def test_the_new_metric_is_one_line_of_yaml_or_one_flag(workplace, zoo_process, only_run):
    (workplace / "my_metrics.py").write_text(block("Add a metric", "python"))
    (workplace / "experiments" / "metric.yaml").write_text(block("Add a metric", "yaml"))
    layers = ("--config", "experiments/tiny.yaml", "--config", "experiments/metric.yaml")
    code, out, err = zoo_process(workplace, "fit", *layers, "--trainer.max_epochs", 1)
    assert code == 0, out + err
    run = only_run(workplace)
    assert ",val/mean_similarity," in (run / "metrics.csv").read_text().splitlines()[0]
    flag = ("--model.evaluation.metrics.again", "my_metrics.MeanSimilarity")
    code, out, err = zoo_process(workplace, "test", "--ckpt_path", run / "checkpoints" / "last.ckpt", *flag)
    assert code == 0, out + err
    metrics = yaml.safe_load((run / "test.json").read_text())["metrics"]
    assert metrics["test/again"] == metrics["test/mean_similarity"]


# --- a loss ----------------------------------------------------------------------------------------------------


def test_the_new_loss_is_the_naive_sum(monkeypatch):
    from zoo.tasks.retrieval.registry import LOSSES

    monkeypatch.setattr(LOSSES, "_builders", dict(LOSSES._builders))
    namespace = {"__name__": "my_losses"}
    exec(block("Add a loss", "python"), namespace)
    images, texts = torch.nn.functional.normalize(torch.randn(2, 4, 6), dim=2)
    image_ids, query_ids = torch.tensor([1, 2, 3, 1]), torch.tensor([5, 6, 7, 8])
    expected = 0.0
    for i in range(4):
        others = [j for j in range(4) if image_ids[j] != image_ids[i]]
        rows = torch.stack([10 * images[i] @ texts[j] for j in others]).logsumexp(0)
        columns = torch.stack([10 * images[j] @ texts[i] for j in others]).logsumexp(0)
        expected += float((rows + columns) / 2 - 10 * images[i] @ texts[i]) / 4
    loss = namespace["decoupled"](temperature=0.1)(images, texts, image_ids=image_ids, query_ids=query_ids)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_the_new_loss_is_two_lines_of_yaml(workplace, zoo_process, only_run):
    (workplace / "my_losses.py").write_text(block("Add a loss", "python"))
    (workplace / "experiments" / "loss.yaml").write_text(block("Add a loss", "yaml"))
    layers = ("--config", "experiments/tiny.yaml", "--config", "experiments/loss.yaml")
    code, out, err = zoo_process(workplace, "fit", *layers, "--trainer.max_epochs", 1)
    assert code == 0, out + err
    run = only_run(workplace)
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["loss"] == "decoupled"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["imports"] == ["my_losses"]


# --- a task ----------------------------------------------------------------------------------------------------


def test_a_task_is_new_files_alone():
    diff = block("Add a task", "diff")
    assert diff.count("diff --git ") == diff.count("\nnew file mode 100644\n--- /dev/null\n")
    assert not re.findall(r"^-(?!-- /dev/null$)", diff, re.MULTILINE)
    assert len(re.findall(r"^\+(?!\+\+ b/)", diff, re.MULTILINE)) <= 350


def test_the_new_task_passes_its_own_tests_and_the_rules_of_the_house(patched):
    tests = ("tests/tasks/classification", "tests/test_architecture.py")
    code, printed = run(patched, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *tests)
    assert code == 0, printed
    assert passed(printed)
    for rule in (("check",), ("format", "--check")):
        code, printed = run(patched, "-m", "ruff", *rule, TASK, tests[0])
        assert code == 0, printed


@pytest.fixture(scope="module")
def labels(patched, tmp_path_factory):
    """A table of 24 images to train on, 12 to validate, 12 to test, as ``data import`` leaves them."""
    folder = tmp_path_factory.mktemp("labels")
    rows = ["image,text,split"]
    for place, split in enumerate(["train"] * 24 + ["valid"] * 12 + ["test"] * 12):
        label = list(COLOURS)[place % 6]
        Image.new("RGB", (30 + place, 40), COLOURS[label]).save(folder / f"{place}.png")
        rows.append(f"{place}.png,{label},{split}")
    (folder / "colours.csv").write_text("\n".join(rows))
    files = ("--table", folder / "colours.csv", "--images", folder)
    command = ("data", "import", "classification", folder / "data" / "Labels", *files)
    code, printed = run(patched, "-m", "zoo", *command)
    assert code == 0, printed
    return folder


@pytest.fixture
def fit(labels, patched, tmp_path):
    """Trains the new task in ``tmp_path``: ``code, printed = fit(package, *words)``."""
    shutil.copytree(patched / "experiments", tmp_path / "experiments")
    (tmp_path / "quick.yaml").write_text(QUICK.replace("ROOT", str(labels / "data")))
    layers = ("--config", "experiments/classification_demo.yaml", "--config", "quick.yaml")

    def train(package, *words, processes=1, interrupt="never never -1 none"):
        several = ("--trainer.strategy", "ddp", "--trainer.devices", processes) if processes > 1 else ()
        return run(package, "-m", "zoo", "fit", *layers, *words, *several, folder=tmp_path, INTERRUPT=interrupt)

    return train


def only_run_of(folder):
    (run_folder,) = (folder / "classification_demo").iterdir()
    return run_folder


def scored_and_loaded(package, folder, labels):
    """The test accuracy of the newest run, and the labels that ``zoo.load`` gives three images of the test split."""
    code, printed = run(package, "-m", "zoo", "test", folder=folder)
    assert code == 0, printed
    images = [str(labels / f"{place}.png") for place in (36, 37, 38)]
    code, printed = run(
        package,
        "-c",
        "import zoo, PIL.Image, sys; task = zoo.load('runs/classification_demo');"
        " print(task.classify([PIL.Image.open(path) for path in sys.argv[1:]]))",
        *images,
        folder=folder,
    )
    assert code == 0, printed
    numbers = yaml.safe_load((only_run_of(folder / "runs") / "test.json").read_text())["metrics"]
    return numbers["test/accuracy"], yaml.safe_load(printed.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.ddp
def test_the_new_task_resumes_exactly_on_two_processes_is_scored_and_loads(fit, patched, labels, tmp_path):
    code, printed = fit(patched, "--runs", "whole", processes=2)
    assert code == 0, printed
    whole = (only_run_of(tmp_path / "whole") / "metrics.csv").read_text()
    assert len(re.findall(r"^2,", whole, re.MULTILINE)) >= 3  # steps and a validation of the last epoch
    code, printed = fit(patched, processes=2, interrupt="kill end 5 all")
    assert code in (-9, 1), printed
    cut = only_run_of(tmp_path / "runs") / "metrics.csv"
    assert cut.read_text() != whole
    code, printed = fit(patched, "--ckpt_path", "last", processes=2)
    assert code == 0, printed
    assert cut.read_text() == whole
    accuracy, found = scored_and_loaded(patched, tmp_path, labels)
    assert 0 <= accuracy <= 100
    assert len(found) == 3
    assert set(found) <= set(COLOURS)


@pytest.mark.slow
def test_the_new_task_is_installed_as_a_package_of_its_own(fit, patched, labels, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(patched / TASK, site / "product_labels", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (site / "product_labels").iterdir():
        path.write_text(path.read_text().replace("zoo.tasks.classification", "product_labels"))
    (information := site / "product_labels-1.dist-info").mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: product-labels\nVersion: 1\n")
    entry = block("From a package of your own", "toml").replace('[project.entry-points."zoo.tasks"]', "[zoo.tasks]")
    (information / "entry_points.txt").write_text(re.sub(r'"| *#.*', "", entry))
    package = (site, REPOSITORY)
    code, printed = fit(package)
    assert code == 0, printed
    accuracy, found = scored_and_loaded(package, tmp_path, labels)
    assert 0 <= accuracy <= 100
    assert set(found) <= set(COLOURS)
