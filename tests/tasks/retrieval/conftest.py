"""What the tests of published CLIP weights share: random weights that tell names apart, and comparisons."""

import csv
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch.nn.functional import interpolate, normalize
from torchvision.transforms.v2.functional import normalize as standardise

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
TEXTS = ["红色连衣裙", "夏季新款碎花连衣裙 显瘦 “大码”", "iPhone 手机壳", "帽"]


# Vision width (None: the ResNet-50), heads, patch, image size, layers; text width, layers; shared dimension.
SIZES = {
    "ViT-B-16": ((768, 12, 16, 224, 12), (768, 12), 512),
    "ViT-L-14": ((1024, 16, 14, 224, 24), (768, 12), 768),
    "ViT-L-14-336": ((1024, 16, 14, 336, 24), (768, 12), 768),
    "ViT-H-14": ((1280, 16, 14, 224, 32), (1024, 24), 1024),
    "RN50": ((None, 32, None, 224, (3, 4, 6, 3)), (768, 3), 1024),
}
TOWERS = {
    "ViT-B-16": ("vit_base_patch16_clip_quickgelu_224", "chinese_roberta_wwm_ext"),
    "ViT-L-14": ("vit_large_patch14_clip_quickgelu_224", "chinese_roberta_wwm_ext"),
    "ViT-L-14-336": ("vit_large_patch14_clip_quickgelu_336", "chinese_roberta_wwm_ext"),
    "ViT-H-14": ("vit_huge_patch14_clip_quickgelu_224", "chinese_roberta_wwm_ext_large"),
    "RN50": ("resnet50_clip", "rbt3"),
}


def randomise(model):
    """Every weight drawn, norms and biases too, so that no two are alike; the logit scale is 4."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or "logit_scale" in name:
            continue
        fan_in = 1 if value.ndim < 2 else value[0].numel()
        if name == "visual.proj" or name == "text_projection":
            fan_in = len(value)
        value.copy_(torch.randn(value.shape, generator=generator) * (0.2 if value.ndim < 2 else fan_in**-0.5))
        if name.endswith(("mlp.fc2.weight", "mlp.c_proj.weight")):
            value.mul_(5)  # so that the activation before it tells
        if name.endswith("running_var"):
            value.abs_().add_(0.5)
        elif value.ndim == 1 and name.endswith("bn3.weight"):
            value.add_(0.3)  # the ends of residual branches: with 1 the original itself is off by 1e-5
        elif value.ndim == 1 and name.endswith("weight"):
            value.add_(1)
        elif "embedding" in name and value.ndim == 2:
            value.mul_(fan_in**0.5)
    model.state_dict()["logit_scale"].fill_(4.0)
    return model.eval()


def pixels(size, *, batch=3):
    """Images of coarse noise, so that they differ in more than their grain."""
    coarse = torch.randint(256, (batch, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return interpolate(coarse, size=(size, size), mode="nearest")


def save(path, state, *, prefix="module."):
    torch.save({"epoch": 3, "step": 9, "name": "x", "state_dict": {prefix + k: v for k, v in state.items()}}, path)
    return path


def floats(images):
    """Pixels as the original models read them."""
    return standardise(images.float() / 255, *CLIP)


@torch.no_grad()
def assert_same(task, encode_image, encode_text, *, size):
    """Embeddings and logits to 1e-5 of their scale, the logit scale exactly; returns the three largest errors."""
    images = pixels(size)
    image, text = normalize(encode_image(floats(images)), dim=-1), normalize(encode_text(TEXTS), dim=-1)
    found = task.encode_image(images), task.encode_text(TEXTS)
    assert task.loss.logit_scale.item() == 4.0
    scale = task.loss.logit_scale.exp()
    pairs = [(found[0], image), (found[1], text), (scale * found[0] @ found[1].T, scale * image @ text.T)]
    errors = [((ours - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in pairs]
    assert all(len(torch.unique(theirs, dim=0)) == len(theirs) for _, theirs in pairs)
    assert max(errors) <= 1e-5, errors
    return errors


# A task of one layer a side, whose shape the small originals have.
MODEL = {
    "image_tower": "vit_base_patch32_clip_quickgelu_224",
    "image_tower_options": {"image_size": 64, "num_layers": 1},
    "text_tower": "chinese_roberta_wwm_ext",
    "text_tower_options": {"num_layers": 1},
    "embedding_dim": 512,
}


@torch.no_grad()
def expected_evaluation(root, encode_image, encode_text):
    """Recall and loss of the validation split, computed plainly from an original model's embeddings."""
    from zoo.tasks.retrieval.data import RetrievalDataModule

    data = RetrievalDataModule(root=str(root), image_size=64, num_workers=0)
    data.setup("validate")
    targets = data.targets("valid")
    batches = [batch for loader in data.val_dataloader() for batch in loader if "image" in batch]
    assert torch.cat([batch["image_id"] for batch in batches]).tolist() == targets.image_ids
    images = normalize(encode_image(floats(torch.cat([batch["image"] for batch in batches]))), dim=-1)
    texts = normalize(encode_text(targets.texts), dim=-1)
    ranks = []
    for scores, positives in zip((texts @ images.T).tolist(), targets.positives, strict=True):
        order = sorted(range(len(scores)), key=lambda place, scores=scores: -scores[place])
        ranks.append(min(order.index(targets.image_ids.index(id_)) for id_ in positives))
    recall = sum(sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5, 10)) / 3 * 100
    firsts = [targets.image_ids.index(positives[0]) for positives in targets.positives]
    logits = torch.tensor(4.0).exp() * images[firsts] @ texts.T
    alike = torch.tensor(firsts)[:, None] == torch.tensor(firsts)
    logits = logits.masked_fill(alike & ~torch.eye(len(firsts), dtype=torch.bool), -torch.inf)
    diagonal = logits.diagonal()
    loss = (logits.logsumexp(0) - diagonal).mean() / 2 + (logits.logsumexp(1) - diagonal).mean() / 2
    return {"val/mean_recall": recall, "val/loss": loss.item()}


def first_evaluation(zoo_process, place, root, weights):
    """What ``python -m zoo fit`` on files logs before the first step, started from ``weights``."""
    model = {"class_path": "zoo.tasks.RetrievalTask", "init_args": {**MODEL, "evaluation": {"grid_queries": 0}}}
    experiment = {
        "model": model,
        "data": {
            "class_path": "zoo.tasks.retrieval.data.RetrievalDataModule",
            "init_args": {"root": str(root), "batch_size": 4, "num_workers": 0},
        },
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_steps": 1},
    }
    repository = Path(__file__).parents[3]
    (place / "experiments").mkdir()
    (place / "experiments" / "_base.yaml").write_text((repository / "experiments" / "_base.yaml").read_text())
    (place / "experiments" / "small.yaml").write_text(yaml.safe_dump(experiment))
    code, out, err = zoo_process(place, "fit", "--config", "experiments/small.yaml", "--model.init_from", weights)
    assert code == 0, out + err
    for checkpoint in place.glob("runs/small/*/checkpoints/*"):
        checkpoint.unlink()  # hundreds of megabytes
    (metrics,) = place.glob("runs/small/*/metrics.csv")
    row = next(row for row in csv.DictReader(metrics.open()) if row["val/loss"])
    assert row["step"] == "0"
    return {name: float(row[name]) for name in ("val/mean_recall", "val/loss")}


@pytest.fixture(scope="session")
def fitting_task():
    """Builds the task that the small originals' weights fit."""
    from zoo.tasks import RetrievalTask

    return lambda **changes: RetrievalTask(**{**MODEL, **changes})


@pytest.fixture(scope="session")
def originals(zoo_process):
    """The functions above: test folders are no packages."""
    return SimpleNamespace(
        randomise=randomise,
        pixels=pixels,
        assert_same=assert_same,
        expected_evaluation=expected_evaluation,
        first_evaluation=partial(first_evaluation, zoo_process),
        save=save,
        TEXTS=TEXTS,
        SIZES=SIZES,
        TOWERS=TOWERS,
    )
