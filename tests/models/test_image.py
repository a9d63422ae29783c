import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import v2

from zoo.errors import UserError
from zoo.models.image import TimmImageTower
from zoo.registry import IMAGE_TOWERS

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def pictures(size=64, batch=2):
    return torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return IMAGE_TOWERS.build("resnet10t", image_size=64).eval()


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return TimmImageTower("test_vit", image_size=64).eval()


@pytest.mark.parametrize(
    ("name", "statistics"), [("resnet10t", IMAGENET), ("timm:test_vit", None), ("timm:resnet50_clip", CLIP)]
)
def test_normalises_as_torchvision_does(name, statistics):
    tower = IMAGE_TOWERS.build(name)
    mean, std = statistics or ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = pictures(tower.image_size)
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(images)
    torch.testing.assert_close(tower.normalise(images), reference, rtol=0, atol=3e-6)  # of values up to 2.7


@torch.no_grad()
def test_pools_as_the_timm_model_does(resnet):
    images = pictures()
    model = timm.create_model("resnet10t", num_classes=0).eval()
    model.load_state_dict(resnet.model.state_dict())
    reference = model(v2.functional.normalize(images.float() / 255, *IMAGENET))
    torch.testing.assert_close(resnet(images), reference, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_sequence_is_what_is_pooled(resnet, vit):
    features, _ = resnet.sequence(pictures())
    assert features.shape == (2, 4, 512)
    torch.testing.assert_close(features.mean(dim=1), resnet(pictures()), rtol=1e-4, atol=1e-5)
    features, _ = vit.sequence(pictures())
    assert features.shape == (2, 1 + 16, vit.width)  # class token and 4 × 4 patches


@torch.no_grad()
def test_stages_are_means_and_deviations_of_the_last_four(resnet, vit):
    maps = []
    layers = [resnet.model.layer1, resnet.model.layer2, resnet.model.layer3, resnet.model.layer4]
    hooks = [layer.register_forward_hook(lambda module, inputs, output: maps.append(output)) for layer in layers]
    found = resnet.stages(pictures())
    for hook in hooks:
        hook.remove()
    pairs = [(each.mean(dim=(2, 3)), each.var(dim=(2, 3), correction=0).sqrt()) for each in maps]
    wanted = torch.cat([part for pair in pairs for part in pair], dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert resnet.stages(pictures(32)).isfinite().all()  # a last map of one place
    assert vit.stages(pictures()).shape == (2, 2 * min(4, len(vit.blocks())) * vit.width)
    shallow = TimmImageTower("test_vit", image_size=64, num_layers=1)
    assert shallow.stages(pictures()).shape == (2, 2 * shallow.width)


def test_models_that_keep_channels_last_give_a_sequence_of_places():
    with torch.device("meta"):
        tower = TimmImageTower("swin_tiny_patch4_window7_224").eval()
    features, _ = tower.sequence(pictures(224).to("meta"))
    assert features.shape == (2, 49, 768)


@torch.no_grad()
def test_precisions_agree(vit):
    images = pictures()
    reference = vit(images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = vit(images)
    half = copy.deepcopy(vit).to(torch.bfloat16)
    assert half.normalise(images).dtype == torch.bfloat16
    torch.testing.assert_close(half.normalise(images), vit.normalise(images).bfloat16(), rtol=0, atol=0)
    for other in (mixed, half(images)):
        cosine = torch.nn.functional.cosine_similarity(other.float(), reference)
        assert (cosine > 0.99).all()


@torch.no_grad()
def test_memory_layout_changes_nothing(resnet):
    images = pictures()
    torch.testing.assert_close(
        resnet(images.contiguous(memory_format=torch.channels_last)), resnet(images), rtol=0, atol=0
    )


def test_gradients_reach_every_parameter(resnet):
    tower = copy.deepcopy(resnet).train()
    tower(pictures()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 64, 64), r"float32 \[2, 3, 64, 64\] came"),
        (torch.zeros(2, 64, 64, 3, dtype=torch.uint8), r"uint8 \[2, 64, 64, 3\] came"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), r"uint8 \[3, 64, 64\] came"),
    ],
)
def test_refuses_what_is_not_raw_pixels(resnet, images, message):
    with pytest.raises(UserError, match=message):
        resnet(images)


def test_refuses_another_size_where_the_model_is_bound_to_one(vit):
    with pytest.raises(UserError, match="32 × 32 pixels came; this tower takes 64 × 64"):
        vit(pictures(32))


def test_a_convolutional_tower_takes_any_size(resnet):
    assert resnet(pictures(96)).shape == (2, 512)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnt50", {}, "timm has no model 'resnt50'. Did you mean resnet50"),
        ("resnet50.nobody", {}, "has no weights 'nobody'. It has a1_in1k"),
        ("resnet18", {"patch_dropout": 0.5}, "patch_dropout: timm's 'resnet18' does not take it"),
        ("test_vit", {"patch_dropout": 1.5}, "patch_dropout is 1.5: give a share"),
        ("resnet18", {"image_size": 0}, "image_size: 0 is not a multiple"),
        ("test_vit", {"image_size": 70}, "image_size: 70 is not a multiple of the 16-pixel patches .* 64 or 80"),
    ],
)
def test_faulty_names_and_options(name, options, message):
    with pytest.raises(UserError, match=message):
        IMAGE_TOWERS.build(f"timm:{name}", **options)


def test_a_tower_without_a_sequence_of_its_width_says_so():
    tower = TimmImageTower("mobilenetv3_small_050").eval()
    assert tower(pictures()).shape == (2, 1024)
    with pytest.raises(UserError, match="no sequence of its pooled width 1024"):
        tower.sequence(pictures())


def test_patch_dropout_drops_patches_in_training_only():
    tower = TimmImageTower("test_vit", image_size=64, patch_dropout=0.5)
    assert tower.train().sequence(pictures())[0].shape[1] == 1 + 8
    assert tower.eval().sequence(pictures())[0].shape[1] == 1 + 16


@torch.no_grad()
def test_pickles(resnet):
    again = pickle.loads(pickle.dumps(resnet))
    torch.testing.assert_close(again(pictures()), resnet(pictures()), rtol=0, atol=0)


def test_preprocess_lays_over_white_and_turns_upright(resnet):
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([0, 0, 255] * 256)
    turned = Image.new("RGB", (40, 20), "lime")
    turned.paste("blue", (0, 0, 20, 20))
    turned.getexif()[0x0112] = 6  # a quarter turn clockwise to be upright
    pixels = resnet.preprocess([clear, palette, turned])
    assert (pixels[0] == 255).all()
    assert pixels[1, :, 0, 0].tolist() == [0, 0, 255]
    assert pixels[2, :, 5, 32].tolist() == [0, 0, 255]
    assert pixels[2, :, 58, 32].tolist() == [0, 255, 0]


def test_preprocess_resizes_as_pillow_does(resnet):
    noise = np.random.default_rng(0).integers(256, size=(90, 130, 3), dtype=np.uint8)
    reference = np.asarray(Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    pixels = resnet.preprocess([Image.fromarray(noise)])[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(pixels - reference).max() <= 1


def test_named_towers_start_from_the_weights_that_chinese_clip_starts_from():
    with torch.device("meta"):
        published = [IMAGE_TOWERS.build(name).published for name in IMAGE_TOWERS.names("*clip*")]
    assert published == [
        "timm/resnet50_clip.openai",
        "timm/vit_base_patch16_clip_224.openai",
        "timm/vit_base_patch32_clip_224.openai",
        "timm/vit_huge_patch14_clip_224.dfn5b",
        "timm/vit_large_patch14_clip_224.openai",
        "timm/vit_large_patch14_clip_336.openai",
    ]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "layers", "width", "patch"),
    [("vit_base_patch16_clip_quickgelu_224", 12, 768, 16), ("resnet50_clip", (3, 4, 6, 3), 64, None)],
)
@torch.no_grad()
def test_is_the_visual_tower_of_cn_clip(tmp_path, cn_clip_model, name, layers, width, patch):
    from zoo.core.weights import load_pretrained

    torch.manual_seed(0)
    original = cn_clip_model(vision=(width, 64, patch, 224, layers)).eval()
    state = {f"module.{key}": value for key, value in original.state_dict().items()}
    torch.save({"epoch": 1, "name": "x", "state_dict": state}, tmp_path / "original.pt")
    tower = IMAGE_TOWERS.build(name).eval()
    load_pretrained(tower, str(tmp_path / "original.pt"))
    images = pictures(224)
    reference = original.encode_image(v2.functional.normalize(images.float() / 255, *CLIP))
    if name == "resnet50_clip":
        projected = original.visual.attnpool.c_proj(tower(images))
    else:
        projected = tower(images) @ original.visual.proj
    torch.testing.assert_close(projected, reference, rtol=0, atol=2e-5 * reference.abs().max().item())


def test_bfloat16_on_a_cpu_takes_the_plain_attention_and_stays_near_fp32():
    torch.manual_seed(0)
    tower = TimmImageTower("test_vit", image_size=32).eval()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
        )
        expected = tower(images)
        in_fp32 = len(calls)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = tower(images)
        assert in_fp32 > 0
        assert len(calls) == in_fp32
        torch.testing.assert_close(tower(images), expected)
    assert len(calls) == 2 * in_fp32
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.05)
