"""PSNR and SSIM: their formulas, image by image, and what their means are made of."""

import pytest
import torch

from zoo.tasks.image_tokenizer.metrics import PSNR, SSIM, image_similarity, psnr, ssim


def images(count=4, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def flat(*greys):
    """An image of one grey each."""
    return torch.tensor(greys, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 16, 16)


def test_psnr_is_its_formula_image_by_image():
    true, made = images(), images(seed=1)
    made[1] = true[1]
    made[1, 0, 0, 0] = true[1, 0, 0, 0] ^ 1  # a single grey level off
    error = (made.double() - true.double()).square().flatten(1).mean(dim=1)
    expected = 10 * (255**2 / error).log10()
    torch.testing.assert_close(psnr(made, true).double(), expected, rtol=1e-5, atol=0)


def test_equal_images_have_100_decibels_and_percent():
    true = images()
    assert psnr(true, true).tolist() == [100] * 4
    torch.testing.assert_close(ssim(true, true), torch.full((4,), 100.0))


def test_ssim_of_images_of_one_grey_is_that_of_their_means():
    """(2 a b + c) / (a² + b² + c), c = (0.01 · 255)²: nothing varies (Wang et al. 2004)."""
    a, b, c = torch.tensor([10.0, 100.0, 0.0]), torch.tensor([10.0, 90.0, 3.0]), (0.01 * 255) ** 2
    expected = 100 * (2 * a * b + c) / (a**2 + b**2 + c)
    found = ssim(flat(10, 100, 0), flat(10, 90, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_an_image_smaller_than_the_window_has_no_ssim():
    assert set(image_similarity(images(side=10), images(side=10))) == {"psnr"}
    found = image_similarity(images(side=11), images(side=11, seed=1))
    assert found["ssim"].shape == found["psnr"].shape == (4,)


def test_scores_are_between_an_image_and_its_own_true_one():
    true, made = images(), images(seed=1)
    for score in (psnr, ssim):
        alone = torch.cat([score(made[row : row + 1], true[row : row + 1]) for row in range(4)])
        torch.testing.assert_close(score(made, true), alone)


@pytest.mark.parametrize(("metric", "score"), [(PSNR, psnr), (SSIM, ssim)])
def test_a_mean_weighs_images_alike_whatever_their_batches(metric, score):
    true, made = images(5), images(5, seed=1)
    made[0] = true[0]
    mean = metric()
    for rows in (slice(0, 1), slice(1, 5)):
        mean.update(made[rows], true[rows])
    found = mean.compute()
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(score(made, true).double().mean().item(), rel=1e-9)
    mean.reset()
    mean.update(true[:2], true[:2])
    assert mean.compute().item() == pytest.approx(100)


@pytest.mark.parametrize("metric", [PSNR, SSIM])
def test_means_of_processes_are_of_all_their_images(metric, group_of_one):
    first, second = metric(), metric()
    true, made = images(5), images(5, seed=1)
    first.update(made[:4], true[:4])
    second.update(made[4:], true[4:])
    theirs = {"total": second.total, "count": second.count}
    first._sync_dist(lambda value, group=None: [value, theirs["count" if value.dtype == torch.int64 else "total"]])
    alone = metric()
    alone.update(made, true)
    assert first.compute().item() == pytest.approx(alone.compute().item(), rel=1e-12)
