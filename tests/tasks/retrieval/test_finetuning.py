"""What of the towers is trained, at what rate, with what memory: against the plain training."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from zoo.core.checkpoint import load, load_initial_weights, load_part
from zoo.core.weights import load_pretrained
from zoo.errors import UserError
from zoo.tasks import RetrievalTask

OPTIONS = {
    "image_tower": "timm:test_vit",
    "image_tower_options": {"image_size": 32},
    "text_tower": "bert_tiny_chinese",
    "text_tower_options": {"width": 32, "num_layers": 2, "num_heads": 2, "dropout": 0.0},
    "image_pretrained": False,
    "text_pretrained": False,
    "embedding_dim": 16,
    "learning_rate": 1e-3,
    "optimizer": {"warmup_steps": 0},
}
RESNET = {"image_tower": "resnet10t", "image_tower_options": {"image_size": 32}}
WORDS = "红蓝绿黄黑白长短裙裤鞋帽"


def batch(size=12):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "text": [WORDS[place % 12] * (1 + place % 5) for place in range(size)],
        "image_id": torch.arange(size),
        "query_id": torch.arange(size),
    }


def built(**options):
    torch.manual_seed(0)
    return RetrievalTask(**{**OPTIONS, **options})


def trained(folder, task, *, steps=2, precision="32-true"):
    """The task after some steps on one batch, and its gradients at the first."""
    gradients = {}

    class Keep(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            for name, parameter in pl_module.named_parameters():
                if parameter.grad is not None:
                    gradients.setdefault(name, parameter.grad.clone())

    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=steps,
        logger=False,
        callbacks=[Keep()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(task, DataLoader([batch()] * steps, batch_size=None))
    return gradients, trainer


# --- large batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("options", [{"chunk_size": 5}, {"gradient_checkpointing": True}], ids=["chunks", "blocks"])
def test_what_is_computed_again_has_the_gradients_of_what_is_kept(tmp_path, options, loss):
    whole, _ = trained(tmp_path, built(loss=loss), steps=1)
    again, _ = trained(tmp_path, built(loss=loss, **options), steps=1)
    assert whole.keys() == again.keys()
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    for name, gradient in whole.items():
        bound = 1e-5 * max(gradient.abs().max().item(), 0.1 * largest)  # of what cancels, the noise alone is left
        torch.testing.assert_close(again[name], gradient, atol=bound, rtol=0, msg=name)


@pytest.mark.parametrize("options", [{"chunk_size": 5}, {"gradient_checkpointing": True}], ids=["chunks", "blocks"])
def test_what_is_computed_again_in_bfloat16_is_computed_as_it_was(tmp_path, options):
    """Attention that suits the processor is chosen by precision: the second pass must choose as the first."""
    whole, _ = trained(tmp_path, built(), steps=1, precision="bf16-mixed")
    again, _ = trained(tmp_path, built(**options), steps=1, precision="bf16-mixed")
    for name, gradient in whole.items():
        torch.testing.assert_close(again[name], gradient, atol=2e-2 * gradient.abs().max().item(), rtol=0, msg=name)


def test_dropout_is_the_same_when_a_chunk_is_computed_again(tmp_path):
    """Else the loss's gradient would be that of other embeddings: the second pass is compared with the first."""
    seen = []
    task = built(chunk_size=4, text_tower_options={**OPTIONS["text_tower_options"], "dropout": 0.5})
    task.text_tower.register_forward_hook(
        lambda module, arguments, output: seen.append((arguments[0], output.detach()))
    )
    trained(tmp_path, task, steps=1)
    assert len(seen) == 6  # three chunks, twice
    for texts, output in seen[:3]:
        (again,) = [other for words, other in seen[3:] if words == texts]
        assert torch.equal(output, again)


@pytest.mark.parametrize("option", [{"chunk_size": 4}, {"gradient_checkpointing": True}], ids=["chunks", "blocks"])
def test_batch_norms_do_not_see_a_batch_twice_or_in_parts(option):
    with pytest.raises(UserError, match=f"{next(iter(option))}: the image tower has batch norms"):
        built(**RESNET, **option)
    for frozen in ({"finetuning": {"train_norms": False}}, {"finetuning": {"image_trainable_layers": 0}}):
        built(**RESNET, **option, **frozen)


# --- freezing ------------------------------------------------------------------------------------------------------


def changed(folder, task):
    """The names of the parameters and buffers that a training moves."""
    before = {name: value.clone() for name, value in task.state_dict().items()}
    trained(folder, task)
    return {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}


def test_the_last_layers_alone_are_trained(tmp_path):
    moved = changed(tmp_path, built(finetuning={"image_trainable_layers": 2, "text_trainable_layers": 0}))
    assert {name for name in moved if name.startswith("text_tower")} == set()
    image = {name.removeprefix("image_tower.model.") for name in moved if name.startswith("image_tower")}
    assert {name.partition(".attn")[0] for name in image if ".attn.qkv.weight" in name} == {"blocks.4", "blocks.5"}
    assert {name.split(".")[0] for name in image} == {"blocks", "norm"}
    assert {"image_projection.weight", "text_projection.weight", "loss.logit_scale"} <= moved


def test_a_frozen_tower_has_no_dropout_and_its_statistics_keep_still(tmp_path):
    task = built(**RESNET, finetuning={"image_trainable_layers": 0, "text_trainable_layers": 0})
    moved = changed(tmp_path, task.train())
    assert moved == {"image_projection.weight", "text_projection.weight", "loss.logit_scale"}
    assert not task.text_tower.training
    assert task.training


def test_norms_can_keep_still(tmp_path):
    moved = changed(tmp_path, built(**RESNET, finetuning={"train_norms": False}))
    task = built(**RESNET)
    norms = {
        f"{place}.{name}"
        for place, module in task.named_modules()
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        for name in module.state_dict()
    }
    assert norms
    assert not moved & norms
    assert {name for name in task.state_dict() if name.endswith("conv2.weight")} <= moved


def test_a_number_of_layers_that_is_not_there():
    with pytest.raises(UserError, match="text_trainable_layers: 4 came; this tower has 3 layers, .*: use 0 to 3"):
        built(finetuning={"text_trainable_layers": 4})


def test_each_layer_learns_slower_than_the_next(tmp_path):
    task = built(learning_rate=0.8, finetuning={"layer_decay": 0.5})
    _, trainer = trained(tmp_path, task, steps=1)
    names = {parameter: name for name, parameter in task.named_parameters()}
    bases = {names[p]: group["initial_lr"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert bases.keys() == set(names.values())
    assert bases["image_projection.weight"] == bases["loss.logit_scale"] == 0.8
    assert bases["image_tower.model.norm.weight"] == bases["image_tower.model.blocks.5.attn.qkv.weight"] == 0.4
    assert bases["image_tower.model.blocks.0.attn.qkv.weight"] == pytest.approx(0.8 * 0.5**6)
    assert bases["image_tower.model.pos_embed"] == pytest.approx(0.8 * 0.5**7)
    assert bases["text_tower.encoder.encoder.layer.1.output.dense.weight"] == 0.4
    assert bases["text_tower.encoder.embeddings.word_embeddings.weight"] == pytest.approx(0.1)


# --- adapters ------------------------------------------------------------------------------------------------------


def test_adapters_begin_as_nothing_and_they_alone_are_trained(tmp_path):
    plain, task = built(), built(finetuning={"lora_rank": 2})
    load_initial_weights(task, saved(plain, tmp_path / "plain.ckpt"))
    images, texts = batch()["image"], batch()["text"]
    with torch.no_grad():
        torch.testing.assert_close(task.eval().encode_image(images), plain.eval().encode_image(images))
        torch.testing.assert_close(task.encode_text(texts), plain.encode_text(texts))
    moved = changed(tmp_path, task.train())
    towers = {name for name in moved if "tower" in name}
    assert towers
    assert all(".lora_" in name for name in towers)
    assert moved - towers == {"image_projection.weight", "text_projection.weight", "loss.logit_scale"}


def test_a_checkpoint_of_adapters_loads_as_plain_weights(tmp_path, monkeypatch):
    task = built(finetuning={"lora_rank": 2, "lora_alpha": 6.0})
    trained(tmp_path, task)
    path = saved(task, tmp_path / "lora.ckpt")
    monkeypatch.setitem(__import__("sys").modules, "peft", None)  # who only uses it does not need peft
    plain = load(path)
    assert plain.state_dict().keys() == built().state_dict().keys()
    images, texts = batch()["image"], batch()["text"]
    with torch.no_grad():
        torch.testing.assert_close(plain.encode_image(images), task.eval().encode_image(images))
        torch.testing.assert_close(plain.encode_text(texts), task.encode_text(texts))
    onwards = built()
    load_initial_weights(onwards, path)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in onwards.state_dict().items())
    tower = built().image_tower
    load_part(tower, path, "image_tower")
    assert all(torch.equal(value, plain.image_tower.state_dict()[name]) for name, value in tower.state_dict().items())


def test_published_weights_find_their_place_under_adapters(tmp_path):
    plain, task = built(), built(finetuning={"lora_rank": 2})
    torch.save(plain.image_tower.model.state_dict(), tmp_path / "tower.pt")
    assert load_pretrained(task.image_tower, str(tmp_path / "tower.pt")).found
    assert torch.equal(
        task.image_tower.model.blocks[1].mlp.fc1.base_layer.weight, plain.image_tower.model.blocks[1].mlp.fc1.weight
    )


def test_a_task_with_adapters_starts_from_one_without(tmp_path):
    plain, task = built(), built(finetuning={"lora_rank": 2})
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter += 1
    load_initial_weights(task, saved(plain, tmp_path / "plain.ckpt"))
    own = {key.replace(".base_layer.", "."): value for key, value in task.state_dict().items()}
    assert all(torch.equal(own[key], value) for key, value in plain.state_dict().items())
    assert any(".lora_A." in key for key in own)


def test_adapters_that_cannot_be(monkeypatch):
    with pytest.raises(UserError, match="lora_rank: ResNet has no linear layer in its blocks"):
        built(**RESNET, finetuning={"lora_rank": 2})
    with pytest.raises(UserError, match="both given"):
        built(finetuning={"lora_rank": 2, "text_trainable_layers": 1})
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'muge-zoo\[lora\]'"):
        built(finetuning={"lora_rank": 2})


def saved(task, path):
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=path.parent)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return path


# --- compilation ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_towers_keep_their_names_and_embeddings(tmp_path, monkeypatch):
    """Traced, and run without a C++ compiler: the numbers of the kernels are torch's own business."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: real(*args, **{**options, "backend": "aot_eager"}))
    task, plain = built(compile_towers=True), built()
    again, _ = trained(tmp_path, task)
    whole, _ = trained(tmp_path, plain)
    assert task.state_dict().keys() == plain.state_dict().keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("option", ["layer_decay", "gradient_checkpointing", "lora_rank", "image_trainable_layers"])
def test_a_tower_of_ones_own_that_cannot_says_so(tmp_path, option):
    class Tower(nn.Module):
        width, image_size = 8, 32

        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 32)

        def forward(self, images):
            return self.convolution(images.float()).flatten(1)

    value = {"layer_decay": 0.5, "gradient_checkpointing": True, "lora_rank": 2, "image_trainable_layers": 0}[option]
    given = {option: value} if option == "gradient_checkpointing" else {"finetuning": {option: value}}
    options = {"image_tower": Tower(), "image_tower_options": None, **given}
    with pytest.raises(UserError, match=f"{option}: the tower Tower has no method"):
        trained(tmp_path, built(**options), steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"finetuning": {"layer_decay": 0.0}}, "finetuning.layer_decay is 0.0: give a share, above 0"),
        ({"loss_options": {"label_smoothing": 1.0}}, "label_smoothing: 1.0 came"),
        ({"loss": "sigmoid", "loss_options": {"label_smoothing": 0.1}}, "'sigmoid' has no option 'label_smoothing'"),
        ({"loss": "sigmod"}, "no retrieval loss 'sigmod'. Did you mean sigmoid"),
        ({"chunk_size": 0}, "chunk_size is 0: give 1 pair or more"),
        ({"finetuning": {"lora_rank": -1}}, "finetuning.lora_rank is -1"),
    ],
)
def test_options_out_of_their_range(options, message):
    with pytest.raises(UserError, match=message):
        built(**options)
