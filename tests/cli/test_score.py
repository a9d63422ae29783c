"""``python -m zoo score``: the official JSON, every fault with its place, quickly and without torch."""

import json
import subprocess
import sys
import time

import pytest

from zoo.cli.score import main
from zoo.errors import UserError
from zoo.tasks.retrieval.scoring import evaluate_retrieval, score_retrieval

TEN = list(range(10))


def lines(entries):
    return "".join(
        (entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)) + "\n" for entry in entries
    )


@pytest.fixture
def files(tmp_path):
    """Three queries: true picture first, sixth, and not found."""
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    targets.write_text(
        lines(
            [
                {"query_id": 11, "query_text": "红色连衣裙", "item_ids": [0, 77]},
                {"query_id": 12, "query_text": "男鞋", "item_ids": [78, 5]},
                {"query_id": 13, "query_text": "童装", "item_ids": [79]},
            ]
        ),
        encoding="utf-8",
    )
    predictions.write_text(lines([{"query_id": query, "item_ids": TEN} for query in (13, 11, 12)]), encoding="utf-8")
    return targets, predictions


def test_a_valid_submission_gives_the_official_json(files, tmp_path, capsys):
    targets, predictions = files
    output = tmp_path / "new" / "score.json"
    assert (
        main(["retrieval", "--targets", str(targets), "--predictions", str(predictions), "--output", str(output)]) == 0
    )
    r1, r5, r10 = 1 / 3, 1 / 3, 2 / 3
    mean = (r1 + r5 + r10) / 3.0 * 100
    expected = {
        "success": True,
        "score": mean,
        "scoreJson": {"score": mean, "mean_recall": mean, "r1": r1 * 100, "r5": r5 * 100, "r10": r10 * 100},
    }
    captured = capsys.readouterr()
    assert captured.out == json.dumps(expected) + "\n"
    assert output.read_text() == json.dumps(expected)
    assert captured.err == "MeanRecall 44.44 (R@1 33.33, R@5 33.33, R@10 66.67), percent\n"


def test_chinese_clips_schema_is_scored_alike(files, tmp_path):
    expected = score_retrieval(*files)
    renamed = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        renamed.append(tmp_path / f"renamed_{path.name}")
        renamed[-1].write_text(text.replace("query_id", "text_id").replace("item_ids", "image_ids"), encoding="utf-8")
    assert score_retrieval(*renamed) == expected
    assert expected["success"]


def replaced(*images, place=0):
    return [*TEN[:place], *images, *TEN[place + len(images) :]]


ERRORS = [
    ({"query_id": 12, "item_ids": TEN[:9]}, [(12, "wrong_count", "item_ids has 9 images; write 10")]),
    (
        {"query_id": 12, "item_ids": replaced("7", 2.0, place=3)},
        [
            (12, "wrong_type", 'item_ids has "7" at rank 4; write integers'),
            (12, "wrong_type", "item_ids has 2.0 at rank 5; write integers"),
        ],
    ),
    (
        {"query_id": 12, "item_ids": replaced(float("nan"))},
        [(12, "wrong_type", "item_ids has NaN at rank 1; write integers")],
    ),
    ({"query_id": 12, "item_ids": replaced(9, 8)}, [(12, "repeated_image", "item_ids has 9, 8 more than once")]),
    (
        {"query_id": 12, "item_ids": [1, 1, "x"]},
        [
            (12, "wrong_count", "item_ids has 3 images; write 10"),
            (12, "wrong_type", 'item_ids has "x" at rank 3'),
            (12, "repeated_image", "item_ids has 1 more than once"),
        ],
    ),
    (
        {"query_id": 12, "item_ids": "0123456789"},
        [(12, "wrong_type", "item_ids is a JSON string; write a list of 10 integers")],
    ),
    ({"query_id": 12}, [(12, "missing_key", "no item_ids; add the list")]),
    (
        {"text_id": 12, "image_ids": TEN},
        [
            (12, "missing_key", "no query_id; it has text_id: the targets file is in the other schema"),
            (12, "missing_key", "no item_ids"),
            (12, "no_prediction", "no prediction"),
        ],
    ),
    (
        {"query_id": "12", "item_ids": TEN},
        [("12", "wrong_type", 'query_id is "12"; write an integer'), (12, "no_prediction", "no prediction")],
    ),
    ("", [(None, "blank_line", "is blank; take it out"), (12, "no_prediction", "no prediction")]),
    (
        '{"query_id": 12,',
        [
            (12, "malformed_json", "not JSON (Expecting property name enclosed in double quotes"),
            (12, "no_prediction", "no prediction"),
        ],
    ),
    ([12, TEN], [(None, "wrong_type", "is a JSON list; write an object"), (12, "no_prediction", "no prediction")]),
    ("null", [(None, "wrong_type", "is a JSON null; write an object"), (12, "no_prediction", "no prediction")]),
    ({"query_id": 99, "item_ids": TEN}, [(12, "no_prediction", "no prediction")]),
]


@pytest.mark.parametrize(("entry", "expected"), ERRORS)
def test_every_error_of_a_line_is_named(entry, expected, files, tmp_path, capsys):
    targets, predictions = files
    output = tmp_path / "score.json"
    others = [{"query_id": query, "item_ids": TEN} for query in (13, 11)]
    predictions.write_text(lines([*others, entry]), encoding="utf-8")
    errors = evaluate_retrieval(targets, predictions).errors
    assert [(error.id, error.kind) for error in errors] == [(id, kind) for id, kind, _ in expected]
    for error, (_, kind, message) in zip(errors, expected, strict=True):
        place = (str(targets), 2) if kind == "no_prediction" else (str(predictions), 3)
        assert (error.file, error.line) == place
        assert message in error.message
        assert ";" in error.message  # what is wrong; the fix
    assert (
        main(["retrieval", "--targets", str(targets), "--predictions", str(predictions), "--output", str(output)]) == 1
    )
    captured = capsys.readouterr()
    result = json.loads(output.read_text())
    assert json.loads(captured.out) == result
    assert result == {
        "success": False,
        "score": 0,
        "scoreJson": {},
        "errorMsg": str(errors[0]),
        "errorDetail": "\n".join(map(str, errors)),
    }
    assert result["errorDetail"] in captured.err
    assert captured.err.endswith(f"The submission is not valid: {len(errors)} error(s).\n")


def test_all_errors_of_both_files_are_listed(files):
    targets, predictions = files
    with targets.open("a", encoding="utf-8") as file:
        file.write(lines([{"query_id": 14}, "", {"query_id": 15, "item_ids": 5}]))
    predictions.write_text(lines(["oops", {"query_id": 11, "item_ids": TEN}, {"query_id": 12, "item_ids": []}]))
    errors = evaluate_retrieval(targets, predictions).errors
    assert [(error.file.rpartition("/")[2], error.line, error.id, error.kind) for error in errors] == [
        ("targets.jsonl", 4, 14, "missing_key"),
        ("targets.jsonl", 5, None, "blank_line"),
        ("predictions.jsonl", 1, None, "malformed_json"),
        ("predictions.jsonl", 3, 12, "wrong_count"),
        ("targets.jsonl", 3, 13, "no_prediction"),
        ("targets.jsonl", 6, 15, "no_prediction"),
        ("targets.jsonl", 6, 15, "wrong_type"),
    ]
    assert "without answers nothing can be scored" in errors[0].message


def test_bytes_that_are_not_utf8_are_located(files):
    targets, predictions = files
    predictions.write_bytes(predictions.read_bytes().replace(b'"item_ids"', b'"note": "\xff", "item_ids"', 1))
    error = evaluate_retrieval(targets, predictions).errors[0]
    assert (error.file, error.line, error.id, error.kind) == (str(predictions), 1, 13, "not_utf8")
    assert "byte 0xff at byte 27" in error.message


def test_a_byte_order_mark_is_refused(files):
    targets, predictions = files
    predictions.write_text(predictions.read_text(), encoding="utf-8-sig")
    (error,) = evaluate_retrieval(targets, predictions).errors
    assert (error.file, error.line, error.kind) == (str(predictions), 1, "byte_order_mark")


def test_what_is_accepted_silently_is_told(files, capsys):
    targets, predictions = files
    with targets.open("a", encoding="utf-8") as file:
        file.write(lines([{"query_id": 14, "item_ids": ["0"]}]))
    with predictions.open("a", encoding="utf-8") as file:
        extra = [{"query_id": query, "item_ids": TEN} for query in (14, 99)]
        file.write(lines([*extra, {"query_id": 11, "item_ids": list(range(100, 110))}]))
    assert main(["retrieval", "--targets", str(targets), "--predictions", str(predictions)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["scoreJson"]["r10"] == 25  # the last line of query 11 counts
    assert captured.err.splitlines()[:3] == [
        "note: 1 query_ids are predicted more than once; the last line counts: 11",
        "note: 1 query_ids are predicted but not in the targets file; they count for nothing: 99",
        "note: 1 query_ids have no relevant image in the targets file; they count as missed: 14",
    ]


@pytest.mark.parametrize("missing", ["targets", "predictions"])
def test_a_missing_file_is_named(missing, files, tmp_path, capsys):
    paths = dict(zip(("targets", "predictions"), map(str, files), strict=True))
    paths[missing] = str(tmp_path / "nowhere.jsonl")
    output = tmp_path / "score.json"
    options = ["--targets", paths["targets"], "--predictions", paths["predictions"], "--output", str(output)]
    assert main(["retrieval", *options]) == 1
    assert f"{paths[missing]}: cannot be read: No such file or directory" in capsys.readouterr().err
    assert json.loads(output.read_text())["errorMsg"].startswith(paths[missing])


def test_an_empty_gold_file_is_named(files):
    targets, predictions = files
    targets.write_text("")
    assert "targets.jsonl: has no lines" in score_retrieval(targets, predictions)["errorDetail"]


@pytest.mark.parametrize("task", ["retrieval", "captioning"])
def test_predictions_of_another_kind_are_one_error(tmp_path, capsys, task):
    texts = {"retrieval": {"query_text": "红", "item_ids": TEN}, "captioning": {"text": ["红"]}}[task]
    key = {"retrieval": "query_id", "captioning": "image_id"}[task]
    entries = [{key: str(number) if key == "image_id" else number, **texts} for number in range(20)]
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    targets.write_text(lines(entries), encoding="utf-8")
    predictions.write_text(json.dumps(entries, indent=1))
    assert main([task, "--targets", str(targets), "--predictions", str(predictions)]) == 1
    error, verdict = capsys.readouterr().err.splitlines()
    assert error.startswith(f"{predictions}:1: the file is one JSON list over several lines")
    assert verdict == "The submission is not valid: 1 error(s)."


def test_missing_predictions_are_counted(files, capsys):
    targets, predictions = files
    targets.write_text(lines([{"query_id": query, "item_ids": [1]} for query in range(11, 31)]))
    assert main(["retrieval", "--targets", str(targets), "--predictions", str(predictions)]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[5:] == [
        f"{targets}: and 12 more like this",
        "The submission is not valid: 17 error(s).",
    ]
    assert len(json.loads(printed.out)["errorDetail"].splitlines()) == 17


def test_an_input_is_never_overwritten(files):
    targets, predictions = files
    before = targets.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="one of the files to score"):
        main(["retrieval", "--targets", str(targets), "--predictions", str(predictions), "--output", str(targets)])
    assert targets.read_text(encoding="utf-8") == before


def test_an_output_that_cannot_be_written_is_named(files):
    targets, predictions = files
    with pytest.raises(UserError, match="cannot be written"):
        main(
            [
                "retrieval",
                "--targets",
                str(targets),
                "--predictions",
                str(predictions),
                "--output",
                str(targets / "score.json"),
            ]
        )


def run_zoo(*words):
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "zoo", "score", *words], capture_output=True, text=True, timeout=60)
    return done, time.perf_counter() - start


def test_the_command_answers_at_once_and_scores_a_split_of_muges_size_in_seconds(tmp_path):
    done, seconds = run_zoo("retrieval", "--help")
    assert done.returncode == 0
    assert "--predictions" in done.stdout
    assert seconds < 2  # half a second on an idle machine
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    targets.write_text(lines([{"query_id": query, "item_ids": [query % 30_000, 7]} for query in range(5_008)]))
    guesses = [list(range(query, query + 10)) for query in range(5_008)]
    predictions.write_text(lines([{"query_id": query, "item_ids": images} for query, images in enumerate(guesses)]))
    done, seconds = run_zoo("retrieval", "--targets", str(targets), "--predictions", str(predictions))
    assert done.returncode == 0
    assert json.loads(done.stdout)["score"] == 100
    assert seconds < 5


def test_torch_is_not_imported(files):
    targets, predictions = map(str, files)
    code = (
        "import sys; from zoo.__main__ import main; "
        f"main(['score', 'retrieval', '--targets', {targets!r}, '--predictions', {predictions!r}]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["retrieval", "--targets", "a", "--prediction", "b"],
            "there is no option --prediction. Did you mean --predictions?",
        ),
        (["retrieval", "--targets", "a"], "required: predictions"),
    ],
)
def test_a_mistyped_command_line_gives_one_short_error(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 2


def test_a_mistyped_name_is_answered_with_the_nearest_and_the_table(capsys):
    assert main(["retreival"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m zoo score: there is no command 'retreival'. Did you mean retrieval?\n")
    assert "  text_to_image-controls  the same of true images that were corrupted\n" in error
