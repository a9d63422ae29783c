"""The one reader of files of lines: what it passes on of any bytes, and what it says is wrong with them."""

import json
import re

import pytest

from zoo.data import lines as lines_module
from zoo.data.json_values import json_type, no_json, shown
from zoo.data.lines import Line, LineReader, as_id, token_errors
from zoo.errors import FileError


@pytest.fixture
def reader(tmp_path):
    """Reads bytes, every mistake listed: ``reader(data, **options)``."""

    def read(data, **options):
        (tmp_path / "x").write_bytes(data)
        return LineReader(tmp_path / "x", **{"noun": "row", "accepted": (), "errors": [], **options})

    return read


def listed(reader):
    return [(error.kind, error.line, error.id) for error in reader.errors]


# --- lines -----------------------------------------------------------------------------------------------------------


def test_a_line_has_its_number_and_the_place_of_its_first_byte(reader):
    data = "\ufeff甲\r\n\r\n乙丙\n \t\n丁".encode()
    read = reader(data)
    lines = list(read.lines())
    assert lines == [Line(1, 3, "甲".encode()), Line(3, 10, "乙丙".encode()), Line(5, 20, "丁".encode())]
    assert all(data[line.start :].startswith(line.data) for line in lines)
    assert listed(read) == [
        ("byte_order_mark", 1, None),
        ("blank_line", 2, None),
        ("blank_line", 4, None),
        ("crlf", 1, None),
    ]
    assert "2 of 5 lines end in CRLF" in str(read.errors[-1])
    assert (read.num_lines, read.carriage_returns) == (5, [1, 2])


def test_by_default_the_first_mistake_is_raised_and_harmless_ones_are_none(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\n\r\nb\r\n")
    assert [line.data for line in LineReader(tmp_path / "x", noun="row").lines()] == [b"a", b"b"]
    (tmp_path / "x").write_bytes(b"")
    assert not list((empty := LineReader(tmp_path / "x", noun="row", accepted={"empty_file"})).lines())
    assert empty.num_lines == 0
    (tmp_path / "x").write_bytes(b"\n\n")
    with pytest.raises(FileError) as caught:
        list(LineReader(tmp_path / "x", noun="row").lines())
    assert (caught.value.kind, caught.value.line, caught.value.file) == ("empty_file", None, str(tmp_path / "x"))
    with pytest.raises(FileError) as caught:
        list(LineReader(tmp_path / "gone", noun="row").lines())
    assert caught.value.kind == "missing_file"


def test_a_line_loses_its_end_alone(reader):
    data = b"12\tAAAX\r\nX\n XX \nX"
    assert [line.data for line in reader(data, accepted={"crlf"}).lines()] == [b"12\tAAAX", b"X", b" XX ", b"X"]


def test_a_carriage_return_ends_a_line_of_text_alone(reader):
    data = b"a\rb\r\nc\n"
    assert [line.data for line in reader(data).lines()] == [b"a\rb", b"c"]
    as_text = list(reader(data, as_text=True).lines())
    assert as_text == [Line(1, 0, b"a"), Line(2, 2, b"b"), Line(3, 5, b"c")]
    spaced = '\u3000{"query_id": 1}\u3000\n'.encode()
    assert [record for _, _, record in reader(spaced, as_text=True).records()] == [{"query_id": 1}]
    assert not list((plain := reader(spaced)).records())
    assert listed(plain) == [("malformed_json", 1, 1)]


@pytest.mark.parametrize("reported", [1, 5, 1000])
def test_the_bytes_that_were_read_are_reported_now_and_then(reader, monkeypatch, reported):
    monkeypatch.setattr(lines_module, "_REPORTED_BYTES", reported)
    counts = []
    list(reader(b"abc\n" * 10, on_read=counts.append).lines())
    assert sum(counts) == 40
    assert counts == {1: [4] * 10 + [0], 5: [8] * 5 + [0], 1000: [40]}[reported]


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_nothing_of_a_file_in_utf16_is_read(reader, mark):
    read = reader(mark + "甲\n乙".encode("utf-16-le"))
    assert not list(read.lines())
    assert listed(read) == [("not_utf8", 1, None)]
    later = reader(b"a\n" + mark + b"\n")  # there it is a line like any other
    assert [line.number for line in later.lines()] == [1, 2]


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_half_characters_are_spelled_in_a_mistake(reader):
    read = reader(b"")
    assert read.report("wrong_type", "has \ud83d", 3, "\udc00")
    assert str(read.errors[0]).endswith("x:3: row \\udc00: has \\ud83d")
    assert not reader(b"", accepted={"wrong_type"}).report("wrong_type", "is fine", 3)


def test_every_mistake_of_a_line_is_listed(reader):
    read = reader(b"")
    assert read.report_all([("wrong_type", "a"), ("empty_text", "b")], 2, 7)
    assert not read.report_all([], 3, 8)
    assert listed(read) == [("wrong_type", 2, 7), ("empty_text", 2, 7)]


def test_an_id_is_claimed_once(reader):
    read = reader(b"")
    assert [read.claim(1, 5), read.claim(2, 6), read.claim(3, 5), read.claim(4, 5)] == [True, True, False, False]
    assert listed(read) == [("duplicate_id", 3, 5), ("duplicate_id", 4, 5)]
    assert all("already on line 1" in str(error) for error in read.errors)


def test_a_file_of_mistakes_alone_tells_the_first(reader):
    read = reader(b"")
    read.require([1])
    read.report("no_tab", "no tab", 4)
    with pytest.raises(FileError, match=r"x: has no line that can be used \(.*x:4: no tab\)") as caught:
        read.require([])
    assert caught.value.kind == "empty_file"
    with pytest.raises(FileError, match=r"can be used; give"):
        LineReader("x", noun="row").require([])


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"query_id": 3}', 3),
        ('{"text_id": 4}', 4),
        ('{"image_id": "a"}', "a"),
        ('{"image_id": "a", "query_id": 3}', 3),
        ('{"query_id": true}', None),
        ('{"query_id": 1.5}', None),
        ('{"id": 3}', None),
    ],
)
def test_a_record_tells_its_id_whatever_its_type_should_be(reader, line, told):
    assert list(reader(line.encode()).records()) == [(1, told, json.loads(line))]


@pytest.mark.parametrize(
    ("line", "kind", "told"),
    [
        (b'{"query_id": 12, "x', "malformed_json", 12),
        (b'{"text_id" :-3, "x', "malformed_json", -3),
        (b'{"image_id":"ab", "x', "malformed_json", "ab"),
        (b'{"query_id": "1\\"2", "x', "malformed_json", None),
        (b'{"other_id": 12, "x', "malformed_json", None),
        (b'{"query_id": 1234567890123456789, "x', "malformed_json", None),
        (b'{"query_id": 12, "x": "\xff"}', "not_utf8", 12),
        (b"[" * 100_000, "malformed_json", None),
        (b"3", "wrong_type", None),
    ],
)
def test_a_line_that_is_no_record_is_listed_and_reading_goes_on(reader, line, kind, told):
    """The id is told where it can still be read; who counts lines hears of those that say nothing else."""

    class Listener(LineReader):
        def leave_out(self, line, id):
            left_out.append((line, id))

    left_out = []
    read = reader(b'{"query_id": 1}\n' + line + b'\n{"query_id": 2}\n')
    read.__class__ = Listener
    assert [number for number, _, _ in read.records()] == [1, 3]
    assert listed(read) == [(kind, 2, told)]
    assert left_out == ([] if kind == "wrong_type" else [(2, told)])
    if kind == "malformed_json":
        words = r"not JSON \((Expecting|Unterminated|Invalid|maximum).*\); write one object on the line$"
        assert re.search(words, str(read.errors[0]))


def test_a_key_twice_is_named_and_where_that_is_no_mistake_the_last_value_counts(reader):
    line = b'{"query_id": 1, "a": 2, "b": 3, "b": 4}\n'
    assert not list((read := reader(line)).records())
    assert listed(read) == [("duplicate_key", 1, 1)]
    assert '"b" is given twice in one object; keep one of them' in str(read.errors[0])
    expected = {"query_id": 1, "a": 2, "b": 4}
    assert list((read := reader(line, accepted={"duplicate_key"})).records()) == [(1, 1, expected)]
    assert not read.errors


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (json.dumps([{"query_id": 1}], indent=1).encode(), "malformed_json", "one JSON list over several lines"),
        (b'\xef\xbb\xbf{\n"query_id": 1}', "malformed_json", "one JSON object over several lines"),
        ('{"query_text": "裤"}\n'.encode("utf-16-le"), "not_utf8", "the file is UTF-16"),
        ('{"query_text": "裤"}\n{"query_text": "红裤"}\n'.encode("gb18030"), "not_utf8", "the file is GB18030"),
        # the bytes of 裙 happen to be a letter in UTF-8: in a long file some line always is
        ("".join(f'{{"query_text": "{text}"}}\n' for text in "裤裙衣").encode("gb18030"), "not_utf8", "GB18030"),
    ],
)
def test_a_file_of_another_kind_is_one_mistake(reader, data, kind, words):
    read = reader(data, accepted={"byte_order_mark"})
    assert not list(read.records())
    assert listed(read) == [(kind, 1, None)]
    assert words in str(read.errors[0])


@pytest.mark.parametrize(
    "data",
    [
        '{"query_text": "裤"}\n'.encode("gb18030")
        + b'{"query_text": "x"}\n',  # a single Chinese line is no file of them
        '{"query_text": "裤"}\n'.encode("gb18030") + '{"query_text": "裙子"}\n'.encode(),  # the other one is UTF-8
        b'{"query_text": "\xff"}\n{"query_text": "\xff"}\n',  # no GB18030 either
        b"{\n" + b'{"query_text": "x"}\n',
    ],
)
def test_a_first_line_that_is_wrong_makes_no_file_of_another_kind(reader, data):
    read = reader(data)
    list(read.records())
    assert listed(read)[0][1] == 1
    assert "nothing of it is read" not in str(read.errors[0])


# --- columns ---------------------------------------------------------------------------------------------------------


def test_a_text_may_hold_tabs_and_a_line_without_one_is_listed(reader):
    read = reader(b"a\tx\ty\nbare\nc\t\nd\tx\t\xff\nno \xff\n\xfe\tx\n")
    assert list(read.columns()) == [(1, "a", "x\ty"), (3, "c", "")]
    assert listed(read) == [
        ("wrong_columns", 2, None),
        ("not_utf8", 4, "d"),
        ("not_utf8", 5, None),
        ("not_utf8", 6, "\\xfe"),
    ]
    assert "byte 0xff at byte 5" in str(read.errors[1])


def test_a_text_file_in_gb18030_is_one_mistake(reader):
    read = reader("a\t裤\nb\t红裤\n".encode("gb18030"))
    assert not list(read.columns())
    assert listed(read) == [("not_utf8", 1, None)]


def test_an_images_text_begins_behind_its_tab(reader):
    data = b"12\tAAAA\nbare\nx\tBBBB\n7\tCC\tCC\n"
    read = reader(data)
    lines = list(read.image_lines(int))
    assert [(line.number, line.id, line.encoded) for line in lines] == [
        (1, 12, b"AAAA"),
        (3, None, b"BBBB"),
        (4, 7, b"CC\tCC"),
    ]
    assert all(data[line.start :].startswith(line.encoded) for line in lines)
    assert listed(read) == [("wrong_columns", 2, None), ("wrong_type", 3, "x")]
    assert [line.id for line in reader(data).image_lines(str)] == ["12", "x", "7"]


@pytest.mark.parametrize(
    ("token", "id_type", "kinds"),
    [
        (b"0", int, []),
        (b"9" * 18, int, []),
        (b"9" * 19, int, ["wrong_type"]),
        (b"-1", int, ["wrong_type"]),
        (b"", int, ["wrong_type"]),
        (b"x" * 128, str, []),
        ("裤".encode() * 128, str, []),
        (b"x" * 129, str, ["wrong_type"]),
        (b"", str, ["wrong_type"]),
        (b"\xff", str, ["not_utf8"]),
        (b"\xff", int, ["wrong_type"]),
    ],
)
def test_what_is_an_id(token, id_type, kinds):
    assert [kind for kind, _ in token_errors(token, id_type)] == kinds


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "id_type", "meant"),
    [
        (None, int, None),
        (None, str, None),
        (7, int, 7),
        (7, str, "7"),
        ("7", int, 7),
        ("7", str, "7"),
        ("-7", int, None),
        ("x", int, None),
        ("9" * 18, int, 10**18 - 1),
        ("9" * 19, int, None),
    ],
)
def test_an_id_is_given_as_it_is_meant(told, id_type, meant):
    assert as_id(told, id_type) == meant


def test_a_value_is_cut_behind_59_characters():
    assert shown("裤" * 58) == f'"{"裤" * 58}"'
    assert shown("裤" * 59) == f'"{"裤" * 58}…'
    assert shown([1, 2], limit=6) == "[1, 2]"
    assert shown([1, 2], limit=5) == "[1, …"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{}", "object"),
        ("[]", "list"),
        ('""', "string"),
        ("1", "number"),
        ("1.5", "number"),
        ("true", "boolean"),
        ("null", "null"),
    ],
)
def test_json_has_names_for_its_types(text, name):
    assert json_type(json.loads(text)) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"a": x}', ": 'x' is character 7); write it"), ('{"a": ', ": the line ends there); write it")],
)
def test_what_is_no_json_is_told_by_its_place(text, words):
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    assert no_json(caught.value, "write it").startswith("not JSON (Expecting value")
    assert no_json(caught.value, "write it").endswith(words)
    assert no_json(RecursionError("too deep"), "write it") == "not JSON (too deep); write it"
