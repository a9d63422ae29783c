import csv
import json
import os

import pytest

from zoo.data.attributes import write_attributes
from zoo.errors import UserError
from zoo.io import write_json_lines
from zoo.tasks.retrieval.search.catalogue import flat, kind_of, read_catalogue


def test_a_table_of_products(shop):
    found = read_catalogue(str(shop / "products.jsonl"))
    assert found.images == shop
    assert found.fields == {"price": "number", "sold": "boolean", "颜色": "text"}
    assert list(found.items) == [f"p{place:02}" for place in range(12)]
    item = found.items["p01"]
    assert (item.image, item.title) == ("images/01.jpg", "红色圆球")
    assert item.metadata == {"price": 10.0, "sold": False, "颜色": "红色"}
    assert not found.errors


def test_a_csv_tells_numbers_from_texts(tmp_path):
    with (tmp_path / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["商品编号", "图片", "标题", "price", "article"], ["7", "a\\b.jpg", "红裙", "12.50", "007"]])
    found = read_catalogue(str(tmp_path / "products.csv"), images=str(tmp_path))
    assert found.fields == {"price": "number", "article": "text"}
    assert found.items["7"].image == "a/b.jpg"
    assert found.items["7"].metadata == {"price": 12.5, "article": "007"}


def test_rows_that_are_no_products_are_listed(tmp_path):
    good = {"id": "a", "image": "a.jpg"}
    rows = [
        good,
        good,
        {"id": "", "image": "b.jpg"},
        {"id": "商" * 200, "image": "b.jpg"},
        {"id": "c", "title": "c"},
        {"id": "d", "image": "d.jpg", "story": "长" * 30_000},
    ]
    write_json_lines(tmp_path / "products.jsonl", rows)
    found = read_catalogue(str(tmp_path / "products.jsonl"))
    assert list(found.items) == ["a"]
    assert [error.line for error in found.errors] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("more", [{"title": "\ud800"}, {"\ud800": 1}])
def test_half_of_a_surrogate_pair_is_listed(tmp_path, more):
    record = json.dumps({"id": "a", "image": "a.jpg", **more})
    (tmp_path / "products.jsonl").write_text(record + '\n{"id": "b", "image": "b.jpg"}\n')
    found = read_catalogue(str(tmp_path / "products.jsonl"))
    assert list(found.items) == ["b"]
    assert len(found.errors) == 1


def test_a_folder_of_images(shop):
    (shop / "images" / "notes.txt").write_text("no image")
    (shop / "images" / "more").mkdir()
    (shop / "images" / "more" / "图.PNG").write_bytes((shop / "images" / "00.png").read_bytes())
    found = read_catalogue(str(shop / "images"))
    assert list(found.items)[:2] == ["00.png", "01.jpg"]
    assert "more/图.PNG" in found.items
    assert len(found.items) == 13


def test_file_names_that_are_no_ids_are_listed(tmp_path):
    for name in ("a.jpg", "b\nc.jpg", os.fsdecode("连衣裙.jpg".encode("gb18030"))):
        (tmp_path / name).touch()
    found = read_catalogue(str(tmp_path))
    assert list(found.items) == ["a.jpg"]
    assert len(found.errors) == 2


def test_a_folder_of_muges_files(muge_root, tmp_path):
    found = read_catalogue(str(muge_root))
    assert len(found.items) == 48
    assert found.items["3000"].image == "MR_test_imgs.tsv#3000"
    own = read_catalogue(str(muge_root / "Multimodal_Retrieval"), split="valid")
    assert len(own.items) == 12


def test_what_the_files_say_of_images_is_metadata(muge_root, tmp_path):
    folder = tmp_path / "Multimodal_Retrieval"
    folder.mkdir()
    (folder / "MR_valid_imgs.tsv").write_bytes((muge_root / folder.name / "MR_valid_imgs.tsv").read_bytes())
    write_attributes(folder, "valid", [(2000, {"颜色": "红色"})])
    found = read_catalogue(str(tmp_path))
    assert found.items["2000"].metadata == {"颜色": "红色"}
    assert found.items["2001"].metadata == {"颜色": None}


def test_the_catalogue_has_titles_and_prices(demo_root):
    found = read_catalogue(str(demo_root), split="test")
    item = next(iter(found.items.values()))
    assert item.title
    assert {name: found.fields[name] for name in ("price", "stock", "类别", "brand")} == {
        "price": "number",
        "stock": "number",
        "类别": "text",
        "brand": "text",
    }


@pytest.mark.parametrize(
    ("source", "options", "argument"),
    [
        ("nowhere", {}, "SOURCE"),
        ("shop/images/notes", {}, "SOURCE"),
        ("shop/images", {"images": "."}, "--images"),
        ("shop/images", {"split": "test"}, "--split"),
        ("shop/bad.csv", {}, "SOURCE"),
    ],
)
def test_what_is_no_source(shop, source, options, argument, monkeypatch):
    monkeypatch.chdir(shop.parent)
    (shop / "images" / "notes").mkdir()
    (shop / "bad.csv").write_text("id,colour\n1,红色\n")
    with pytest.raises(UserError) as error:
        read_catalogue(source, **options)
    assert error.value.argument == argument


def test_there_is_no_such_split(muge_root):
    with pytest.raises(UserError) as error:
        read_catalogue(str(muge_root), split="dev")
    assert (error.value.argument, error.value.valid) == ("--split", ("train", "valid", "test"))


def test_objects_become_fields_and_lists_texts():
    record = {"a": {"b": 1, "c": {"d": "x"}}, "c": [1, "二"], "e": None, "f": float("nan"), "b": 2, "g": " "}
    assert flat(record) == {"a.b": 1, "d": "x", "c": "1, 二", "b": 2}


def test_a_number_that_no_index_keeps_is_a_text():
    assert flat({"a": 10**400, "b": 1.75e308, "c": 10**300}) == {"a": str(10**400), "b": "1.75e+308", "c": 10**300}


def test_kinds():
    assert kind_of([None, 1, 2.5]) == "number"
    assert kind_of([True, None]) == "boolean"
    assert kind_of([True, 1]) == "text"
    assert kind_of([1, "1"]) == "text"
    assert kind_of([None]) == "text"


def test_a_price_that_is_no_number_is_told(tmp_path):
    rows = [{"id": str(place), "image": "a.jpg", "price": price} for place, price in enumerate([1, 2.5, "¥59", None])]
    write_json_lines(tmp_path / "products.jsonl", rows)
    found = read_catalogue(str(tmp_path / "products.jsonl"))
    assert found.fields == {"price": "text"}
    assert found.items["0"].metadata == {"price": "1"}
    (note,) = found.notes
    assert "price" in note
    assert "'¥59'" in note


def test_an_images_name_stays_as_it_is(tmp_path):
    write_json_lines(tmp_path / "products.jsonl", [{"id": "a", "image": "two  spaces.jpg", "title": " 红\n裙 "}])
    item = read_catalogue(str(tmp_path / "products.jsonl")).items["a"]
    assert (item.image, item.title) == ("two  spaces.jpg", "红 裙")
