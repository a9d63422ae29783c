"""Dual encoders of transformers in and out: compared with their own forward passes, on random weights."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

import zoo
from zoo.core.export import export
from zoo.core.weights import load_pretrained
from zoo.errors import UserError
from zoo.models.tokenizer import BertChineseTokenizer
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS

SIZE, WIDTH, LENGTH = 32, 32, 24
LAYERS = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**LAYERS, "image_size": SIZE, "patch_size": 8}
TEXT = {**LAYERS, "vocab_size": 21128, "max_position_embeddings": 40}
TEXT |= {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
CROP = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
SQUARE = {"size": {"height": SIZE, "width": SIZE}}
CHINESE = ("ChineseCLIP", {}, "ChineseCLIPImageProcessor", {**SQUARE, "do_center_crop": False})
FAMILIES = {  # the class of the model, options of its texts, its image processor
    "siglip": ("Siglip", {"projection_size": WIDTH}, "SiglipImageProcessor", SQUARE),
    "clip": ("CLIP", {}, "CLIPImageProcessor", CROP),
    "metaclip_2": ("MetaClip2", {}, "CLIPImageProcessor", CROP),
    "altclip": ("AltCLIP", {"project_dim": WIDTH}, "CLIPImageProcessor", CROP),
}
TEXTS = ["红色连衣裙", "夏季新款碎花连衣裙 显瘦 “大码”" * 4, "帽"]


def photos(count=3):
    """Images that are not square, so that it shows how they are cut."""
    coarse = np.random.default_rng(0).integers(0, 255, (count, 5, 8, 3), dtype=np.uint8)
    return [Image.fromarray(image).resize((64, 40), Image.Resampling.NEAREST) for image in coarse]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Writes a model of a family with random weights: ``folder = saved("siglip")``; read only."""
    made = {}

    def write(family):
        if family in made:
            return made[family]
        name, text_options, processor, cut = {**FAMILIES, "chinese_clip": CHINESE}[family]
        folder = tmp_path_factory.mktemp(family) / "model"
        config = getattr(transformers, f"{name}Config")(
            vision_config=VISION, text_config={**TEXT, **text_options}, projection_dim=24
        )
        model = getattr(transformers, f"{name}Model")(config)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.ndim == 0 or parameter.shape == (1,):
                parameter.data.fill_(1.5)
            else:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data = noise * 0.3 if parameter.ndim > 1 else 1 + 0.2 * noise
        model.save_pretrained(folder)
        BertChineseTokenizer().to_transformers(LENGTH).save_pretrained(folder)
        getattr(transformers, processor)(**cut).save_pretrained(folder)
        made[family] = folder
        return folder

    return write


@torch.no_grad()
def own_features(folder, texts, images):
    """What transformers itself makes of texts and images, as unit vectors."""
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    unmasked = model.config.model_type == "siglip"  # trained on texts of one length, without a mask
    inputs = tokenizer(texts, padding="max_length" if unmasked else True, truncation=True, return_tensors="pt")
    mask = {} if unmasked else {"attention_mask": inputs["attention_mask"]}
    text = model.get_text_features(input_ids=inputs["input_ids"], **mask).pooler_output
    pixels = AutoImageProcessor.from_pretrained(folder, local_files_only=True)(images=images, return_tensors="pt")
    return normalize(text, dim=-1), normalize(model.get_image_features(**pixels).pooler_output, dim=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_what_transformers_computes(saved, family):
    folder = saved(family)
    task = zoo.load(folder)
    texts, images = own_features(folder, TEXTS, photos())
    torch.testing.assert_close(task.encode_text(TEXTS), texts, rtol=0, atol=1e-5)
    torch.testing.assert_close(task.encode_image(photos()), images, rtol=0, atol=1e-5)
    assert (texts @ texts.T).min() < 0.999  # they can be told apart
    assert (images @ images.T).min() < 0.999
    assert task.loss.logit_scale == 1.5
    assert (getattr(task.loss, "logit_bias", None) == 1.5) == (family == "siglip")


@pytest.mark.parametrize("family", FAMILIES)
def test_it_leaves_as_it_came(saved, tmp_path, family):
    export(saved(family), tmp_path / "out", kind="transformers")
    came, left = (AutoModel.from_pretrained(path).state_dict() for path in (saved(family), tmp_path / "out"))
    assert came.keys() == left.keys()
    assert all(torch.equal(left[name], value) for name, value in came.items())
    found = own_features(tmp_path / "out", TEXTS, photos())
    for its, own in zip(found, own_features(saved(family), TEXTS, photos()), strict=True):
        assert torch.equal(its, own)


@pytest.mark.parametrize("family", ["siglip", "clip"])
def test_the_python_of_the_card_gives_the_tasks_cosine(saved, tmp_path, monkeypatch, capsys, family):
    export(saved(family), tmp_path / "out", kind="transformers")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)[1]
    photos(1)[0].save(tmp_path / "dress.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    exec(compile(code.replace("dress.jpg", "dress.png"), "card", "exec"), {})
    printed = float(re.search(r"-?\d\.\d+", capsys.readouterr().out)[0])
    task = zoo.load(saved(family))
    assert printed == pytest.approx(float(task.encode_text(TEXTS[:1]) @ task.encode_image(photos(1)).T), abs=1e-4)


def test_a_folder_that_sentence_transformers_saved_is_one_too(saved, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(saved("clip")), device="cpu", local_files_only=True)
    model.save(str(tmp_path / "out"))
    found = zoo.load(tmp_path / "out").encode_text(TEXTS)
    torch.testing.assert_close(found, normalize(model.encode(TEXTS, convert_to_tensor=True), dim=-1), rtol=0, atol=1e-5)


def test_a_chinese_clip_of_any_width_has_halves_too(saved):
    folder = saved("chinese_clip")
    task = zoo.RetrievalTask(*[f"dual:{folder}"] * 2, embedding_dim=None).eval()
    for tower in (task.image_tower, task.text_tower):
        tower.load_published(str(folder))
    texts, images = own_features(folder, TEXTS, photos())
    torch.testing.assert_close(task.encode_text(TEXTS), texts, rtol=0, atol=1e-5)
    torch.testing.assert_close(task.encode_image(photos()), images, rtol=0, atol=1e-5)


def experiment(folder, muge_root, path, **options):
    """Write the experiment of a dual encoder, trained on; gives its path."""
    towers = {f"{side}_tower": f"dual:{folder}" for side in ("image", "text")}
    model = {**towers, "embedding_dim": None, "init_from": str(folder), "evaluation": {"grid_queries": 0}, **options}
    config = {
        "model": {"class_path": "RetrievalTask", "init_args": model},
        "data": {
            "class_path": "RetrievalDataModule",
            "init_args": {"root": str(muge_root), "batch_size": 8, "num_workers": 1},
        },
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_epochs": 2, "enable_model_summary": False},
    }
    path.write_text(yaml.safe_dump(config))
    return path


def expected_recall(folder, muge_root):
    """MeanRecall of the validation split from transformers' own features, each image cut by its own processor."""
    data = zoo.RetrievalDataModule(str(muge_root), image_size=SIZE)
    targets = data.targets("valid")
    images = [Image.fromarray(data.image("valid", number)) for number in targets.image_ids]
    texts, gallery = own_features(folder, targets.texts, images)
    ranks = (-(texts @ gallery.T)).argsort(dim=1, stable=True)
    found = [
        min((ranks[row] == targets.image_ids.index(image)).nonzero().item() for image in positives)
        for row, positives in enumerate(targets.positives)
    ]
    return 100 * float(np.mean([np.mean([rank < k for rank in found]) for k in (1, 5, 10)]))


def test_zero_shot_by_the_command_cuts_images_as_the_model_does(saved, workplace, zoo_main, muge_root):
    config = experiment(saved("clip"), muge_root, workplace / "experiments" / "clip.yaml")
    code, out, _ = zoo_main("validate", "--config", config, "--ckpt_path", "null")
    assert code == 0
    found = float(re.search(r"all .*?([\d.]+) │\n", out)[1])
    assert found == pytest.approx(expected_recall(saved("clip"), muge_root), abs=0.01)


def test_adapters_are_trained_and_handed_back(saved, workplace, zoo_main, muge_root, only_run):
    options = {"loss": "sigmoid", "learning_rate": 1e-2, "finetuning": {"lora_rank": 2, "lora_alpha": 4}}
    config = experiment(saved("siglip"), muge_root, workplace / "experiments" / "siglip.yaml", **options)
    words = ("--trainer.max_steps", 20, "--trainer.max_epochs", -1, "--trainer.log_every_n_steps", 1)
    assert zoo_main("fit", "--config", config, *words)[0] == 0
    run = only_run(workplace, experiment="siglip")
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    losses = [float(row[rows[0].index("train/loss")]) for row in rows[1:] if row[rows[0].index("train/loss")]]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    export(run, workplace / "out", kind="transformers")
    task = zoo.load(run)
    texts, images = own_features(workplace / "out", TEXTS, photos())
    torch.testing.assert_close(texts, task.encode_text(TEXTS), rtol=0, atol=1e-5)
    torch.testing.assert_close(images, task.encode_image(photos()), rtol=0, atol=1e-5)
    assert not torch.allclose(texts, zoo.load(saved("siglip")).encode_text(TEXTS), atol=1e-2)


def test_gradients_reach_both_halves_also_by_checkpoints(saved):
    for again in (False, True):
        task = zoo.RetrievalTask(
            *[f"dual:{saved('clip')}"] * 2, embedding_dim=None, gradient_checkpointing=again, chunk_size=2
        ).train()
        images = task.image_tower.preprocess(photos())
        (task.encode_image(images).square().sum() + task.encode_text(TEXTS)[:, 0].sum()).backward()
        lacking = [name for name, value in task.named_parameters() if value.grad is None and "loss" not in name]
        assert not [name for name in lacking if "post_layernorm" not in name], lacking


def test_other_models_and_widths_are_refused_by_name(saved, tmp_path):
    config = json.loads((saved("clip") / "config.json").read_text()) | {"model_type": "blip"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="model_type 'blip'; read are siglip, clip, metaclip_2"):
        zoo.load(tmp_path)
    with pytest.raises(UserError, match=r"embedding_dim is None: the towers' widths, 32 and 24, differ"):
        zoo.RetrievalTask(f"dual:{saved('siglip')}", f"dual:{saved('clip')}", embedding_dim=None)
    with pytest.raises(UserError, match="its configuration and tokenizer cannot be had"):
        zoo.RetrievalTask(f"dual:{tmp_path / 'nowhere'}", f"dual:{tmp_path / 'nowhere'}", embedding_dim=None)
    with pytest.raises(UserError, match="no sequence"):
        zoo.load(saved("clip")).image_tower.sequence(torch.zeros(1, 3, SIZE, SIZE).byte())


def test_workers_are_sent_how_images_are_cut_and_no_weights(saved):
    tower = zoo.load(saved("clip")).image_tower
    assert len(pickle.dumps(tower.prepare_image)) < 5000


def test_a_name_of_modelscope_is_found_in_its_cache(saved, modelscope):
    name = modelscope("clip", saved("clip"))
    found, wanted = zoo.load(name), zoo.load(saved("clip"))
    assert torch.equal(found.encode_text(TEXTS), wanted.encode_text(TEXTS))
    tower = IMAGE_TOWERS.build(f"dual:{name}")
    assert load_pretrained(tower, True).text == name
    assert torch.equal(tower(found.image_tower.preprocess(photos())), found.image_tower(tower.preprocess(photos())))


def test_a_name_that_modelscope_cannot_give_is_said(modelscope, monkeypatch):
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        zoo.load("modelscope:owner/nothing")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("zoo.core.hubs.MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be reached: .*http://127.0.0.1:9"):
        TEXT_TOWERS.build("dual:modelscope:owner/nothing")
