import json

import pytest

from zoo.__main__ import main


def pairs_of(result):
    return {(row["name"], row["ours_is"], row["peer_is"]) for row in result["rows"]}


@pytest.mark.parity
def test_data(run_bench):
    result = run_bench("data", "--images", 6, "--index_megabytes", 1, "--blocks", 2)
    kinds = ("plain", "crop + flip", "crop + flip + AutoAugment")
    expected = {(kind, ours, "cn-clip") for kind in kinds for ours in ("ours", "ours as float")}
    assert pairs_of(result) == expected | {("index of a TSV of 1 MB", "ours", None)}


@pytest.mark.parity
def test_eval(run_bench):
    result = run_bench("eval", "--queries", 20, "--images", 100, "--blocks", 2)
    rows = result["rows"]
    assert [row["ours_is"] for row in rows] == ["top 10", "first true rank", "top 10", "top 10"]
    assert all(row["peer_is"].startswith("product") for row in rows[:2])
    assert [row["peer_is"] for row in rows[2:]] == ["faiss flat", "cn-clip's loop"]


@pytest.mark.parity
def test_step(run_bench):
    words = ("--layers", 1, "--batch_size", 2, "--steps", 1, "--precision", "32-true")
    result = run_bench("step", *words, "--blocks", 2)
    assert pairs_of(result) == {
        ("step", "ours", "cn-clip"),
        ("step", "ours", "open_clip"),
        ("loop", "Lightning's loop", "bare loop"),
    }
    assert result["protocol"]["precision"] == "32-true for all"


@pytest.mark.parity
def test_both_loaders_read_the_same_pairs(tmp_path):
    """cn-clip's LMDB holds what our TSV holds: the same pixels and the same tokens."""
    import torch
    from cn_clip.training.data import LMDBDataset

    from zoo.core.bench.samples import SIZE, product_jpeg
    from zoo.models.tokenizer import BertChineseTokenizer
    from zoo.registry import IMAGE_TOWERS
    from zoo.tasks.retrieval.bench.data import CONTEXT, build_lmdb, write_muge
    from zoo.tasks.retrieval.data import RetrievalDataModule

    write_muge(tmp_path, [product_jpeg(seed) for seed in range(4)])
    build_lmdb(tmp_path)
    data = RetrievalDataModule(str(tmp_path), image_size=SIZE, num_workers=0, crop_scale=(1.0, 1.0))
    data.setup("fit")
    batch = data.train_dataloader().dataset.__getitems__([(0, row) for row in range(4)])
    with torch.device("meta"):
        tower = IMAGE_TOWERS.build("vit_base_patch16_clip_quickgelu_224")
    ids, mask = BertChineseTokenizer()(batch["text"])
    theirs = LMDBDataset(str(tmp_path / "lmdb"), split="train", max_txt_length=CONTEXT, resolution=SIZE)
    for index, pixels in enumerate(tower.normalise(batch["image"])):
        image, text, _ = theirs[index]
        torch.testing.assert_close(pixels, image, atol=1e-5, rtol=0)
        assert text[: ids.shape[1]].tolist() == ids[index].tolist()
        assert 8 <= int(mask[index].sum()) <= 15


@pytest.mark.parity
def test_the_models_that_are_compared_are_of_one_size():
    from zoo.tasks.retrieval.bench import step as bench_step

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
def test_a_missing_peer_names_the_extra(hide_module, capsys, name, module, package):
    hide_module(module, present=("cn_clip", "lmdb"))
    assert main(["bench", name]) == 1
    assert f"{package}, which is not installed: pip install -e '.[parity]'" in capsys.readouterr().err


def test_layers_that_the_towers_have_not_are_refused(hide_module, capsys):
    hide_module("", present=("cn_clip", "open_clip"))
    assert main(["bench", "step", "--layers", "13"]) == 1
    assert "--layers is 13: the towers have 12" in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_in_chunks_takes_the_memory_of_a_chunk(tmp_path, monkeypatch):
    """Eight times the batch: the images and embeddings grow, the rest does not; kept whole, all of it does."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")  # pages of 2 MB count memory that nobody touched
    path = tmp_path / "memory.json"
    words = ("--batch_sizes", "[64, 256, 512]", "--kept", "256", "--blocks", "1", "--output", str(path))
    assert main(["bench", "memory", *words]) == 0
    rows = json.loads(path.read_text())["rows"]
    size = dict(zip(("small", "kept", "large"), (64, 256, 512), strict=True))
    small, kept, large = (count / row["ours"] for count, row in zip(size.values(), rows, strict=True))  # GB
    assert large < 1.2 * small
    assert 256 / rows[1]["peer"] - small > 4 * (kept - small)


def test_no_pairs_are_no_step(capsys):
    assert main(["bench", "memory", "--batch_sizes", "[64, 0]"]) == 1
    assert "--batch_sizes: 0 came; give 1 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_search(run_bench):
    result = run_bench("search", "--products", 400, "--queries", 4, "--blocks", 2)
    ours = ("index", "index, condition", "index, 20 clients")
    assert pairs_of(result) == {("search", name, "exact") for name in ours}
    for name in ("plain", "with a condition"):
        assert float(result["protocol"][name].split()[1].rstrip(";")) == 1


def test_a_search_among_too_few_is_refused(capsys):
    assert main(["bench", "search", "--products", "199"]) == 1
    assert "--products is 199: give 200 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_export(run_bench, matcher_file):
    result = run_bench("export", "--checkpoint", matcher_file(), "--blocks", 2, "--calls", 1)
    expected = {(f"texts by {count}", ours, "PyTorch") for count in (1, 32) for ours in ("ONNX", "ONNX int8")}
    assert pairs_of(result) == expected | {(f"images by {count}", "ONNX", "PyTorch") for count in (1, 32)}
    assert "timm:test_vit at 32 px" in result["protocol"]["model"]
