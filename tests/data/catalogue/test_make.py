"""The catalogue's files: whole, the same again, resumed, and without a text in two splits."""

import json

import pytest

from zoo.__main__ import main
from zoo.data.catalogue import make
from zoo.data.formats import read_captions, read_queries, read_text_tsv
from zoo.errors import UserError

SPLITS = {"train": 48, "valid": 4, "test": 12}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue") / "shop"
    assert main(["data", "catalogue", str(folder), "--size", "48", "--image_size", "32"]) == 0
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def truth(folder, split):
    return [json.loads(line) for line in (folder / f"catalogue_{split}.jsonl").read_text().splitlines()]


def test_every_split_is_whole_and_faultless(made):
    for root in (made, made / "scorer"):
        for task in ("retrieval", "text_to_image", "captioning"):
            assert main(["data", "check", task, str(root)]) == 0
    assert {split: len(truth(made, split)) for split in SPLITS} == SPLITS
    for split, count in SPLITS.items():
        name = "val" if split == "valid" else split
        assert len(read_text_tsv(made / "ECommerce-T2I" / f"T2I_{name}.txt.tsv")) == count
        answers = "_answers" if split == "test" else ""
        captions = read_captions(made / "ECommerce-IC" / f"IC_{split}{answers}.jsonl")
        assert [len(caption.texts) for caption in captions] == [make.CAPTIONS] * count


def test_no_text_is_in_two_splits(made):
    seen = {}
    for root in (made, made / "scorer"):
        for path in [*root.glob("[EM]*/*.jsonl"), *root.glob("[EM]*/*.txt.tsv")]:
            if "test" in path.name and "answers" not in path.name and path.suffix == ".jsonl":
                continue  # the same, without answers
            if path.name.startswith("attributes"):
                continue
            if path.name.startswith("MR"):
                found = [query.text for query in read_queries(path)]
            elif path.suffix == ".tsv":
                found = [description.text for description in read_text_tsv(path)]
            else:
                found = [text for caption in read_captions(path) for text in caption.texts]
            for text in found:
                assert seen.setdefault(text, path) == path
    assert len(seen) > 500


def test_it_is_the_same_again_and_goes_on_where_it_stopped(made, tmp_path, monkeypatch):
    class StopError(Exception):
        pass

    added, add, most = [], make.ImageStore.add, 52

    def counted(store, source, digest, data):
        if len(added) == most:
            raise StopError
        add(store, source, digest, data)
        added.append(source.key)

    monkeypatch.setattr(make.ImageStore, "add", counted)
    (tmp_path / "shop" / ".drawn").mkdir(parents=True)  # all that a call leaves which is killed at once
    with pytest.raises(StopError):
        make.write_catalogue(tmp_path / "shop", size=48, image_size=32)
    with (tmp_path / "shop" / ".drawn" / "images.part").open("ab") as file:
        file.write(b"torn")
    (tmp_path / "shop" / "ECommerce-IC").mkdir()
    (tmp_path / "shop" / "ECommerce-IC" / ".IC_train.123-0123abcd.tsv").write_bytes(b"begun when it was killed")
    with pytest.raises(UserError, match="holds something else already"):
        make.write_catalogue(tmp_path / "shop", size=48, image_size=64)
    most = 1000
    make.write_catalogue(tmp_path / "shop", size=48, image_size=32)
    images = sum(counts.images for counts in make.counts_of(48).values())
    assert len(added) == len(set(added)) == images
    assert contents(tmp_path / "shop") == contents(made)
    (made / ".drawn").mkdir()
    assert make.write_catalogue(made, size=48, image_size=32) == json.loads((made / "catalogue.json").read_text())
    assert not (made / ".drawn").exists()


@pytest.mark.parametrize(
    ("options", "argument"),
    [({"size": "huge"}, "--size"), ({"size": 3}, "--size"), ({"image_size": 8}, "--image_size")],
)
def test_what_cannot_be_made_is_refused_by_name(tmp_path, options, argument):
    with pytest.raises(UserError) as caught:
        make.write_catalogue(tmp_path / "shop", **options)
    assert caught.value.argument == argument
    assert not (tmp_path / "shop").exists()


def test_muges_size_is_muges():
    counts = make.counts_of("muge")
    assert [counts[split].images for split in SPLITS] == [129_380, 29_806, 30_399]
    assert [counts[split].described for split in SPLITS] == [90_000, 5_000, 5_000]
    assert [counts[split].captioned for split in SPLITS] == [50_000, 5_000, 10_000]
