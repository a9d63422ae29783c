import json
import shutil

import numpy as np
import pytest
import torch

from zoo.data.formats import write_image_tsv
from zoo.errors import UserError
from zoo.tasks.captioning.contracts import CaptionData
from zoo.tasks.captioning.data import CaptioningDataModule


def module(root, **options):
    return CaptioningDataModule(str(root), **{"image_size": 32, "batch_size": 8, "num_workers": 0, **options})


def references(root, split):
    name = "IC_test_answers" if split == "test" else f"IC_{split}"
    lines = (root / "ECommerce-IC" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["image_id"]: record["text"] for record in map(json.loads, lines)}


@pytest.fixture
def copy(muge_root, tmp_path):
    """A copy of the captioning files, to break."""
    shutil.copytree(muge_root / "ECommerce-IC", tmp_path / "ECommerce-IC")
    return tmp_path


def test_contract(muge_root):
    assert isinstance(module(muge_root), CaptionData)


def test_a_training_epoch_has_every_image_with_a_reference_of_its_own(muge_root):
    data, wanted = module(muge_root), references(muge_root, "train")
    data.setup("fit")
    seen = {}
    for batch in data.train_dataloader():
        assert batch["image"].shape == (8, 3, 32, 32)
        assert batch["image"].dtype == torch.uint8
        assert batch["image_index"].tolist() == list(range(8))
        seen |= dict(zip(batch["image_id"], batch["text"], strict=True))
    assert seen.keys() == wanted.keys()
    assert all(text in wanted[image_id] for image_id, text in seen.items())


def test_references_are_drawn_anew_each_epoch_and_the_same_again(muge_root):
    data = module(muge_root)
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    epochs = [dataset.__getitems__([(epoch, row) for row in range(24)])["text"] for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2]
    assert epochs[0] != epochs[1]


def test_a_batch_can_have_several_references_of_an_image(muge_root):
    wanted = references(muge_root, "train")
    for count in (2, None):
        data = module(muge_root, captions_per_image=count)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert len(batch["text"]) == len(batch["image_index"]) > 8
        for index, image_id in enumerate(batch["image_id"]):
            own = [
                text
                for text, image_index in zip(batch["text"], batch["image_index"].tolist(), strict=True)
                if image_index == index
            ]
            assert len(own) == len(set(own)) == min(count or 3, len(wanted[image_id]))
            assert set(own) <= set(wanted[image_id])


def test_max_references_keeps_the_first(muge_root):
    data, wanted = module(muge_root, max_references=1), references(muge_root, "valid")
    targets = data.targets("valid")
    assert targets.references == [(wanted[image_id][0],) for image_id in targets.image_ids]


def test_an_evaluation_has_every_image_once_in_file_order_with_all_references(muge_root):
    data, wanted = module(muge_root, eval_batch_size=5), references(muge_root, "valid")
    data.setup("fit")
    batches = list(data.val_dataloader()[0])
    assert [image_id for batch in batches for image_id in batch["image_id"]] == list(wanted)
    for batch in batches:
        texts = [[] for _ in batch["image_id"]]
        for text, image_index in zip(batch["text"], batch["image_index"].tolist(), strict=True):
            texts[image_index].append(text)
        assert texts == [wanted[image_id] for image_id in batch["image_id"]]


def test_val_images_are_spread_over_the_file(muge_root):
    data = module(muge_root, valid_images=4)
    data.setup("validate")
    assert data.targets("valid").rows == [0, 3, 6, 9]
    assert [row for batch in data.val_dataloader()[0] for row in batch["row"].tolist()] == [0, 3, 6, 9]
    assert len(data.targets("train").rows) == 24


def test_images_are_those_of_the_file(muge_root):
    from zoo.data import images
    from zoo.data.tsv import ImageTsv

    data = module(muge_root)
    pictures = ImageTsv(muge_root / "ECommerce-IC" / "IC_valid.tsv", id_type=str)
    by_id = {image_id: images.decode(pictures[row]) for row, image_id in enumerate(pictures.ids)}
    for row, image_id in enumerate(data.targets("valid").image_ids):
        assert np.array_equal(data.image("valid", row), by_id[image_id])


def test_a_test_split_without_answers_can_only_be_predicted(copy):
    (copy / "ECommerce-IC" / "IC_test_answers.jsonl").unlink()
    data = module(copy)
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()[0]))
    assert "text" not in batch
    assert data.targets("test").references is None
    with pytest.raises(UserError, match=r"the test split has no references \(.*IC_test\.jsonl\): it can only be predi"):
        data.setup("test")


def test_an_image_without_references_among_others_is_an_error(copy):
    path = copy / "ECommerce-IC" / "IC_valid.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    image_id = json.loads(lines[4])["image_id"]
    lines[4] = json.dumps({"image_id": image_id})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"IC_valid\.jsonl:5: image {image_id}: has no text, and others have"):
        module(copy).open("valid")


def test_broken_rows_are_named_or_left_out(copy, capsys):
    folder = copy / "ECommerce-IC"
    captions = (folder / "IC_valid.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["image_id"] for line in captions]
    lines = (folder / "IC_valid.tsv").read_text().splitlines()
    index = {line.partition("\t")[0]: number for number, line in enumerate(lines)}
    lines[index[ids[2]]] = f"{ids[2]}\t{lines[index[ids[2]]].partition(chr(9))[2][:40]}"  # cut short
    del lines[index[ids[7]]]
    (folder / "IC_valid.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"IC_valid\.jsonl:8: line of references {ids[7]}: has no image in"):
        module(copy).open("valid")
    data = module(copy, on_error="skip")
    assert data.targets("valid").image_ids == [image_id for image_id in ids if image_id not in (ids[2], ids[7])]
    said = capsys.readouterr().err
    assert "leaving out of valid: 2 broken rows" in said
    assert ids[2] in said
    assert ids[7] in said


def test_malformed_lines_are_named_or_left_out(copy, capsys):
    path = copy / "ECommerce-IC" / "IC_valid.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["image_id"] for line in lines]
    lines[1] = lines[1][:-3]
    lines[3] = json.dumps({"image_id": ids[3]})
    lines[5] = lines[4]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"IC_valid\.jsonl:2: image {ids[1]}: not JSON"):
        module(copy).open("valid")
    kept = module(copy, on_error="skip").targets("valid").image_ids
    assert kept == [image_id for index, image_id in enumerate(ids) if index not in (1, 3, 5)]
    said = capsys.readouterr().err
    assert "leaving out of valid: 6 broken rows" in said  # three lines, and their images
    for words in (
        "IC_valid.jsonl:2:",
        f"IC_valid.jsonl:4: image {ids[3]}: has no text",
        f"IC_valid.jsonl:6: image {ids[4]}: the id is already on line 5",
    ):
        assert words in said


def test_an_image_that_nobody_describes_is_an_error(copy):
    path = copy / "ECommerce-IC" / "IC_train.tsv"
    data = [tuple(line.split("\t")) for line in path.read_text().splitlines()]
    from zoo.data.images import decode_base64

    write_image_tsv(path, [*((id_, decode_base64(text)) for id_, text in data), ("f" * 32, decode_base64(data[0][1]))])
    with pytest.raises(UserError, match=r"IC_train\.tsv:25: image f{32}: has no line of references in"):
        module(copy).open("train")


def test_the_source_changes_with_references_and_images(muge_root, copy):
    source = module(muge_root).targets("valid").source
    same = module(copy).targets("valid").source
    assert source.split(", ")[1] == same.split(", ")[1]
    path = copy / "ECommerce-IC" / "IC_valid.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("一个", "这个", 1), encoding="utf-8")
    assert module(copy).targets("valid").source != same


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "data.batch_size is 0: give 1 or more"),
        ({"captions_per_image": 0}, "data.captions_per_image is 0: give 1 or more"),
        ({"max_references": 0}, "data.max_references is 0"),
        ({"valid_images": 0}, "data.valid_images is 0"),
        ({"flip": 1.5}, "data.flip is 1.5"),
        ({"crop_scale": (0.9, 0.5)}, "data.crop_scale is"),
    ],
)
def test_options_out_of_range_are_refused(muge_root, options, words):
    with pytest.raises(UserError, match=words):
        module(muge_root, **options)


def test_an_unknown_split_names_the_valid_ones(muge_root):
    with pytest.raises(UserError, match=r"Split 'val' is not one of train, valid, test\. Did you mean valid\?"):
        module(muge_root).open("val")
