"""What captions say of their images, held against what the images show."""

import json
import math

import pytest
import torch

import zoo
from zoo.data.attributes import Vocabulary, read_attributes, read_vocabulary, write_attributes, write_vocabulary
from zoo.errors import FileError
from zoo.tasks.captioning.metrics.attributes import CaptionAttributes

WORDS = {
    "类别": {"连衣裙": ["连衣裙", "裙装"], "半身裙": ["半身裙"], "口红": ["口红"]},
    "颜色": {"红色": ["红色", "大红"], "白色": ["白色", "雪白"], "酒红色": ["酒红色", "酒红"]},
    "图案": {"纯色": ["素色"], "碎花": ["碎花", "小碎花"]},
    "拼色": {"红色": ["拼红色"], "白色": ["拼白色"]},
    "袖长": {"长袖": ["长袖"], "短袖": ["短袖"]},
}
DRESS = {"类别": "连衣裙", "颜色": "红色", "图案": "碎花", "袖长": "长袖"}
PLAIN = {"类别": "半身裙", "颜色": "白色", "图案": "纯色"}


@pytest.fixture
def vocabulary():
    return Vocabulary(WORDS, unsaid=["纯色"])


def test_the_longest_word_is_meant(vocabulary):
    assert vocabulary.mentions("小碎花酒红色裙装，拼白色") == [
        [("图案", "碎花")],
        [("颜色", "酒红色")],
        [("类别", "连衣裙")],
        [("拼色", "白色")],
    ]
    assert Vocabulary({}).mentions("红色") == []


def scores(vocabulary, *pairs):
    metric = CaptionAttributes(vocabulary)
    captions, attributes = zip(*pairs, strict=True)
    metric.update(captions, attributes)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(
    ("caption", "shown", "precision", "recall", "contradiction"),
    [
        ("大红小碎花长袖裙装，显瘦", DRESS, 100, 100, 0),
        ("大红连衣裙，大红", DRESS, 100, 50, 0),  # said twice
        ("酒红碎花连衣裙", DRESS, 100 * 2 / 3, 50, 100),  # another colour
        ("红色短袖半身裙", DRESS, 100 / 3, 25, 100),
        ("雪白半身裙", PLAIN, 100, 100, 0),  # 纯色 need not be said
        ("雪白素色半身裙", PLAIN, 100, 100, 0),  # and may be
        ("雪白碎花半身裙", PLAIN, 100 * 2 / 3, 100, 100),
        ("白色长袖半身裙", PLAIN, 100 * 2 / 3, 100, 0),  # wrong, but nothing else is shown
        ("红色连衣裙拼白色", {**DRESS, "拼色": "白色"}, 100, 60, 0),
        ("白色连衣裙", {**DRESS, "拼色": "白色"}, 100, 40, 0),  # it is one of its colours
        ("便宜又好看", DRESS, math.nan, 0, 0),
    ],
)
def test_by_hand(vocabulary, caption, shown, precision, recall, contradiction):
    expected = {"precision": precision, "recall": recall, "contradiction": contradiction}
    assert scores(vocabulary, (caption, shown)) == pytest.approx(expected, nan_ok=True)


def test_counts_are_summed_over_captions(vocabulary):
    together = scores(vocabulary, ("酒红碎花连衣裙", DRESS), ("雪白半身裙", PLAIN))
    assert together == pytest.approx({"precision": 80, "recall": 100 * 4 / 6, "contradiction": 50})


def test_what_is_counted_has_names_and_adds_up_over_batches(vocabulary):
    metric = CaptionAttributes(vocabulary)
    assert (metric.counts.dtype, metric.counts.tolist()) == (torch.int64, [0] * 6)
    metric.update(["酒红碎花连衣裙"], [DRESS])
    metric.update(["雪白碎花半身裙", "便宜又好看"], [PLAIN, DRESS])
    wanted = {"words": 6, "right": 4, "shown": 10, "said": 4, "captions": 3, "contradicting": 2}
    assert dict(zip(metric.names, metric.counts.tolist(), strict=True)) == wanted
    metric.update([], [])
    assert metric.counts.tolist() == [*wanted.values()]


def test_it_is_one_of_zoos_metrics_and_is_merged_over_processes(vocabulary):
    halves = [zoo.metrics.CaptionAttributes(vocabulary) for _ in range(2)]
    for metric, caption, shown in zip(halves, ("酒红碎花连衣裙", "雪白半身裙"), (DRESS, PLAIN), strict=True):
        metric.update([caption], [shown])
    halves[0].merge_state(halves[1])
    expected = scores(vocabulary, ("酒红碎花连衣裙", DRESS), ("雪白半身裙", PLAIN))
    assert {name: float(value) for name, value in halves[0].compute().items()} == pytest.approx(expected)


def test_files_give_back_what_was_written(tmp_path, vocabulary):
    assert read_attributes(tmp_path, "valid") is None
    write_attributes(tmp_path, "valid", [("a", DRESS), (7, PLAIN)])
    write_vocabulary(tmp_path, WORDS, ["纯色"])
    assert read_attributes(tmp_path, "valid") == {"a": DRESS, 7: PLAIN}
    assert read_vocabulary(tmp_path).meanings == vocabulary.meanings
    assert read_vocabulary(tmp_path).unsaid == {"纯色"}


@pytest.mark.parametrize("line", ["{", "[]", '{"image_id": 1}', '{"image_id": [1], "attributes": {}}'])
def test_a_faulty_line_is_named(tmp_path, line):
    (tmp_path / "attributes_test.jsonl").write_text(f'{{"image_id": 1, "attributes": {{}}}}\n{line}\n')
    with pytest.raises(FileError) as caught:
        read_attributes(tmp_path, "test")
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "attributes_test.jsonl"), 2)
    with pytest.raises(FileError):
        read_vocabulary(tmp_path)


def test_they_are_logged_where_the_data_say_what_images_show(tmp_path, muge_root, workplace, zoo_main):
    """The true captions of each image: the references of the tiny data set name colour and shape."""
    import shutil

    import yaml
    from tiny import COLOURS, SHAPES

    from zoo.data.formats import read_captions

    root = tmp_path / "data" / "ECommerce-IC"
    shutil.copytree(muge_root / "ECommerce-IC", root)
    values = {"颜色": COLOURS, "形状": SHAPES}
    write_vocabulary(root, {kind: {value: [value] for value in of} for kind, of in values.items()}, [])
    for split, answers in (("valid", ""), ("test", "_answers")):
        captions = read_captions(root / f"IC_{split}{answers}.jsonl")
        shown = [
            (each.image_id, {kind: value for kind, of in values.items() for value in of if value in each.texts[0]})
            for each in captions
        ]
        write_attributes(root, split, shown)
    options = {"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}, "width": 32}
    options |= {"num_layers": 1, "num_heads": 2, "decoding": {"max_tokens": 4}}
    model = {"captioner": "prefix_tiny", "captioner_options": options}
    model |= {"image_pretrained": False, "language_pretrained": False, "evaluation": {"grid_images": 0}}
    experiment = {
        "model": {"class_path": "CaptioningTask", "init_args": model},
        "data": {"class_path": "CaptioningDataModule", "init_args": {"root": str(root), "num_workers": 0}},
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "limit_train_batches": 1, "enable_progress_bar": False},
    }
    (workplace / "experiments" / "told.yaml").write_text(yaml.safe_dump(experiment))
    assert zoo_main("fit", "--config", "experiments/told.yaml")[0] == 0
    (run,) = (workplace / "runs" / "told").iterdir()
    assert "val/attributes_recall" in (run / "metrics.csv").read_text()
    code, printed, _ = zoo_main("test", "--ckpt_path", run)
    assert code == 0
    numbers = json.loads((run / "test.json").read_text())["metrics"]
    assert 0 <= numbers["test/attributes_recall"] <= 100
    assert torch.tensor(numbers["test/attributes_contradiction"]).isfinite()
    assert f"recall {numbers['test/attributes_recall']:.1f}" in printed
    lines = (root / "attributes_test.jsonl").read_text().splitlines(keepends=True)
    (root / "attributes_test.jsonl").write_text("".join(lines[1:]))
    code, _, err = zoo_main("test", "--ckpt_path", run)
    assert code == 1
    assert f"attributes_test.jsonl: 1 images have no line, {json.loads(lines[0])['image_id']} the first" in err
