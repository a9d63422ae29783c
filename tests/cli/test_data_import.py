import csv
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from zoo.__main__ import main as run
from zoo.cli.data import main


def save(path, number, kind):
    """A picture of its own colours, as shops have them: of many kinds, not square."""
    colours = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize((50, 40), Image.Resampling.NEAREST)
    if kind == "alpha":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    elif kind == "cmyk":
        image = image.convert("CMYK")
    exif = Image.Exif()
    exif[0x112] = 6
    image.save(path, **({"exif": exif} if kind == "rotated" else {}))


KINDS = {"plain": "jpg", "alpha": "png", "lossy": "webp", "few": "gif", "cmyk": "jpeg", "rotated": "jpg"}


@pytest.fixture
def shop(tmp_path):
    """Forty pictures of six kinds, and a table: a name each, and here and there one more, or one of two pictures."""
    (tmp_path / "照片").mkdir()
    rows = []
    for number in range(40):
        kind = list(KINDS)[number % 6]
        name = f"{number}-{kind}.{KINDS[kind]}"
        save(tmp_path / "照片" / name, number, kind)
        rows.append((name, f"第{number}件商品"))
        if number % 7 == 0:
            rows.append((name, f"也叫第{number}"))
        if number % 10 > 7:
            rows.append((name, f"第{number // 10}种"))
    rows = [(name, text, name.partition("-")[2]) for name, text in rows]
    with (tmp_path / "pairs.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("图片", "标题", "种 类"), *rows])
    return tmp_path


def words(shop, task, *more, out="out"):
    return ["import", task, "--images", str(shop / "照片"), "--table", str(shop / "pairs.csv"), *more, str(shop / out)]


@pytest.mark.parametrize("task", ["retrieval", "text_to_image", "captioning"])
def test_a_strangers_table_becomes_clean_data(shop, capsys, task):
    assert main(words(shop, task)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert str(shop / "out") in printed
    assert printed[-1].endswith(f"python -m zoo data check {task} {shop}/out")
    assert main(["check", task, str(shop / "out")]) == 0


def test_it_says_how_much_is_in_each_split(shop, capsys):
    assert main(words(shop, "text_to_image", "--valid", "0.25", "--test", "0")) == 0
    printed = capsys.readouterr().out
    assert "  valid  10 images, 1" in printed
    assert "note: test has no rows, and no files." in printed
    assert "copies of images with several texts" in printed


def test_it_says_where_too_few_pictures_are_for_a_submission(shop, capsys):
    assert main(words(shop, "retrieval")) == 0
    note = "note: test has 4 images, and a submission names 10 a query: give it more, by --test SHARE or in the column"
    assert note in capsys.readouterr().out


def test_faults_are_listed_and_fail(shop, capsys):
    (shop / "照片" / "0-plain.jpg").unlink()
    assert main(words(shop, "captioning")) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{shop}/pairs.csv:2: no file 0-plain.jpg below --images")
    assert printed[1].startswith(f"{shop}/pairs.csv:3: no file 0-plain.jpg below --images")
    assert printed[-1].startswith("2 errors, nothing was written. Fix them, or leave these rows out: --on_error skip.")
    assert not (shop / "out").exists()


def test_many_faults_alike_are_counted_and_no_advice_leaves_no_row(shop, capsys):
    (shop / "照片").rename(shop / "别处")
    (shop / "照片").mkdir()
    assert main(words(shop, "captioning")) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[4].startswith(f"{shop}/pairs.csv:6: no file ")
    assert printed[5] == f"{shop}/pairs.csv: and 49 more like this"
    assert printed[-1].startswith("54 errors, nothing was written. Fix them. ")


def test_a_command_to_type_quotes_a_path_with_spaces(shop, capsys):
    assert main(words(shop, "captioning", out="my data")) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"python -m zoo data check captioning '{shop}/my data'")
    assert main(["export", "captioning", str(shop / "my data"), str(shop / "my back")]) == 0
    assert f"--images '{shop}/my back/images' --table '{shop}/my back/pairs.csv'" in capsys.readouterr().out


def test_faults_can_be_left_out(shop, capsys):
    (shop / "照片" / "0-plain.jpg").unlink()
    assert main(words(shop, "captioning", "--on_error", "skip")) == 0
    assert "2 errors; these rows were left out." in capsys.readouterr().out


def test_an_unknown_column_is_an_error(shop, capsys):
    assert run(["data", *words(shop, "captioning", "--text_column", "题")]) == 1
    assert "--text_column is '题'; the columns of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--on_error", "skp", "--on_error is 'skp'; choose from 'raise', 'skip'."),
        ("--valid", "much", "--valid: 'much' came; give a number"),
        ("--seed", "1.5", "--seed: '1.5' came; give a whole number"),
        ("--max_size", "", "--max_size: "),
    ],
)
def test_an_option_of_another_kind_is_told_in_one_line(shop, capsys, option, value, said):
    with pytest.raises(SystemExit) as stopped:
        main(words(shop, "captioning", option, value))
    assert stopped.value.code == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert said in first


def test_a_folder_that_cannot_be_written_is_an_error(shop, capsys):
    assert run(["data", *words(shop, "captioning", out="pairs.csv/out")]) == 1
    assert "pairs.csv/out cannot be written: Not a directory." in capsys.readouterr().err


def test_what_was_imported_is_exported(shop, capsys):
    assert main(words(shop, "retrieval", "--max_size", "20")) == 0
    assert main(["export", "retrieval", str(shop / "out"), str(shop / "back")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("To import it again: python -m zoo data import retrieval --images")
    with (shop / "back" / "pairs.csv").open(encoding="utf-8", newline="") as file:
        back = {(row["image"], row["text"]) for row in csv.DictReader(file)}
    with (shop / "pairs.csv").open(encoding="utf-8-sig", newline="") as file:
        assert back == {(row["图片"], row["标题"]) for row in csv.DictReader(file)}
    assert {path.name for path in (shop / "back" / "images").iterdir()} == {name for name, _ in back}


def test_what_images_show_goes_there_and_back_by_the_commands_that_are_printed(shop, capsys):
    assert main([*words(shop, "retrieval"), "--attributes", "种 类"]) == 0
    assert main(["export", "retrieval", str(shop / "out"), str(shop / "back")]) == 0
    *_, again = capsys.readouterr().out.splitlines()
    command = shlex.split(again.replace("NEW_FOLDER", str(shop / "again")).partition("python -m zoo data ")[2])
    assert main(command) == 0
    assert (shop / "again" / "attributes.json").read_bytes() == (shop / "out" / "attributes.json").read_bytes()
    kinds = [json.loads(line)["attributes"] for line in (shop / "again" / "attributes_valid.jsonl").open()]
    assert kinds
    assert all(attributes["种 类"].partition(".")[0] in KINDS for attributes in kinds)


def test_a_column_that_is_no_attribute_is_an_error(shop, capsys):
    assert run(["data", *words(shop, "captioning"), "--attributes", "标题"]) == 1
    assert "--attributes names '标题'; it may name, each once, " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["import", "export"])
def test_help_fits_eighty_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def test_it_needs_no_pytorch(shop):
    code = "import sys; from zoo.cli.data import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, *words(shop, "retrieval", "--max_size", "20")]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_a_model_is_trained_and_scored_on_what_was_imported(shop, workplace, zoo_main):
    """The way of a stranger: import, fit, predict, score."""
    assert main(words(shop, "retrieval", "--valid", "0.3", "--test", "0.3")) == 0
    code, out, err = zoo_main(
        *("fit", "--config", "experiments/tiny.yaml", "--data.root", shop / "out", "--trainer.max_epochs", 1)
    )
    assert code == 0, out + err
    code, out, err = zoo_main("predict")
    assert code == 0, out + err
    (predictions,) = workplace.glob("runs/tiny/*/predictions/MR_test_queries.jsonl")
    targets = shop / "out" / "MR_test_answers.jsonl"
    code, out, err = zoo_main("score", "retrieval", "--targets", targets, "--predictions", predictions)
    assert code == 0, out + err
    assert json.loads(out)["success"]
