"""Every registered tower keeps the contract of ``zoo.core.contracts``: a new file is tested by being there."""

import inspect

import pytest
import torch
from PIL import Image

from zoo.core.contracts import ImageTower, TextTower
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS

TEXTS = ["红裙", "夏季新款碎花连衣裙 显瘦", "iPhone 手机壳"]


def parameters(registry, name):
    """How many a tower has, without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in registry.build(name).parameters())


@pytest.fixture(scope="module", params=IMAGE_TOWERS.names())
def image_tower(request):
    """Tiny towers compute; the others pass shapes along without memory."""
    torch.manual_seed(0)
    tiny = parameters(IMAGE_TOWERS, request.param) < 10e6
    with torch.device("cpu" if tiny else "meta"):
        return IMAGE_TOWERS.build(request.param).eval()


def text_names():
    return [
        pytest.param(name, marks=pytest.mark.slow if parameters(TEXT_TOWERS, name) > 50e6 else ())
        for name in TEXT_TOWERS.names()
    ]


@pytest.fixture(scope="module", params=text_names())
def text_tower(request):
    torch.manual_seed(0)
    return TEXT_TOWERS.build(request.param).eval()


def is_meta(tower):
    return next(tower.parameters()).is_meta


@torch.no_grad()
def test_image_tower(image_tower):
    size = image_tower.image_size
    images = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    if is_meta(image_tower):
        images = images.to("meta")
    assert isinstance(image_tower, ImageTower)
    pooled = image_tower(images)
    assert pooled.shape == (2, image_tower.width)
    features, mask = image_tower.sequence(images)
    assert features.shape == (*mask.shape, image_tower.width)
    assert mask.dtype == torch.bool
    assert mask.shape[0] == 2
    if not is_meta(image_tower):
        assert mask.all()
        assert pooled.isfinite().all()
        torch.testing.assert_close(image_tower(images[:1]), pooled[:1], rtol=0, atol=1e-4 * pooled.abs().max())


def test_image_tower_preprocess(image_tower):
    images = [Image.new("RGB", (50, 30), "red"), Image.new("L", (20, 70), 128)]
    pixels = image_tower.preprocess(images)
    assert pixels.shape == (2, 3, image_tower.image_size, image_tower.image_size)
    assert pixels.dtype == torch.uint8
    assert pixels[0, :, 5, 5].tolist() == [255, 0, 0]


@torch.no_grad()
def test_text_tower(text_tower):
    assert isinstance(text_tower, TextTower)
    pooled = text_tower(TEXTS)
    assert pooled.shape == (3, text_tower.width)
    hidden, mask = text_tower.sequence(TEXTS)
    assert hidden.shape == (*mask.shape, text_tower.width)
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [4, 13, 6]
    assert mask.shape[1] == 13  # the longest text's, not 52


@torch.no_grad()
def test_a_text_does_not_depend_on_its_batch(text_tower):
    together = text_tower(TEXTS)
    alone = torch.cat([text_tower([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("registry", [IMAGE_TOWERS, TEXT_TOWERS], ids=["image", "text"])
def test_every_option_is_documented(registry):
    for name in registry.names():
        assert registry.describe(name).startswith("Build ")
        for option in registry.options(name):
            assert f"\n    {option}:" in inspect.getdoc(registry.builder(name))
