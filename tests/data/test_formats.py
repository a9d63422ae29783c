import json

import pytest

from zoo.data.formats import (
    Caption,
    Query,
    caption_errors,
    description_errors,
    is_integer,
    query_errors,
    read_captions,
    read_queries,
    read_text_tsv,
    write_captions,
    write_image_tsv,
    write_queries,
    write_text_tsv,
)
from zoo.errors import FileError, UserError

QUERIES = [
    Query(8426, "胖妹妹松紧腰长裤", (42967, 7)),
    Query(8427, 'a "quoted" 裤\t子', (1,), kind="name"),
    Query(9, "没有答案"),
]


@pytest.mark.parametrize("schema", ["muge", "cn_clip"])
def test_what_is_written_is_read_back(tmp_path, schema):
    write_queries(tmp_path / "q.jsonl", QUERIES, schema=schema)
    assert read_queries(tmp_path / "q.jsonl") == QUERIES


def test_muges_own_line_is_written(tmp_path):
    write_queries(tmp_path / "q.jsonl", [QUERIES[0], QUERIES[2]])
    assert (tmp_path / "q.jsonl").read_text(encoding="utf-8") == (
        '{"query_id": 8426, "query_text": "胖妹妹松紧腰长裤", "item_ids": [42967, 7]}\n'
        '{"query_id": 9, "query_text": "没有答案"}\n'
    )


def test_chinese_clips_own_line_is_written(tmp_path):
    write_queries(tmp_path / "q.jsonl", [QUERIES[2]], schema="cn_clip")
    assert json.loads((tmp_path / "q.jsonl").read_text("utf-8")) == {"text_id": 9, "text": "没有答案", "image_ids": []}


def test_an_unknown_schema_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="Did you mean cn_clip") as raised:
        write_queries(tmp_path / "q.jsonl", QUERIES, schema="cnclip")
    assert (raised.value.argument, raised.value.value) == ("schema", "cnclip")
    assert raised.value.valid == ("muge", "cn_clip")
    assert not list(tmp_path.iterdir())


def test_empty_lines_crlf_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"query_id": 1, "query_text": "a", "item_ids": []}\r\n\r\n{"text_id": 2, "text": "b"}'
    )
    assert read_queries(path) == [Query(1, "a"), Query(2, "b")]


@pytest.mark.parametrize(
    ("line", "id", "kind", "message"),
    [
        ('{"query_id": 2, "query_text"', 2, "malformed_json", "not JSON"),
        ('["query_id"]', None, "wrong_type", "a JSON list"),
        ('{"query_text": "a"}', None, "missing_key", "no query_id among query_text"),
        ('{"query_id": "2", "query_text": "a"}', "2", "wrong_type", 'query_id is "2"'),
        ('{"query_id": true, "query_text": "a"}', None, "wrong_type", "query_id is true"),
        ('{"query_id": 9223372036854775808, "query_text": "a"}', 1 << 63, "wrong_type", "an integer of 64 bits"),
        ('{"query_id": 2, "query_text": "\\ud83d"}', 2, "not_utf8", "write the whole character"),
        ("[" * 100_000, None, "malformed_json", "not JSON"),
        ('{"query_id": 2, "query_text": null}', 2, "wrong_type", "query_text is null"),
        ('{"query_id": 2, "text": "a"}', 2, "missing_key", "no query_text"),
        ('{"query_id": 2, "query_text": "a", "item_ids": 5}', 2, "wrong_type", "item_ids is 5"),
        ('{"query_id": 2, "query_text": "a", "item_ids": ["5"]}', 2, "wrong_type", 'item_ids has "5"'),
        ('{"text_id": 2, "text": "a", "image_ids": [1.0]}', 2, "wrong_type", "image_ids has 1.0"),
        ('{"query_id": 2, "query_text": "a", "kind": 1}', 2, "wrong_type", "kind is 1"),
        ('{"query_id": 1, "query_text": "again"}', 1, "duplicate_id", "the id is already on line 1"),
    ],
)
def test_a_malformed_line_is_named_with_its_file_line_and_id(tmp_path, line, id, kind, message):
    path = tmp_path / "q.jsonl"
    path.write_text('{"query_id": 1, "query_text": "好", "item_ids": [1]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(FileError) as raised:
        read_queries(path)
    error = raised.value
    assert (error.file, error.line, error.id, error.kind) == (str(path), 2, id, kind)
    assert message in error.message


def test_malformed_and_repeated_lines_are_left_out_where_errors_are_listed(tmp_path):
    path = tmp_path / "q.jsonl"
    lines = ['{"query_id": 1, "query_text": "a"}', "{", "[]", '{"query_id": "2"}', '{"query_id": 1, "query_text": "b"}']
    path.write_text("\n".join([*lines, "", '{"query_id": 3, "query_text": "c"}']))
    queries = read_queries(path, errors := [])
    assert queries == [Query(1, "a"), Query(3, "c")]
    assert [query.line for query in queries] == [1, 7]
    assert [(error.line, error.kind) for error in errors] == [
        *((2, "malformed_json"), (3, "wrong_type"), (4, "wrong_type"), (4, "missing_key"), (5, "duplicate_id")),
    ]


def test_bytes_that_are_not_utf8_are_a_malformed_line(tmp_path):
    (tmp_path / "q.jsonl").write_bytes('{"query_id": 1, "query_text": "裤"}'.encode("gbk"))
    with pytest.raises(FileError, match=r"q\.jsonl:1: query 1: byte 0xbf at byte 32 is not UTF-8") as raised:
        read_queries(tmp_path / "q.jsonl")
    assert raised.value.kind == "not_utf8"


@pytest.mark.parametrize("read", [read_queries, read_captions, read_text_tsv])
@pytest.mark.parametrize("errors", [None, []])
def test_a_file_that_is_not_there_or_empty_is_raised_whether_or_not_errors_are_listed(tmp_path, read, errors):
    with pytest.raises(FileError) as raised:
        read(tmp_path / "gone", errors)
    assert raised.value.file == str(tmp_path / "gone")
    assert "No such file" in str(raised.value)
    (tmp_path / "empty").touch()
    with pytest.raises(FileError) as raised:
        read(tmp_path / "empty", errors)
    assert raised.value.kind == "empty_file"


def test_image_and_text_files(tmp_path):
    write_image_tsv(tmp_path / "i.tsv", [(7, b"\xfb\xff"), ("8cf9", b"x")])
    assert (tmp_path / "i.tsv").read_bytes() == b"7\t+/8=\n8cf9\teA==\n"
    write_text_tsv(tmp_path / "t.tsv", [("8cf9", "短裤")])
    assert (tmp_path / "t.tsv").read_text("utf-8") == "8cf9\t短裤\n"


# --- captions --------------------------------------------------------------------------------------------------

LINE = {"image_id": "8cf9", "text": ["时尚短裤", "夏天 穿它"]}


@pytest.fixture
def captions_of(tmp_path):
    """Writes lines, objects or bytes, and reads them."""

    def read(*lines, end=b"\n"):
        path = tmp_path / "IC_valid.jsonl"
        encoded = (line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines)
        path.write_bytes(b"".join(line + end for line in encoded))
        return read_captions(path)

    return read


def test_captions_that_are_written_are_read_back(tmp_path):
    path = tmp_path / "IC_valid.jsonl"
    write_captions(path, [("a", ["一", "二"]), ("b", [])])
    assert path.read_text("utf-8") == '{"image_id": "a", "text": ["一", "二"]}\n{"image_id": "b"}\n'
    assert read_captions(path) == [Caption("a", ("一", "二"), 1), Caption("b", (), 2)]


def test_references_are_given_as_they_stand(captions_of):
    assert captions_of({"image_id": "a", "text": [" 短裤 ", "短裤", "短裤"]})[0].texts == (" 短裤 ", "短裤", "短裤")


def test_a_byte_order_mark_crlf_and_blank_lines_are_passed_over(captions_of):
    first = b"\xef\xbb\xbf" + json.dumps(LINE).encode()
    captions = captions_of(first, b"", {"image_id": "b"}, end=b"\r\n")
    assert captions == [Caption("8cf9", ("时尚短裤", "夏天 穿它"), 1), Caption("b", (), 3)]


def test_other_keys_are_passed_over(captions_of):
    assert captions_of({**LINE, "source": "x"}) == [Caption("8cf9", tuple(LINE["text"]), 1)]


@pytest.mark.parametrize(
    ("line", "id", "kind", "message"),
    [
        ({"text": ["短裤"]}, None, "missing_key", "no image_id among text"),
        ({"image_id": 7, "text": ["短裤"]}, 7, "wrong_type", "image_id is 7; write the image's id as a string"),
        ({"image_id": "", "text": ["短裤"]}, "", "wrong_type", 'image_id is "";'),
        ({"image_id": "a", "text": "短裤"}, "a", "wrong_type", 'text is "短裤"; write a list of strings'),
        ({"image_id": "a", "text": None}, "a", "wrong_type", "text is null; write a list of strings"),
        ({"image_id": "a", "text": []}, "a", "empty_text", "text is empty; write one reference or more"),
        ({"image_id": "a", "text": ["短裤", 3]}, "a", "wrong_type", "reference 2 of 2: text is 3; write a string"),
        ({"image_id": "a", "text": ["短裤", " \t"]}, "a", "empty_text", "reference 2 of 2: text is"),
        ({"image_id": "8cf9"}, "8cf9", "duplicate_id", "already on line 1; ids are unique"),
        (["a", "短裤"], None, "wrong_type", "a JSON list; write an object"),
        (b'{"image_id": "a"', "a", "malformed_json", "not JSON"),
        (b'{"image_id": "\xff"}', "\ufffd", "not_utf8", "byte 0xff at byte 15"),
    ],
)
def test_a_malformed_caption_is_named(captions_of, line, id, kind, message):
    with pytest.raises(FileError) as raised:
        captions_of(LINE, line)
    assert (raised.value.line, raised.value.id, raised.value.kind) == (2, id, kind)
    assert message in raised.value.message


@pytest.mark.parity
def test_a_submission_is_accepted_by_the_packaged_evaluator(tmp_path):
    from cn_clip.eval.evaluation import compute_score

    truth = [Query(n, f"查询{n}", (n * 10 + 3,), kind="name") for n in range(4)]
    found = [Query(n, f"查询{n}", tuple(range(n * 10, n * 10 + 10)), kind="name") for n in range(4)]
    write_queries(tmp_path / "truth.jsonl", truth, schema="cn_clip")
    write_queries(tmp_path / "found.jsonl", found, schema="cn_clip")
    scores = compute_score(str(tmp_path / "truth.jsonl"), str(tmp_path / "found.jsonl"))
    assert scores == pytest.approx([200 / 3, 0, 100, 100])


# --- what is valid -----------------------------------------------------------------------------------------------


def kinds(found):
    return [kind for kind, _ in found]


@pytest.mark.parametrize(
    ("record", "plain", "labelled"),
    [
        ({"query_id": 1, "query_text": "裤", "item_ids": [2]}, [], []),
        ({"query_id": 1, "query_text": "裤", "item_ids": []}, [], ["no_image"]),
        ({"query_id": 1, "query_text": "裤"}, [], ["missing_key"]),
        ({"text_id": 1, "text": "裤", "image_ids": [2]}, [], []),
        ({"text_id": 1, "text": "裤", "item_ids": [2]}, [], ["missing_key"]),
        ({"text_id": 1, "query_text": "裤", "image_ids": [2]}, ["missing_key"], ["missing_key"]),
        ({"query_id": 1, "query_text": " ", "item_ids": [2], "kind": "name"}, ["empty_text"], ["empty_text"]),
        ({"query_id": 1, "query_text": "裤", "item_ids": [2, True]}, ["wrong_type"], ["wrong_type"]),
        ({"query_id": 1, "query_text": "裤", "item_ids": (2,)}, ["wrong_type"], ["wrong_type"]),
        ({"query_id": 1.0, "query_text": 2, "item_ids": None, "kind": 3}, ["wrong_type"] * 4, ["wrong_type"] * 4),
        ({}, ["missing_key"] * 2, ["missing_key"] * 3),
    ],
)
def test_what_is_wrong_with_a_query(record, plain, labelled):
    assert kinds(query_errors(record)) == plain
    assert kinds(query_errors(record, labelled=True)) == labelled


@pytest.mark.parametrize(
    ("record", "plain", "labelled"),
    [
        ({"image_id": "a", "text": ["裤", "裙"]}, [], []),
        ({"image_id": "a"}, [], ["missing_key"]),
        ({"image_id": "a", "text": []}, ["empty_text"], ["empty_text"]),
        ({"image_id": "a", "text": "裤"}, ["wrong_type"], ["wrong_type"]),
        ({"image_id": "a", "text": ["裤", " ", 3, "\ud83d"]}, ["empty_text", "wrong_type", "not_utf8"], None),
        ({"image_id": "", "text": ["裤"]}, ["wrong_type"], None),
        ({"image_id": 7, "text": ["裤"]}, ["wrong_type"], None),
        ({"text": ["裤"]}, ["missing_key"], None),
    ],
)
def test_what_is_wrong_with_references(record, plain, labelled):
    assert kinds(caption_errors(record)) == plain
    assert kinds(caption_errors(record, labelled=True)) == (plain if labelled is None else labelled)


def test_a_missing_key_is_told_among_those_that_are_there():
    assert dict(query_errors({}))["missing_key"].startswith("no query_text in an empty object")
    ((_, message),) = query_errors({"query_id": 1, "kind": "name"})
    assert message == "no query_text among query_id, kind; add it"


def test_a_wrong_reference_is_counted_from_one():
    ((_, message),) = caption_errors({"image_id": "a", "text": ["裤", " ", "裙"]})
    assert message.startswith('reference 2 of 3: text is " "')


@pytest.mark.parametrize(
    ("image_id", "text", "expected"),
    [
        ("a", "裤", []),
        ("a" * 128, "裤", []),
        ("a" * 129, "裤", ["wrong_type"]),
        ("", "裤", ["wrong_type"]),
        ("a", "\u3000", ["empty_text"]),
        ("", "", ["wrong_type", "empty_text"]),
    ],
)
def test_what_is_wrong_with_a_description(image_id, text, expected):
    assert kinds(description_errors(image_id, text)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, True),
        (2**63 - 1, True),
        (2**63, False),
        (-(2**63), True),
        (-(2**63) - 1, False),
        (True, False),
        (1.0, False),
    ],
)
def test_an_integer_is_one_that_int64_holds(value, expected):
    assert is_integer(value) is expected


def test_chinese_clips_images_are_written_by_its_key(tmp_path):
    write_queries(tmp_path / "q.jsonl", [QUERIES[1]], schema="cn_clip")
    line = {"text_id": 8427, "text": 'a "quoted" 裤\t子', "image_ids": [1], "kind": "name"}
    assert json.loads((tmp_path / "q.jsonl").read_text("utf-8")) == line


def test_lines_are_counted_whatever_stands_between_them(tmp_path):
    (tmp_path / "c.jsonl").write_text('\n{"image_id": "a", "text": ["裤"]}\n\n{"image_id": "b"}\n', encoding="utf-8")
    assert read_captions(tmp_path / "c.jsonl") == [Caption("a", ("裤",), 2), Caption("b", (), 4)]
    (tmp_path / "t.tsv").write_text("\na\t 裤 \n\nb\t裙\tx\n", encoding="utf-8")
    assert [tuple(each) for each in read_text_tsv(tmp_path / "t.tsv")] == [("a", "裤", 2), ("b", "裙\tx", 4)]


@pytest.mark.parametrize(
    ("read", "line", "noun"),
    [
        (read_queries, '{"query_id": 1, "query_text": 3}', "query 1"),
        (read_captions, '{"image_id": "a", "text": 3}', "image a"),
        (read_text_tsv, "a\t ", "image a"),
    ],
)
def test_an_error_says_what_its_id_is_of(tmp_path, read, line, noun):
    (tmp_path / "x").write_text(line, encoding="utf-8")
    with pytest.raises(FileError, match=rf"x:1: {noun}: "):
        read(tmp_path / "x")


@pytest.mark.parametrize(
    ("read", "line"),
    [(read_captions, '{"image_id": "a", "text": ["裤"]}'), (read_text_tsv, "a\t裤")],
)
def test_an_image_comes_once(tmp_path, read, line):
    (tmp_path / "x").write_text(f"{line}\n{line}\n", encoding="utf-8")
    rows = read(tmp_path / "x", errors := [])
    assert len(rows) == 1
    assert [(error.line, error.id, error.kind) for error in errors] == [(2, "a", "duplicate_id")]


def test_texts_are_written_as_utf8_with_plain_line_ends(tmp_path):
    write_text_tsv(tmp_path / "t.tsv", [("a", "裤"), ("b", "裙\tx")])
    assert (tmp_path / "t.tsv").read_bytes() == "a\t裤\nb\t裙\tx\n".encode()
    write_captions(tmp_path / "c.jsonl", [("a", ["裤", "裙"]), ("b", [])])
    expected = '{"image_id": "a", "text": ["裤", "裙"]}\n{"image_id": "b"}\n'
    assert (tmp_path / "c.jsonl").read_bytes() == expected.encode()


def test_a_query_may_be_blank_where_it_is_read_alone(tmp_path):
    """A check lists it; MUGE's files have some."""
    (tmp_path / "q.jsonl").write_text('{"query_id": 1, "query_text": " "}\n')
    assert read_queries(tmp_path / "q.jsonl") == [Query(1, " ")]
