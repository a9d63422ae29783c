import pickle
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo.core.loaders import spread
from zoo.data import images
from zoo.data.formats import Description, read_text_tsv
from zoo.data.tsv import ImageTsv
from zoo.errors import UserError
from zoo.tasks.text_to_image.contracts import GenerationData
from zoo.tasks.text_to_image.data import TextToImageDataModule
from zoo.tasks.text_to_image.latents import LatentMetadata, Latents, LatentsWriter


def module(root, *, stage="fit", **options):
    data = TextToImageDataModule(str(root), **{"image_size": 24, "batch_size": 5, "num_workers": 0, **options})
    data.setup(stage)
    return data


def place(rank, world_size, processed=0):
    """What a loader asks of a trainer."""
    progress = SimpleNamespace(total=SimpleNamespace(processed=processed))
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        is_global_zero=rank == 0,
        limit_train_batches=1.0,
        limit_val_batches=1.0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )


def rows_of(loader):
    return [row for batch in loader for row in batch["row"].tolist()]


@pytest.fixture
def copy(muge_root, tmp_path):
    """A copy of the tiny data that a test may change."""
    shutil.copytree(muge_root / "ECommerce-T2I", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def lines(copy):
    """Reads a file's lines; with a second argument, writes them."""

    def lines(name, changed=None):
        if changed is not None:
            (copy / name).write_text("\n".join(changed) + "\n", encoding="utf-8")
        return (copy / name).read_text(encoding="utf-8").splitlines()

    return lines


def test_it_is_what_the_callbacks_ask_for(muge_root):
    assert isinstance(module(muge_root), GenerationData)


# --- joining ---------------------------------------------------------------------------------------------------


def test_malformed_lines_are_named_or_left_out(copy, lines, capsys):
    own = lines("T2I_val.txt.tsv")
    ids = [line.split("\t")[0] for line in own]
    changed = [*own[:2], own[2].replace("\t", " "), *own[3:6], f"{ids[6]}\t ", own[5], *own[8:]]
    lines("T2I_val.txt.tsv", changed)
    with pytest.raises(UserError, match=r"T2I_val\.txt\.tsv:3: no tab in"):
        module(copy).targets("valid")
    kept = module(copy, on_error="skip").targets("valid").image_ids
    assert kept == [image_id for place, image_id in enumerate(ids) if place not in (2, 6, 7)]
    said = capsys.readouterr().err
    assert "leaving out of valid: 6 broken rows" in said  # three lines, and their pictures
    empty, twice = f"txt.tsv:7: image {ids[6]}: no text", f"txt.tsv:8: image {ids[5]}: the id is"
    for words in ("txt.tsv:3: no tab", empty, twice):
        assert words in said


@pytest.mark.parametrize("seed", [0, 1])
def test_descriptions_and_pictures_are_joined_by_id_whatever_their_order(muge_root, copy, lines, seed):
    for number, kind in enumerate(("txt", "img")):
        shuffled = random.Random(seed + number).sample(lines(f"T2I_val.{kind}.tsv"), 12)
        lines(f"T2I_val.{kind}.tsv", shuffled)
    data, original = module(copy), module(muge_root)
    targets, truth = data.targets("valid"), original.targets("valid")
    assert [line.split("\t")[0] for line in lines("T2I_val.txt.tsv")] == targets.image_ids
    for row, (image_id, text) in enumerate(zip(targets.image_ids, targets.texts, strict=True)):
        there = truth.image_ids.index(image_id)
        assert truth.texts[there] == text
        np.testing.assert_array_equal(data.image("valid", row), original.image("valid", there))
    batch = next(iter(data.val_dataloader()[0]))
    assert batch["text"] == targets.texts
    assert batch["image_id"] == targets.image_ids
    np.testing.assert_array_equal(batch["image"][3].permute(1, 2, 0), images.resize(data.image("valid", 3), 24))


def test_both_names_of_the_text_file_are_read(muge_root, copy):
    (copy / "T2I_val.txt.tsv").rename(copy / "T2I_val.text.tsv")
    assert module(copy).targets("valid").texts == module(muge_root).targets("valid").texts


def test_the_folder_is_known_from_itself_and_from_its_parent(muge_root):
    folders = {module(muge_root).folder, module(muge_root / "ECommerce-T2I").folder}
    assert folders == {muge_root / "ECommerce-T2I"}


def test_a_description_without_image_is_an_error_or_left_out(copy, lines, capsys):
    gone, *rest = lines("T2I_train.img.tsv")
    gone = gone.split("\t")[0]
    lines("T2I_train.img.tsv", rest)
    number = [line.split("\t")[0] for line in lines("T2I_train.txt.tsv")].index(gone) + 1
    with pytest.raises(UserError, match=rf"T2I_train\.txt\.tsv:{number}: description {gone}: has no image in .*img"):
        module(copy)
    data = module(copy, on_error="skip")
    assert f"T2I_train.txt.tsv:{number}: description {gone}" in capsys.readouterr().err
    assert rows_of(data.images_loader("train")) == list(range(23))  # a row is a place among those that are left
    targets = data.targets("train")
    assert gone not in targets.image_ids
    assert len(targets.texts) == len(targets.image_ids) == 23


def test_a_picture_without_description_is_an_error_or_left_out(copy, lines, capsys):
    gone = lines("T2I_train.txt.tsv")[7].split("\t")[0]
    lines("T2I_train.txt.tsv", [line for line in lines("T2I_train.txt.tsv") if not line.startswith(gone)])
    number = [line.split("\t")[0] for line in lines("T2I_train.img.tsv")].index(gone) + 1
    with pytest.raises(UserError, match=rf"T2I_train\.img\.tsv:{number}: image {gone}: has no description in"):
        module(copy)
    assert len(module(copy, on_error="skip").train_dataloader().dataset) == 23
    assert f"T2I_train.img.tsv:{number}: image {gone}" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_names_file_line_and_id(copy, lines, capsys, workers):
    pictures = lines("T2I_train.img.tsv")
    broken = pictures[4].split("\t")[0]
    lines("T2I_train.img.tsv", [*pictures[:4], pictures[4][: len(pictures[4]) // 2], *pictures[5:]])
    with pytest.raises(UserError, match=rf"T2I_train\.img\.tsv:5: image {broken}: "):
        list(module(copy, num_workers=workers, batch_size=4).train_dataloader())
    data = module(copy, on_error="skip", batch_size=1)
    assert broken not in {id_ for batch in data.train_dataloader() for id_ in batch["image_id"]}
    capsys.readouterr()
    data.teardown("fit")
    assert f"left out: 1 broken rows\n  {data.open('train').images.path}:5: image {broken}" in capsys.readouterr().err


def test_a_split_of_nothing_but_faults_is_an_error(copy, lines):
    lines("T2I_val.txt.tsv", ["other\t描述"])
    with pytest.raises(UserError, match=r"T2I_val\.txt\.tsv: has no description with an image that can be used"):
        module(copy, on_error="skip")


def test_files_that_are_missing_are_named(copy):
    (copy / "T2I_val.txt.tsv").unlink()
    with pytest.raises(UserError, match=r"has no T2I_val\.txt\.tsv or T2I_val\.text\.tsv\. It holds T2I_test"):
        module(copy)
    with pytest.raises(UserError, match=r"Split 'val' is not one of train, valid, test\. Did you mean valid"):
        module(copy, stage="test").targets("val")
    (copy / "T2I_train.img.tsv").unlink()
    with pytest.raises(UserError, match=r"the train split has no images \(.*T2I_train\.img\.tsv is not there\)"):
        module(copy)


# --- text files ------------------------------------------------------------------------------------------------


def test_texts_with_byte_order_mark_crlf_and_empty_lines_are_read(tmp_path):
    (tmp_path / "t.tsv").write_bytes("\ufeffa\t红色 方块\r\n\r\nb\t圆\t球".encode())
    assert read_text_tsv(tmp_path / "t.tsv") == [Description("a", "红色 方块", 1), Description("b", "圆\t球", 3)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("没有制表符".encode(), "no tab in"),
        (b"b\t \r", "image b: no text behind the tab"),
        ("\t描述".encode(), "image : the id is no text of 1"),
        ("a\t再一次".encode(), "image a: the id is already on line 1"),
        ("b\t裤".encode("gbk"), "image b: byte 0xbf at byte 3 is not UTF-8"),
    ],
)
def test_a_malformed_text_names_file_line_and_id(tmp_path, line, message):
    (tmp_path / "t.tsv").write_bytes("a\t方块\n".encode() + line + b"\n")
    with pytest.raises(UserError, match=rf"t\.tsv:2: {message}"):
        read_text_tsv(tmp_path / "t.tsv")


def test_missing_and_empty_text_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.tsv: cannot be read: No such file"):
        read_text_tsv(tmp_path / "nowhere.tsv")
    (tmp_path / "t.tsv").write_text("\n")
    with pytest.raises(UserError, match=r"t\.tsv: holds no rows"):
        read_text_tsv(tmp_path / "t.tsv")


def test_pictures_with_a_byte_order_mark_are_read(copy):
    path = copy / "T2I_val.img.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert module(copy).image("valid", 0).shape[2] == 3
    assert ImageTsv(path, id_type=str).line_number(0) == 1


# --- training --------------------------------------------------------------------------------------------------


def test_a_training_batch_is_raw(muge_root):
    data = module(muge_root)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (5, 3, 24, 24)
    assert batch["image"].dtype == torch.uint8
    targets = data.targets("train")
    assert batch["text"] == [targets.texts[row] for row in batch["row"]]
    assert batch["image_id"] == [targets.image_ids[row] for row in batch["row"]]
    assert "flip" not in batch


@pytest.mark.parametrize("done", [1, 3, 4, 6])
def test_a_resumed_run_goes_on_with_the_next_batch(muge_root, done):
    def batches(processed):
        data = module(muge_root, batch_size=6, crop_scale=(0.3, 1.0))
        data.trainer = place(0, 1, processed)
        return [(batch["row"].tolist(), batch["image"].numpy().tobytes()) for batch in data.train_dataloader()]

    whole = [*batches(0), *batches(4)]
    assert batches(done) == whole[done : (done // 4 + 1) * 4]
    assert sorted(row for rows, _ in whole[:4] for row in rows) == list(range(24))


def test_augmentation_is_a_function_of_seed_epoch_and_row(muge_root):
    def pictures(**options):
        data = module(muge_root, crop_scale=(0.3, 1.0), flip=0.5, **options)
        batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
        rows = torch.cat([batch["row"] for batch in batches]).tolist()
        return dict(zip(rows, torch.cat([batch["image"] for batch in batches]), strict=True))

    first, again, others = pictures(seed=0, batch_size=4), pictures(seed=0, batch_size=6), pictures(seed=1)
    assert all(torch.equal(first[row], again[row]) for row in range(24))
    assert sum(not torch.equal(first[row], others[row]) for row in others) > 10


def test_a_crop_keeps_the_picture_s_shape(muge_root, monkeypatch):
    boxes = []
    monkeypatch.setattr(
        images, "crop_resize", lambda image, box, size: boxes.append((image.shape, box)) or image[:1, :1]
    )
    module(muge_root, crop_scale=(0.2, 0.9)).train_dataloader().dataset.__getitems__([(0, row) for row in range(24)])
    for (height, width, _), (_, _, box_height, box_width) in boxes:
        assert box_width / box_height == pytest.approx(width / height, rel=0.1)
    assert len({box for _, box in boxes}) > 12


def test_a_flip_is_a_mirror_image(muge_root):
    data = module(muge_root, flip=1.0)
    batch = data.train_dataloader().dataset.__getitems__([(0, 0)])
    plain = batch["image"].clone()
    assert torch.equal(data.on_after_batch_transfer(batch, 0)["image"], plain.flip(-1))


def test_processes_share_an_epoch(muge_root):
    rows = []
    for rank in range(2):
        data = module(muge_root, batch_size=4)
        data.trainer = place(rank, 2)
        rows += rows_of(data.train_dataloader())
    assert sorted(rows) == list(range(24))


# --- evaluation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_row_is_read_once_over_all_processes(muge_root, world_size):
    read = {"valid": [], "test": [], "predict": [], "pictures": []}
    for rank in range(world_size):
        data = module(muge_root, stage="test", eval_batch_size=2, valid_images=7)
        data.trainer = place(rank, world_size)
        data.skip_rows = {0, 5}
        read["valid"].append(rows_of(data.val_dataloader()[0]))
        read["test"].append(rows_of(data.test_dataloader()[0]))
        read["predict"].append(rows_of(data.predict_dataloader()[0]))
        read["pictures"].append(rows_of(data.images_loader("train")))
    assert all(rows == sorted(rows) for kind in read.values() for rows in kind)
    every = {kind: sorted(row for part in rows for row in part) for kind, rows in read.items()}
    assert every["valid"] == data.targets("valid").rows
    assert len(every["valid"]) == 7
    assert every["test"] == list(range(12))
    assert every["predict"] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert every["pictures"] == list(range(24))


def test_more_processes_than_rows_are_refused(muge_root):
    data = module(muge_root, valid_images=2)
    data.trainer = place(0, 3)
    with pytest.raises(UserError, match="the valid split is smaller than the 3 processes"):
        data.val_dataloader()


def test_evaluation_is_not_augmented(muge_root):
    data = module(muge_root, crop_scale=(0.3, 0.4), flip=1.0)
    batch = next(iter(data.val_dataloader()[0]))
    assert "flip" not in batch
    np.testing.assert_array_equal(batch["image"][5].permute(1, 2, 0), images.resize(data.image("valid", 5), 24))


@pytest.mark.parametrize(("total", "count"), [(12, 1), (12, 5), (12, 7), (12, 12), (12, 50), (5000, 1000)])
def test_val_pictures_are_spread_evenly(total, count):
    places = spread(total, count).tolist()
    gaps = np.diff([*places, total])
    assert len(places) == min(total, count)
    assert places[0] == 0
    assert gaps.max() - gaps.min() <= 1
    assert places == sorted(set(places))


def test_val_pictures_are_of_the_validation_split_alone(muge_root):
    data = module(muge_root, valid_images=3)
    assert data.targets("valid").rows == [0, 4, 8]
    assert len(data.targets("valid").texts) == 12
    assert [len(data.targets(split).rows) for split in ("train", "test")] == [24, 12]


def test_training_descriptions_are_drawn_beside_a_splits_own(muge_root):
    data = module(muge_root, train_images=5, valid_images=3)
    assert [data.evaluated_splits(split) for split in ("valid", "test")] == [["valid", "train"], ["test", "train"]]
    assert [rows_of(loader) for loader in data.val_dataloader()] == [[0, 4, 8], [0, 4, 9, 14, 19]]
    data.setup("test")
    assert [rows_of(loader) for loader in data.test_dataloader()] == [list(range(12)), [0, 4, 9, 14, 19]]
    assert rows_of(data.images_loader("train")) == list(range(24))
    assert rows_of(data.images_loader("train", first=20)) == [20, 21, 22, 23]
    assert module(muge_root).evaluated_splits("valid") == ["valid"]


# --- latents -------------------------------------------------------------------------------------------------------


@pytest.fixture
def latents(copy, muge_root):
    """Latents of the copy's training pictures, flipped ones too: each is its row, or minus it."""
    source = module(copy).targets("train").source
    facts = LatentMetadata(source, image_size=24, image_tokenizer="some", weights="abc", flipped=True)
    writer = LatentsWriter(copy / "latents", facts, (24, 2, 1, 3, 3))
    rows = np.arange(24, dtype=np.float16)[:, None, None, None, None] * np.ones((1, 1, 1, 3, 3), np.float16)
    writer.write(np.concatenate([rows, -rows], axis=1))
    writer.finish()
    return copy / "latents"


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_latents_in_the_place_of_pictures(copy, latents, workers):
    data = module(copy, latents="latents", flip=0.5, num_workers=workers)
    plain = module(copy)
    flipped = 0
    for batch, other in zip(data.train_dataloader(), plain.train_dataloader(), strict=True):
        assert batch["text"] == other["text"]
        assert batch["latent"].shape == (5, 1, 3, 3)
        assert batch["latent"].dtype == torch.float32
        assert batch["latent"].abs()[:, 0, 0, 0].tolist() == batch["row"].tolist()
        assert not {"image", "flip"} & batch.keys()
        flipped += int((batch["latent"][:, 0, 0, 0] < 0).sum())
    assert 3 <= flipped <= 17
    assert "image" in next(iter(data.val_dataloader()[0]))
    again = [batch["latent"] for batch in module(copy, latents="latents", flip=0.5).train_dataloader()]
    assert torch.equal(torch.cat([batch["latent"] for batch in data.train_dataloader()]), torch.cat(again))


def test_latents_are_not_carried_to_the_workers(latents):
    opened = Latents(latents)
    assert opened.array.shape == (24, 2, 1, 3, 3)
    assert len(pickle.dumps(opened)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(opened)).array, opened.array)


def test_latents_of_other_pictures_are_refused(copy, latents, lines):
    with pytest.raises(
        UserError, match=r"crop_scale is \[0.5, 1.0\] and data.latents latents: latents are not cropped"
    ):
        module(copy, latents="latents", crop_scale=(0.5, 1.0))
    lines("T2I_train.txt.tsv", [line + "。" for line in lines("T2I_train.txt.tsv")])
    with pytest.raises(UserError, match="and the training images are .*: encode these"):
        module(copy, latents="latents").latents  # noqa: B018


def test_predict_reads_descriptions_alone(muge_root):
    for split in ("valid", "test"):
        data = module(muge_root, stage="predict", predict_split=split)
        batches = list(data.predict_dataloader()[0])
        assert [text for batch in batches for text in batch["text"]] == data.targets(split).texts
        assert all(set(batch) == {"text", "image_id", "row"} for batch in batches)
    data.skip_rows = set(range(12))
    assert rows_of(data.predict_dataloader()[0]) == []


def test_a_test_split_without_images_can_only_be_predicted(copy):
    (copy / "T2I_test.img.tsv").unlink()
    data = module(copy, stage="predict")
    assert rows_of(data.predict_dataloader()[0]) == list(range(12))
    targets = data.targets("test")
    assert (targets.has_images, targets.rows) == (False, list(range(12)))
    for use in (
        lambda: module(copy, stage="test"),
        data.test_dataloader,
        lambda: data.images_loader("test"),
        lambda: data.image("test", 0),
    ):
        with pytest.raises(UserError, match=r"the test split has no images \(.*T2I_test\.img\.tsv is not there\)"):
            use()
    assert module(copy).targets("valid").has_images


def test_the_source_names_the_folder_and_hashes_ids_texts_and_pictures(muge_root, copy, lines):
    def source(split="valid", **options):
        return module(copy, **options).targets(split).source

    first = source()
    assert module(muge_root).targets("valid").source == first.replace("copy", muge_root.name)
    assert first.startswith("copy, t2i ")
    assert len(first.rpartition(" ")[2]) == 12
    assert source(valid_images=3) == first
    original = lines("T2I_val.img.tsv")
    lines("T2I_val.img.tsv", original[::-1])
    assert source() == first  # the order of the pictures' lines is of no matter
    (one, first_picture), (two, second_picture) = (line.split("\t") for line in original[:2])
    lines("T2I_val.img.tsv", [f"{one}\t{second_picture}", f"{two}\t{first_picture}", *original[2:]])
    assert source() != first
    lines("T2I_val.img.tsv", original)
    lines("T2I_val.txt.tsv", [line.replace("方块", "方形") for line in lines("T2I_val.txt.tsv")])
    assert source() != first


# --- options, workers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size is 0: give 1 or more"),
        ({"valid_images": 0}, r"data\.valid_images is 0: give 1 or more"),
        ({"crop_scale": (0.5, 1.5)}, r"data\.crop_scale is \[0\.5, 1\.5\]"),
        ({"flip": -1.0}, r"data\.flip is -1\.0"),
        ({"image_size": "auto"}, r"data\.image_size is auto and there is no trainer"),
    ],
)
def test_impossible_options_are_refused(muge_root, options, message):
    with pytest.raises(UserError, match=message):
        module(muge_root, **options)


def test_the_picture_size_is_the_task_s(muge_root):
    data = TextToImageDataModule(str(muge_root), num_workers=0)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(image_size=16), **vars(place(0, 1)))
    data.setup("fit")
    assert data.image_size == 16
    assert next(iter(data.val_dataloader()[0]))["image"].shape == (12, 3, 16, 16)


@pytest.mark.parametrize("world_size", [1, 2])
def test_workers_read_the_same(muge_root, world_size):
    def batches(workers):
        data = module(muge_root, num_workers=workers, batch_size=4, eval_batch_size=3, crop_scale=(0.3, 1.0))
        data.trainer = place(0, world_size)
        return [batch for loader in (data.train_dataloader(), data.val_dataloader()[0]) for batch in loader]

    for alone, helped in zip(batches(0), batches(1), strict=True):
        assert alone["text"] == helped["text"]
        assert torch.equal(alone["image"], helped["image"])


def test_a_worker_is_sent_no_index(muge_root):
    dataset = module(muge_root).val_dataloader()[0].dataset
    dataset.opened.targets()
    assert len(pickle.dumps(dataset)) < 4000


def test_the_embedded_data_is_read(demo_root):
    data = module(demo_root, valid_images=10)
    targets = data.targets("valid")
    assert targets.has_images
    assert len(targets.rows) == 10
    assert data.image("valid", 0).shape == (64, 64, 3)
