"""CN-CLIP's files in, compared with its own code, randomly initialised."""

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.core.checkpoint import load_initial_weights
from zoo.tasks import RetrievalTask

pytestmark = pytest.mark.parity


@pytest.fixture
def original_model(originals, cn_clip_model):
    """Builds a randomly initialised model of cn_clip's, of a published size or smaller."""

    def build(size, *, image_size=None, layers=None, text_layers=None):
        (width, heads, patch, full_size, full_layers), text, dimension = originals.SIZES[size]
        head_width = width // heads if width else 64
        vision = (width or 64, head_width, patch, image_size or full_size, layers or full_layers)
        return originals.randomise(
            cn_clip_model(vision=vision, text=(text[0], text_layers or text[1]), dimension=dimension)
        )

    return build


def encode_text(model):
    from cn_clip.clip import tokenize

    return lambda texts: model.encode_text(tokenize([text.replace("“", '"').replace("”", '"') for text in texts]))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ("ViT-B-16", {}),
        ("ViT-L-14", {"layers": 3, "text_layers": 2}),
        ("ViT-L-14-336", {"layers": 2, "text_layers": 2}),
        ("ViT-H-14", {"layers": 2, "text_layers": 2}),
        ("RN50", {}),
    ],
)
def test_is_cn_clip_of_every_size(tmp_path, originals, original_model, size, options):
    model = original_model(size, **options)
    path = originals.save(tmp_path / "original.pt", model.state_dict())
    task = zoo.load(path)
    path.unlink()  # hundreds of megabytes
    assert (task.hparams.image_tower, task.hparams.text_tower) == originals.TOWERS[size]
    assert (task.image_projection.bias is None) == (size != "RN50")
    errors = originals.assert_same(task, model.encode_image, encode_text(model), size=originals.SIZES[size][0][3])
    print(f"{size}: largest errors of images, texts, logits: {', '.join(f'{error:.1e}' for error in errors)}")


def test_flash_attention_names_are_cn_clips_own(tmp_path, originals, original_model):
    from cn_clip.clip.model import convert_state_dict

    model = original_model("ViT-B-16", image_size=64, layers=2, text_layers=2)
    prefixed = {f"module.{name}": value for name, value in model.state_dict().items()}
    renamed = {name.removeprefix("module."): value for name, value in convert_state_dict(prefixed).items()}
    assert sum("Wqkv" in name for name in renamed) == 2 * 2 + 2 * 2
    task = zoo.load(originals.save(tmp_path / "flash.pt", renamed))
    originals.assert_same(task, model.encode_image, encode_text(model), size=64)


def test_positions_are_resized_as_cn_clip_does(tmp_path, originals, original_model):
    from cn_clip.clip.model import resize_pos_embed

    small = original_model("ViT-B-16", layers=1, text_layers=1)
    large = original_model("ViT-B-16", image_size=336, layers=1, text_layers=1)
    state = dict(small.state_dict())
    path = originals.save(tmp_path / "small.pt", state)
    resize_pos_embed(state, large)
    large.load_state_dict(state)
    task = RetrievalTask(
        image_tower="vit_base_patch16_clip_quickgelu_224",
        image_tower_options={"image_size": 336, "num_layers": 1},
        text_tower_options={"num_layers": 1},
    ).eval()
    load_initial_weights(task, path)
    expected = large.visual.positional_embedding.detach()
    torch.testing.assert_close(task.image_tower.model.pos_embed[0].detach(), expected, rtol=0, atol=1e-6)
    originals.assert_same(task, large.encode_image, encode_text(large), size=336)


@torch.no_grad()
def test_images_are_prepared_as_cn_clip_does():
    from cn_clip.clip import image_transform

    tower = zoo.create("vit_base_patch16_clip_quickgelu_224", image_size=64, num_layers=1)
    draw = np.random.default_rng(0)
    noise = [(90, 130, 3), (64, 64, 3), (40, 300, 3), (70, 50, 3), (500, 333, 3), (50, 70)]
    images = [Image.fromarray(draw.integers(256, size=shape, dtype=np.uint8)) for shape in noise]
    coarse = Image.fromarray(draw.integers(256, size=(8, 6, 3), dtype=np.uint8))
    images += [coarse.resize(size, Image.Resampling.BICUBIC) for size in ((640, 480), (70, 50), (63, 300))]
    transform = image_transform(64)
    *geometry, standardise = transform.transforms
    for image in images:
        found = tower.preprocess([image])
        expected = image
        for step in geometry:
            expected = step(expected)
        levels = (found[0] - expected * 255).abs().round()
        assert levels.max() <= 2
        assert (levels > 1).float().mean() < 5e-4  # a pixel of pure noise here and there
        error = (tower.normalise(found)[0] - standardise(expected)).abs()
        assert error.max() <= levels.max() / 255 / 0.26 + 1e-4


def test_the_first_evaluation_of_a_run_is_cn_clips(tmp_path, muge_root, originals, original_model):
    model = original_model("ViT-B-16", image_size=64, layers=1, text_layers=1)
    # The run of `originals` is on patches of 32 pixels: as the original would be, built so.
    from cn_clip.clip.model import VisualTransformer

    model.visual = VisualTransformer(64, 32, 768, 1, 12, 512)
    originals.randomise(model)
    path = originals.save(tmp_path / "clip_cn_small.pt", model.state_dict())
    expected = originals.expected_evaluation(muge_root, model.encode_image, encode_text(model))
    found = originals.first_evaluation(tmp_path, muge_root, path)
    assert found["val/mean_recall"] == pytest.approx(expected["val/mean_recall"], abs=1e-3)
    assert found["val/loss"] == pytest.approx(expected["val/loss"], rel=2e-6)
