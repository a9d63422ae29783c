import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.augment import auto_augment
from zoo.data.retrieval import RetrievalDataModule

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
    monkeypatch.setattr("zoo.data.retrieval_datasets.auto_augment", lambda image, seed: image)
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
    code = "import sys, zoo.data.retrieval_datasets; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
