import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.augment import auto_augment, degrade
from zoo.tasks.retrieval.data import RetrievalDataModule

MEAN = (0.48145466, 0.4578275, 0.40821073)


def pairs(root, **options):
    data = RetrievalDataModule(str(root), **{"image_size": 48, "num_workers": 0, "auto_augment": True, **options})
    data.setup("fit")
    return data.train_dataloader().dataset


def pictures(dataset, epoch, rows):
    return dataset.__getitems__([(epoch, row) for row in rows])["image"]


def picture(seed, size=224):
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC))


def assert_same_as(step, images):
    """``auto_augment`` gives what a timm transform gives after the same seeds."""
    changed = 0
    for seed, image in enumerate(images):
        ours = auto_augment(image, seed)
        random.seed(seed)
        np.random.seed(seed)
        np.testing.assert_array_equal(ours, np.asarray(step(Image.fromarray(image))))
        changed += not np.array_equal(ours, image)
    assert changed > len(images) / 2


def step_named_auto_augment(transform):
    return next(step for step in transform.transforms if type(step).__name__ == "AutoAugment")


def test_it_is_timms_original_policy():
    from timm.data import create_transform

    options = {"is_training": True, "color_jitter": None, "auto_augment": "original", "interpolation": "bicubic"}
    transform = create_transform(input_size=224, scale=(0.9, 1.0), mean=MEAN, **options)
    assert_same_as(step_named_auto_augment(transform), [picture(seed) for seed in range(100)])


@pytest.mark.parity
def test_it_is_cn_clips():
    from cn_clip.training.data import LMDBDataset

    transform = LMDBDataset._build_transform(SimpleNamespace(split="train", use_augment=True), 224)
    assert_same_as(step_named_auto_augment(transform), [picture(seed) for seed in range(100)])


def test_a_key_has_the_same_pixels_whatever_happened_before(muge_root):
    dataset = pairs(muge_root)
    first = pictures(dataset, 2, range(12))
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    random.random()
    assert torch.equal(pictures(dataset, 2, reversed(range(12))).flip(0), first)


def test_workers_give_the_same_pixels(muge_root):
    def epoch(workers):
        data = RetrievalDataModule(
            str(muge_root), image_size=48, batch_size=6, num_workers=workers, flip=0.5, auto_augment=True
        )
        data.setup("fit")
        return torch.cat([data.on_after_batch_transfer(batch, 0)["image"] for batch in data.train_dataloader()])

    assert torch.equal(epoch(0), epoch(2))


def test_another_epoch_and_another_seed_give_other_pixels(muge_root):
    first = pictures(pairs(muge_root, crop_scale=(1.0, 1.0)), 0, range(24))
    epoch = pictures(pairs(muge_root, crop_scale=(1.0, 1.0)), 1, range(24))
    seed = pictures(pairs(muge_root, crop_scale=(1.0, 1.0), seed=1), 0, range(24))
    plain = pictures(pairs(muge_root, crop_scale=(1.0, 1.0), auto_augment=False), 0, range(24))
    for others in (epoch, seed, plain):
        assert (first != others).flatten(1).any(dim=1).float().mean() > 0.5


def test_crop_and_flip_are_those_without_it(muge_root, monkeypatch):
    options = {"crop_scale": (0.3, 1.0), "flip": 0.5}
    plain, augmented = (pairs(muge_root, auto_augment=on, **options) for on in (False, True))
    monkeypatch.setattr("zoo.tasks.retrieval.datasets.auto_augment", lambda image, seed: image)
    expected, found = (dataset.__getitems__([(0, row) for row in range(24)]) for dataset in (plain, augmented))
    assert torch.equal(found["image"], expected["image"])
    assert torch.equal(found["flip"], expected["flip"])


def test_global_random_state_is_left_alone(muge_root):
    dataset = pairs(muge_root)
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), [str(part) for part in np.random.get_state()]
    pictures(dataset, 0, range(12))
    assert (random.getstate(), [str(part) for part in np.random.get_state()]) == before


def test_timm_is_imported_only_when_it_is_asked_for():
    code = "import sys, zoo.tasks.retrieval.datasets; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_degrading_is_a_function_of_the_generator():
    image = picture(0, 64).copy()
    first, again, other = (degrade(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first.shape, first.dtype) == (image.shape, np.uint8)


def test_noise_has_up_to_forty_grey_levels():
    grey = np.full((64, 64, 3), 128, np.uint8)
    deviations = [degrade(grey, np.random.default_rng(seed)).std() for seed in range(200)]
    assert min(deviations) < 2
    assert 38 < max(deviations) < 41
    assert np.mean(deviations) == pytest.approx(20, abs=2.5)


def test_noise_does_not_wrap_round():
    for level in (0, 255):
        worst = [degrade(np.full((32, 32, 3), level, np.uint8), np.random.default_rng(seed)) for seed in range(20)]
        assert max(np.abs(np.float64(one) - level).max() for one in worst) < 6 * 40
        assert max(abs(one.mean() - level) for one in worst) < 20


def test_blurring_is_by_up_to_four_times(monkeypatch):
    monkeypatch.setattr("zoo.data.augment.NOISE", 0.0)
    sizes = []

    def resize(image, size):
        sizes.append(size)
        return np.broadcast_to(image[:1, :1], (size, size, 3))

    monkeypatch.setattr("zoo.data.augment.resize", resize)
    for seed in range(400):
        degrade(picture(0, 64), np.random.default_rng(seed))
    smaller, back = sizes[::2], sizes[1::2]
    assert set(back) == {64}
    assert (min(smaller), max(smaller)) == (16, 64)
    assert np.mean(smaller) == pytest.approx(40, abs=2)
