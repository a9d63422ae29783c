"""CONTRIBUTING.md's example backbone is applied to a copy of the package, held to the contract, and trained with."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from zoo.data.formats import Query, write_image_tsv, write_queries

REPOSITORY = Path(__file__).parents[2]
NAME = "patch_mixer_tiny"


def example_diff():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    diffs = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(diffs) == 1
    return diffs[0]


def run(folder, *words):
    """Run Python in a copy of the repository, whose package comes before the installed one; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A copy of what the diff and the tests of it need, with the diff applied."""
    copy = tmp_path_factory.mktemp("contributing")
    for name in ("zoo", "experiments", "tests/models"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    done = subprocess.run(
        ["git", "apply", "-"],
        cwd=copy,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)},  # it is no part of a repository
        input=example_diff(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"CONTRIBUTING.md's diff no longer applies:\n{done.stderr}"
    return copy


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    """A Multimodal_Retrieval folder of 40 pictures."""
    root = tmp_path_factory.mktemp("muge") / "Multimodal_Retrieval"
    generator = np.random.default_rng(0)
    first = 1
    for split, count in (("train", 16), ("valid", 12), ("test", 12)):
        ids = range(first, first + count)
        first += count
        pixels = {i: Image.fromarray(generator.integers(256, size=(32, 32, 3), dtype=np.uint8)) for i in ids}
        write_image_tsv(root / f"MR_{split}_imgs.tsv", ((i, jpeg(picture)) for i, picture in pixels.items()))
        queries = [Query(i, f"第{i}件商品", (i,) if split != "test" else ()) for i in ids]
        write_queries(root / f"MR_{split}_queries.jsonl", queries)
    return root


def jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return file.getvalue()


def test_the_diff_is_one_new_file_and_one_line_of_yaml():
    diff = example_diff()
    added = re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE)
    assert added == ["experiments/clip_demo.yaml", "zoo/models/patch_mixer.py"]
    assert re.findall(r"^[+-] .*$", diff.partition("diff --git a/zoo")[0], re.MULTILINE) == [
        "-    image_tower: resnet10t",
        f"+    image_tower: {NAME}",
    ]


def test_the_new_tower_keeps_the_contract(patched):
    contract = "tests/models/test_tower_contract.py"
    words = ("-q", "-p", "no:cacheprovider", contract, "-k", "patch_mixer or documented")
    printed = run(patched, "-m", "pytest", *words)
    assert " passed" in printed
    assert "skipped" not in printed


def test_the_new_tower_trains(patched, small_root, tmp_path):
    run(
        patched,
        *("-m", "zoo", "fit", "--config", "experiments/clip_demo.yaml", "--config", "experiments/_overlays/smoke.yaml"),
        *("--runs", str(tmp_path), "--data.root", str(small_root), "--data.num_workers", "0", "--data.batch_size", "4"),
        *("--model.text_tower_options", "{width: 32, num_layers: 1}", "--trainer.num_sanity_val_steps", "0"),
    )
    (folder,) = (tmp_path / "clip_demo").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["init_args"]["image_tower"] == NAME
    assert (folder / "checkpoints" / "last.ckpt").is_file()
