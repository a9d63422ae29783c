"""Dual encoders of open_clip in and out: compared with open_clip's own forward pass, on random weights."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize

import zoo
from zoo.core.export import export
from zoo.errors import UserError
from zoo.models.text import _chinese_bert
from zoo.models.tokenizer import BertChineseTokenizer
from zoo.registry import IMAGE_TOWERS

SIZE = 32
VISION = {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
MODELS = {  # what open_clip publishes: its own transformers; timm's images and transformers' texts, with a bias
    "native": {
        "embed_dim": 24,
        "vision_cfg": VISION,
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        "quick_gelu": True,
    },
    "custom": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": SIZE, "timm_model_name": "resnet10t", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": {
            "hf_model_name": ".",
            "hf_tokenizer_name": ".",
            "hf_pooler_type": "mean_pooler",
            "context_length": 20,
        },
        "custom_text": True,
        "init_logit_bias": -5.0,
    },
}
CUT = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.2], "interpolation": "bicubic", "size": [SIZE, SIZE]}
TEXTS = ["红色连衣裙", "a red dress，１００％" * 4, "帽"]


def photos(count=3):
    """Images that are not square, so that it shows how they are cut."""
    coarse = np.random.default_rng(0).integers(0, 255, (count, 5, 8, 3), dtype=np.uint8)
    return [Image.fromarray(image).resize((64, 40), Image.Resampling.NEAREST) for image in coarse]


def opened(folder):
    """The model, its image processor and its tokenizer, by open_clip."""
    import open_clip

    text = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    options = (
        {"text_cfg": text | {"hf_model_name": str(folder), "hf_model_pretrained": False}}
        if "hf_model_name" in text
        else {}
    )
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}", pretrained_text=False, **options)
    return model.eval(), prepare, open_clip.get_tokenizer(f"local-dir:{folder}")


@torch.no_grad()
def own_features(folder):
    """What open_clip itself makes of the texts and the images, as unit vectors."""
    model, prepare, tokenize = opened(folder)
    images = model.encode_image(torch.stack([prepare(photo) for photo in photos()]), normalize=True)
    return model.encode_text(tokenize(TEXTS), normalize=True), images


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Writes a model with random weights as open_clip's hub repositories are: ``folder = saved("native")``."""
    made = {}

    def write(name):
        if name in made:
            return made[name]
        folder = tmp_path_factory.mktemp(name) / "model"
        folder.mkdir()
        mode = {"native": "shortest", "custom": "squash"}[name]
        configuration = {"model_cfg": MODELS[name], "preprocess_cfg": CUT | {"resize_mode": mode}}
        (folder / "open_clip_config.json").write_text(json.dumps(configuration))
        if name == "custom":
            options = {"width": 32, "num_layers": 2, "num_heads": 2, "dropout": 0.0, "context_length": 20}
            _chinese_bert(**options, pad_to_context=False).encoder.config.save_pretrained(folder)
            BertChineseTokenizer().to_transformers(20).save_pretrained(folder)
        torch.manual_seed(0)
        model = opened(folder)[0]
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape) * 0.3 if parameter.ndim > 1 else parameter.data + 0.1
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()},
            folder / "open_clip_model.safetensors",
        )
        made[name] = folder
        return folder

    return write


def close(task, features, atol=1e-5):
    texts, images = features
    torch.testing.assert_close(task.encode_text(TEXTS), texts, rtol=0, atol=atol)
    torch.testing.assert_close(task.encode_image(photos()), images, rtol=0, atol=atol)


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_open_clip_computes(saved, name):
    task, features = zoo.load(saved(name)), own_features(saved(name))
    close(task, features)
    assert all((side @ side.T).min() < 0.999 for side in features)  # they can be told apart
    model = opened(saved(name))[0]
    assert task.loss.logit_scale == model.logit_scale
    assert getattr(task.loss, "logit_bias", None) == model.logit_bias
    assert not task.text_tower.count_texts(["红裙"]).cut
    assert task.text_tower.count_texts(TEXTS).cut == 1


@pytest.mark.parametrize("name", MODELS)
def test_it_leaves_as_it_came(saved, tmp_path, name):
    task = zoo.load(saved(name))
    export(saved(name), tmp_path / "out", kind="open_clip")
    for its, own in zip(own_features(tmp_path / "out"), own_features(saved(name)), strict=True):
        assert torch.equal(its, own)
    again = zoo.load(tmp_path / "out").state_dict()
    assert all(torch.equal(again[key], value) for key, value in task.state_dict().items())


def test_the_python_of_the_card_gives_the_tasks_cosine(saved, tmp_path, monkeypatch, capsys):
    export(saved("native"), tmp_path / "out", kind="open_clip")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)[1]
    photos(1)[0].save(tmp_path / "dress.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("dress.jpg", "dress.png"), "card", "exec"), {})
    printed = float(re.search(r"-?\d\.\d+", capsys.readouterr().out)[0])
    task = zoo.load(saved("native"))
    assert printed == pytest.approx(float(task.encode_text(TEXTS[:1]) @ task.encode_image(photos(1)).T), abs=1e-4)


def test_adapters_train_and_leave_merged(saved, tmp_path, muge_root, capsys, monkeypatch):
    from zoo.__main__ import main

    monkeypatch.chdir(tmp_path)
    name = f"open_clip:{saved('native')}"
    experiment = {
        "model": {
            "class_path": "RetrievalTask",
            "init_args": {
                "image_tower": name,
                "text_tower": name,
                "embedding_dim": None,
                "init_from": str(saved("native")),
                "learning_rate": 1e-2,
                "finetuning": {"lora_rank": 4},
                "gradient_checkpointing": True,
            },
        },
        "data": {
            "class_path": "RetrievalDataModule",
            "init_args": {"root": str(muge_root), "batch_size": 4, "num_workers": 0},
        },
        "trainer": {"max_steps": 20, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1},
    }
    (tmp_path / "_base.yaml").write_text("trainer: {use_distributed_sampler: false, num_sanity_val_steps: -1}\n")
    (tmp_path / "oc.yaml").write_text(yaml.safe_dump(experiment))
    assert main(["fit", "--config", "oc.yaml"]) == 0
    losses = [
        float(row.split(",")[column])
        for rows in [next(tmp_path.glob("runs/oc/*/metrics.csv")).read_text().splitlines()]
        for column in [rows[0].split(",").index("train/loss")]
        for row in rows[1:]
        if row.split(",")[column]
    ]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert main(["export", "runs/oc", "out", "--format", "open_clip"]) == 0
    close(zoo.load("runs/oc"), own_features(tmp_path / "out"))
    moved = own_features(tmp_path / "out")[0] - own_features(saved("native"))[0]
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole["model_cfg"] | {"multimodal_cfg": {}}, "is a CoCa"),
        (
            lambda whole: whole["model_cfg"] | {"vision_cfg": {**VISION, "timm_model_name": "nothing"}},
            "cannot build it",
        ),
    ],
)
def test_what_it_cannot_be_is_said(saved, tmp_path, change, said):
    whole = json.loads((saved("native") / "open_clip_config.json").read_text())
    (tmp_path / "open_clip_config.json").write_text(json.dumps({**whole, "model_cfg": change(whole)}))
    with pytest.raises(UserError, match=said):
        IMAGE_TOWERS.build(f"open_clip:{tmp_path}")


def test_weights_that_are_missing_are_named(saved, tmp_path):
    whole = (saved("native") / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(whole)
    with pytest.raises(UserError, match="neither open_clip_model.safetensors nor"):
        zoo.load(tmp_path)


def test_features_of_the_other_kind_are_refused(saved):
    task = zoo.RetrievalTask(*[f"open_clip:{saved('native')}"] * 2, embedding_dim=None)
    with pytest.raises(UserError, match="no sequence"):
        task.image_tower.sequence(None)
    assert normalize(task.text_tower(["红裙"]), dim=-1).shape == (1, 24)


def test_a_name_of_modelscope_is_found_in_its_cache(saved, modelscope):
    close(zoo.load(modelscope("open_clip", saved("native"))), own_features(saved("native")))
