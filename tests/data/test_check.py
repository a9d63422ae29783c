import base64
import io
import json
import re
import tracemalloc

import pytest
from PIL import Image

from zoo.data.check import check_folder
from zoo.data.formats import Query, write_image_tsv, write_queries
from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL
from zoo.errors import UserError


def encoded(kind, size=16, **options):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "#2456c8").save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded("JPEG")
BASE64 = base64.b64encode(JPEG)


def row(*columns):
    return b"\t".join(column if isinstance(column, bytes) else str(column).encode() for column in columns)


def record(**keys):
    return json.dumps(keys, ensure_ascii=False).encode()


class Folder:
    """Files of lines, each with what is wrong with it: written, and expected as (file, line, id, kind)."""

    def __init__(self, root):
        self.root = root
        self.files = {}

    def put(self, name, lines):
        """Sound lines."""
        self.files[name] = [(line, ()) for line in lines]

    def plant(self, name, line, *errors):
        """A line with errors, (id, kind) each, in the last half of the file and behind those planted before."""
        lines = self.files[name]
        planted = sum(bool(known) for _, known in lines)
        lines.insert(len(lines) // 2 + 7 * planted, (line, errors))

    def spoil(self, name, number, change, *errors):
        """A sound line, from 1, changed."""
        line, _ = self.files[name][number - 1]
        self.files[name][number - 1] = (change(line), errors)

    def write(self):
        self.root.mkdir(parents=True, exist_ok=True)
        for name, lines in self.files.items():
            (self.root / name).write_bytes(b"".join(line + b"\n" for line, _ in lines))
        return self.root

    @property
    def errors(self):
        return [
            (name, number, *fault)
            for name, lines in self.files.items()
            for number, (_, errors) in enumerate(lines, start=1)
            for fault in errors
        ]


def found(root, layout):
    errors = check_folder(root, layout).errors
    for fault in errors:
        assert str(fault).startswith(fault.file if fault.line is None else f"{fault.file}:{fault.line}: ")
        assert ";" in fault.message  # what is wrong; the fix
    return sorted(((fault.file.rpartition("/")[2], fault.line, fault.id, fault.kind) for fault in errors), key=repr)


def retrieval(root, train=60, others=12):
    folder = Folder(root)
    for split, first, count in (("train", 1, train), ("valid", 100_001, others), ("test", 200_001, others)):
        ids = range(first, first + count)
        folder.put(f"MR_{split}_imgs.tsv", [row(id_, BASE64) for id_ in ids])
        answers = [{"item_ids": [id_]} if split != "test" else {} for id_ in ids]
        folder.put(
            f"MR_{split}_queries.jsonl",
            [record(query_id=id_, query_text=f"裤{id_}", **answer) for id_, answer in zip(ids, answers, strict=True)],
        )
    return folder


def t2i(root, train=60, others=12):
    folder = Folder(root)
    for split, first, count in (("train", 1, train), ("val", 100_001, others), ("test", 200_001, others)):
        ids = [f"{id_:032x}" for id_ in range(first, first + count)]
        folder.put(f"T2I_{split}.txt.tsv", [row(id_, f"裤{id_}") for id_ in ids])
        if split != "test":
            folder.put(f"T2I_{split}.img.tsv", [row(id_, BASE64) for id_ in ids])
    return folder


def caption(root, train=60, others=12):
    folder = Folder(root)
    for split, first, count in (("train", 1, train), ("valid", 100_001, others), ("test", 200_001, others)):
        ids = [f"{id_:032x}" for id_ in range(first, first + count)]
        folder.put(f"IC_{split}.tsv", [row(id_, BASE64) for id_ in ids])
        texts = [{"text": [f"裤{id_}", "百搭"]} if split != "test" else {} for id_ in ids]
        lines = [record(image_id=id_, **text) for id_, text in zip(ids, texts, strict=True)]
        folder.put(f"IC_{split}.jsonl", lines)
    return folder


MAKERS = {MULTIMODAL_RETRIEVAL: retrieval, ECOMMERCE_T2I: t2i, ECOMMERCE_IC: caption}


# --- everything at once ----------------------------------------------------------------------------------------


def plant_pictures(folder, name, first, second, *, ids):
    """Every error of an image file; ``first`` is an id of its own, ``second`` one that it has."""
    folder.plant(name, row(ids[0], b"@@@@"), (ids[0], "bad_base64"))
    folder.plant(name, row(ids[1], BASE64[: len(BASE64) // 2]), (ids[1], "bad_image"))
    folder.plant(name, row(ids[2], base64.b64encode(encoded("PNG")[:-30])), (ids[2], "bad_image"))
    folder.plant(name, row(ids[3], base64.b64encode("不是图片".encode())), (ids[3], "bad_image"))
    folder.plant(name, row(ids[4], b""), (ids[4], "bad_image"))
    folder.plant(name, row(ids[5], BASE64, BASE64), (ids[5], "wrong_columns"))
    folder.plant(name, row(second, BASE64), (second, "duplicate_id"))
    folder.plant(name, b"%dAAAA" % first, (None, "wrong_columns"))
    folder.plant(name, b"", (None, "blank_line"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A retrieval folder whose training split has 5,000 sound rows, and each kind of error somewhere."""
    folder = retrieval(tmp_path_factory.mktemp("planted") / "Multimodal_Retrieval", train=5000)
    pictures, queries = "MR_train_imgs.tsv", "MR_train_queries.jsonl"
    plant_pictures(folder, pictures, 6000, 7, ids=[6001, 6002, 6003, 6004, 6005, 6006])
    folder.plant(pictures, row("x9", BASE64), ("x9", "wrong_type"))
    folder.plant(pictures, row("1" * 19, BASE64), ("1" * 19, "wrong_type"))
    folder.plant(pictures, row(b"", BASE64), (None, "wrong_type"))

    sound = {"query_id": 7000, "query_text": "短裤", "item_ids": [1]}
    for number, (line, identity, kind) in enumerate(
        [
            ('{"query_id": 7000, "query_text": "裤", "item_ids": [1]}'.encode("gbk"), 7000, "not_utf8"),
            (b'{"query_id": 7001, "query_text": "\\ud83d", "item_ids": [1]}', 7001, "not_utf8"),
            (b'{"query_id": 7002, "query_text": "a", "item_ids": [1', 7002, "malformed_json"),
            (b"[" * 100_000, None, "malformed_json"),
            (b"[7]", None, "wrong_type"),
            (b"{}", None, "missing_key"),
            (record(query_text="a", item_ids=[1]), None, "missing_key"),
            (record(query_id=7004, item_ids=[1]), 7004, "missing_key"),
            (record(query_id=7005, query_text="a5"), 7005, "missing_key"),
            (record(**sound | {"query_id": "7006"}), "7006", "wrong_type"),
            (record(**sound | {"query_id": True}), None, "wrong_type"),
            (record(**sound | {"query_id": 7007.0}), None, "wrong_type"),
            (record(**sound | {"query_id": 1 << 63}), 1 << 63, "wrong_type"),
            (record(**sound | {"query_id": 7008, "query_text": None}), 7008, "wrong_type"),
            (record(**sound | {"query_id": 7009, "item_ids": 1}), 7009, "wrong_type"),
            (record(**sound | {"query_id": 7010, "item_ids": ["1"]}), 7010, "wrong_type"),
            (record(**sound | {"query_id": 7011, "item_ids": [1, 2.0]}), 7011, "wrong_type"),
            (record(**sound | {"query_id": 7012, "item_ids": [False]}), 7012, "wrong_type"),
            (record(**sound | {"query_id": 7013, "kind": 1}), 7013, "wrong_type"),
            (record(**sound | {"query_id": 7014, "query_text": " \u3000"}), 7014, "empty_text"),
            (record(**sound | {"query_id": 7015, "item_ids": []}), 7015, "no_image"),
            (record(**sound | {"query_id": 7016, "item_ids": [1, 9999, 9998]}), 7016, "dangling_id"),
            (record(**sound | {"query_id": 7}), 7, "duplicate_id"),
            (b"  ", None, "blank_line"),
        ]
    ):
        more = [(identity, kind)] * (3 if line == b"{}" else 1)
        assert number < 1000
        folder.plant(queries, line, *more)
    folder.spoil(queries, 300, lambda line: line + b"\r", (None, "crlf"))
    folder.spoil(queries, 301, lambda line: line + b"\r")

    folder.spoil("MR_valid_queries.jsonl", 1, lambda line: b"\xef\xbb\xbf" + line, (None, "byte_order_mark"))
    text = record(query_id=8000, query_text=" 裤5 ", item_ids=[100_001])
    folder.plant("MR_valid_queries.jsonl", text, (8000, "text_in_two_splits"))
    line = record(query_id=5, query_text="别的", item_ids=[100_002])
    folder.plant("MR_valid_queries.jsonl", line, (5, "id_in_two_splits"))
    folder.plant("MR_valid_imgs.tsv", row(6, BASE64), (6, "id_in_two_splits"))
    del folder.files["MR_test_queries.jsonl"]
    folder.files["MR_test_imgs.tsv"] = []
    folder.write()
    return folder


WHOLE_FILES = [("MR_test_imgs.tsv", None, None, "empty_file"), ("MR_test_queries.jsonl", None, None, "missing_file")]


def test_every_error_of_retrieval_is_found_where_it_is_and_nothing_else(planted):
    assert found(planted.root, MULTIMODAL_RETRIEVAL) == sorted([*planted.errors, *WHOLE_FILES], key=repr)


def test_skip_trains_on_the_planted_folder_and_lists_every_row_that_it_leaves_out(planted, zoo_main):
    code, _, err = zoo_main(
        *("fit", "--config", "experiments/tiny.yaml", "--data.root", planted.root, "--data.on_error", "skip"),
        *("--trainer.max_epochs", 1, "--trainer.limit_train_batches", 3),
    )
    assert code == 0, err
    readable = {"crlf", "byte_order_mark", "blank_line", "empty_text", "text_in_two_splits", "id_in_two_splits"}
    left_out = {(name, line) for name, line, _, kind in planted.errors if kind not in readable}
    told = err.split("data.on_error=skip: left out: ")[-1]
    listed = {(name, int(line)) for name, line in re.findall(r"(MR_\w+\.\w+):(\d+): ", told)}
    assert listed == left_out


def test_every_error_of_text_to_image_is_found_where_it_is_and_nothing_else(tmp_path):
    folder = t2i(tmp_path, train=5000)
    texts, pictures = "T2I_train.txt.tsv", "T2I_train.img.tsv"
    spoiled = [f"{n:032x}" for n in range(1, 7)]
    for n, change in enumerate([b"@@@@", BASE64[:99], base64.b64encode(b"GIF89a"), b"", b"\xff\xfe"]):
        kind = "bad_base64" if n in (0, 4) else "bad_image"
        folder.spoil(pictures, n + 1, lambda line, change=change: line[:33] + change, (spoiled[n], kind))
    folder.spoil(pictures, 6, lambda line: line + b"\tmore", (spoiled[5], "wrong_columns"))
    folder.plant(pictures, row(spoiled[0], BASE64), (spoiled[0], "duplicate_id"))
    folder.plant(pictures, b"no tab", (None, "wrong_columns"))
    folder.plant(pictures, row(b"", BASE64), (None, "wrong_type"))
    folder.plant(pictures, row("a" * 129, BASE64), ("a" * 129, "wrong_type"))
    folder.plant(pictures, row(b"\xff", BASE64), ("\\xff", "not_utf8"))
    folder.plant(pictures, row("lonely", BASE64), ("lonely", "no_text"))
    folder.plant(pictures, b"", (None, "blank_line"))
    folder.plant(texts, row("unseen", "裤"), ("unseen", "no_image"))
    folder.plant(texts, row(spoiled[1], "又一条"), (spoiled[1], "duplicate_id"))
    folder.plant(texts, "没有制表符".encode(), (None, "wrong_columns"))
    folder.plant(texts, row(b"", "裤"), (None, "wrong_type"))
    folder.plant(texts, b"\r", (None, "blank_line"), (None, "crlf"))
    folder.spoil(texts, 7, lambda line: line + "\t裤".encode(), (f"{7:032x}", "wrong_columns"))
    folder.spoil(texts, 8, lambda line: line[:33] + b"  ", (f"{8:032x}", "empty_text"))
    folder.spoil(texts, 9, lambda line: line[:33] + "裤".encode("gbk"), (f"{9:032x}", "not_utf8"))
    folder.spoil("T2I_val.txt.tsv", 1, lambda line: b"\xef\xbb\xbf" + line, (None, "byte_order_mark"))
    folder.spoil(
        "T2I_val.txt.tsv",
        2,
        lambda line: line[:33] + f"裤{10:032x}".encode(),
        (f"{100_002:032x}", "text_in_two_splits"),
    )
    folder.plant("T2I_test.txt.tsv", row(f"{100_003:032x}", "新"), (f"{100_003:032x}", "id_in_two_splits"))
    del folder.files["T2I_val.img.tsv"]
    expected = [*folder.errors, ("T2I_val.img.tsv", None, None, "missing_file")]
    assert found(folder.write(), ECOMMERCE_T2I) == sorted(expected, key=repr)


def test_every_error_of_captions_is_found_where_it_is_and_nothing_else(tmp_path):
    folder = caption(tmp_path, train=5000)
    texts, pictures = "IC_train.jsonl", "IC_train.tsv"
    ids = [f"{n:032x}" for n in range(5001)]
    folder.spoil(pictures, 1, lambda line: line[:33] + b"@@@@", (ids[1], "bad_base64"))
    folder.spoil(pictures, 2, lambda line: line[:99], (ids[2], "bad_image"))
    folder.plant(pictures, row(ids[3], BASE64), (ids[3], "duplicate_id"))
    folder.plant(pictures, row("lonely", BASE64), ("lonely", "no_text"))
    folder.plant(texts, record(image_id="unseen", text=["裤"]), ("unseen", "no_image"))
    folder.plant(texts, record(image_id=ids[4], text=["裤"]), (ids[4], "duplicate_id"))
    folder.plant(texts, record(image_id=77, text=["裤"]), (77, "wrong_type"), ("77", "no_image"))
    folder.plant(texts, record(image_id=["a"], text=["裤"]), (None, "wrong_type"))
    folder.plant(texts, record(text=["裤"]), (None, "missing_key"))
    folder.plant(texts, b"", (None, "blank_line"))
    for number, (text, kind) in enumerate(
        [
            ({}, "missing_key"),
            ({"text": "裤"}, "wrong_type"),
            ({"text": ["裤", 5]}, "wrong_type"),
            ({"text": []}, "empty_text"),
            ({"text": ["裤", " "]}, "empty_text"),
        ],
        start=11,
    ):
        line = record(image_id=ids[number], **text)
        folder.spoil(texts, number, lambda _, line=line: line, (ids[number], kind))
    folder.spoil(texts, 17, lambda line: line[:-3], (ids[17], "malformed_json"))
    folder.spoil(texts, 18, lambda line: line.decode().encode("gbk"), (ids[18], "not_utf8"))
    folder.spoil(texts, 19, lambda line: line + b"\r", (None, "crlf"))
    same = record(image_id=f"{100_002:032x}", text=["百搭", f"裤{ids[20]}"])
    folder.spoil("IC_valid.jsonl", 2, lambda _: same, (f"{100_002:032x}", "text_in_two_splits"))
    twice = (f"{100_003:032x}", "id_in_two_splits")
    folder.plant("IC_test.tsv", row(twice[0], BASE64), twice)
    folder.plant("IC_test.jsonl", record(image_id=twice[0]), twice)
    assert found(folder.write(), ECOMMERCE_IC) == sorted(folder.errors, key=repr)


# --- what images show --------------------------------------------------------------------------------------------


def with_attributes(root, layout):
    """A folder that says what its training images show, and their ids."""
    folder = MAKERS[layout](root)
    lines = folder.files[layout.path(root, "images", "train").name]
    ids = [layout.id_type(line.partition(b"\t")[0].decode()) for line, _ in lines]
    folder.put("attributes_train.jsonl", [record(image_id=id_, attributes={"颜色": "蓝"}) for id_ in ids])
    folder.put("attributes.json", [record(words={"颜色": {"蓝": ["蓝", "蓝色"]}}, unsaid=[])])
    return folder, ids


@pytest.mark.parametrize("layout", MAKERS, ids=lambda layout: layout.folder)
def test_every_error_of_attributes_is_found_where_it_is_and_nothing_else(tmp_path, layout):
    folder, ids = with_attributes(tmp_path, layout)
    assert found(folder.write(), layout) == []
    name, other = "attributes_train.jsonl", layout.id_type(999)
    folder.files[name].pop()
    folder.spoil(name, 1, lambda _: record(image_id=ids[0]), (ids[0], "wrong_type"))
    folder.spoil(name, 2, lambda _: record(image_id=ids[1], attributes={"颜色": 5}), (ids[1], "wrong_type"))
    half = record(image_id=ids[2], attributes={"颜色": "?"}).replace(b"?", b"\\ud83d")
    folder.spoil(name, 3, lambda _: half, (ids[2], "not_utf8"))
    folder.spoil(name, 4, lambda line: line[:-3], (ids[3], "malformed_json"))
    folder.plant(name, record(attributes={}), (None, "missing_key"))
    folder.plant(name, record(image_id=ids[9], attributes={}), (ids[9], "duplicate_id"))
    folder.plant(name, record(image_id=other, attributes={}), (other, "no_image"))
    expected = [*folder.errors, (name, None, ids[-1], "no_attributes")]
    assert found(folder.write(), layout) == sorted(expected, key=repr)


def test_an_id_in_quotes_is_one_error(tmp_path):
    folder, _ = with_attributes(tmp_path, MULTIMODAL_RETRIEVAL)
    line = record(image_id="1", attributes={})
    folder.spoil("attributes_train.jsonl", 1, lambda _: line, ("1", "wrong_type"))
    assert found(folder.write(), MULTIMODAL_RETRIEVAL) == folder.errors
    assert not check_folder(tmp_path, MULTIMODAL_RETRIEVAL).can_skip  # scores need what each image shows


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"words": {}}', b'{"words": {"a": {"b": [5]}}, "unsaid": []}'])
def test_words_for_attributes_that_cannot_be_read_are_an_error(tmp_path, content):
    folder, _ = with_attributes(tmp_path, ECOMMERCE_IC)
    del folder.files["attributes.json"]
    folder.write()
    if content is not None:
        (tmp_path / "attributes.json").write_bytes(content)
    assert found(tmp_path, ECOMMERCE_IC) == [("attributes.json", None, None, "wrong_type")]
    assert not check_folder(tmp_path, ECOMMERCE_IC).can_skip


# --- what is no error ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", MAKERS, ids=lambda layout: layout.folder)
def test_a_small_folder_is_clean(tmp_path, layout):
    assert found(MAKERS[layout](tmp_path).write(), layout) == []


def test_chinese_clips_names_and_keys_are_clean(tmp_path):
    for split, first in (("train", 1), ("valid", 11), ("test", 21)):
        write_image_tsv(tmp_path / f"{split}_imgs.tsv", [(first, JPEG)])
        items = (first,) if split != "test" else ()
        write_queries(tmp_path / f"{split}_texts.jsonl", [Query(first, f"裤{first}", items)], schema="cn_clip")
    assert found(tmp_path, MULTIMODAL_RETRIEVAL) == []


def test_a_missing_file_has_the_name_that_the_folders_others_have(tmp_path):
    (tmp_path / "valid_imgs.tsv").write_bytes(row(1, BASE64))
    assert ("valid_texts.jsonl", None, None, "missing_file") in found(tmp_path, MULTIMODAL_RETRIEVAL)


def test_every_decodable_format_and_both_alphabets_are_fine(tmp_path):
    folder = retrieval(tmp_path)
    for number, kind in enumerate(["PNG", "GIF", "WEBP", "BMP", "TIFF"], start=1):
        line = row(number, base64.urlsafe_b64encode(encoded(kind)).rstrip(b"="))
        folder.spoil("MR_train_imgs.tsv", number, lambda _, line=line: line)
    assert found(folder.write(), MULTIMODAL_RETRIEVAL) == []


def test_the_other_ending_of_text_files_is_fine(tmp_path):
    folder = t2i(tmp_path)
    for split in ("train", "val", "test"):
        folder.files[f"T2I_{split}.text.tsv"] = folder.files.pop(f"T2I_{split}.txt.tsv")
    assert found(folder.write(), ECOMMERCE_T2I) == []


def test_the_images_of_the_test_split_are_checked_where_there_are_some(tmp_path):
    folder = t2i(tmp_path)
    folder.put("T2I_test.img.tsv", [row(f"{id_:032x}", BASE64) for id_ in range(200_001, 200_012)])
    assert found(folder.write(), ECOMMERCE_T2I) == [("T2I_test.txt.tsv", 12, f"{200_012:032x}", "no_image")]


def test_a_slogan_in_two_splits_is_fine(tmp_path):
    assert found(caption(tmp_path).write(), ECOMMERCE_IC) == []  # each list has 百搭


# --- answers, whole files --------------------------------------------------------------------------------------


def test_answers_are_held_against_queries_and_images(tmp_path):
    folder = retrieval(tmp_path)
    answers = [record(query_id=id_, query_text="裤", item_ids=[id_]) for id_ in range(200_001, 200_012)]
    folder.put("MR_test_answers.jsonl", answers)
    folder.spoil("MR_test_queries.jsonl", 12, lambda line: line, (200_012, "no_answer"))
    folder.spoil("MR_test_answers.jsonl", 3, lambda line: line.replace(b"[2", b"[9"), (200_003, "dangling_id"))
    folder.plant("MR_test_answers.jsonl", record(query_id=9, query_text="a", item_ids=[200_001]), (9, "no_query"))
    assert found(folder.write(), MULTIMODAL_RETRIEVAL) == sorted(folder.errors, key=repr)


def test_a_file_in_utf16_is_one_error(tmp_path):
    folder = t2i(tmp_path)
    folder.write()
    path = tmp_path / "T2I_train.txt.tsv"
    path.write_bytes(path.read_text("utf-8").encode("utf-16"))
    assert found(tmp_path, ECOMMERCE_T2I) == [("T2I_train.txt.tsv", 1, None, "not_utf8")]


def pretty(text):
    return json.dumps([json.loads(line) for line in text.splitlines()], ensure_ascii=False, indent=1).encode()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (pretty, "malformed_json", "one JSON list over several lines"),
        (lambda text: text.encode("gb18030"), "not_utf8", "GB18030"),
        (lambda text: text.encode("utf-16-le"), "not_utf8", "UTF-16"),
    ],
)
def test_a_file_of_another_kind_is_one_error_and_nothing_is_to_be_skipped(tmp_path, change, kind, words):
    folder = retrieval(tmp_path)
    folder.write()
    path = tmp_path / "MR_train_queries.jsonl"
    path.write_bytes(change(path.read_text("utf-8")))
    report = check_folder(tmp_path, MULTIMODAL_RETRIEVAL)
    assert [(fault.file, fault.line, fault.kind) for fault in report.errors] == [(str(path), 1, kind)]
    assert words in report.errors[0].message
    assert not report.can_skip


def test_a_key_twice_in_one_object_is_an_error_of_its_line(tmp_path):
    folder = retrieval(tmp_path)
    folder.spoil(
        "MR_train_queries.jsonl", 1, lambda line: line.replace(b"{", b'{"query_text": 1, ', 1), (1, "duplicate_key")
    )
    assert found(folder.write(), MULTIMODAL_RETRIEVAL) == folder.errors


def test_a_line_of_another_encoding_does_not_make_a_file_of_it(tmp_path):
    folder = retrieval(tmp_path)
    folder.spoil("MR_train_queries.jsonl", 1, lambda line: line.decode().encode("gbk"), (1, "not_utf8"))
    assert found(folder.write(), MULTIMODAL_RETRIEVAL) == folder.errors
    assert check_folder(tmp_path, MULTIMODAL_RETRIEVAL).can_skip


def test_crlf_line_ends_are_listed_once_and_counted(tmp_path):
    folder = retrieval(tmp_path)
    folder.write()
    path = tmp_path / "MR_train_imgs.tsv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert found(tmp_path, MULTIMODAL_RETRIEVAL) == [("MR_train_imgs.tsv", 1, None, "crlf")]
    report = check_folder(tmp_path, MULTIMODAL_RETRIEVAL)
    assert not report.can_skip  # there is nothing to leave out
    counts = report.summary()["files"][0]
    assert counts == {"file": "MR_train_imgs.tsv", "lines": 60, "fine": 60, "errors": {"crlf": 60}}


def test_the_summary_counts_what_is_wrong_and_what_is_fine(tmp_path):
    folder = retrieval(tmp_path)
    plant_pictures(folder, "MR_train_imgs.tsv", 6000, 7, ids=range(6001, 6007))
    summary = check_folder(folder.write(), MULTIMODAL_RETRIEVAL).summary()
    assert summary["errors"] == 9
    kinds = {"bad_base64": 1, "bad_image": 4, "blank_line": 1, "duplicate_id": 1, "wrong_columns": 2}
    assert summary["files"][0] == {"file": "MR_train_imgs.tsv", "lines": 69, "fine": 60, "errors": kinds}
    assert summary["files"][1] == {"file": "MR_train_queries.jsonl", "lines": 60, "fine": 60, "errors": {}}


def test_an_error_says_file_line_id_what_is_wrong_and_the_fix(tmp_path):
    folder = retrieval(tmp_path)
    folder.spoil("MR_train_queries.jsonl", 4, lambda line: line.replace(b"[4]", b"[4, 99]"))
    (fault,) = check_folder(folder.write(), MULTIMODAL_RETRIEVAL).errors
    assert str(fault) == (
        f"{tmp_path}/MR_train_queries.jsonl:4: query 4: names 99: no such images in MR_train_imgs.tsv; "
        "add them, or take the ids out"
    )


def test_progress_adds_up_to_the_bytes_of_all_files(tmp_path):
    folder = retrieval(tmp_path).write()
    seen = []
    check_folder(folder, MULTIMODAL_RETRIEVAL, on_read=lambda read, total: seen.append((read, total)))
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert sum(read for read, _ in seen) == size
    assert {total for _, total in seen} == {size}


def test_memory_does_not_hold_the_images(tmp_path):
    folder = retrieval(tmp_path)
    folder.put("MR_train_imgs.tsv", [row(id_, base64.b64encode(JPEG + bytes(15_000))) for id_ in range(1, 2501)])
    folder.write()
    tracemalloc.start()
    errors = check_folder(tmp_path, MULTIMODAL_RETRIEVAL).errors
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not errors
    assert (tmp_path / "MR_train_imgs.tsv").stat().st_size > 50e6
    assert peak < 25e6


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError) as raised:
        check_folder(tmp_path, ECOMMERCE_T2I)
    assert (raised.value.argument, raised.value.value) == ("root", str(tmp_path))
    assert raised.value.valid == "ECommerce-T2I"
