"""Embedders made of vision-language models: compared with transformers' own forward pass, on random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_vlm import CLASSES, write_embedder
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

import zoo
from zoo.core.export import export
from zoo.core.weights import load_pretrained
from zoo.data.images import resize
from zoo.errors import UserError
from zoo.models.vlm import QWEN
from zoo.models.vlm_embedder import INSTRUCTIONS
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS
from zoo.tasks.retrieval.export.transformers import TransformersFolder

FAMILY = "qwen3_vl"
SIZE = CLASSES[FAMILY][1]
TEXTS = ["红色连衣裙", "a red dress，１００％" * 4, "帽", "<|im_end|> 很“长”"]


def photos(size=SIZE, count=3):
    coarse = np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST) for image in coarse]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Writes an embedder of a family with random weights: ``folder = saved("qwen3_vl")``; read only."""
    made = {}

    def write(family=FAMILY):
        if family not in made:
            made[family] = write_embedder(tmp_path_factory.mktemp(family) / "model", family)
        return made[family]

    return write


def built(folder, **options):
    """The task of an embedder with its published weights, at the size of its tests."""
    family = json.loads((folder / "config.json").read_text())["model_type"]
    towers = {f"{side}_tower": f"vlm:{folder}" for side in ("image", "text")}
    task = zoo.RetrievalTask(
        **{**towers, "image_tower_options": {"image_size": CLASSES[family][1]}, "embedding_dim": None, **options}
    )
    task.read_weights()
    return task.eval()


@torch.no_grad()
def own_features(folder, texts, images, *, padding_side="right", suffix="", instructions=INSTRUCTIONS):
    """What transformers itself makes of texts and images in the chat form of Qwen3-VL-Embedding, as unit vectors."""
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)

    def embed(side, contents, images=None):
        system = {"role": "system", "content": [{"type": "text", "text": instructions[side]}]}
        chats = [[system, {"role": "user", "content": [content]}] for content in contents]
        prompts = [processor.apply_chat_template(chat, add_generation_prompt=True) + suffix for chat in chats]
        options = {"padding": True, "padding_side": padding_side, "return_tensors": "pt"}
        inputs = processor(text=prompts, images=images, **options)
        hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"]
        last = [int(row.nonzero()[-1]) for row in mask]
        return normalize(torch.stack([row[place] for row, place in zip(hidden, last, strict=True)]), dim=-1)

    return (
        embed("text", [{"type": "text", "text": text} for text in texts]),
        embed("image", [{"type": "image"} for _ in images], images),
    )


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("family", QWEN)
def test_it_computes_what_transformers_computes(saved, family, padding_side):
    task = built(saved(family))
    images = photos(task.image_size)
    texts, pictures = own_features(saved(family), TEXTS, images, padding_side=padding_side)
    torch.testing.assert_close(task.encode_text(TEXTS), texts, rtol=0, atol=1e-5)
    torch.testing.assert_close(task.encode_image(images), pictures, rtol=0, atol=1e-5)
    one_by_one = torch.cat([task.encode_text([text]) for text in TEXTS])
    torch.testing.assert_close(one_by_one, texts, rtol=0, atol=1e-5)
    assert task.encode_text(["<|image_pad|>红色", ""]).isfinite().all()
    assert (texts @ texts.T).min() < 0.999  # they can be told apart
    assert (pictures @ pictures.T).min() < 0.999


def test_instructions_and_suffix_are_those_that_were_given(saved):
    given = {"image": "You are a helpful assistant.", "text": "为查询找到商品图片。"}
    options = {"suffix": "<|endoftext|>"}
    task = built(
        saved(),
        image_tower_options={"image_size": SIZE, "instruction": given["image"], **options},
        text_tower_options={"instruction": given["text"], **options},
    )
    texts, images = own_features(saved(), TEXTS, photos(), instructions=given, **options)
    torch.testing.assert_close(task.encode_text(TEXTS), texts, rtol=0, atol=1e-5)
    torch.testing.assert_close(task.encode_image(photos()), images, rtol=0, atol=1e-5)


def test_long_texts_are_cut_and_keep_their_form(saved):
    task = built(saved(), text_tower_options={"context_length": 12})
    long = "a red dress " * 20
    (kept,) = task.text_tower.cut([long])
    assert long.startswith(kept)
    tokenizer = task.text_tower.processor.tokenizer
    assert tokenizer(kept)["input_ids"] == tokenizer(long)["input_ids"][:12]
    expected = own_features(saved(), [kept], photos())[0]
    torch.testing.assert_close(task.encode_text([long]), expected, rtol=0, atol=1e-5)
    assert task.text_tower.count_texts([long, "帽"]).cut == 1
    assert long == "a red dress " * 20


def test_a_folder_alone_is_loaded_with_the_prompts_beside_it(saved, tmp_path):
    task = zoo.load(saved())
    assert task.image_size == 256  # the largest multiple below what the processor reads
    assert torch.equal(task.encode_text(TEXTS), built(saved()).encode_text(TEXTS))
    prompts = {"query": "找商品", "document": ""}
    folder = shutil.copytree(saved(), tmp_path / "prompted")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    expected = own_features(folder, TEXTS, photos(), instructions={"text": "找商品", "image": INSTRUCTIONS["image"]})
    torch.testing.assert_close(zoo.load(folder).encode_text(TEXTS), expected[0], rtol=0, atol=1e-5)
    (folder / "modules.json").unlink()
    assert isinstance(zoo.load(folder), zoo.CaptioningTask)


def test_weights_are_kept_once(saved):
    task = built(saved(), finetuning={"lora_rank": 2})
    state = task.state_dict()
    assert not [name for name in state if name.startswith("text_tower")]
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    trained = [name for name, value in task.named_parameters() if value.requires_grad]
    assert all(".language_model.layers." in name and ".lora_" in name for name in trained if "loss" not in name)
    assert task.weights == {"image_tower": str(saved())}


@pytest.mark.parametrize("again", [False, True])
def test_gradients_of_both_sides_reach_one_model(saved, again):
    task = built(saved(), gradient_checkpointing=again, chunk_size=2).train()

    def gradients(*parts):
        task.zero_grad()
        sum(part() for part in parts).backward()
        return {name: value.grad.clone() for name, value in task.named_parameters() if value.grad is not None}

    def images():
        return task.encode_image(photos())[:, 0].sum()

    def texts():
        return task.encode_text(TEXTS)[:, 0].sum()

    both, image, text = gradients(images, texts), gradients(images), gradients(texts)
    assert {name for name in both} == {name for name, _ in task.named_parameters() if "loss" not in name}
    for name, value in both.items():
        torch.testing.assert_close(value, image.get(name, 0) + text.get(name, 0), rtol=1e-4, atol=1e-5)


def experiment(folder, muge_root, path, **options):
    """Write the experiment of an embedder; gives its path."""
    towers = {f"{side}_tower": f"vlm:{folder}" for side in ("image", "text")}
    model = {**towers, "image_tower_options": {"image_size": SIZE}, "embedding_dim": None, "dimensions": [8], **options}
    config = {
        "model": {"class_path": "RetrievalTask", "init_args": {**model, "evaluation": {"grid_queries": 0}}},
        "data": {
            "class_path": "RetrievalDataModule",
            "init_args": {"root": str(muge_root), "batch_size": 8, "num_workers": 0},
        },
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_epochs": 2, "enable_model_summary": False},
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path


def expected_recall(folder, muge_root, dimensions):
    """MeanRecall of the test split from transformers' own features, or their first dimensions."""
    data = zoo.RetrievalDataModule(str(muge_root), image_size=SIZE)
    targets = data.targets("test")
    images = [Image.fromarray(resize(data.image("test", number), SIZE)) for number in targets.image_ids]
    texts, gallery = (normalize(side[:, :dimensions], dim=-1) for side in own_features(folder, targets.texts, images))
    ranks = (-(texts @ gallery.T)).argsort(dim=1, stable=True)
    found = [
        min((ranks[row] == targets.image_ids.index(image)).nonzero().item() for image in positives)
        for row, positives in enumerate(targets.positives)
    ]
    return 100 * float(np.mean([np.mean([rank < k for rank in found]) for k in (1, 5, 10)]))


def test_zero_shot_by_the_command(saved, workplace, zoo_main, muge_root, only_run):
    config = experiment(saved(), muge_root, workplace / "experiments" / "vlm.yaml")
    code, _, err = zoo_main("test", "--config", config, "--ckpt_path", "null")
    assert code == 0, err
    assert f"image_tower: {saved()}" in err
    numbers = json.loads((only_run(workplace, experiment="vlm") / "test.json").read_text())["metrics"]
    for name, dimensions in (("", None), ("/8d", 8)):
        expected = expected_recall(saved(), muge_root, dimensions)
        assert numbers[f"test/mean_recall{name}"] == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def trained(saved, tmp_path_factory, muge_root, zoo_process):
    """A run of 20 steps of adapters with an average of them, by the command; read only."""
    place = tmp_path_factory.mktemp("embedder")
    options = {"learning_rate": 1e-2, "finetuning": {"lora_rank": 4, "lora_alpha": 8}}
    options |= {"loss_options": {"temperature": 0.01}, "optimizer": {"warmup_steps": 0}}
    config = experiment(saved(), muge_root, place / "experiments" / "vlm.yaml", **options)
    (place / "experiments" / "_base.yaml").write_text("trainer: {use_distributed_sampler: false}\n")
    words = ("--trainer.max_steps", 20, "--trainer.max_epochs", -1, "--trainer.log_every_n_steps", 1)
    callbacks = ("--trainer.callbacks+", "EMA", "--trainer.callbacks.decay", 0.5)
    code, _, err = zoo_process(place, "fit", "--config", config.relative_to(place), *words, *callbacks)
    assert code == 0, err
    (run,) = (place / "runs" / "vlm").iterdir()
    return run


def losses_of(run):
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("train/loss")
    return [float(row[column]) for row in rows[1:] if row[column]]


@pytest.mark.slow
def test_twenty_steps_of_adapters_lower_the_loss(trained, saved):
    losses = losses_of(trained)
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    contents = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert not [name for name in contents["state_dict"] if name.startswith("text_tower")]
    found, published = zoo.load(trained), built(saved())
    assert not torch.allclose(found.encode_text(TEXTS), published.encode_text(TEXTS), atol=1e-2)
    assert not torch.allclose(found.encode_image(photos()), published.encode_image(photos()), atol=1e-2)
    averages = contents["callbacks"]["EMA"]["averages"]
    assert len(averages) == len([name for name in contents["state_dict"] if ".lora_" in name]) + 1  # the logit scale


@pytest.mark.slow
def test_a_training_is_resumed(trained, tmp_path, zoo_process):
    run = shutil.copytree(trained, tmp_path / "runs" / "vlm" / "copy")
    shutil.copytree(trained.parents[2] / "experiments", tmp_path / "experiments")
    words = ("--config", "experiments/vlm.yaml", "--ckpt_path", "last", "--trainer.max_steps", 22)
    code, _, err = zoo_process(tmp_path, "fit", *words, "--trainer.max_epochs", -1, "--trainer.log_every_n_steps", 1)
    assert code == 0, err
    assert losses_of(run)[:20] == losses_of(trained)
    assert len(losses_of(run)) == 22


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_train_the_same_weights(trained, tmp_path, zoo_process):
    shutil.copytree(trained.parents[2] / "experiments", tmp_path / "experiments")
    words = ("fit", "--config", "experiments/vlm.yaml", "--trainer.max_steps", 2, "--trainer.max_epochs", -1)
    weights = []
    for processes in (1, 2):
        options = ("--data.batch_size", 8 // processes, "--runs", f"runs{processes}")
        code, _, err = zoo_process(tmp_path, *words, *options, processes=processes)
        assert code == 0, err
        (last,) = tmp_path.glob(f"runs{processes}/vlm/*/checkpoints/last.ckpt")
        weights.append(torch.load(last, weights_only=True)["state_dict"])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_it_leaves_for_transformers_and_sentence_transformers(trained, saved, tmp_path):
    from sentence_transformers import SentenceTransformer

    export(trained, tmp_path / "out", kind="transformers")
    task, read = zoo.load(trained), zoo.load(tmp_path / "out")
    assert read.image_size == SIZE
    assert all(torch.equal(read.state_dict()[name], value) for name, value in task.state_dict().items())
    for own, its in zip(
        (task.encode_text(TEXTS), task.encode_image(photos())),
        own_features(tmp_path / "out", TEXTS, photos()),
        strict=True,
    ):
        torch.testing.assert_close(its, own, rtol=0, atol=1e-5)
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    texts = model.encode_query(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(texts, task.encode_text(TEXTS), rtol=0, atol=1e-5)
    images = model.encode_document(photos(), convert_to_tensor=True)
    torch.testing.assert_close(images, task.encode_image(photos()), rtol=0, atol=1e-5)


def test_a_suffix_leaves_within_the_chat_form(saved, tmp_path):
    suffix = {"suffix": "<|endoftext|>"}
    family = "qwen2_vl"  # of GME
    size = {"image_size": CLASSES[family][1]}
    task = built(saved(family), image_tower_options=suffix | size, text_tower_options=suffix)
    (tmp_path / "out").mkdir()
    TransformersFolder().write(task, tmp_path / "out")
    read = zoo.load(tmp_path / "out")
    assert torch.equal(read.encode_text(TEXTS), task.encode_text(TEXTS))
    assert torch.equal(read.encode_image(photos()), task.encode_image(photos()))


@pytest.mark.parametrize("kind", ["onnx", "open_clip", "sentence_transformers", "cn_clip"])
def test_other_formats_cannot_hold_it(saved, tmp_path, kind):
    with pytest.raises(UserError, match="leaves as a whole") as error:
        export(saved(), tmp_path / "out", kind=kind)
    assert error.value.valid == ("transformers", "safetensors")


def test_what_a_folder_cannot_hold_is_refused(saved):
    for options, said in (
        ({"embedding_dim": 8}, "There is a projection behind the published model"),
        ({"text_tower_options": {"suffix": "<|endoftext|>"}}, "The towers have different suffixes"),
    ):
        with pytest.raises(UserError, match=said):
            TransformersFolder().check(built(saved(), **options))


def test_a_whole_model_is_loaded_or_none(saved, tmp_path):
    tower = built(saved()).image_tower
    model = AutoModelForImageTextToText.from_pretrained(saved())
    model.model.language_model.layers[0].mlp.up_proj.weight.data.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    with pytest.raises(UserError, match="not finite"):
        load_pretrained(tower, str(tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())


@pytest.mark.parametrize(
    ("registry", "argument", "value"),
    [(IMAGE_TOWERS, "image_size", 65), (IMAGE_TOWERS, "image_size", 0), (TEXT_TOWERS, "context_length", 0)],
)
def test_options_out_of_their_range_are_refused(saved, registry, argument, value):
    with pytest.raises(UserError) as error:
        registry.build(f"vlm:{saved()}", **{argument: value})
    assert (error.value.argument, error.value.value) == (argument, value)
    assert error.value.valid == ("give a multiple of 32, from 32 to 256" if value == 65 else "give 1 or more")


def test_texts_beside_another_image_tower_are_refused(saved):
    with pytest.raises(UserError) as error:
        zoo.RetrievalTask("resnet10t", f"vlm:{saved()}", embedding_dim=None)
    assert (error.value.argument, error.value.value) == ("text_tower", f"vlm:{saved()}")
    assert error.value.valid == "name it as image_tower too: one model reads both sides"


def test_a_text_tower_alone_reads_nothing(saved):
    tower = TEXT_TOWERS.build(f"vlm:{saved()}")
    with pytest.raises(UserError, match="with the image tower alone, and has none"):
        tower(TEXTS)
    with pytest.raises(UserError, match="no sequence"):
        tower.sequence(TEXTS)
