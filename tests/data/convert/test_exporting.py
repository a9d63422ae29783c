import csv
import io
import json

import pytest
from PIL import Image

from zoo.data.convert.exporting import export_folder
from zoo.data.convert.importing import ImportOptions, import_folder
from zoo.data.formats import Query, write_image_tsv, write_queries, write_text_tsv
from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL
from zoo.errors import UserError

LAYOUTS = (MULTIMODAL_RETRIEVAL, ECOMMERCE_T2I, ECOMMERCE_IC)


def picture(colour, kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 9), colour).save(buffer, kind)
    return buffer.getvalue()


def pairs(folder):
    """The rows of the table."""
    with (folder / "pairs.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "image", "text"]
    return [tuple(row) for row in rows]


@pytest.fixture
def retrieval(tmp_path):
    """A test split of MUGE's, which has no answers: two images, one query."""
    write_image_tsv(tmp_path / "data" / "MR_test_imgs.tsv", [(7, picture("red")), (9, picture("blue", "PNG"))])
    write_queries(tmp_path / "data" / "MR_test_queries.jsonl", [Query(1, "红色")])
    return tmp_path / "data"


TABLE = [
    ("train", "鞋/a.jpg", '"红色", 短裤'),
    ("train", "鞋/a.jpg", "短裤"),
    ("train", "b.gif", "短裤"),
    ("valid", "c.png", "绿色"),
    ("test", "d.jpg", "黄色"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_import_comes_back_with_its_names_and_texts(tmp_path, layout):
    kinds = {"鞋/a.jpg": "JPEG", "b.gif": "GIF", "c.png": "PNG", "d.jpg": "JPEG"}
    (tmp_path / "shop" / "鞋").mkdir(parents=True)
    for (name, kind), colour in zip(kinds.items(), ("red", "blue", "green", "yellow"), strict=True):
        (tmp_path / "shop" / name).write_bytes(picture(colour, kind))
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("split", "image", "text"), *TABLE])
    import_folder(
        tmp_path / "data", ImportOptions(layout=layout, images=tmp_path / "shop", table=tmp_path / "table.csv")
    )
    export_folder(tmp_path / "data", tmp_path / "back", layout=layout)
    assert pairs(tmp_path / "back") == TABLE
    for name, kind in kinds.items():
        back = (tmp_path / "back" / "images" / name).read_bytes()
        assert (back == (tmp_path / "shop" / name).read_bytes()) == (kind != "GIF")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_images_show_comes_back(tmp_path, layout):
    rows = [
        ("train", "a.jpg", "短裤", '"红",\n绿', ""),
        ("train", "a.jpg", "短裙", "", "5"),
        ("valid", "b.jpg", "上衣", "", ""),
        ("test", "c.jpg", "袜子", "红", "6"),
    ]
    (tmp_path / "shop" / "images").mkdir(parents=True)
    for name, colour in (("a.jpg", "red"), ("b.jpg", "blue"), ("c.jpg", "green")):
        (tmp_path / "shop" / "images" / name).write_bytes(picture(colour))
    with (tmp_path / "shop" / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("split", "image", "text", "颜色", "码"), *rows])

    def imported(folder):
        table, images = tmp_path / folder / "pairs.csv", tmp_path / folder / "images"
        options = ImportOptions(layout=layout, images=images, table=table, attributes=["颜色", "码"])
        out = import_folder(tmp_path / f"{folder}-imported", options).folder
        return {path.name: path.read_bytes() for path in out.iterdir()}

    before = imported("shop")
    assert export_folder(tmp_path / "shop-imported", tmp_path / "back", layout=layout).attributes == ("颜色", "码")
    assert imported("back") == before
    assert {f"attributes_{split}.jsonl" for split in ("train", "valid", "test")} < set(before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_muge_there_and_back_is_the_same(muge_root, tmp_path, layout):
    """Export, import, export: images may be called otherwise, and nothing else."""

    def known(folder):
        return sorted((split, (folder / "images" / name).read_bytes(), text) for split, name, text in pairs(folder))

    export_folder(muge_root, tmp_path / "first", layout=layout)
    options = ImportOptions(
        layout=layout, images=tmp_path / "first" / "images", table=tmp_path / "first" / "pairs.csv", on_error="skip"
    )
    report = import_folder(tmp_path / "data", options)
    export_folder(tmp_path / "data", tmp_path / "second", layout=layout)
    left_out = {error.line - 2 for error in report.errors}
    rows = pairs(tmp_path / "first")
    kept = [row for place, row in enumerate(rows) if place not in left_out]
    expected = {(split, (tmp_path / "first" / "images" / name).read_bytes(), text) for split, name, text in kept}
    assert known(tmp_path / "second") == sorted(expected)
    assert len(kept) > len(rows) // 3


def test_images_of_others_are_called_by_split_and_id(retrieval, tmp_path):
    report = export_folder(retrieval, tmp_path / "out", layout=MULTIMODAL_RETRIEVAL)
    assert pairs(tmp_path / "out") == [("test", "test/7.jpg", ""), ("test", "test/9.png", ""), ("test", "", "红色")]
    assert (tmp_path / "out" / "images" / "test" / "9.png").read_bytes() == picture("blue", "PNG")
    assert report.counts == {"test": {"rows": 3, "without_text": 2, "without_image": 1}}


def test_descriptions_without_images_are_rows_too(tmp_path):
    write_text_tsv(tmp_path / "data" / "T2I_test.txt.tsv", [("a", "红色")])
    export_folder(tmp_path / "data", tmp_path / "out", layout=ECOMMERCE_T2I)
    assert pairs(tmp_path / "out") == [("test", "", "红色")]


@pytest.mark.parametrize("name", ["../../a.jpg", "/tmp/../a.jpg", "..", "a/./b.jpg"])
def test_no_name_leads_out_of_the_folder(retrieval, tmp_path, name):
    (retrieval / "ids.jsonl").write_text(json.dumps({"image_id": 7, "names": [name]}))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    out = tmp_path / "deep" / "er" / "out"
    export_folder(retrieval, out, layout=MULTIMODAL_RETRIEVAL)
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    assert (out / "images" / pairs(out)[0][1]).read_bytes() == picture("red")


def test_ids_that_are_paths_are_quoted(tmp_path):
    write_text_tsv(tmp_path / "data" / "T2I_train.txt.tsv", [("../a", "红色")])
    write_image_tsv(tmp_path / "data" / "T2I_train.img.tsv", [("../a", picture("red"))])
    export_folder(tmp_path / "data", tmp_path / "out", layout=ECOMMERCE_T2I)
    assert pairs(tmp_path / "out") == [("train", "train/..%2Fa.jpg", "红色")]


def test_two_images_of_one_name_are_an_error(retrieval, tmp_path):
    (retrieval / "ids.jsonl").write_text("".join(f'{{"image_id": {id_}, "names": ["a"]}}\n' for id_ in (7, 9)))
    with pytest.raises(UserError, match=r"MR_test_imgs.tsv:2: image 9: another image is called a too"):
        export_folder(retrieval, tmp_path / "out", layout=MULTIMODAL_RETRIEVAL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_text_whose_image_is_not_there_is_an_error(retrieval, tmp_path):
    write_queries(retrieval / "MR_test_answers.jsonl", [Query(1, "红色", (7, 8))])
    with pytest.raises(UserError, match=r"MR_test_imgs.tsv: image 8: is not here, .*`data check` lists all"):
        export_folder(retrieval, tmp_path / "out", layout=MULTIMODAL_RETRIEVAL)


def test_an_image_of_no_kind_is_an_error_with_its_line(retrieval, tmp_path):
    write_image_tsv(retrieval / "MR_test_imgs.tsv", [(7, b"hello")])
    with pytest.raises(UserError, match=r"MR_test_imgs.tsv:1: image 7: not an image"):
        export_folder(retrieval, tmp_path / "out", layout=MULTIMODAL_RETRIEVAL)


def test_a_folder_that_is_there_is_an_error(retrieval, tmp_path):
    with pytest.raises(UserError, match="is there already: give a new or empty folder"):
        export_folder(retrieval, retrieval, layout=MULTIMODAL_RETRIEVAL)


@pytest.mark.parametrize("line", ['{"image_id": 7}', '{"image_id": 7, "names": "a"}', '{"image_id": 7, "names": []}'])
def test_broken_names_are_an_error(retrieval, tmp_path, line):
    (retrieval / "ids.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"ids.jsonl:1: .*expected .* remove the file to do without"):
        export_folder(retrieval, tmp_path / "out", layout=MULTIMODAL_RETRIEVAL)
