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

    def read(said=SAID, gold=GOLD):
        paths = tmp_path / "gold.jsonl", tmp_path / "said.jsonl"
        for path, lines in zip(paths, (gold, said), strict=True):
            path.write_bytes(lines if isinstance(lines, bytes) else encoded(lines))
        return read_caption_submission(*paths)

    return read


def told(submission):
    """Faults without the folder."""
    return [str(fault).rpartition("/")[2] for fault in submission.faults]


def test_captions_come_in_the_order_of_the_answers(read):
    submission = read()
    assert submission.image_ids == ["a1", "b2", "c3"]
    assert submission.captions == ["短裤", "裙", "壳"]
    assert submission.references == [line["text"] for line in GOLD]
    assert submission.faults == submission.notes == []


@pytest.mark.parametrize("change", [lambda data: data.replace(b"\n", b"\r\n"), lambda data: data.removesuffix(b"\n")])
def test_crlf_and_a_missing_last_line_end_are_accepted(read, change):
    assert read(change(encoded(SAID))).faults == []


FAULTS = {
    "missing": (SAID[1:], ["gold.jsonl:3: picture c3 has no prediction"]),
    "duplicate": ([*SAID, SAID[1]], ["said.jsonl:4: picture a1 is already on line 2; ids are unique"]),
    "unknown": ([*SAID, {"image_id": "d4", "text": "鞋"}], ["said.jsonl:4: picture d4 is not among the answers"]),
    "list": (
        [{"image_id": "c3", "text": ["壳"]}, *SAID[1:]],
        ["said.jsonl:1: picture c3 has a text that is a JSON list, not a string"],
    ),
    "number": (
        [{"image_id": "c3", "text": 3}, *SAID[1:]],
        ["said.jsonl:1: picture c3 has a text that is a JSON number, not a string"],
    ),
    "null": (
        [{"image_id": "c3", "text": None}, *SAID[1:]],
        ["said.jsonl:1: picture c3 has a text that is a JSON null, not a string"],
    ),
    "no text": (
        [{"image_id": "c3", "caption": "壳"}, *SAID[1:]],
        ["said.jsonl:1: picture c3 has no text among ['image_id', 'caption']"],
    ),
    "no id": ([*SAID, {"text": "壳"}], ["said.jsonl:4: has no image_id among ['text']"]),
    "id is a number": (
        [*SAID, {"image_id": 7, "text": "壳"}],
        ["said.jsonl:4: image_id 7 is a JSON number, not a string"],
    ),
    "id is empty": ([*SAID, {"image_id": "", "text": "壳"}], ["said.jsonl:4: image_id is empty"]),
    "two at once": (
        [*SAID, {"image_id": 7}],
        [
            "said.jsonl:4: image_id 7 is a JSON number, not a string",
            "said.jsonl:4: the picture has no text among ['image_id']",
        ],
    ),
    "no object": ([*SAID, ["a1", "壳"]], ["said.jsonl:4: is a JSON list, not an object"]),
    "malformed": (
        [b'{"image_id": "c3"', *SAID[1:]],
        [
            "said.jsonl:1: is not JSON: Expecting ',' delimiter: line 1 column 18 (char 17)",
            "gold.jsonl:3: picture c3 has no prediction",
        ],
    ),
    "blank": ([*SAID[:2], b" ", SAID[2]], ["said.jsonl:3: is blank; remove it"]),
    "not UTF-8": ([*SAID, b'{"\xff'], ["said.jsonl:4: byte 0xff at byte 3 is not UTF-8; save the file as UTF-8"]),
    "byte order mark": (
        b"\xef\xbb\xbf" + encoded(SAID),
        ["said.jsonl:1: begins with a byte order mark; save the file as UTF-8 without one"],
    ),
    "half a character": (
        [b'{"image_id": "c3", "text": "\\ud83d"}', *SAID[1:]],
        ["said.jsonl:1: picture c3 has a text with half a character, a lone surrogate"],
    ),
    "empty": (
        b"",
        [f"gold.jsonl:{line}: picture {id_} has no prediction" for line, id_ in enumerate(["a1", "b2", "c3"], start=1)],
    ),
}


@pytest.mark.parametrize(("said", "faults"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_predictions_is_named(read, said, faults):
    assert told(read(said)) == faults


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"image_id": "c3"}, "picture c3 has no text among ['image_id']"),
        ({"image_id": "c3", "text": "壳"}, "picture c3 has a text that is a JSON string, not a list of references"),
        (
            {"image_id": "c3", "text": []},
            "picture c3 has an empty list of references; without answers nothing can be scored",
        ),
        (
            {"image_id": "c3", "text": ["壳", 1]},
            "picture c3 has a text that is a JSON number, not a string (reference 2 of 2)",
        ),
        ({"image_id": "c3", "text": [" "]}, "picture c3 has a text that is blank (reference 1 of 1)"),
    ],
)
def test_a_fault_of_the_answers_is_named(read, line, fault):
    assert told(read(gold=[*GOLD[:2], line])) == [f"gold.jsonl:3: {fault}"]


def test_all_faults_of_both_files_are_listed(read):
    gold = [*GOLD, b"oops", {"image_id": "a1", "text": ["裤"]}]
    said = [{"image_id": "a1", "text": 1}, b"", {"image_id": "a1", "text": "裤"}, {"image_id": "c3", "text": "壳"}]
    assert told(read(said, gold)) == [
        "gold.jsonl:4: is not JSON: Expecting value: line 1 column 1 (char 0)",
        "gold.jsonl:5: picture a1 is already on line 1; ids are unique",
        "said.jsonl:1: picture a1 has a text that is a JSON number, not a string",
        "said.jsonl:2: is blank; remove it",
        "said.jsonl:3: picture a1 is already on line 1; ids are unique",
        "gold.jsonl:2: picture b2 has no prediction",
    ]


@pytest.mark.parametrize("missing", ["gold", "said"])
def test_a_missing_file_is_the_one_fault(tmp_path, missing):
    for name in {"gold", "said"} - {missing}:
        (tmp_path / f"{name}.jsonl").write_bytes(encoded(GOLD if name == "gold" else SAID))
    submission = read_caption_submission(tmp_path / "gold.jsonl", tmp_path / "said.jsonl")
    assert told(submission) == [f"{missing}.jsonl: cannot be read: No such file or directory"]


def test_answers_without_lines_are_named(read):
    assert told(read(b"", b"")) == ["gold.jsonl: has no lines; it must have one for each picture"]


def test_what_the_rules_leave_open_is_accepted_and_told(read):
    submission = read(
        [{"image_id": "c3", "text": ""}, {"image_id": "a1", "text": "[unk]裤"}, {"image_id": "b2", "text": " "}]
    )
    assert submission.faults == []
    assert submission.notes == [
        "2 captions are empty; they score 0: c3, b2",
        "1 captions hold [UNK], a token that the model could not spell: a1",
    ]
