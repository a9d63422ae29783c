import json

import pytest

from zoo.data.caption_files import Caption, read_captions, write_captions
from zoo.errors import UserError

LINE = {"image_id": "8cf9", "text": ["时尚短裤", "夏天 穿它"]}


@pytest.fixture
def read(tmp_path):
    """Writes lines, objects or bytes, and reads them."""

    def read(*lines, end=b"\n"):
        path = tmp_path / "IC_valid.jsonl"
        encoded = (line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines)
        path.write_bytes(b"".join(line + end for line in encoded))
        return read_captions(path)

    return read


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "IC_valid.jsonl"
    write_captions(path, [("a", ["一", "二"]), ("b", [])])
    assert path.read_text("utf-8") == '{"image_id": "a", "text": ["一", "二"]}\n{"image_id": "b"}\n'
    assert read_captions(path) == [Caption("a", ("一", "二"), 1), Caption("b", (), 2)]


def test_references_are_given_as_they_stand(read):
    assert read({"image_id": "a", "text": [" 短裤 ", "短裤", "短裤"]})[0].texts == (" 短裤 ", "短裤", "短裤")


def test_a_byte_order_mark_crlf_and_empty_lines_are_passed_over(read):
    first = b"\xef\xbb\xbf" + json.dumps(LINE).encode()
    captions = read(first, b"", {"image_id": "b"}, end=b"\r\n")
    assert captions == [Caption("8cf9", ("时尚短裤", "夏天 穿它"), 1), Caption("b", (), 3)]


def test_other_keys_are_passed_over(read):
    assert read({**LINE, "source": "x"}) == [Caption("8cf9", tuple(LINE["text"]), 1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": ["短裤"]}, r"jsonl:2: no image_id among \['text'\]; it must be a string"),
        ({"image_id": 7, "text": ["短裤"]}, "jsonl:2: image_id is 7; it must be a string"),
        ({"image_id": "", "text": ["短裤"]}, "jsonl:2: image_id is ''; it must be a string that is not empty"),
        ({"image_id": "a", "text": "短裤"}, "jsonl:2: picture a: text is '短裤'; it must be a list of strings"),
        ({"image_id": "a", "text": None}, "jsonl:2: picture a: text is None; it must be a list of strings"),
        ({"image_id": "a", "text": []}, r"jsonl:2: picture a: text is \[\]; it must be a list of strings, one or more"),
        ({"image_id": "a", "text": ["短裤", 3]}, r"jsonl:2: picture a: text is \['短裤', 3\]; it must be a list"),
        ({"image_id": "a", "text": ["短裤", " \t"]}, "jsonl:2: picture a: reference 2 of 2 is blank; take it out"),
        ({"image_id": "8cf9"}, "jsonl:2: picture id 8cf9 is already on line 1; ids are unique"),
        (["a", "短裤"], "jsonl:2: a JSON list, expected an object"),
        (b'{"image_id": "a"', "jsonl:2: not a line of JSON in UTF-8"),
        (b'{"image_id": "\xff"}', "jsonl:2: not a line of JSON in UTF-8"),
    ],
)
def test_a_malformed_line_is_named(read, line, message):
    with pytest.raises(UserError, match=message):
        read(LINE, line)


def test_a_missing_or_empty_file_is_named(tmp_path, read):
    with pytest.raises(UserError, match=r"none.jsonl' is not there: give a .jsonl file"):
        read_captions(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"IC_valid.jsonl' is empty; expected lines like"):
        read()
