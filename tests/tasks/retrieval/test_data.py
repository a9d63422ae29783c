import json
import pickle
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo.core.loaders import resolve_root
from zoo.data import images
from zoo.data.formats import write_queries
from zoo.errors import UserError
from zoo.tasks.retrieval.data import RetrievalDataModule


def module(root, **options):
    data = RetrievalDataModule(str(root), **{"image_size": 24, "batch_size": 5, "num_workers": 0, **options})
    data.setup("fit")
    return data


@pytest.fixture
def spoiled(muge_root, tmp_path):
    """A copy whose training images 1003 and 1005 are broken."""
    root = tmp_path / "spoiled"
    shutil.copytree(muge_root, root)
    folder = root / "Multimodal_Retrieval"
    lines = (folder / "MR_train_imgs.tsv").read_text().splitlines()
    lines[3], lines[5] = "1003\t@@@@", lines[5][: len(lines[5]) // 2]
    (folder / "MR_train_imgs.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_a_training_row_is_one_query_and_one_of_its_images(muge_root):
    data = module(muge_root)
    queries = [json.loads(line) for line in (data.folder / "MR_train_queries.jsonl").read_text().splitlines()]
    expected = {(query["query_id"], item) for query in queries for item in query["item_ids"]}
    pairs = data.train_dataloader().dataset
    assert len(pairs) == len(expected)
    batches = [pairs.__getitems__([(0, row)]) for row in range(len(pairs))]
    assert {(int(batch["query_id"]), int(batch["image_id"])) for batch in batches} == expected
    texts = {query["query_id"]: query["query_text"] for query in queries}
    assert all(batch["text"] == [texts[int(batch["query_id"])]] for batch in batches)


def test_a_row_knows_all_images_of_its_query(muge_root):
    data = module(muge_root, train_splits=["valid", "train"])
    pairs = data.train_dataloader().dataset
    expected = {}
    for split in ("valid", "train"):
        targets = data.targets(split)
        expected |= dict(zip(targets.query_ids, targets.positives, strict=True))
    batch = pairs.__getitems__([(0, row) for row in reversed(range(len(pairs)))])
    assert batch["positives"].dtype == torch.int64
    assert batch["positives"].shape == (len(pairs), 4)  # a colour's images; -1 fills behind a query's only one
    for query_id, image_id, known in zip(batch["query_id"], batch["image_id"], batch["positives"], strict=True):
        items = expected[int(query_id)]
        assert known.tolist() == [*items, *[-1] * (4 - len(items))]
        assert image_id in known


@pytest.mark.parametrize("workers", [0, 1])
def test_positives_are_as_wide_in_every_batch_and_left_out_where_each_query_names_one(demo_root, tmp_path, workers):
    wide = module(demo_root, batch_size=100, num_workers=workers)
    queries = wide.open("train").queries
    most = max(len(query.item_ids) for query in queries)
    assert {batch["positives"].shape for batch in wide.train_dataloader()} == {(100, most)}
    folder = tmp_path / "Multimodal_Retrieval"
    folder.mkdir()
    for file in (demo_root / "Multimodal_Retrieval").glob("MR_*"):
        if file.name != "MR_train_queries.jsonl":
            (folder / file.name).symlink_to(file)
    write_queries(folder / "MR_train_queries.jsonl", [replace(each, item_ids=each.item_ids[:1]) for each in queries])
    narrow = module(tmp_path, batch_size=100, num_workers=workers)
    assert "positives" not in next(iter(narrow.train_dataloader()))


def test_what_is_trained_on_can_be_read_once_each(demo_root):
    data = module(demo_root, train_splits=["valid", "test"], eval_batch_size=100, flip=1.0)
    pairs = data.training_pairs()
    dataset = data.train_dataloader().dataset
    rows = [0, 7, len(pairs) - 1]
    batch = dataset.__getitems__([(0, row) for row in rows])
    np.testing.assert_array_equal(pairs[rows], torch.stack([batch["query_id"], batch["image_id"]], dim=1))
    queries, gallery = data.training_loaders()
    texts = {query.query_id: query.text for split in ("valid", "test") for query in data.open(split).queries}
    read = {int(i): text for batch in queries for i, text in zip(batch["query_id"], batch["text"], strict=True)}
    assert read == {int(query_id): texts[int(query_id)] for query_id in pairs[:, 0]}
    read = {int(i): image for batch in gallery for i, image in zip(batch["image_id"], batch["image"], strict=True)}
    assert read.keys() == set(pairs[:, 1].tolist())
    assert len(read) == len(gallery.dataset)
    last = int(pairs[:, 1].max())  # ids of test are the highest
    np.testing.assert_array_equal(read[last].permute(1, 2, 0), images.resize(data.image("test", last), 24))


def test_a_training_loader_begins_at_its_first_batch(muge_root):
    asked = []
    data = module(muge_root, num_workers=2)
    data.regroup(lambda epoch: asked.append(epoch))
    loader = data.train_dataloader()
    batches = iter(loader)
    assert asked == []
    first = next(batches)["query_id"]
    assert asked == [0]
    assert torch.equal(next(iter(loader))["query_id"], first)  # begun anew, by the same workers
    assert asked == [0, 0]
    assert len(list(loader)) == len(loader)


def test_pairs_are_related_by_the_query_of_most_images(demo_root):
    data = module(demo_root, group_size=6, batch_size=64)
    pairs, queries = data.train_dataloader().dataset.pairs, data.open("train").queries
    related = data.train_dataloader().batch_sampler.groups
    images = data.open("train").images.ids[pairs[:, 1]].tolist()
    for group, image in zip(related.tolist(), images, strict=True):
        most = max(len(query.item_ids) for query in queries if image in query.item_ids)
        assert image in queries[group].item_ids
        assert len(queries[group].item_ids) == most


def test_several_splits_are_trained_on_as_one(muge_root):
    data = module(muge_root, train_splits=["train", "test", "valid"], batch_size=1)
    dataset = data.train_dataloader().dataset
    expected = []
    for split in ("train", "test", "valid"):
        targets = data.targets(split)
        gallery = {id_: images.resize(data.image(split, id_), 24) for id_ in targets.image_ids}
        for query_id, text, items in zip(targets.query_ids, targets.texts, targets.positives, strict=True):
            expected += [(query_id, text, item, gallery[item]) for item in items]
    dataset.crop_scale = (1.0, 1.0)
    batch = dataset.__getitems__([(0, row) for row in range(len(dataset))])
    for row, (query_id, text, item, image) in enumerate(expected):
        assert (batch["query_id"][row], batch["text"][row], batch["image_id"][row]) == (query_id, text, item)
        np.testing.assert_array_equal(batch["image"][row].permute(1, 2, 0), image)
    assert len(expected) == len(dataset)
    own = module(muge_root).train_dataloader()
    groups = data.train_dataloader().batch_sampler.groups
    np.testing.assert_array_equal(groups[: len(own.dataset)], own.batch_sampler.groups)
    assert not set(groups[: len(own.dataset)]) & set(groups[len(own.dataset) :])


def test_the_training_split_comes_out_the_same_with_others_behind_it(muge_root):
    options = {"crop_scale": (0.3, 1.0), "flip": 0.5, "degrade": 0.5}
    alone, joined = (
        module(muge_root, train_splits=splits, **options).train_dataloader().dataset
        for splits in (["train"], ["train", "valid", "test"])
    )
    keys = [(1, row) for row in range(len(alone))]
    assert torch.equal(alone.__getitems__(keys)["image"], joined.__getitems__(keys)["image"])
    keys = [(1, row) for row in range(len(alone), len(joined))]
    assert len({image.numpy().tobytes() for image in joined.__getitems__(keys)["image"]}) == len(keys)


def test_a_split_without_answers_cannot_be_trained_on(muge_root, tmp_path):
    shutil.copytree(muge_root, tmp_path / "copy")
    (tmp_path / "copy" / "Multimodal_Retrieval" / "MR_test_answers.jsonl").unlink()
    with pytest.raises(UserError, match=r"the test split at .*MR_test_imgs\.tsv has no \(query, image\) pair"):
        module(tmp_path / "copy", train_splits=["train", "test"]).train_dataloader()


@pytest.mark.parametrize(
    ("old", "new", "named"), [('"query_id": 300', '"query_id": 100', "query 100"), ("3000\t", "1000\t", "image 1000")]
)
def test_splits_that_share_an_id_are_not_trained_on_together(muge_root, tmp_path, old, new, named):
    shutil.copytree(muge_root, tmp_path / "copy")
    for file in (tmp_path / "copy" / "Multimodal_Retrieval").glob("MR_test_*"):
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"{named} is in the train and in the test split \(and 0 more\)"):
        module(tmp_path / "copy", train_splits=["train", "test"], on_error="skip").train_dataloader()


@pytest.mark.parametrize("splits", [[], ["train", "train"]])
def test_training_splits_are_some_and_each_once(muge_root, splits):
    with pytest.raises(UserError, match=r"data\.train_splits is \[.*\]: give one split or several, each once"):
        module(muge_root, train_splits=splits)


def test_degrading_changes_the_share_asked_for_and_no_other_draw(muge_root):
    def batch(degrade):
        options = {"crop_scale": (0.3, 1.0), "flip": 0.5, "auto_augment": True, "degrade": degrade}
        dataset = module(muge_root, **options).train_dataloader().dataset
        return dataset.__getitems__([(epoch, row) for epoch in range(4) for row in range(len(dataset))])

    plain, half, again, always = batch(0.0), batch(0.5), batch(0.5), batch(1.0)
    changed = (half["image"] != plain["image"]).flatten(1).any(1)
    assert 0.35 < changed.float().mean() < 0.65
    assert (always["image"] != plain["image"]).flatten(1).any(1).all()
    assert all(torch.equal(plain["flip"], other["flip"]) for other in (half, always))
    assert torch.equal(half["image"], again["image"])


def test_batches_are_raw(muge_root):
    batch = next(iter(module(muge_root).train_dataloader()))
    assert batch["image"].shape == (5, 3, 24, 24)
    assert batch["image"].dtype == torch.uint8
    assert len(batch["text"]) == len(batch["image_id"]) == len(batch["query_id"]) == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_is_a_function_of_seed_epoch_and_row(muge_root, workers):
    def epoch(seed, batch_size):
        data = module(muge_root, crop_scale=(0.3, 1.0), flip=0.5, seed=seed, batch_size=batch_size, num_workers=workers)
        batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
        keys = torch.cat([batch["query_id"] * 10_000 + batch["image_id"] for batch in batches]).tolist()
        return dict(zip(keys, torch.cat([batch["image"] for batch in batches]), strict=True))

    first, again, others = epoch(0, 4), epoch(0, 6), epoch(1, 4)
    shared = first.keys() & again.keys()
    assert len(shared) > 30
    assert all(torch.equal(first[key], again[key]) for key in shared)
    assert any(not torch.equal(first[key], others[key]) for key in first.keys() & others.keys())


def test_every_epoch_is_augmented_anew(muge_root):
    pairs = module(muge_root, crop_scale=(0.3, 1.0)).train_dataloader().dataset
    first, second = pairs.__getitems__([(0, 3)]), pairs.__getitems__([(1, 3)])
    assert not torch.equal(first["image"], second["image"])


def test_a_flip_is_a_mirror_image(muge_root):
    data = module(muge_root, crop_scale=(1.0, 1.0), flip=1.0)
    batch = data.train_dataloader().dataset.__getitems__([(0, 0)])
    plain = batch["image"].clone()
    flipped = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(flipped["image"], plain.flip(-1))
    assert "flip" not in flipped


def test_evaluation_reads_each_query_and_image_once_without_augmentation(muge_root):
    data = module(muge_root, crop_scale=(0.3, 0.4), flip=1.0, eval_batch_size=5)
    queries, gallery = data.val_dataloader()
    targets = data.targets("valid")
    assert torch.cat([batch["query_id"] for batch in queries]).tolist() == targets.query_ids
    assert [text for batch in queries for text in batch["text"]] == targets.texts
    assert torch.cat([batch["image_id"] for batch in gallery]).tolist() == targets.image_ids
    first = next(iter(gallery))["image"][0].permute(1, 2, 0).numpy()
    expected = images.resize(data.image("valid", targets.image_ids[0]), 24)
    np.testing.assert_array_equal(first, expected)


def test_test_answers_come_from_the_file_beside_the_queries(muge_root, tmp_path):
    data = RetrievalDataModule(str(muge_root), image_size=24)
    targets = data.targets("test")
    lines = (data.folder / "MR_test_answers.jsonl").read_text().splitlines()
    assert [list(items) for items in targets.positives] == [json.loads(line)["item_ids"] for line in lines]
    shutil.copytree(muge_root, tmp_path / "copy")
    (tmp_path / "copy" / "Multimodal_Retrieval" / "MR_test_answers.jsonl").unlink()
    assert RetrievalDataModule(str(tmp_path / "copy"), image_size=24).targets("test").positives is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_names_file_line_and_id(spoiled, workers):
    with pytest.raises(UserError, match=r"MR_train_imgs\.tsv:(4: image 1003|6: image 1005)"):
        list(module(spoiled, num_workers=workers).train_dataloader())


def test_skip_leaves_broken_images_out_and_lists_them_at_the_end(spoiled, capsys):
    data = module(spoiled, on_error="skip")
    batches = list(data.train_dataloader())
    seen = {int(image_id) for batch in batches for image_id in batch["image_id"]}
    assert not seen & {1003, 1005}
    capsys.readouterr()
    data.teardown("fit")
    told = capsys.readouterr().err
    assert "left out: 2 broken rows" in told
    assert "MR_train_imgs.tsv:4: image 1003" in told
    assert "MR_train_imgs.tsv:6: image 1005" in told


def test_an_item_that_is_not_there_is_an_error_or_left_out(muge_root, tmp_path, capsys):
    shutil.copytree(muge_root, tmp_path / "copy")
    file = tmp_path / "copy" / "Multimodal_Retrieval" / "MR_train_queries.jsonl"
    file.write_text(file.read_text().replace("1001", "4242"))
    with pytest.raises(UserError, match=r"MR_train_queries\.jsonl:\d+: query \d+: names image 4242"):
        module(tmp_path / "copy")
    data = module(tmp_path / "copy", on_error="skip")
    assert 4242 not in {int(id_) for batch in data.train_dataloader() for id_ in batch["image_id"]}
    assert "names image 4242" in capsys.readouterr().err


def test_skip_lists_malformed_lines_and_queries_without_images(muge_root, tmp_path, capsys):
    shutil.copytree(muge_root, tmp_path / "copy")
    folder = tmp_path / "copy" / "Multimodal_Retrieval"
    with (folder / "MR_train_queries.jsonl").open("a") as file:
        file.write('{"query_id": 7\n{"query_id": 8, "query_text": "a", "item_ids": []}\n')
    number = len((folder / "MR_train_queries.jsonl").read_text().splitlines())
    lines = (folder / "MR_train_imgs.tsv").read_text()
    (folder / "MR_train_imgs.tsv").write_text(f"no tab\n{lines}")
    with pytest.raises(UserError, match=r"MR_train_imgs\.tsv:1: no tab"):
        module(tmp_path / "copy")
    data = module(tmp_path / "copy", on_error="skip")
    told = capsys.readouterr().err
    assert "leaving out of train: 3 broken rows" in told
    assert "MR_train_imgs.tsv:1: no tab" in told
    assert f"MR_train_queries.jsonl:{number - 1}: query 7: not JSON" in told
    assert f"MR_train_queries.jsonl:{number}: query 8: names no image" in told
    assert len(data.train_dataloader().dataset) == len(module(muge_root).train_dataloader().dataset)


def test_a_query_without_answer_is_an_error_or_listed(muge_root, tmp_path, capsys):
    shutil.copytree(muge_root, tmp_path / "copy")
    answers = tmp_path / "copy" / "Multimodal_Retrieval" / "MR_test_answers.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match=r"MR_test_answers\.jsonl: query 300: no answer"):
        module(tmp_path / "copy").targets("test")
    targets = module(tmp_path / "copy", on_error="skip").targets("test")
    assert targets.query_ids[0] == 300
    assert targets.positives[0] == ()
    assert "leaving out of test: 1 broken rows" in capsys.readouterr().err


def test_a_batch_larger_than_the_split_becomes_one_batch(muge_root, capsys):
    data = module(muge_root, batch_size=500)
    rows = len(data.train_dataloader().dataset)
    assert [len(batch["text"]) for batch in data.train_dataloader()] == [rows]
    assert f"training with {rows}" in capsys.readouterr().err


def test_data_sets_travel_to_workers(muge_root):
    for dataset in (module(muge_root).train_dataloader().dataset, module(muge_root).val_dataloader()[1].dataset):
        keys = [(0, 1), (0, 2)] if hasattr(dataset, "pairs") else [1, 2]
        copy = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(copy.__getitems__(keys)["image"], dataset.__getitems__(keys)["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"crop_scale": (0.5, 1.5)}, r"data\.crop_scale is \[0\.5, 1\.5\]"),
        ({"flip": 2.0}, r"data\.flip is 2\.0"),
        ({"degrade": 1.5}, r"data\.degrade is 1\.5"),
        ({"num_workers": -1}, r"data\.num_workers is -1"),
        ({"group_size": 0}, r"data\.group_size is 0"),
        ({"seed": -1}, r"data\.seed is -1"),
        ({"image_size": "auto"}, r"data\.image_size is auto and there is no trainer"),
    ],
)
def test_impossible_options_are_refused(muge_root, options, message):
    with pytest.raises(UserError, match=message):
        module(muge_root, **options)


def test_root_auto(tmp_path, monkeypatch, demo_root, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUGE_ROOT", raising=False)
    assert resolve_root("auto") == demo_root
    assert "using the embedded images" in capsys.readouterr().err
    assert resolve_root("auto/scorer") == demo_root / "scorer"
    (tmp_path / "data" / "MUGE").mkdir(parents=True)
    assert str(resolve_root("auto")) == "data/MUGE"
    monkeypatch.setenv("MUGE_ROOT", str(tmp_path))
    assert resolve_root("auto") == tmp_path
    monkeypatch.setenv("MUGE_ROOT", str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"\$MUGE_ROOT is .*absent"):
        resolve_root("auto")
    monkeypatch.setenv("MUGE_ROOT", str(tmp_path))
    with pytest.raises(UserError, match=r"data\.root is auto/scorer: there is no folder"):
        resolve_root("auto/scorer")
    with pytest.raises(UserError, match=r"data\.root is nowhere"):
        resolve_root("nowhere")


def test_beside_other_processes_workers_come_from_a_server_without_threads(muge_root):
    """A worker forked beside gloo's threads hung once in some hundreds of starts."""
    for world_size, device, method in ((1, "cuda", "forkserver"), (1, "cpu", None), (2, "cpu", "forkserver")):
        data = module(muge_root, num_workers=1, batch_size=2)
        strategy = SimpleNamespace(root_device=torch.device(device))
        place = {"global_rank": 0, "world_size": world_size, "strategy": strategy}
        data.trainer = SimpleNamespace(**place, limit_train_batches=1.0, fit_loop=None)
        for loader in (data.train_dataloader(), *data.val_dataloader()):
            assert loader.pin_memory == (device == "cuda")
            context = loader.multiprocessing_context
            assert (context and context.get_start_method()) == method
    text = next(iter(data.val_dataloader()[0]))["text"]
    assert text == [query.text for query in data.open("valid").queries][: len(text)]
    gallery = data.val_dataloader()[1].dataset
    assert len(pickle.dumps(gallery)) < 2000 + gallery.rows.nbytes  # what a server's worker is sent: not the index
