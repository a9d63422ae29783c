import json
import sys

import pytest

from zoo.data.convert.columns import Columns, choose_columns, read_rows
from zoo.data.convert.tables import Table, open_table
from zoo.errors import UserError

COLUMNS = Columns("image", "text", None)


def written(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def rows(path, columns=COLUMNS):
    """Line, image, text and split of each row; the table must have no errors."""
    errors = []
    found = [row[:4] for row in read_rows(open_table(path), columns, errors)]
    assert errors == []
    return found


def errors(path, columns=COLUMNS):
    """What is wrong, without the path."""
    found = []
    read_rows(open_table(path), columns, found)
    assert all((fault.file, fault.line > 0) == (str(path), True) for fault in found)
    return [str(fault).removeprefix(f"{path}:") for fault in found]


# --- files -------------------------------------------------------------------------------------------------------


def test_csv_is_quoted_as_spreadsheets_do(tmp_path):
    path = written(
        tmp_path / "a.csv", 'image,text\r\na.jpg,"他说""好"",买"\r\n\r\n"b,c.jpg","红\n色"\r\nd.jpg,短裤\r\n'
    )
    expected = [(2, "a.jpg", '他说"好",买', None), (4, "b,c.jpg", "红 色", None), (6, "d.jpg", "短裤", None)]
    assert rows(path) == expected


def test_csv_may_have_semicolons(tmp_path):
    assert rows(written(tmp_path / "a.csv", "image;text\na.jpg;红,绿\n")) == [(2, "a.jpg", "红,绿", None)]


def test_quotes_are_letters_in_tsv(tmp_path):
    path = written(tmp_path / "a.tsv", 'image\ttext\na.jpg\t"新款"短裤\nb.jpg\t"新款\n')
    assert rows(path) == [(2, "a.jpg", '"新款"短裤', None), (3, "b.jpg", '"新款', None)]


def test_json_lines_may_have_lists_of_texts(tmp_path):
    lines = [{"image": "a.jpg", "text": ["红", "绿"]}, {"image": 7, "text": "蓝"}]
    path = written(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert rows(path) == [(1, "a.jpg", "红", None), (1, "a.jpg", "绿", None), (3, "7", "蓝", None)]


@pytest.mark.parametrize("separator", ["|", "，", " | "])
def test_csv_may_have_bars_or_chinese_commas(tmp_path, separator):
    lines = [("image", "text"), ("a.jpg", "红,绿;蓝")]
    assert rows(written(tmp_path / "a.csv", "\n".join(map(separator.join, lines)))) == [(2, "a.jpg", "红,绿;蓝", None)]


def test_blank_lines_may_stand_before_the_names_of_columns(tmp_path):
    assert rows(written(tmp_path / "a.csv", "\n ,\nimage,text\na.jpg,红\n")) == [(4, "a.jpg", "红", None)]


@pytest.mark.parametrize(
    ("options", "lines"), [({}, (1, 1)), ({"indent": 2}, (2, 9)), ({"separators": (",\n", ": ")}, (1, 4))]
)
def test_an_array_of_objects_is_read_as_json_lines_are(tmp_path, options, lines):
    array = [{"image": "a]},.jpg", "text": ["红", "绿"]}, {"image": "b.jpg", "text": "蓝"}]
    path = written(tmp_path / "a.jsonl", json.dumps(array, **options))
    first, last = lines
    found = [(first, "a]},.jpg", "红", None), (first, "a]},.jpg", "绿", None), (last, "b.jpg", "蓝", None)]
    assert rows(path) == found


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_encodings_are_told_apart(tmp_path, encoding, suffix):
    text = "image,text\na.jpg,红色㐂\n" if suffix == ".csv" else '{"image": "a.jpg", "text": "红色㐂"}\n'
    path = written(tmp_path / f"a{suffix}", text, encoding)
    assert [row[1:3] for row in rows(path)] == [("a.jpg", "红色㐂")]
    notes = {"utf-16": "UTF-16", "gb18030": "not UTF-8 and is read as GB18030"}
    assert notes.get(encoding, "") in " ".join(open_table(path).notes)
    assert bool(open_table(path).notes) == (encoding in notes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"PK", r"ends in '\.xlsx': give \.csv, \.tsv, \.jsonl or \.parquet"),
        ("a.csv", b"", "is empty: give a table with a line of column names"),
        ("a.jsonl", b"\n", "is empty"),
        ("a.csv", b"image,text\na,\xff\xff\n", "neither UTF-8 .invalid start byte near byte 13. nor GB18030"),
        ("a.csv", b"text,image,text\n", "two columns called 'text'"),
        ("a.csv", b"image text\na.jpg red\n", r'one column, "image text": there is no comma, semicolon or tab in its'),
        ("a.tsv", b"image,text\na.jpg,red\n", r'one column, "image,text": there is no tab in its first line'),
        (
            "a.jsonl",
            b"{'image': 'a.jpg'}\n{'image': 'b.jpg'}\n",
            r"""a\.jsonl:1: not JSON \(.*: "'" is character 2\)""",
        ),
        (
            "a.jsonl",
            '\n{"image"：1}\n'.encode(),
            r"a\.jsonl:2: not JSON \(.*: '：' is character 9\)",
        ),
        ("a.jsonl", b'[\n {"image": 1},\n {"image": }\n]', r"a\.jsonl:3: not JSON .*; write an array of objects"),
        ("a.jsonl", b'"image"\n', r"a\.jsonl:1: JSON, but a string; write an object a line"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_table(tmp_path / name)


def test_a_table_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match="is a folder: give a file"):
        open_table(tmp_path)


def test_a_quote_that_does_not_end_is_an_error_with_its_line(tmp_path):
    path = written(tmp_path / "a.csv", 'image,text\na.jpg,红\nb.jpg,"绿\nc.jpg,蓝\n')
    with pytest.raises(UserError, match=r"a\.csv:3: .*Quote a cell"):
        rows(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="is parquet, which needs pyarrow: pip install pyarrow"):
        open_table(written(tmp_path / "a.parquet", "PAR1"))


def parquet(path, **columns):
    from pyarrow import parquet, table

    parquet.write_table(table(columns), path)
    return path


def test_parquet_is_counted_by_rows(tmp_path):
    path = parquet(tmp_path / "a.parquet", image=["a.jpg", "b.jpg"], text=["红", "绿"])
    assert rows(path) == [(1, "a.jpg", "红", None), (2, "b.jpg", "绿", None)]


@pytest.mark.parametrize("path", ["a.jpg", None])
def test_parquet_holds_images_as_hugging_face_has_them(tmp_path, path):
    image = [{"bytes": b"abc", "path": path}, {"bytes": None, "path": None}]
    table = open_table(parquet(tmp_path / "a.parquet", image=image, text=["红", "绿"]))
    assert table.holds_images("image")
    assert not table.holds_images("text")
    assert list(table.images("image")) == [(1, b"abc"), (2, None)]
    assert [row.image for row in read_rows(table, COLUMNS, [])] == [path or "row1", "row2"]


def test_a_column_of_bytes_holds_images(tmp_path):
    table = open_table(parquet(tmp_path / "a.parquet", image=[b"abc"], text=["红"]))
    assert list(table.images("image")) == [(1, b"abc")]
    assert [row.image for row in read_rows(table, COLUMNS, [])] == ["row1"]


def test_a_parquet_that_is_none_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read as parquet"):
        open_table(written(tmp_path / "a.parquet", "no"))


# --- columns -----------------------------------------------------------------------------------------------------


def table_of(*columns):
    from pathlib import Path

    table = Table(Path("pairs.csv"))
    table.columns = list(columns)
    return table


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("id", "image", "text"), ("image", "text", None)),
        (("File Name", "Title", "price", "Split"), ("File Name", "Title", "Split")),
        (("图片", "标题", "划分"), ("图片", "标题", "划分")),
    ],
)
def test_columns_are_found_by_their_usual_names(columns, expected):
    assert choose_columns(table_of(*columns)) == Columns(*expected)


def test_columns_can_be_named():
    table = table_of("image", "thumb", "title", "query", "split", "fold")
    assert choose_columns(table, image="thumb", text="query", split="fold") == Columns("thumb", "query", "fold")


def test_no_column_of_splits_is_looked_for_where_images_are_assigned():
    assert choose_columns(table_of("image", "text", "split"), by_shares=True).split is None


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        (("url", "text"), {}, r"columns of pairs.csv are url, text: none has a usual name of the image .* Name|NAME"),
        (("image", "query", "title"), {}, "query and title could each be the text.*--text_column query or --text_colu"),
        (
            ("image", "text"),
            {"text": "texts"},
            "--text_column is 'texts'; the columns .* image, text. Did you mean text",
        ),
    ],
)
def test_columns_that_cannot_be_told_are_an_error(columns, given, message):
    with pytest.raises(UserError, match=message):
        choose_columns(table_of(*columns), **given)


@pytest.mark.parametrize(
    ("attributes", "wrong"),
    [
        (["颜色", "颜"], "颜"),
        (["image"], "image"),
        (["text", "颜色"], "text"),
        (["split"], "split"),
        (["颜色", "图案", "颜色"], "颜色"),
    ],
)
def test_attributes_are_further_columns_each_once(attributes, wrong):
    with pytest.raises(UserError) as caught:
        choose_columns(table_of("image", "text", "split", "颜色", "图案"), attributes=attributes)
    assert (caught.value.argument, caught.value.value) == ("--attributes", wrong)
    assert caught.value.valid == ("颜色", "图案")


def test_a_column_of_splits_that_is_not_read_may_say_what_images_show():
    columns = choose_columns(table_of("image", "text", "split"), by_shares=True, attributes=["split"])
    assert (columns.split, columns.attributes) == (None, ("split",))


def test_images_are_no_attributes(tmp_path):
    table = open_table(parquet(tmp_path / "a.parquet", image=[b"abc"], text=["红"], icon=[b"abc"], 颜色=["红"]))
    with pytest.raises(UserError) as caught:
        choose_columns(table, attributes=["icon"])
    assert caught.value.valid == ("颜色",)


# --- rows --------------------------------------------------------------------------------------------------------


def test_white_space_that_would_break_a_line_becomes_a_space(tmp_path):
    path = written(tmp_path / "a.csv", 'image,text\na.jpg,"  红\t色 \r\n 短\u2028裤　"\n')
    assert rows(path)[0][2] == "红 色 短 裤"


@pytest.mark.parametrize(
    ("names", "split"),
    [("train 训练集 Training", "train"), ("VAL validation dev 验证", "valid"), ("test 测试", "test")],
)
def test_splits_have_usual_names(tmp_path, names, split):
    lines = "".join(f"{number}.jpg,红,{name}\n" for number, name in enumerate(names.split()))
    path = written(tmp_path / "a.csv", f"image,text,split\n{lines}")
    assert {row[3] for row in rows(path, Columns("image", "text", "split"))} == {split}


def test_every_error_is_listed_with_its_line(tmp_path):
    path = written(
        tmp_path / "a.csv", "image,text,split\n,红,test\na.jpg, ,test\na.jpg,红\na.jpg,红,tset\na.jpg,红,test\n"
    )
    assert errors(path, Columns("image", "text", "split")) == [
        "2: no image under 'image'; write its path below --images",
        "3: no text under 'text'; write it, or take the line out",
        "4: 2 cells under 3 columns; give each column one, in quotes if need be",
        "5: 'split' is 'tset'; write train, valid or test",
    ]


def test_utf8_with_a_broken_byte_is_not_read_as_gibberish(tmp_path):
    content = "image,text\n" + "".join(f"{number}.jpg,红色方块\n" for number in range(9))
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode() + "9.jpg,红色".encode()[:-1] + b"\xa4\n")
    assert rows(written(tmp_path / "b.csv", content, "gb18030"))[0][2] == "红色方块"
    path.write_bytes(path.read_bytes().replace(b"\xe7", b"\xc1", 1))
    path.read_bytes().decode("gb18030")
    with pytest.raises(UserError, match="neither UTF-8"):
        open_table(path)


@pytest.mark.parametrize("text", ["true", '{"zh": "红"}', "[[]]", '["红", false]', "NaN", "[Infinity]", "null"])
def test_what_is_no_text_is_an_error_of_its_line(tmp_path, text):
    path = written(tmp_path / "a.jsonl", f'{{"image": "a.jpg", "text": "红"}}\n{{"image": "b.jpg", "text": {text}}}\n')
    (error,) = errors(path)
    assert error.startswith(("2: 'text' holds a ", "2: no text under 'text'"))


def test_numbers_are_texts(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"image": "a.jpg", "text": [5, 1.5]}\n')
    assert [row[2] for row in rows(path)] == ["5", "1.5"]


SHOWING = Columns("image", "text", None, ("颜色", "码"))


def shown(path):
    """The attributes of each row; the table must have no errors."""
    errors = []
    found = [row.attributes for row in read_rows(open_table(path), SHOWING, errors)]
    assert errors == []
    return found


def test_an_empty_cell_is_no_attribute(tmp_path):
    path = written(tmp_path / "a.csv", 'image,text,颜色,码\na.jpg,裤," 红\n色 ",5\nb.jpg,裙,,　\n')
    assert shown(path) == [{"颜色": "红 色", "码": "5"}, {}]


def test_numbers_are_attributes(tmp_path):
    sizes = ["5", "1.5", "null", "NaN", '""']
    lines = [f'{{"image": "a.jpg", "text": ["裤", "裙"], "码": {size}}}' for size in sizes]
    path = written(tmp_path / "a.jsonl", "\n".join(['{"image": "a.jpg", "text": "裤", "颜色": "红"}', *lines]))
    twice = [{"码": "5"}] * 2 + [{"码": "1.5"}] * 2 + [{}] * 6
    assert shown(path) == [{"颜色": "红"}, *twice]


def test_attributes_may_stand_in_parquet(tmp_path):
    columns = {"image": ["a.jpg", "b.jpg"], "text": ["裤", "裙"], "颜色": ["红", None], "码": [None, 5]}
    assert shown(parquet(tmp_path / "a.parquet", **columns)) == [{"颜色": "红"}, {"码": "5"}]


@pytest.mark.parametrize("value", ["true", '["红"]', "[]", '{"zh": "红"}', '"\\ud83d"'])
def test_what_is_no_text_is_no_attribute(tmp_path, value):
    lines = [
        '{"image": "a.jpg", "text": "裤", "颜色": "红", "码": 1}',
        f'{{"image": "a.jpg", "text": "裙", "颜色": {value}}}',
    ]
    (error,) = errors(written(tmp_path / "a.jsonl", "\n".join(lines)), SHOWING)
    assert error.startswith(("2: '颜色' holds a ", "2: half of a surrogate pair"))


def test_a_key_twice_in_one_object_is_an_error_of_its_line(tmp_path):
    line = '{"image": "a.jpg", "text": "红"}'
    twice = '{"image": "a.jpg", "text": "红", "image": "b.jpg"}'
    found = errors(written(tmp_path / "a.jsonl", f"{line}\n{twice}\n"))
    assert found == ['2: "image" is given twice in one object; keep one of them']
    with pytest.raises(UserError, match="is given twice in one object"):
        open_table(written(tmp_path / "b.jsonl", f"[{line},\n{twice}]"))


def test_every_error_of_json_lines_is_listed_with_its_line(tmp_path):
    lines = ['{"image": "a.jpg", "text": "红"}', "{", "[1]", '{"image": "a.jpg"}', '{"image": "a", "text": "\\ud83d"}']
    found = errors(written(tmp_path / "a.jsonl", "\n".join([*lines, '{"image": "a", "text": []}'])))
    assert [fault[:12] for fault in found] == [
        "2: not JSON ",
        "3: JSON, but",
        "4: no text u",
        "5: half of a",
        "6: no text u",
    ]
