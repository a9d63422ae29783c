import importlib.util
import json
import statistics
import subprocess
import sys

import pytest

from zoo.__main__ import main
from zoo.bench import harness as bench_report
from zoo.bench.data import BASE64_BYTES, product_picture, queries
from zoo.bench.harness import Row, interleave, report

LOOP_STEPS = 20


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # what the command would set for good


def bench(tmp_path, capsys, *words):
    """Run a bench; its JSON, each row's ratio held against its rates and against what is printed."""
    path = tmp_path / "bench.json"
    assert main(["bench", *map(str, words), "--blocks", "2", "--output", str(path)]) == 0
    result = json.loads(path.read_text())
    printed = capsys.readouterr().out
    for row in result["rows"]:
        assert row["ours"] == statistics.median(row["blocks"][row["ours_is"]]) > 0
        assert all(len(rates) == (LOOP_STEPS if row["name"] == "loop" else 2) for rates in row["blocks"].values())
        if row["peer_is"]:
            assert row["peer"] == statistics.median(row["blocks"][row["peer_is"]]) > 0
            assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
            assert f"{row['ratio']:.2f}" in printed
    assert result["protocol"]["torch"] in printed
    return result


def pairs_of(result):
    return {(row["name"], row["ours_is"], row["peer_is"]) for row in result["rows"]}


@pytest.mark.parity
def test_data(tmp_path, capsys):
    result = bench(tmp_path, capsys, "data", "--pictures", 6, "--index_megabytes", 1)
    kinds = ("plain", "crop + flip", "crop + flip + AutoAugment")
    expected = {(kind, ours, "cn-clip") for kind in kinds for ours in ("ours", "ours as float")}
    assert pairs_of(result) == expected | {("index of a TSV of 1 MB", "ours", None)}


@pytest.mark.parity
def test_eval(tmp_path, capsys):
    result = bench(tmp_path, capsys, "eval", "--queries", 20, "--pictures", 100)
    rows = result["rows"]
    assert [row["ours_is"] for row in rows] == ["top 10", "first true rank", "top 10", "top 10"]
    assert all(row["peer_is"].startswith("product") for row in rows[:2])
    assert [row["peer_is"] for row in rows[2:]] == ["faiss flat", "cn-clip's loop"]


@pytest.mark.parity
def test_step(tmp_path, capsys):
    words = ("--layers", 1, "--batch_size", 2, "--steps", 1, "--precision", "32-true")
    result = bench(tmp_path, capsys, "step", *words)
    assert pairs_of(result) == {
        ("step", "ours", "cn-clip"),
        ("step", "ours", "open_clip"),
        ("loop", "Lightning's loop", "bare loop"),
    }
    assert result["protocol"]["precision"] == "32-true for all"


@pytest.mark.parity
def test_score(tmp_path, capsys):
    result = bench(tmp_path, capsys, "score", "--rows", 60, "--width", 40, "--pictures", 3)
    assert pairs_of(result) == {
        ("Fréchet distance", "ours", "torch-fidelity"),
        ("kernel distance", "ours", "torch-fidelity"),
        ("reading", "read and seen", "seen"),
    }
    for values in result["protocol"]["values"].values():
        assert values["ours"] == pytest.approx(values["torch-fidelity"], rel=1e-4)
    assert set(result["protocol"]["memory_megabytes"]["Fréchet distance"]) == {"ours", "torch-fidelity"}


@pytest.mark.parity
def test_both_loaders_read_the_same_pairs(tmp_path):
    """cn-clip's LMDB holds what our TSV holds: the same pixels and the same tokens."""
    import torch
    from cn_clip.training.data import LMDBDataset

    from zoo.bench.data import CONTEXT, SIZE, build_lmdb, write_muge
    from zoo.models.tokenizer import BertChineseTokenizer
    from zoo.registry import IMAGE_TOWERS
    from zoo.tasks.retrieval.data import RetrievalDataModule

    write_muge(tmp_path, [product_picture(seed) for seed in range(4)])
    build_lmdb(tmp_path)
    data = RetrievalDataModule(str(tmp_path), image_size=SIZE, num_workers=0, crop_scale=(1.0, 1.0))
    data.setup("fit")
    batch = data.train_dataloader().dataset.__getitems__([(0, row) for row in range(4)])
    with torch.device("meta"):
        tower = IMAGE_TOWERS.build("vit_base_patch16_clip_quickgelu_224")
    ids, mask = BertChineseTokenizer()(batch["text"])
    theirs = LMDBDataset(str(tmp_path / "lmdb"), split="train", max_txt_length=CONTEXT, resolution=SIZE)
    for place, pixels in enumerate(tower.normalise(batch["image"])):
        image, text, _ = theirs[place]
        torch.testing.assert_close(pixels, image, atol=1e-5, rtol=0)
        assert text[: ids.shape[1]].tolist() == ids[place].tolist()
        assert 8 <= int(mask[place].sum()) <= 15


@pytest.mark.parity
def test_the_models_that_are_compared_are_of_one_size():
    from zoo.bench import step as bench_step

    sizes = {}

    def record(model, loss, precision):
        sizes[type(model).__name__] = sum(parameter.numel() for parameter in model.parameters())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_step, "peer_step", record)
        bench_step.cn_clip_step(1, "32-true")
        bench_step.open_clip_step(1, "32-true")
    ours = sum(parameter.numel() for parameter in bench_step.our_task(1).parameters())
    assert sizes == {"CLIP": ours, "CustomTextCLIP": ours}


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("data", "cn_clip", "cn-clip"), ("eval", "faiss", "faiss-cpu"), ("step", "open_clip", "open-clip-torch")],
)
def test_a_missing_peer_names_the_extra(monkeypatch, capsys, name, module, package):
    find = importlib.util.find_spec
    present = importlib.util.find_spec("json")
    monkeypatch.setattr(
        bench_report.importlib.util,
        "find_spec",
        lambda wanted: None if wanted == module else present if wanted in ("cn_clip", "lmdb") else find(wanted),
    )
    assert main(["bench", name]) == 1
    assert f"{package}, which is not installed: pip install -e '.[parity]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "--blocks", "0"], "--blocks is 0: give 1 or more"),
        (["score", "--rows", "0"], "--rows is 0: give 1 or more"),
        (["step", "--batchsize", "4"], "there is no option --batchsize. Did you mean --batch_size"),
        (["fit"], "there is no 'fit'; choose from 'data', 'eval', 'step', 'score'"),
    ],
)
def test_wrong_options_are_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as left:
        main(["bench", *words])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["data", "eval", "step", "score"])
def test_help_imports_nothing_heavy(name):
    code = (
        "import sys\nfrom zoo.__main__ import main\n"
        f"try: main(['bench', {name!r}, '--help'])\nexcept SystemExit: pass\n"
        "print([module for module in ('torch', 'numpy', 'PIL') if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "--blocks" in done.stdout
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_as_many_rows_as_dimensions_are_refused(capsys):
    assert main(["bench", "score", "--rows", "40", "--width", "40"]) == 1
    assert "--rows is 40: give 41 or more" in capsys.readouterr().err


def test_contenders_take_turns_and_the_first_block_does_not_count(capsys):
    turns = []

    def contender(name):
        def measure():
            turns.append(name)
            return float(len(turns))

        return measure

    rates = interleave({"ours": contender("ours"), "peer": contender("peer")}, blocks=2, what="bench")
    assert turns == ["ours", "peer"] * 3
    assert rates == {"ours": [3.0, 5.0], "peer": [4.0, 6.0]}
    assert "block 2 of 2" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    row = Row("plain", "pairs/s", {"ours": [4.0, 2.0], "peer": [1.0, 1.0]}, "ours", "peer", 2.0)
    with pytest.raises(ValueError, match=r"--output .*bench\.json cannot be written"):
        report("data", [row], {"torch": "1"}, output=str(tmp_path / "file" / "bench.json"))
    assert "3.00" in capsys.readouterr().out


def test_generated_data_is_like_muges():
    from io import BytesIO

    from PIL import Image

    pictures = [product_picture(seed) for seed in range(40)]
    sizes = sorted(4 * len(picture) / 3 for picture in pictures)
    assert BASE64_BYTES[0] * 0.75 < sizes[0]
    assert sizes[-1] < BASE64_BYTES[1]
    assert Image.open(BytesIO(pictures[0])).size == (224, 224)
    assert {len(text) for text in queries(500)} == set(range(6, 14))
