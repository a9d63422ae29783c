import json

import pytest

from zoo.tasks.captioning.submission_files import read_caption_submission

GOLD = [
    {"image_id": "a1", "text": ["时尚短裤", "夏季短裤"]},
    {"image_id": "b2", "text": ["连衣裙"]},
    {"image_id": "c3", "text": ["手机壳", "保护壳"]},
]
SAID = [{"image_id": "c3", "text": "壳"}, {"image_id": "a1", "text": "短裤"}, {"image_id": "b2", "text": "裙"}]


def encoded(lines):
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()) + b"\n" for line in lines
    )


@pytest.fixture
def read(tmp_path):
    """Writes both files, of objects and of bytes, and reads them."""

    def read(said=SAID, targets=GOLD):
        paths = tmp_path / "targets.jsonl", tmp_path / "said.jsonl"
        for path, lines in zip(paths, (targets, said), strict=True):
            path.write_bytes(lines if isinstance(lines, bytes) else encoded(lines))
        return read_caption_submission(*paths)

    return read


def told(submission):
    """File without its folder, line, id and kind of each error."""
    assert all(";" in error.message for error in submission.errors)  # what is wrong; the fix
    return [(error.file.rpartition("/")[2], error.line, error.id, error.kind) for error in submission.errors]


def test_captions_come_in_the_order_of_the_answers(read):
    submission = read()
    assert submission.image_ids == ["a1", "b2", "c3"]
    assert submission.captions == ["短裤", "裙", "壳"]
    assert submission.references == [line["text"] for line in GOLD]
    assert submission.errors == submission.notes == []


@pytest.mark.parametrize("change", [lambda data: data.replace(b"\n", b"\r\n"), lambda data: data.removesuffix(b"\n")])
def test_crlf_and_a_missing_last_line_end_are_accepted(read, change):
    assert read(change(encoded(SAID))).errors == []


ERRORS = {
    "missing": (SAID[1:], [("targets.jsonl", 3, "c3", "no_prediction")]),
    "duplicate": ([*SAID, SAID[1]], [("said.jsonl", 4, "a1", "duplicate_id")]),
    "unknown": ([*SAID, {"image_id": "d4", "text": "鞋"}], [("said.jsonl", 4, "d4", "unknown_id")]),
    "list": ([{"image_id": "c3", "text": ["壳"]}, *SAID[1:]], [("said.jsonl", 1, "c3", "wrong_type")]),
    "number": ([{"image_id": "c3", "text": 3}, *SAID[1:]], [("said.jsonl", 1, "c3", "wrong_type")]),
    "null": ([{"image_id": "c3", "text": None}, *SAID[1:]], [("said.jsonl", 1, "c3", "wrong_type")]),
    "no text": ([{"image_id": "c3", "caption": "壳"}, *SAID[1:]], [("said.jsonl", 1, "c3", "missing_key")]),
    "no id": ([*SAID, {"text": "壳"}], [("said.jsonl", 4, None, "missing_key")]),
    "id is a number": ([*SAID, {"image_id": 7, "text": "壳"}], [("said.jsonl", 4, 7, "wrong_type")]),
    "id is empty": ([*SAID, {"image_id": "", "text": "壳"}], [("said.jsonl", 4, "", "wrong_type")]),
    "two at once": (
        [*SAID, {"image_id": 7}],
        [("said.jsonl", 4, 7, "wrong_type"), ("said.jsonl", 4, 7, "missing_key")],
    ),
    "no object": ([*SAID, ["a1", "壳"]], [("said.jsonl", 4, None, "wrong_type")]),
    "malformed": (
        [b'{"image_id": "c3"', *SAID[1:]],
        [("said.jsonl", 1, "c3", "malformed_json"), ("targets.jsonl", 3, "c3", "no_prediction")],
    ),
    "blank": ([*SAID[:2], b" ", SAID[2]], [("said.jsonl", 3, None, "blank_line")]),
    "not UTF-8": ([*SAID, b'{"\xff'], [("said.jsonl", 4, None, "not_utf8")]),
    "byte order mark": (b"\xef\xbb\xbf" + encoded(SAID), [("said.jsonl", 1, None, "byte_order_mark")]),
    "half a character": (
        [b'{"image_id": "c3", "text": "\\ud83d"}', *SAID[1:]],
        [("said.jsonl", 1, "c3", "not_utf8")],
    ),
    "empty": (
        b"",
        [("targets.jsonl", line, id, "no_prediction") for line, id in enumerate(["a1", "b2", "c3"], start=1)],
    ),
}


@pytest.mark.parametrize(("said", "errors"), ERRORS.values(), ids=ERRORS)
def test_an_error_of_the_predictions_is_named(read, said, errors):
    assert told(read(said)) == errors


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ({"image_id": "c3"}, "missing_key", "no text among image_id"),
        ({"image_id": "c3", "text": "壳"}, "wrong_type", 'text is "壳"; write a list of strings'),
        ({"image_id": "c3", "text": []}, "empty_text", "text is empty; write one reference or more"),
        ({"image_id": "c3", "text": ["壳", 1]}, "wrong_type", "reference 2 of 2: text is 1"),
        ({"image_id": "c3", "text": [" "]}, "empty_text", "reference 1 of 1"),
    ],
)
def test_an_error_of_the_answers_is_named(read, line, kind, message):
    submission = read(targets=[*GOLD[:2], line])
    assert told(submission) == [("targets.jsonl", 3, "c3", kind)]
    assert message in submission.errors[0].message


def test_all_errors_of_both_files_are_listed(read):
    targets = [*GOLD, b"oops", {"image_id": "a1", "text": ["裤"]}]
    said = [{"image_id": "a1", "text": 1}, b"", {"image_id": "a1", "text": "裤"}, {"image_id": "c3", "text": "壳"}]
    assert told(read(said, targets)) == [
        ("targets.jsonl", 4, None, "malformed_json"),
        ("targets.jsonl", 5, "a1", "duplicate_id"),
        ("said.jsonl", 1, "a1", "wrong_type"),
        ("said.jsonl", 2, None, "blank_line"),
        ("said.jsonl", 3, "a1", "duplicate_id"),
        ("targets.jsonl", 2, "b2", "no_prediction"),
    ]


@pytest.mark.parametrize("missing", ["targets", "said"])
def test_a_missing_file_is_the_one_error(tmp_path, missing):
    for name in {"targets", "said"} - {missing}:
        (tmp_path / f"{name}.jsonl").write_bytes(encoded(GOLD if name == "targets" else SAID))
    submission = read_caption_submission(tmp_path / "targets.jsonl", tmp_path / "said.jsonl")
    assert told(submission) == [(f"{missing}.jsonl", None, None, "missing_file")]


def test_answers_without_lines_are_named(read):
    for predictions in (b"", b'{"image_id": "a1", "text": "x"}\n'):
        assert told(read(predictions, b"")) == [("targets.jsonl", None, None, "empty_file")]


def test_what_the_rules_leave_open_is_accepted_and_told(read):
    submission = read(
        [{"image_id": "c3", "text": ""}, {"image_id": "a1", "text": "[unk]裤"}, {"image_id": "b2", "text": " "}]
    )
    assert submission.errors == []
    assert submission.notes == [
        "2 captions are empty; they score 0: c3, b2",
        "1 captions hold [UNK], a token that the model could not spell: a1",
    ]
