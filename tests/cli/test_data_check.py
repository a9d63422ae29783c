import json
import subprocess
import sys

import pytest

from zoo.__main__ import main as zoo_main
from zoo.cli.data import main

TASKS = ("retrieval", "text_to_image", "captioning")


@pytest.fixture
def spoiled(tmp_path):
    """A T2I folder with two errors: an empty text (on line 2) and a picture that is not base64."""
    (tmp_path / "T2I_train.txt.tsv").write_text("a\t红色\nb\t \n")
    picture = "R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs="
    (tmp_path / "T2I_train.img.tsv").write_text(f"a\t{picture}\nb\t[italic]\n")
    for split in ("val", "test"):
        (tmp_path / f"T2I_{split}.txt.tsv").write_text(f"{split}\t{split}\n")
    (tmp_path / "T2I_val.img.tsv").write_text(f"val\t{picture}\n")
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
def test_the_embedded_data_is_clean(demo_root, capsys, task):
    assert main(["check", task, str(demo_root)]) == 0
    printed = capsys.readouterr().out
    assert "Nothing is wrong with" in printed


def test_faults_are_listed_and_counted(spoiled, capsys):
    assert main(["check", "text_to_image", str(spoiled)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{spoiled}/T2I_train.img.tsv:2: image b: not base64")
    assert "b'[italic]'" in lines[0]
    assert lines[1].startswith(f"{spoiled}/T2I_train.txt.tsv:2: description b: no text behind the tab; write it")
    assert [line.split() for line in lines[4:8]] == [
        ["T2I_train.img.tsv", "fine", "1"],
        ["bad", "base64", "1"],
        ["T2I_train.txt.tsv", "fine", "1"],
        ["empty", "text", "1"],
    ]
    assert lines[-1] == "2 errors. Fix them, or train without those rows: --data.on_error skip."


def test_many_errors_alike_are_counted_and_not_skipped_where_nothing_would_be_left(spoiled, capsys):
    (spoiled / "T2I_train.txt.tsv").write_text("a，红色\n" * 60)
    assert main(["check", "text_to_image", str(spoiled)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{spoiled}/T2I_train.txt.tsv:1: no tab in ")
    assert lines[6] == f"{spoiled}/T2I_train.txt.tsv: and 55 more like this"
    assert lines[-1] == "61 errors. Fix them."
    assert main(["check", "text_to_image", str(spoiled), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["errors"]) == 61


def test_json_takes_the_place_of_words(spoiled, capsys):
    assert main(["check", "text_to_image", str(spoiled), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [{**fault, "message": None} for fault in printed["errors"]] == [
        {"file": f"{spoiled}/T2I_train.img.tsv", "line": 2, "id": "b", "kind": "bad_base64", "message": None},
        {"file": f"{spoiled}/T2I_train.txt.tsv", "line": 2, "id": "b", "kind": "empty_text", "message": None},
    ]
    assert printed["errors"][0]["message"].startswith("image b: not base64")
    assert printed["summary"]["errors"] == 2
    assert printed["summary"]["files"][0] == {
        "file": "T2I_train.img.tsv",
        "lines": 2,
        "fine": 1,
        "errors": {"bad_base64": 1},
    }


def test_json_of_a_clean_folder_has_no_faults(spoiled, capsys):
    (spoiled / "T2I_train.txt.tsv").write_text("a\t红色\n")
    (spoiled / "T2I_train.img.tsv").write_text((spoiled / "T2I_train.img.tsv").read_text().splitlines()[0])
    assert main(["check", "text_to_image", str(spoiled), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["errors"] == []


def test_ids_that_cannot_be_printed_are_escaped(tmp_path, capsysbinary):
    (tmp_path / "IC_train.jsonl").write_text(
        '{"image_id": "\\ud83d", "text": ["\\ud83d"], "\\ud83d": 1}\n{"\\ud83d": 1}\n'
    )
    for words in ([], ["--json"]):
        assert main(["check", "captioning", str(tmp_path), *words]) == 1
        assert b"ud83d" in capsysbinary.readouterr().out


def test_a_folder_that_holds_nothing_of_the_task_is_an_error(tmp_path, capsys):
    assert zoo_main(["data", "check", "captioning", str(tmp_path)]) == 1
    assert "neither a folder 'ECommerce-IC' nor files like IC_*.tsv or IC_*.jsonl" in capsys.readouterr().err


def test_an_unknown_task_is_an_error_of_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", "captions", str(tmp_path)])
    assert stopped.value.code == 2
    assert "there is no 'captions'; choose from 'captioning', 'retrieval', 'text_to_image'" in capsys.readouterr().err


def test_help_fits_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def test_it_needs_no_pytorch(spoiled):
    code = "import sys; from zoo.cli.data import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = [sys.executable, "-c", code, "check", "text_to_image", str(spoiled)]
    assert subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_long_texts_and_unknown_characters_are_counted(spoiled, capsys):
    (spoiled / "T2I_train.txt.tsv").write_text(f"a\t红鞋👟\nb\t{'长' * 51}\n", encoding="utf-8")
    main(["check", "text_to_image", str(spoiled)])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "T2I_train.txt.tsv: 1 of 2 texts (50.00%) are longer than 52 tokens, where text towers cut them by default",
        "T2I_train.txt.tsv: 1 of 54 characters (1.85%) are not in BERT's vocabulary: models read [UNK]",
    ]
    main(["check", "text_to_image", str(spoiled), "--json"])
    texts = json.loads(capsys.readouterr().out)["texts"]
    assert texts["T2I_train.txt.tsv"] == {"texts": 2, "too_long": 1, "characters": 54, "unknown": 1}
    assert texts["T2I_val.txt.tsv"]["too_long"] == 0
