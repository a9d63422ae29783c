"""The embedded data: made once, whole or not at all, and held against what is frozen."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo.data.catalogue import demo
from zoo.data.catalogue.make import MADE, counts_of
from zoo.errors import UserError


@pytest.fixture
def small(monkeypatch, tmp_path, demo_root):
    """A cache of its own, where the tests' small catalogue is what is drawn and frozen; lists what was drawn."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    drawn, record = [], demo.summary(demo_root)

    def write(root):
        drawn.append(root)
        shutil.copytree(demo_root, root, ignore=shutil.ignore_patterns(demo.FROZEN))

    monkeypatch.setattr(demo, "write_catalogue", write)
    monkeypatch.setattr(demo, "frozen", lambda: record)
    return drawn


def test_what_is_frozen_are_the_files_of_the_size_demo(demo_root):
    """The same files as of any size; of as many images, whose ids are in the frozen files."""
    record, small = demo.frozen(), demo.summary(demo_root)
    for part in ("files_sha256", "pixels_sha256", "drawn_with"):
        assert set(record[part]) == set(small[part])
    assert len(record["pixels_sha256"]) == 6
    assert {path.name for path in demo_root.rglob("*.*") if path.suffix == ".jsonl"} == {
        name.rpartition("/")[2] for name in record["files_sha256"] if name.endswith(".jsonl")
    }


def test_it_is_made_once(tmp_path, small):
    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(lambda _: demo.demo_root(), range(8)))
    assert roots == {tmp_path / demo.NAME}
    assert len(small) == 1
    assert {entry.name for entry in tmp_path.iterdir()} - {"tsv"} == {"demo.lock", demo.NAME}  # tsv: indices


def test_what_another_version_of_zoo_has_made_is_made_again(small, monkeypatch):
    root, record = demo.demo_root(), json.loads(json.dumps(demo.frozen()))
    old = json.loads((root / demo.FROZEN).read_text())
    old["files_sha256"]["ECommerce-IC/IC_train.jsonl"] = "of another version"
    (root / demo.FROZEN).write_text(json.dumps(old))
    assert demo.demo_root() == root
    assert len(small) == 2
    assert json.loads((root / demo.FROZEN).read_text()) == record


@pytest.mark.parametrize("name", [MADE, demo.FROZEN, "catalogue_test.jsonl", "ECommerce-IC/IC_valid.tsv"])
def test_a_damaged_copy_in_the_cache_is_made_again(small, name):
    file = demo.demo_root() / name
    file.write_bytes(file.read_bytes()[:-3])
    assert not demo.is_frozen(file.parents[name.count("/")])
    assert demo.demo_root() / name == file
    assert len(small) == 2
    demo.demo_root()
    assert len(small) == 2


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch, small):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Set the environment variable ZOO_CACHE"):
        demo.demo_root()


def test_other_pixels_are_told_and_other_texts_are_refused(tmp_path, monkeypatch, small, capsys):
    record = json.loads(json.dumps(demo.frozen()))
    monkeypatch.setattr(demo, "frozen", lambda: record)
    first = next(iter(record["pixels_sha256"]))
    record["pixels_sha256"][first] = "other"
    record["drawn_with"]["resvg_py"] = "0.1"
    demo.demo_root()
    assert "differ from the frozen ones, drawn with resvg_py 0.1" in capsys.readouterr().err
    shutil.rmtree(tmp_path / demo.NAME)
    record["files_sha256"]["ECommerce-IC/IC_train.jsonl"] = "other"
    for _ in range(2):  # nor the second time, as if it had been right
        with pytest.raises(UserError, match=r"other than frozen \(ECommerce-IC/IC_train.jsonl first\)"):
            demo.demo_root()
    assert not (tmp_path / f".{demo.NAME}").exists()


def test_its_counts_are_those_that_the_documentation_tells():
    counts = counts_of("demo")
    assert [counts[split].images for split in ("train", "valid", "test")] == [12_000, 1_000, 3_000]
    assert [counts[split].queries for split in ("valid", "test")] == [500, 1_500]
