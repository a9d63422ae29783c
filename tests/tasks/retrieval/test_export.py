"""Retrieval models out: what other libraries compute of an exported folder, and what ``zoo.load`` reads back."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from torch.nn.functional import normalize

import zoo
from zoo.core.export import Agreement, export, find_exporter, sample_images
from zoo.errors import UserError
from zoo.models.tokenizer import BertChineseTokenizer
from zoo.tasks.retrieval import cn_clip, huggingface

CHINESE_CLIP = {  # of few layers, which transformers' ChineseCLIPModel can be too
    "image_tower": "vit_base_patch32_clip_quickgelu_224",
    "image_tower_options": {"image_size": 64, "num_layers": 1},
    "text_tower": "rbt3",
    "text_tower_options": {"num_layers": 1},
    "embedding_dim": 32,
}
BATCH_NORM = {"image_tower": "resnet10t", "image_tower_options": {"image_size": 64}}
CASES = {  # format: the options of a model that it can hold
    "transformers": CHINESE_CLIP,
    "sentence_transformers": BATCH_NORM,
    "open_clip": {**BATCH_NORM, "loss": "sigmoid"},
    "onnx": BATCH_NORM,
    "onnx_fp16": {},
    "onnx_int8": {"text_tower_options": {"width": 128, "num_layers": 1, "num_heads": 2}, "embedding_dim": 64},
    "safetensors": {"loss": "sigmoid", "image_tower_options": {"image_size": 64}},
}


slow = pytest.mark.slow
FORMATS = [pytest.param(kind, marks=slow) if "onnx" in kind else kind for kind in CASES]  # a graph takes 10 seconds


def randomised(path):
    """The checkpoint with every weight drawn, also those that begin at 0 or 1, so that no two may be exchanged."""
    contents = torch.load(path, weights_only=True)
    for name, value in contents["state_dict"].items():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape) * 0.4 + (0.8 if name.endswith(("weight", "var")) else -0.2))
    torch.save(contents, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory, muge_root):
    """Exports a model by the command: ``checkpoint, folder, printed = exported("onnx")``; read only."""
    from zoo.__main__ import main

    made = {}

    def make(kind):
        if kind not in made:
            place = tmp_path_factory.mktemp(kind)
            checkpoint = randomised(tiny.write_matcher(place / "model.ckpt", **CASES[kind]))
            data = [] if kind == "safetensors" else ["--data", str(muge_root)]
            assert main(["export", str(checkpoint), str(place / "out"), "--format", kind, *data]) == 0
            made[kind] = checkpoint, place / "out"
        return made[kind]

    return make


@pytest.mark.parametrize("kind", FORMATS)
def test_other_libraries_find_the_same_images(exported, muge_root, capsys, kind):
    checkpoint, folder = exported(kind)
    task = zoo.load(checkpoint)
    found = find_exporter(kind).compare(task, folder, str(muge_root))
    if kind == "safetensors":
        assert [each.difference for each in found] == [0.0]
        return
    *embeddings, recall = found
    exact = kind not in ("onnx_fp16", "onnx_int8")
    assert all(0 <= each.difference <= (1e-5 if exact else each.allowed) for each in embeddings[:2])
    before, after = map(float, re.search(r"([\d.]+) before and ([\d.]+) after", recall.what).groups())
    assert before > 0
    assert recall.difference == pytest.approx(abs(before - after), abs=0.011)
    assert not exact or recall.difference == 0


@pytest.mark.parametrize("kind", ["transformers", "sentence_transformers", "open_clip", "safetensors"])
def test_it_is_read_back_to_the_digit(exported, kind):
    checkpoint, folder = exported(kind)
    task, read = zoo.load(checkpoint), zoo.load(folder)
    own, its = task.state_dict(), read.state_dict()
    assert own.keys() == its.keys()
    assert all(torch.equal(its[name], value) for name, value in own.items())
    texts = ["红色连衣裙", "“大码”"]
    assert torch.equal(read.encode_text(texts), task.encode_text(texts))


def test_the_folder_of_transformers_is_one_of_sentence_transformers_too(exported):
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    checkpoint, folder = exported("transformers")
    task, model = zoo.load(checkpoint), SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert set(model.modalities) == {"text", "image"}
    texts, images = ["红色连衣裙", "“大码”[SEP]" * 40], [Image.effect_noise((90, 70), 50).convert("RGB")]
    found = model.encode(texts, convert_to_tensor=True), model.encode(images, convert_to_tensor=True)
    for its, own in zip(found, (task.encode_text(texts), task.encode_image(images)), strict=True):
        torch.testing.assert_close(normalize(its, dim=-1), own, rtol=0, atol=1e-5)


@slow
def test_onnx_needs_no_torch_and_no_zoo(exported):
    import numpy as np
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    checkpoint, folder = exported("onnx")
    sizes = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.truncation["max_length"] == sizes["context_length"]
    session = InferenceSession(folder / "text.onnx")
    for text in ("“红色”连衣裙" * 20, "[SEP]红色[MASK]，（新款）１００％"):
        ids = np.array([tokenizer.encode(text).ids])
        (found,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        torch.testing.assert_close(torch.tensor(found), zoo.load(checkpoint).encode_text([text]), rtol=0, atol=1e-5)
    (image,) = InferenceSession(folder / "image.onnx").get_inputs()
    assert (image.type, image.shape[1:]) == ("tensor(uint8)", [3, 64, 64])


@slow
def test_the_search_of_the_docs_needs_no_torch(exported, tmp_path):
    checkpoint, folder = exported("onnx")
    page = (Path(__file__).parents[3] / "docs" / "pages" / "models.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "search.py").write_text(f"import sys\nsys.modules['torch'] = sys.modules['zoo'] = None\n{code}")
    photos = [tmp_path / f"{place}.jpg" for place in range(3)]
    for photo, image in zip(photos, sample_images(64, 3), strict=True):
        image.save(photo)
    command = [sys.executable, tmp_path / "search.py", folder, tmp_path, "红色连衣裙"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    task = zoo.load(checkpoint)
    scores = (task.encode_image(photos) @ task.encode_text(["红色连衣裙"]).T)[:, 0]
    expected = sorted(zip(scores.tolist(), photos, strict=True), reverse=True)
    assert printed.splitlines() == [f"{score:.3f}  {photo}" for score, photo in expected]


@slow
@pytest.mark.parametrize(("kind", "side", "bytes_each"), [("onnx_fp16", "image", 2), ("onnx_int8", "text", 1)])
def test_rounded_graphs_are_smaller(exported, kind, side, bytes_each):
    checkpoint, folder = exported(kind)
    tower = getattr(zoo.load(checkpoint), f"{side}_tower")
    whole = sum(parameter.numel() for parameter in tower.parameters())
    assert (folder / f"{side}.onnx").stat().st_size < 1.5 * bytes_each * whole + 400_000


@slow
def test_onnx_graphs_are_not_read_back(exported):
    with pytest.raises(UserError, match="hold no weights to go on with"):
        zoo.load(exported("onnx")[1])


def test_the_card_says_what_a_stranger_asks(exported):
    _, folder = exported("sentence_transformers")
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    assert (head["language"], head["library_name"]) == ("zh", "sentence-transformers")
    assert head["pipeline_tag"] == "zero-shot-image-classification"
    assert "license" not in head
    for title in ("Use", "Scores", "Training", "Agreement with the model that was trained", "Licence", "Intended use"):
        assert f"\n## {title}" in text
    assert "MeanRecall on valid" in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    compile(code, "card", "exec")


def run_card(folder, photo, monkeypatch):
    """Run the Python of a card as a stranger would; gives its variables."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = {}
    exec(compile(code.replace("dress.jpg", str(photo)), "card", "exec"), names)
    return names


@pytest.mark.parametrize("kind", FORMATS)
def test_the_python_of_the_card_gives_the_models_vectors(exported, kind, tmp_path, monkeypatch):
    checkpoint, folder = exported(kind)
    photo = tmp_path / "dress.png"
    sample_images(zoo.load(checkpoint).image_size, 1)[0].convert("L").save(photo)  # of one channel, and right at once
    names = run_card(folder, photo, monkeypatch)
    if kind == "safetensors":
        assert torch.equal(names["vectors"], zoo.load(checkpoint).encode_text(["红色连衣裙"]))
        return
    allowed = {"onnx_fp16": 5e-3, "onnx_int8": 0.1}.get(kind, 1e-5)
    task = zoo.load(checkpoint)
    for name, own in (("text", task.encode_text(["红色连衣裙"])), ("image", task.encode_image([photo]))):
        found = torch.as_tensor(names[name if name in names and "onnx" in kind else f"{name}s"]).detach()
        torch.testing.assert_close(normalize(found, dim=-1), own, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("kind", "options", "words", "able"),
    [
        ("transformers", {}, "no Chinese BERT whose first token", {"sentence_transformers", "onnx", "safetensors"}),
        ("cn_clip", CHINESE_CLIP, "each of one depth", {"transformers", "sentence_transformers", "onnx"}),
        ("open_clip", CHINESE_CLIP, "all their layers", {"transformers", "onnx_int8"}),
    ],
)
def test_a_model_that_a_format_cannot_hold_is_refused(tmp_path, kind, options, words, able):
    checkpoint = tiny.write_matcher(tmp_path / "model.ckpt", **options)
    with pytest.raises(UserError, match=words) as caught:
        export(checkpoint, tmp_path / "out", kind=kind)
    assert (caught.value.argument, caught.value.value) == ("--format", kind)
    assert able <= set(caught.value.valid)
    assert "Formats that can hold it: " in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_what_computes_something_else_is_not_written(tmp_path, matcher_file, monkeypatch):
    from zoo.core.export import Safetensors

    monkeypatch.setattr(Safetensors, "compare", lambda *_: [Agreement("weights", float("nan"), 0.0)])
    with pytest.raises(UserError, match="weights differ by nan"):
        export(matcher_file(), tmp_path / "out", kind="safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path, matcher_file):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already") as caught:
        export(matcher_file(), tmp_path / "out", kind="safetensors")
    assert caught.value.argument == "OUT"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(matcher_file(), tmp_path / "empty", kind="safetensors", licence="apache-2.0")
    assert "license: apache-2.0" in (tmp_path / "empty" / "README.md").read_text()


@pytest.mark.parametrize(
    ("out", "words"),
    [("", "OUT is empty"), ("model.ckpt/sub", "nothing can be written"), ("model.ckpt", "is there already")],
)
def test_a_place_where_nothing_can_be_written_is_named_before_the_work(tmp_path, matcher_file, monkeypatch, out, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=words) as caught:
        export("nowhere", out, kind="safetensors")
    assert caught.value.argument == "OUT"


def test_a_link_to_an_empty_folder_is_written_through(tmp_path, matcher_file):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export(matcher_file(), tmp_path / "link", kind="safetensors")
    assert (tmp_path / "real" / "model.safetensors").stat().st_mode & 0o044
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_two_exports_to_one_folder_leave_a_whole_one(tmp_path, matcher_file, monkeypatch):
    from zoo.core.export import Safetensors

    compare = Safetensors.compare

    def overtaken(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("theirs")
        return compare(*arguments)

    monkeypatch.setattr(Safetensors, "compare", overtaken)
    with pytest.raises(UserError, match="something has been written there meanwhile"):
        export(matcher_file(), tmp_path / "out", kind="safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_data_are_looked_for_before_the_work_and_where_they_say_something(tmp_path, matcher_file, muge_root):
    with pytest.raises(UserError, match="--data .*nowhere: there is no such folder"):
        export(matcher_file(), tmp_path / "out", kind="onnx", data=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="weights are compared, and no scores"):
        export(matcher_file(), tmp_path / "out", kind="safetensors", data=str(muge_root))


def test_a_missing_library_is_named(tmp_path, matcher_file, hide_module):
    hide_module("onnxruntime")
    with pytest.raises(UserError, match=r"onnxruntime is not installed.*muge-zoo\[export\]"):
        export(matcher_file(), tmp_path / "out", kind="onnx")


def test_an_unknown_format_is_named_before_the_work(tmp_path):
    with pytest.raises(UserError, match=r"--format 'ONNX': there is no such format. Did you mean onnx") as caught:
        export("nowhere", tmp_path / "out", kind="ONNX")
    assert caught.value.argument == "--format"


def change(folder, **changes):
    """Change entries of ``zoo.json``; None takes one out."""
    content = json.loads((folder / "zoo.json").read_text()) | changes
    text = json.dumps({name: value for name, value in content.items() if value is not None})
    (folder / "zoo.json").write_text(text)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "zoo.json").write_text("{"),
        lambda folder: (folder / "zoo.json").write_text("[]"),
        lambda folder: change(folder, format="nope"),
        lambda folder: change(folder, hyper_parameters=None),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path, matcher_file, spoil):
    export(matcher_file(), tmp_path / "out", kind="safetensors")
    spoil(tmp_path / "out")
    with pytest.raises(UserError) as caught:
        zoo.load(tmp_path / "out")
    assert "/out" in str(caught.value)


@pytest.mark.parametrize("size", ["ViT-B-16", "RN50"])
def test_names_of_cn_clip_come_back(originals, size):
    image, text = originals.TOWERS[size]
    with torch.device("meta"):
        task = zoo.RetrievalTask(image_tower=image, text_tower=text, image_projection_bias=size == "RN50")
    state = {name: torch.rand(value.shape) for name, value in task.state_dict().items()}
    published = cn_clip.from_zoo(state)
    again = cn_clip.to_zoo(cn_clip.plain(published, "it"), task.image_tower.model)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    if size == "ViT-B-16":
        folder = huggingface.from_cn_clip(published)
        assert all(torch.equal(value, published[name]) for name, value in huggingface.to_cn_clip(folder).items())


@pytest.mark.slow
@pytest.mark.parity
def test_cn_clip_reads_its_own_file(tmp_path, originals, muge_root):
    image, text = originals.TOWERS["RN50"]
    options = {"image_tower": image, "text_tower": text, "image_projection_bias": True, "embedding_dim": 1024}
    checkpoint = tiny.write_matcher(
        tmp_path / "model.ckpt", **options, image_tower_options=None, text_tower_options=None
    )
    found = export(randomised(checkpoint), tmp_path / "out", kind="cn_clip", data=str(muge_root))
    assert all(each.difference <= each.allowed for each in found)
    assert found[-1].what.startswith("MeanRecall on valid")
    assert found[-1].difference < 5  # percent: of 12 queries one at one k, for its loader rounds weights
    own, its = zoo.load(checkpoint).state_dict(), zoo.load(tmp_path / "out").state_dict()
    assert all(torch.equal(its[name], value) for name, value in own.items())


def strange_texts(count):
    """Texts of anything that a shop's customers type, and some that they do not."""
    source = random.Random(0)
    parts = [
        "红色",
        "连衣裙",
        "“",
        "”",
        "[SEP]",
        "[CLS]",
        "iPhone15",
        "ＡＢ",
        "café",
        "①",
        "🎁",
        "\u200b",
        "  ",
        "\n",
        "é",
    ]
    parts += ["龘", "韩版", "-", "…", "100%", "##裙", "[MASK]", "ÀÉ", "か"]
    return ["".join(source.choices(parts, k=source.randint(0, 30))) for _ in range(count)]


def test_the_exported_tokenizer_reads_every_text_alike(tmp_path):
    from transformers import AutoTokenizer

    own = BertChineseTokenizer()
    own.to_transformers(20).save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in strange_texts(500):
        assert read(text, truncation=True)["input_ids"] == own.encode(text, context_length=20), text


def test_any_task_leaves_as_safetensors(tmp_path):
    options = {"captioner": "prefix_tiny", "image_pretrained": False}
    checkpoint = tiny.write_task(tmp_path / "model.ckpt", zoo.CaptioningTask, options)
    export(checkpoint, tmp_path / "out", kind="safetensors")
    own, its = zoo.load(checkpoint).state_dict(), zoo.load(tmp_path / "out").state_dict()
    assert all(torch.equal(its[name], value) for name, value in own.items())
    assert "image-to-text" in Path(tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match="has no such format. Formats that can hold it: safetensors"):
        export(checkpoint, tmp_path / "other", kind="onnx")
