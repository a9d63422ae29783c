"""What a VQGAN is trained by: against naive counterparts and numbers worked out by hand."""

import pytest
import torch
from torch.nn.functional import conv2d

from zoo.errors import UserError
from zoo.tasks.image_tokenizer.loss import adaptive_weight, hinge_loss, laplacian_loss
from zoo.tasks.image_tokenizer.lpips import VGG, find_vgg, load_lpips


def pictures(seed=0, side=16):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def halved(picture):
    return (picture[..., ::2, ::2] + picture[..., 1::2, ::2] + picture[..., ::2, 1::2] + picture[..., 1::2, 1::2]) / 4


def doubled(picture):
    """Bilinear, half-pixel centres, one axis at a time: three quarters of a pixel and a quarter of its neighbour."""
    for axis in (2, 3):
        moved = picture.movedim(axis, -1)
        left = torch.cat([moved[..., :1], moved[..., :-1]], dim=-1)
        right = torch.cat([moved[..., 1:], moved[..., -1:]], dim=-1)
        both = torch.stack([0.75 * moved + 0.25 * left, 0.75 * moved + 0.25 * right], dim=-1)
        picture = both.flatten(-2).movedim(-1, axis)
    return picture


def pyramid(picture, levels):
    found = []
    for _ in range(levels):
        smaller = halved(picture)
        found.append(picture - doubled(smaller))
        picture = smaller
    return [*found, picture]


def test_equal_pictures_have_no_loss():
    assert laplacian_loss(pictures(), pictures()).item() == 0


@pytest.mark.parametrize(("side", "levels", "possible"), [(16, 3, 3), (16, 1, 1), (12, 3, 2), (7, 3, 0)])
def test_the_loss_is_the_difference_of_two_pyramids(side, levels, possible):
    a, b = pictures(0, side), pictures(1, side)
    naive = sum((x - y).abs().mean() for x, y in zip(pyramid(a, possible), pyramid(b, possible), strict=True))
    assert laplacian_loss(a, b, levels=levels).item() == pytest.approx(naive.item(), rel=1e-5)


def test_blurred_edges_count_more_than_another_brightness():
    """At the same absolute error of the pixels."""
    edges = ((torch.arange(32) // 4) % 2 * 1.0).expand(1, 3, 32, 32) - 0.5
    kernel = torch.ones(3, 1, 1, 5) / 5
    error = conv2d(edges, kernel, padding=(0, 2), groups=3) - edges
    shift = torch.full_like(edges, error.abs().mean().item())
    assert laplacian_loss(edges + error, edges) > 1.5 * laplacian_loss(edges + shift, edges)


def test_a_constant_shift_is_seen_at_the_smallest_size_alone():
    assert laplacian_loss(pictures() + 0.3, pictures()).item() == pytest.approx(0.3, rel=1e-4)


def test_hinge_loss_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert hinge_loss(real, fake).item() == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3))
    assert hinge_loss(torch.full((3,), 1.0), torch.full((3,), -1.0)).item() == 0  # far enough
    assert hinge_loss(real.bfloat16(), fake.bfloat16()).dtype == torch.float32


def test_the_discriminator_raises_true_pictures_and_lowers_others():
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    hinge_loss(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()


def test_the_adaptive_weight_by_hand():
    weight = adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([[0.0], [2.0]]))
    assert weight.item() == pytest.approx(5 / 2.0001, rel=1e-6)


def test_the_adaptive_weight_is_limited_and_has_no_gradient():
    large = torch.tensor([3.0, 4.0], requires_grad=True)
    assert adaptive_weight(large, torch.zeros(2)).item() == 1e4
    assert adaptive_weight(torch.zeros(2), large).item() == 0
    assert not adaptive_weight(large, large).requires_grad


def test_lpips_says_where_its_weights_go(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_vgg() is None
    with pytest.raises(UserError, match=f"torch's cache has no {VGG}: fetch https://download.pytorch.org") as error:
        load_lpips()
    assert str(tmp_path / "hub" / "checkpoints") in str(error.value)


@pytest.mark.parametrize("contents", ["nothing", "others"])
def test_lpips_says_which_file_is_damaged(tmp_path, monkeypatch, contents):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / VGG
    file.parent.mkdir(parents=True)
    if contents == "nothing":
        file.write_bytes(b"")
    else:
        torch.save({"features.0.weight": torch.zeros(1)}, file)
    assert find_vgg() == file
    with pytest.raises(UserError, match="these are no weights of VGG-16") as error:
        load_lpips()
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
