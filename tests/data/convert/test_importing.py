import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from zoo.data import images
from zoo.data.attributes import read_attributes
from zoo.data.check import check_folder
from zoo.data.convert import importing
from zoo.data.convert.images import prepare
from zoo.data.convert.importing import ImportOptions, import_folder
from zoo.data.convert.splits import Pair, split_by_column, split_by_shares
from zoo.data.convert.tables import Table
from zoo.data.formats import read_captions, read_queries, read_text_tsv
from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL, ECommerceT2I
from zoo.data.tsv import ImageTsv
from zoo.errors import UserError


def encoded(seed, kind="JPEG", mode="RGB", size=(20, 14), **options):
    """An image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class Shop:
    """Images and a table of them: ``shop.add("a.jpg", "红色", "短裤")``; ``shop.get(layout)`` imports."""

    def __init__(self, root):
        self.root = root
        self.lines = []
        (root / "images").mkdir(parents=True)

    def add(self, name, *texts, data=None, split=None):
        if data is not False:
            path = self.root / "images" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data or encoded(zlib.crc32(name.encode())))
        self.lines += [f"{name},{text},{split}" if split else f"{name},{text}" for text in texts]

    def get(self, layout, out="out", **options):
        names = ("image", "text", "split", *options.get("attributes", ()))
        header = ",".join(names[: self.lines[0].count(",") + 1])
        (self.root / "pairs.csv").write_text("\n".join([header, *self.lines]) + "\n")
        options = {"images": self.root / "images", "table": self.root / "pairs.csv", **options}
        return import_folder(self.root / out, ImportOptions(layout=layout, **options))


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


@pytest.fixture
def full_shop(shop):
    """Forty images; each has a text of its own, some a second, and some share one."""
    for number in range(40):
        shop.add(f"{number}.jpg", f"商品{number}", *([f"同款{number // 20}"] if number % 10 == 0 else []))
    return shop


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- the files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [MULTIMODAL_RETRIEVAL, ECOMMERCE_T2I, ECOMMERCE_IC])
@pytest.mark.parametrize("by_column", [False, True])
def test_what_is_imported_is_clean(full_shop, layout, by_column):
    if by_column:
        full_shop.lines = [f"{line},{'test' if '同款1' in line else 'train'}" for line in full_shop.lines]
        full_shop.lines = [line for line in full_shop.lines if not line.startswith(("20.jpg,商", "30.jpg,商"))]
        for number in range(3):
            full_shop.add(f"v{number}.jpg", f"验证{number}", split="dev")
    assert full_shop.get(layout).errors == []
    assert check_folder(full_shop.root / "out", layout).errors == []


def test_one_text_of_several_images_is_one_query(shop):
    shop.add("a.jpg", "短裤", "红色短裤", split="train")
    shop.add("b.jpg", "短裤", split="train")
    shop.get(MULTIMODAL_RETRIEVAL)
    queries = read_queries(shop.root / "out" / "MR_train_queries.jsonl")
    assert [(query.query_id, query.text, query.item_ids) for query in queries] == [
        (1, "短裤", (1, 2)),
        (2, "红色短裤", (1,)),
    ]


def test_several_texts_of_an_image_are_its_references(shop):
    shop.add("a.jpg", "短裤", "红色短裤", split="train")
    shop.get(ECOMMERCE_IC)
    (caption,) = read_captions(shop.root / "out" / "IC_train.jsonl")
    assert caption.texts == ("短裤", "红色短裤")
    assert caption.image_id == hashlib.md5((shop.root / "images" / "a.jpg").read_bytes()).hexdigest()


def test_several_descriptions_of_an_image_each_get_a_copy(shop):
    shop.add("a.jpg", "短裤", "红色短裤", split="val")
    shop.get(ECOMMERCE_T2I)
    descriptions = read_text_tsv(shop.root / "out" / "T2I_val.txt.tsv")
    pictures = ImageTsv(shop.root / "out" / "T2I_val.img.tsv", str)
    assert [text for _, text, _ in descriptions] == ["短裤", "红色短裤"]
    assert [image_id for image_id, _, _ in descriptions] == pictures.ids.tolist()
    assert pictures[0] == pictures[1] == (shop.root / "images" / "a.jpg").read_bytes()


def test_the_answers_of_the_test_split_lie_beside_it(shop):
    shop.add("a.jpg", "短裤", split="test")
    shop.get(MULTIMODAL_RETRIEVAL)
    shop.get(ECOMMERCE_IC, "captions")
    assert "item_ids" not in (shop.root / "out" / "MR_test_queries.jsonl").read_text()
    assert read_queries(shop.root / "out" / "MR_test_answers.jsonl")[0].item_ids == (1,)
    assert "text" not in (shop.root / "captions" / "IC_test.jsonl").read_text()
    assert read_captions(shop.root / "captions" / "IC_test_answers.jsonl")[0].texts == ("短裤",)


def test_equal_files_are_one_image(shop):
    shop.add("a.jpg", "短裤", data=encoded(0), split="train")
    shop.add("b/c.jpg", "红色短裤", data=encoded(0), split="train")
    assert shop.get(MULTIMODAL_RETRIEVAL).counts == {"train": {"images": 1, "texts": 2, "pairs": 2}}
    assert json.loads((shop.root / "out" / "ids.jsonl").read_text()) == {"image_id": 1, "names": ["a.jpg", "b/c.jpg"]}


def test_rows_that_repeat_others_count_once(shop):
    shop.add("a.jpg", "短裤", "短裤 ", split="train")
    report = shop.get(MULTIMODAL_RETRIEVAL)
    assert report.counts["train"]["pairs"] == 1
    assert "1 rows repeat the image and text of others, and count once." in report.notes


@pytest.mark.parametrize("name", ["{root}/images/b/a.jpg", "b\\a.jpg", "./b//a.jpg", "c/../b/a.jpg"])
def test_paths_may_be_written_otherwise(shop, name):
    shop.add("b/a.jpg", "短裤", split="train")
    shop.add(name.format(root=shop.root), "红色短裤", data=False, split="train")
    assert shop.get(MULTIMODAL_RETRIEVAL).counts["train"]["images"] == 1
    assert json.loads((shop.root / "out" / "ids.jsonl").read_text())["names"] == ["b/a.jpg"]


def test_a_table_may_hold_the_images(tmp_path, monkeypatch):
    class Held(Table):
        def records(self, columns, errors):
            yield from ((number, {"image": "a.jpg", "text": f"商品{number}"}) for number in (1, 2, 3, 4))

        def holds_images(self, column):
            return True

        def images(self, column):
            yield from ((1, encoded(1)), (2, encoded(2)), (3, encoded(1)), (4, None))

    table = Held(tmp_path / "a.parquet")
    table.path.touch()
    table.columns = ["image", "text"]
    monkeypatch.setattr(importing, "open_table", lambda path: table)
    options = ImportOptions(layout=ECOMMERCE_IC, table=table.path, valid=0, test=0, on_error="skip")
    report = import_folder(tmp_path / "out", options)
    assert [str(fault) for fault in report.errors] == [
        f"{table.path}:4: a.jpg: an empty image (0 bytes); replace the image, or take the line out"
    ]
    names = [json.loads(line)["names"] for line in (tmp_path / "out" / "ids.jsonl").read_text().splitlines()]
    assert names == [["a.jpg"], ["a-2.jpg"]]  # two images, the first with two texts


# --- attributes --------------------------------------------------------------------------------------------------


@pytest.fixture
def told(shop):
    """Four images, whose rows tell colour and pattern, or the one, or nothing."""
    shop.add("a.jpg", "短裤", split="train,红色,条纹")
    shop.add("a.jpg", "红色短裤", split="train,,")
    shop.add("b.jpg", "裙子", split="train,蓝色,")
    shop.add("c.jpg", "上衣", split="valid,,")
    shop.add("d.jpg", "袜子", split="test,红色,波点")
    return shop


KINDS = ["颜色", "图案"]


def shown(folder, split):
    """What the images of a split show, by the first of their names."""
    lines = map(json.loads, (folder / "ids.jsonl").read_text().splitlines())
    names = {line["image_id"]: line["names"][0] for line in lines}
    return {names[id_]: attributes for id_, attributes in read_attributes(folder, split).items()}


@pytest.mark.parametrize("layout", [MULTIMODAL_RETRIEVAL, ECOMMERCE_T2I, ECOMMERCE_IC])
def test_what_images_show_is_written_for_each(told, layout):
    assert told.get(layout, attributes=KINDS).errors == []
    out = told.root / "out"
    assert shown(out, "train") == {"a.jpg": {"颜色": "红色", "图案": "条纹"}, "b.jpg": {"颜色": "蓝色"}}
    assert shown(out, "valid") == {"c.jpg": {}}
    assert shown(out, "test") == {"d.jpg": {"颜色": "红色", "图案": "波点"}}
    for split in ("train", "valid", "test"):
        assert (
            list(read_attributes(out, split)) == ImageTsv(layout.find(out, split).images, layout.id_type).ids.tolist()
        )
    assert json.loads((out / "attributes.json").read_text()) == {
        "words": {"颜色": {"红色": ["红色"], "蓝色": ["蓝色"]}, "图案": {"条纹": ["条纹"], "波点": ["波点"]}},
        "unsaid": [],
    }
    assert check_folder(out, layout).errors == []


def test_nothing_is_written_of_attributes_that_nobody_names(shop):
    shop.add("a.jpg", "短裤", split="train")
    shop.get(ECOMMERCE_IC)
    assert not list((shop.root / "out").glob("attributes*"))


def test_each_row_of_an_image_may_tell_something_else(shop):
    """Under whatever name, and also where it repeats image and text of another."""
    shop.add("a.jpg", "短裤", data=encoded(0), split="train,红色,")
    shop.add("a.jpg", "短裤", data=encoded(0), split="train,红色,条纹")
    shop.add("b.jpg", "短裤", data=encoded(0), split="train,,条纹")
    assert shop.get(ECOMMERCE_IC, attributes=KINDS).errors == []
    assert shown(shop.root / "out", "train") == {"a.jpg": {"颜色": "红色", "图案": "条纹"}}


def test_a_row_that_contradicts_an_earlier_one_is_an_error(told):
    told.add("e.jpg", "短裙", data=(told.root / "images" / "b.jpg").read_bytes(), split="train,红色,格子")
    told.add("b.jpg", "长裙", split="train,蓝色,波点")
    (error,) = told.get(ECOMMERCE_IC, attributes=KINDS).errors
    assert (error.file, error.line) == (str(told.root / "pairs.csv"), 7)
    assert error.message.startswith("e.jpg: '颜色' is '红色', but '蓝色' on line 4, which is of this image too; write ")
    report = told.get(ECOMMERCE_IC, attributes=KINDS, on_error="skip")
    assert report.counts["train"] == {"images": 2, "texts": 4, "pairs": 4}
    assert shown(told.root / "out", "train")["b.jpg"] == {"颜色": "蓝色", "图案": "波点"}
    assert "格子" not in (told.root / "out" / "attributes.json").read_text()


# --- images ----------------------------------------------------------------------------------------------------


ROTATED = Image.Exif()
ROTATED[0x112] = 6


@pytest.mark.parametrize(
    "data",
    [encoded(0), encoded(0, mode="CMYK"), encoded(0, exif=ROTATED), encoded(0, "PNG"), encoded(0, "PNG", "RGBA")],
)
def test_jpeg_and_png_stay_as_they_are(data):
    assert prepare(data, None) is data
    assert prepare(data, 20) is data


@pytest.mark.parametrize(
    ("kind", "mode", "written"),
    [
        ("WEBP", "RGB", "JPEG"),
        ("WEBP", "RGBA", "PNG"),
        ("GIF", "P", "PNG"),
        ("BMP", "RGB", "JPEG"),
        ("TIFF", "CMYK", "JPEG"),
    ],
)
def test_other_kinds_are_encoded_again(kind, mode, written):
    data = encoded(0, kind, mode)
    prepared = prepare(data, None)
    assert images.read_header(prepared)[:2] == (written, "RGB")
    difference = np.abs(images.decode(prepared).astype(int) - images.decode(data))
    assert difference.mean() < (5 if written == "JPEG" else 1e-9)


@pytest.mark.parametrize(("exif", "expected"), [(None, (21, 30)), (ROTATED, (30, 21))])
def test_images_that_are_too_large_keep_their_shape(exif, expected):
    prepared = prepare(encoded(0, size=(100, 70), **({"exif": exif} if exif else {})), 30)
    assert images.decode(prepared).shape[:2] == expected


def test_transparency_is_laid_over_white_when_an_image_is_made_smaller():
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(buffer, "PNG")
    prepared = prepare(buffer.getvalue(), 10)
    assert images.read_header(prepared).format == "PNG"
    assert (images.decode(prepared) == 255).all()


def test_memory_does_not_grow_with_the_images(shop):
    for number in range(60):
        shop.add(f"{number}.png", f"商品{number}", data=encoded(number, "PNG", size=(300, 300)))
    tracemalloc.start()
    shop.get(MULTIMODAL_RETRIEVAL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(path.stat().st_size for path in (shop.root / "images").iterdir()) > 16e6
    assert peak < 9e6


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty_shop(shop):
    shop.add("a.jpg", "短裤", "", split="train")
    shop.add("b.jpg", "红色", "蓝色", data=encoded(0)[:300], split="train")
    shop.add("c.jpg", "绿色", data=False, split="train")
    shop.add("../pairs.csv", "紫色", data=False, split="train")
    shop.add("d.txt", "黄色", data=b"hello", split="train")
    shop.add("e.jpg", "黑色", "短裤", split="test")
    return shop


def test_every_error_is_listed_and_nothing_is_written(faulty_shop):
    report = faulty_shop.get(MULTIMODAL_RETRIEVAL)
    found = [str(fault).removeprefix(f"{faulty_shop.root}/pairs.csv:") for fault in report.errors]
    assert [fault[:28] for fault in found] == [
        "2: this text is in test too ",
        "3: no text under 'text'; wri",
        "4: b.jpg: an image that cann",
        "5: b.jpg: an image that cann",
        "6: no file c.jpg below --ima",
        "7: ../pairs.csv is not below",
        "8: d.txt: not an image: 5 by",
    ]
    assert all(";" in fault for fault in found)
    assert report.counts == {}
    assert not (faulty_shop.root / "out").exists()


def test_rows_with_errors_can_be_left_out(faulty_shop):
    report = faulty_shop.get(MULTIMODAL_RETRIEVAL, on_error="skip")
    assert len(report.errors) == 7
    assert report.counts == {"test": {"images": 1, "texts": 2, "pairs": 2}}
    assert "train has no rows, and no files: the folder is for evaluation alone." in report.notes


def test_images_read_before_errors_were_found_are_kept(faulty_shop):
    faulty_shop.get(MULTIMODAL_RETRIEVAL)
    report = faulty_shop.get(MULTIMODAL_RETRIEVAL, on_error="skip")
    assert "2 images had been read before, and were kept." in report.notes
    assert not (faulty_shop.root / ".out.import").exists()


def test_an_image_that_was_fixed_is_read_again(shop):
    shop.add("a.jpg", "短裤", split="train")
    shop.add("b.jpg", "", split="train")
    assert len(shop.get(MULTIMODAL_RETRIEVAL).errors) == 1
    (shop.root / "images" / "a.jpg").write_bytes(encoded(77, size=(9, 9)))
    shop.lines.pop()
    shop.get(MULTIMODAL_RETRIEVAL)
    assert ImageTsv(shop.root / "out" / "MR_train_imgs.tsv")[0] == encoded(77, size=(9, 9))


def test_a_path_that_starts_higher_up_says_what_to_give(shop):
    shop.add("a.jpg", "短裤")
    shop.add("images/a.jpg", "红色", data=False)
    (fault,) = shop.get(MULTIMODAL_RETRIEVAL).errors
    assert fault.message == f"no file images/a.jpg below --images, but below {shop.root}; give that"


def test_a_name_that_no_file_can_have_is_an_error_of_its_line(shop):
    shop.add("x" * 300, "短裤", data=False)
    (error,) = shop.get(MULTIMODAL_RETRIEVAL).errors
    assert (error.line, error.message[:12]) == (2, "no file xxxx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": 1.0}, "--valid is 1.0: give 0 or more"),
        ({"test": -0.1}, "--test is -0.1: give 0 or more"),
        ({"test": 1.0}, "--test is 1.0: give 0 or more, below 1"),
        ({"valid": 0.5, "test": 0.5}, "--valid is 0.5 and --test 0.5: together they must be below 1"),
        ({"out": "/"}, "/ is there already: give a new or empty folder"),
        ({"valid": 0.5, "split_column": "split"}, "are both given"),
        ({"max_size": 0}, "--max_size is 0: give 1 pixel or more"),
        ({"images": None}, "--images is not given: name the folder"),
        ({"images": "nowhere"}, "--images nowhere is not there: give a folder"),
        ({"out": "images"}, "images is there already: give a new or empty folder"),
    ],
)
def test_a_wrong_argument_is_an_error(shop, options, message):
    shop.add("a.jpg", "短裤")
    with pytest.raises(UserError, match=message):
        shop.get(**{"layout": MULTIMODAL_RETRIEVAL, **options})


def test_a_table_without_rows_is_an_error(shop):
    shop.add("a.jpg", "")
    with pytest.raises(UserError, match=r"has no row that can be taken\. .*pairs.csv:2: no text"):
        shop.get(MULTIMODAL_RETRIEVAL, on_error="skip")


# --- splits ------------------------------------------------------------------------------------------------------


def deal(pairs, valid=0.1, test=0.1, seed=0):
    """Split of each image, and the notes."""
    notes = []
    pairs = [Pair(line, picture, picture, text, None) for line, (picture, text) in enumerate(pairs, start=2)]
    splits = split_by_shares(pairs, valid=valid, test=test, seed=seed, notes=notes)
    return {pair.image: split for split, part in splits.items() for pair in part}, notes


TIED = [(f"p{number}", f"t{number // 3}") for number in range(300)] + [(f"p{n}", f"u{n % 40}") for n in range(80)]


def test_no_image_and_no_text_is_in_two_splits():
    split_of, _ = deal(TIED)
    texts = {(text, split_of[picture]) for picture, text in TIED}
    assert len(texts) == len({text for text, _ in texts})
    assert set(split_of.values()) == {"train", "valid", "test"}


def test_the_order_of_rows_changes_nothing():
    assert deal(TIED) == deal(random.Random(0).sample(TIED, len(TIED)))


def test_another_seed_deals_otherwise():
    assert deal(TIED)[0] != deal(TIED, seed=1)[0]


@pytest.mark.parametrize(
    ("valid", "test", "expected"), [(0.1, 0.1, (100, 100)), (0.25, 0, (250, 0)), (0.0001, 0, (1, 0))]
)
def test_shares_are_met_to_the_image(valid, test, expected):
    split_of, notes = deal([(f"p{number}", f"t{number}") for number in range(1000)], valid, test)
    found = list(split_of.values())
    assert (found.count("valid"), found.count("test")) == expected
    assert notes == []


def test_a_text_that_ties_everything_together_is_reported():
    pairs = [(f"p{number}", text) for number in range(50) for text in (f"t{number}", "短裤")][:90]
    split_of, notes = deal([*pairs, *((f"q{number}", f"q{number}") for number in range(5))])
    assert list(split_of.values()).count("train") == 45
    assert notes == [
        "valid has 0 of the 5 images asked for. 45 of all 50 hang together by texts they share and go to one split:"
        " 45 have the text '短裤', and p0 has 2 texts. Take out what says little, or give the table a column of splits."
    ]


def test_nothing_left_to_train_on_is_an_error():
    with pytest.raises(UserError, match="2 images cannot be split by --valid 0.1 --test 0.1"):
        deal([("p0", "t0"), ("p1", "t1")])


def test_what_a_column_puts_into_two_splits_is_an_error():
    rows = [("p0", "t0", "train"), ("p0", "t1", "test"), ("p1", "t1", "valid"), ("p2", "t2", "train")]
    errors = []
    splits = split_by_column(
        [Pair(n, p, p, *rest) for n, (p, *rest) in enumerate(rows, 2)], errors, joined=False, table="a.csv"
    )
    assert [str(fault).partition(";")[0] for fault in errors] == [
        "a.csv:2: this image is in test too (line 3, p0), here in train",
        "a.csv:4: this text is in test too (line 3, p0), here in valid",
    ]
    assert {name: [pair.line for pair in part] for name, part in splits.items()} == {
        "train": [5],
        "valid": [],
        "test": [3],
    }


def test_a_reference_may_be_in_two_splits_but_not_all_of_them():
    rows = [("p0", "t0", "train"), ("p0", "t1", "train"), ("p1", "t1", "test"), ("p2", "t1", "train")]
    errors = []
    split_by_column([Pair(n, p, p, *rest) for n, (p, *rest) in enumerate(rows, 2)], errors, joined=True, table="a.csv")
    assert [(error.file, error.line) for error in errors] == [("a.csv", 5)]


# --- interruptions -----------------------------------------------------------------------------------------------


KILL = """
import os, signal, sys
from zoo.data.layouts import ECOMMERCE_T2I
from zoo.data.convert.importing import ImportOptions, import_folder
root, stage, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
def kill(what, done, total):
    if what.startswith(stage) and done == after:
        os.kill(os.getpid(), signal.SIGKILL)
import_folder(f"{root}/out", ImportOptions(layout=ECOMMERCE_T2I, images=f"{root}/images", table=f"{root}/pairs.csv"),
              on_progress=kill)
"""


def kill_import(root, stage, after):
    done = subprocess.run([sys.executable, "-c", KILL, root, stage, str(after)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (root / "out").exists()


@pytest.mark.parametrize(("stage", "after"), [("Reading", 25), ("Writing", 20)])
def test_after_a_kill_it_goes_on_to_the_same_bytes(full_shop, stage, after):
    full_shop.get(ECOMMERCE_T2I, "whole")
    kill_import(full_shop.root, stage, after)
    with (full_shop.root / ".out.import" / "images.part").open("ab") as file:
        file.write(b'["0.jpg", "1-1", "half')
    report = full_shop.get(ECOMMERCE_T2I)
    assert any("images had been read before" in note for note in report.notes)
    assert contents(full_shop.root / "out") == contents(full_shop.root / "whole")
    assert [path.name for path in full_shop.root.iterdir() if path.name.startswith(".")] == []


def test_only_what_is_missing_is_read_again(full_shop, monkeypatch):
    full_shop.get(ECOMMERCE_T2I, "whole")
    kill_import(full_shop.root, "Reading", 25)
    read = []
    monkeypatch.setattr(
        "zoo.data.convert.images.prepare", lambda data, max_size: read.append(data) or prepare(data, max_size)
    )
    full_shop.get(ECOMMERCE_T2I)
    assert 0 < len(read) <= 15


def test_another_size_begins_anew(full_shop):
    full_shop.get(ECOMMERCE_T2I, "whole", max_size=10)
    kill_import(full_shop.root, "Reading", 25)
    full_shop.get(ECOMMERCE_T2I, max_size=10)
    assert contents(full_shop.root / "out") == contents(full_shop.root / "whole")


def test_another_table_is_not_mixed_with_the_one_before(full_shop):
    full_shop.get(ECOMMERCE_T2I, "whole")
    kill_import(full_shop.root, "Reading", 25)
    full_shop.lines = full_shop.lines[30:]
    full_shop.get(ECOMMERCE_T2I, "others")
    full_shop.get(ECOMMERCE_T2I)
    assert contents(full_shop.root / "out") == contents(full_shop.root / "others")


@pytest.mark.parametrize("content", [b"", b"null", b"\xff", b"[" * 100_000], ids=["empty", "null", "bytes", "deep"])
def test_what_was_begun_and_cannot_be_read_is_begun_anew(full_shop, content):
    full_shop.get(ECOMMERCE_T2I, "whole")
    work = full_shop.root / ".out.import"
    work.mkdir()
    (work / "metadata.json").write_bytes(content)
    (work / "images.part").write_bytes(content)
    full_shop.get(ECOMMERCE_T2I)
    assert contents(full_shop.root / "out") == contents(full_shop.root / "whole")


def test_what_an_import_left_that_was_stopped_at_its_end_is_removed(full_shop):
    full_shop.get(ECOMMERCE_T2I)
    (full_shop.root / ".out.import").mkdir()
    with pytest.raises(UserError, match="is there already"):
        full_shop.get(ECOMMERCE_T2I)
    assert not os.path.exists(full_shop.root / ".out.import")


@pytest.mark.parametrize("split", ["by its column", "by shares"])
def test_images_of_all_splits_share_labels(shop, split):
    """A text that is a label ties no images together, and stands in every split."""
    layout = ECommerceT2I(folder="Labels", names=(("{}.img.tsv", "{}.txt.tsv"),), noun="label", labels=True)
    for number in range(40):
        of = ("train", "valid", "test")[number % 3] if split == "by its column" else None
        shop.add(f"{number}.jpg", ("短裤", "裙子")[number // 20], split=of)
    report = shop.get(layout)
    assert not report.errors
    assert not report.notes
    expected = (14, 13, 13) if split == "by its column" else (32, 4, 4)
    assert tuple(report.counts[name]["images"] for name in ("train", "valid", "test")) == expected
    assert not check_folder(report.folder, layout).errors
