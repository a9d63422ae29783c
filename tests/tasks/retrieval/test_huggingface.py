"""ChineseCLIPModel in: compared with transformers' own, randomly initialised and of few layers."""

import json

import lightning as L
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ChineseCLIPConfig, ChineseCLIPModel

import zoo
from zoo.core.checkpoint import load_initial_weights
from zoo.errors import UserError
from zoo.models.tokenizer import BertChineseTokenizer
from zoo.tasks.retrieval.huggingface import to_cn_clip


def configuration(*, vision=(768, 12, 32, 64), text=(768, 12), dimension=512, layers=(1, 1), **changes):
    """Of a vision width, heads, patch and image size, and a text width and heads."""
    vision_config = {
        "hidden_size": vision[0],
        "intermediate_size": 4 * vision[0],
        "num_attention_heads": vision[1],
        "patch_size": vision[2],
        "image_size": vision[3],
        "num_hidden_layers": layers[0],
    }
    text_config = {
        "vocab_size": 21128,
        "hidden_size": text[0],
        "intermediate_size": 4 * text[0],
        "num_attention_heads": text[1],
        "num_hidden_layers": layers[1],
    }
    for name, value in changes.items():
        (text_config if name.startswith("text_") else vision_config)[name.removeprefix("text_")] = value
    return ChineseCLIPConfig(vision_config=vision_config, text_config=text_config, projection_dim=dimension)


@pytest.fixture(scope="module")
def original(originals):
    return originals.randomise(ChineseCLIPModel(configuration()))


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    """The folder that ``save_pretrained`` writes; read only."""
    folder = tmp_path_factory.mktemp("saved") / "chinese-clip-small"
    original.save_pretrained(folder)
    return folder


def copy(saved, folder, *, drop=(), add=None, changes=None):
    """The same folder with other weights or another configuration."""
    state = {key: value for key, value in load_file(saved / "model.safetensors").items() if key not in drop}
    folder.mkdir()
    save_file({**state, **(add or {})}, folder / "model.safetensors")
    config = json.loads((saved / "config.json").read_text())
    for name, value in (changes or {}).items():
        part, _, key = name.rpartition(".")
        (config[part] if part else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def encode_image(model):
    return lambda floats: output(model.get_image_features(floats))


def encode_text(model):
    def encode(texts):
        ids, mask = BertChineseTokenizer()(texts)
        return output(model.get_text_features(input_ids=ids, attention_mask=mask.long()))

    return encode


def output(features):
    return features if isinstance(features, torch.Tensor) else features.pooler_output


# --- the same numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "tower", "tower_options", "text", "text_options"),
    [
        (
            {"vision": (768, 12, 16, 64), "layers": (2, 2)},
            *("vit_base_patch16_clip_quickgelu_224", {"image_size": 64, "num_layers": 2}),
            *("chinese_roberta_wwm_ext", {"num_layers": 2}),
        ),
        (
            {"vision": (1024, 16, 14, 336), "dimension": 768, "layers": (1, 3)},
            *("vit_large_patch14_clip_quickgelu_336", {"num_layers": 1}),
            *("rbt3", None),
        ),
        (
            {"vision": (1280, 16, 14, 56), "text": (1024, 16), "dimension": 1024},
            *("vit_huge_patch14_clip_quickgelu_224", {"image_size": 56, "num_layers": 1}),
            *("chinese_roberta_wwm_ext_large", {"num_layers": 1}),
        ),
    ],
    ids=["base", "large-336", "huge"],
)
def test_a_folder_is_a_task_of_the_same_embeddings(
    tmp_path, originals, options, tower, tower_options, text, text_options
):
    model = originals.randomise(ChineseCLIPModel(configuration(**options)))
    model.save_pretrained(tmp_path)
    task = zoo.load(tmp_path)
    assert (task.hparams.image_tower, task.hparams.image_tower_options) == (tower, tower_options)
    assert (task.hparams.text_tower, task.hparams.text_tower_options) == (text, text_options)
    assert task.weights == {"init_from": tmp_path.name}
    originals.assert_same(task, encode_image(model), encode_text(model), size=options["vision"][3])


@pytest.mark.parametrize("form", ["bin", "old bin", "shards", "half precision"])
def test_other_forms_of_the_same_weights(tmp_path, original, saved, originals, form):
    folder = tmp_path / "form"
    if form == "shards":
        original.save_pretrained(folder, max_shard_size="20MB")
        assert len(list(folder.glob("*.safetensors"))) > 1
    else:
        folder.mkdir()
        (folder / "config.json").write_text((saved / "config.json").read_text())
        state = original.state_dict()
        if form == "old bin":
            state |= {"text_model.pooler.dense.weight": torch.ones(768, 768)}
            state |= {f"{side}_model.embeddings.position_ids": torch.arange(5)[None] for side in ("text", "vision")}
        if form == "half precision":
            save_file({key: value.half() for key, value in state.items()}, folder / "model.safetensors")
            assert next(zoo.load(folder).parameters()).dtype == torch.float32
            return
        torch.save(state, folder / "pytorch_model.bin")
    originals.assert_same(zoo.load(folder), encode_image(original), encode_text(original), size=64)


def test_the_task_saves_and_loads_as_any_other(tmp_path, saved, originals):
    task = zoo.load(saved)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "again.ckpt", weights_only=True)
    again = zoo.load(tmp_path / "again.ckpt")
    assert again.hparams == task.hparams
    assert again.weights == {"init_from": "chinese-clip-small"}
    torch.testing.assert_close(again.encode_text(originals.TEXTS), task.encode_text(originals.TEXTS), rtol=0, atol=0)
    images = [Image.new("RGB", (90, 40), "red"), Image.new("L", (30, 30), 99)]
    torch.testing.assert_close(again.encode_image(images), task.encode_image(images), rtol=0, atol=0)


def test_a_fitting_task_starts_from_it(saved, original, originals, fitting_task):
    task = fitting_task().eval()
    assert load_initial_weights(task, saved) == "chinese-clip-small"
    originals.assert_same(task, encode_image(original), encode_text(original), size=64)


def test_the_first_evaluation_of_a_run_is_the_original_models(tmp_path, muge_root, original, saved, originals):
    expected = originals.expected_evaluation(muge_root, encode_image(original), encode_text(original))
    found = originals.first_evaluation(tmp_path, muge_root, saved)
    assert found["val/mean_recall"] == pytest.approx(expected["val/mean_recall"], abs=1e-3)
    assert found["val/loss"] == pytest.approx(expected["val/loss"], rel=2e-6)


def test_names_that_are_not_the_models_stay_as_they_are():
    state = {"vision_model.encoder.layers.0.self_attn.q_proj.bias": torch.zeros(2), "other": torch.zeros(1)}
    assert to_cn_clip(state).keys() == state.keys()  # a query without its key and value


# --- the hub -------------------------------------------------------------------------------------------------------


def test_a_hub_name_in_the_cache(put_in_cache, saved, original, originals):
    put_in_cache("OFA-Sys/chinese-clip-small", saved)
    task = zoo.load("OFA-Sys/chinese-clip-small")
    assert task.weights == {"init_from": "OFA-Sys/chinese-clip-small"}
    originals.assert_same(task, encode_image(original), encode_text(original), size=64)


def test_a_hub_name_without_a_network(fitting_task):
    with pytest.raises(UserError, match=r"^OFA-Sys/chinese-clip-x: there is no such file .* \(HF_HUB_OFFLINE is set\)"):
        zoo.load("OFA-Sys/chinese-clip-x")
    with pytest.raises(UserError, match=r"^model.init_from OFA-Sys/chinese-clip-x: there is no such file"):
        load_initial_weights(fitting_task(), "OFA-Sys/chinese-clip-x")
    task = fitting_task()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    without = load_initial_weights(task, "auto:OFA-Sys/chinese-clip-x")
    assert without == "random (published weights not available: HF_HUB_OFFLINE is set)"
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    with pytest.raises(UserError, match=r"^model.init_from nowhere.ckpt: there is no such checkpoint"):
        load_initial_weights(task, "auto:nowhere.ckpt")


# --- errors --------------------------------------------------------------------------------------------------------

KEY = "vision_model.post_layernorm.bias"
FAULTS = {
    "missing": ({"drop": [KEY]}, r"missing +image_tower\.model\.norm\.bias \[768\]"),
    "unexpected": ({"add": {"surplus": torch.zeros(2)}}, r"unexpected +surplus \[2\]"),
    "mis-shaped": ({"add": {KEY: torch.zeros(9)}}, r"mis-shaped +image_tower\.model\.norm\.bias \[9\], wanted \[768\]"),
    "untold": ({"drop": ["visual_projection.weight"]}, r"missing +visual\.proj"),
    "heads": ({"changes": {"vision_config.num_attention_heads": 8}}, "num_attention_heads is 8, its tower here has 12"),
    "activation": ({"changes": {"vision_config.hidden_act": "gelu"}}, "hidden_act is gelu, its tower here has quick_g"),
    "epsilon": ({"changes": {"text_config.layer_norm_eps": 1e-5}}, "text_config.layer_norm_eps is 1e-05"),
    "kind": ({"changes": {"model_type": "clip"}}, "these weights are not of this model"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_change_nothing(tmp_path, saved, fault, fitting_task):
    options, message = FAULTS[fault]
    folder = copy(saved, tmp_path / "faulty", **options)
    task = fitting_task()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    for read in (zoo.load, lambda path: load_initial_weights(task, path)):
        with pytest.raises(UserError, match=message) as error:
            read(folder)
        assert len(str(error.value).splitlines()) <= 13
    assert all(torch.equal(before[key], value) for key, value in task.state_dict().items())


def test_an_unknown_architecture_says_what_came_and_what_is_known(tmp_path):
    ChineseCLIPModel(configuration(vision=(64, 2, 32, 64))).save_pretrained(tmp_path / "narrow")
    with pytest.raises(UserError, match=r"width 64, patch 32, image_size 64, num_layers 1\. Known are") as error:
        zoo.load(tmp_path / "narrow")
    assert "vit_base_patch32_clip_quickgelu_224: width 768, patch 32" in str(error.value)
    ChineseCLIPModel(configuration(text=(64, 2))).save_pretrained(tmp_path / "text")
    with pytest.raises(UserError, match=r"text tower has its shape: width 64, num_layers 1\. Known are(?s:.*)rbt3"):
        zoo.load(tmp_path / "text")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_folder_is_no_checkpoint(saved, name, fitting_task):
    for read in (zoo.load, lambda path: load_initial_weights(fitting_task(), path)):
        with pytest.raises(UserError, match=f"{name}: this is no checkpoint. .* or the folder that it lies in$"):
            read(saved / name)


class Harmful:
    def __reduce__(self):
        return print, ("a checkpoint's code ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("none", "holds neither model.safetensors nor model.safetensors.index.json nor pytorch_model.bin"),
        (
            "empty",
            r"neither a run's folder \(no checkpoints/\) nor a dual encoder of transformers \(.* no config.json\)",
        ),
        ("code", "more than weights and plain data"),
        ("cut", "model.safetensors is damaged"),
        ("cut bin", "no checkpoint, or a damaged one"),
        ("nested", "no state dict"),
        ("outside", "names files outside its folder"),
        ("no index", "is no index of weights"),
        ("lost shard", "holds no gone.safetensors"),
        ("no JSON", "config.json is no JSON"),
    ],
)
def test_folders_that_are_not_read(tmp_path, saved, capfd, content, message):
    if content != "empty":
        text = "{" if content == "no JSON" else (saved / "config.json").read_text()
        (tmp_path / "config.json").write_text(text)
    index = tmp_path / "model.safetensors.index.json"
    if content in ("code", "nested"):
        torch.save({"a": Harmful() if content == "code" else {"b": 1}}, tmp_path / "pytorch_model.bin")
    elif content == "cut":
        (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:5000])
    elif content == "cut bin":
        torch.save({"a": torch.zeros(9000)}, tmp_path / "pytorch_model.bin")
        whole = (tmp_path / "pytorch_model.bin").read_bytes()
        (tmp_path / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    elif content in ("outside", "lost shard"):
        shard = "../x.safetensors" if content == "outside" else "gone.safetensors"
        index.write_text(json.dumps({"weight_map": {"a": shard}}))
    elif content == "no index":
        index.write_text("[]")
    with pytest.raises(UserError, match=message):
        zoo.load(tmp_path)
    assert "ran" not in capfd.readouterr().out
