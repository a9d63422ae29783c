import io
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins import HalfPrecision
from PIL import Image
from timm.data import auto_augment as timm_augment

from zoo.data.augment import FILL, auto_augment, draw_auto_augment
from zoo.data.augment_on_device import MOST, auto_augment_batch, plan
from zoo.errors import UserError
from zoo.tasks.retrieval.data import RetrievalDataModule

MAGNITUDES = {
    "auto_contrast": [0.0],
    "color": [0.1, 0.82, 1.0, 1.54],
    "contrast": [0.1, 1.0, 1.54],
    "equalize": [0.0],
    "invert": [0.0],
    "posterize": [4, 6, 7, 8],
    "rotate": [-27.0, 9.0, 24.0],
    "sharpness": [0.1, 1.0, 1.36],
    "shear_x": [-0.15, 0.15],
    "solarize": [0, 76, 128, 256],
}
WITHOUT_MAGNITUDE = ("auto_contrast", "equalize", "invert")


def noise(seed, size):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def photo(seed, size):
    """Like a product's: smooth, some of it over white, compressed as a JPEG."""
    pixels = np.array(Image.fromarray(noise(seed, 8)).resize((size, size), Image.Resampling.BICUBIC))
    pixels[:, : size * (seed % 3) // 4] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return np.array(Image.open(file))


def flat(seed, size):
    return np.full((size, size, 3), seed * 51 % 256, np.uint8)


def on_device(images, drawn):
    """What the device makes of ``[S, S, 3]`` images."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return auto_augment_batch(batch, plan(drawn, len(images[0]))).permute(0, 2, 3, 1).numpy()


def module(root, **options):
    shared = {"image_size": 48, "batch_size": 12, "num_workers": 0, "auto_augment": True, "flip": 0.5}
    data = RetrievalDataModule(str(root), **{**shared, **options})
    data.setup("fit")
    return data


def epoch(data):
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


@pytest.mark.parametrize("size", [33, 224])
@pytest.mark.parametrize("kind", [noise, photo, flat])
@pytest.mark.parametrize("name", MAGNITUDES)
def test_an_operation_is_pillows(name, kind, size):
    images = [kind(seed, size) for seed in range(3)]
    for magnitude in MAGNITUDES[name]:
        arguments = [] if name in WITHOUT_MAGNITUDE else [magnitude]
        options = {"fillcolor": FILL, "resample": Image.Resampling.BICUBIC}
        operation = getattr(timm_augment, name)
        expected = [np.asarray(operation(Image.fromarray(image), *arguments, **options)) for image in images]
        found = on_device(images, [[(name, magnitude)]] * len(images))
        np.testing.assert_array_equal(found, np.stack(expected))


def test_the_policy_has_no_other_operations():
    drawn = draw_auto_augment(224, range(1000))
    assert {name for steps in drawn for name, _ in steps} == set(MAGNITUDES)


def test_a_batch_is_what_the_worker_makes_of_its_images():
    images = [photo(seed, 48) for seed in range(200)]
    expected = np.stack([auto_augment(image, seed) for seed, image in enumerate(images)])
    np.testing.assert_array_equal(on_device(images, draw_auto_augment(48, range(200))), expected)
    assert (expected != np.stack(images)).any(axis=(1, 2, 3)).mean() > 0.5


def test_groups_of_a_large_batch_are_small():
    images = [noise(seed, 4) for seed in range(2 * MOST + 1)]
    drawn = [[("invert", 0.0)]] * len(images)
    assert plan(drawn, 4).counts == [MOST, MOST, 1]
    np.testing.assert_array_equal(on_device(images, drawn), 255 - np.stack(images))


def test_a_batch_for_which_nothing_is_drawn_stays_as_it_is():
    images = [noise(0, 8), noise(1, 8)]
    np.testing.assert_array_equal(on_device(images, [[], []]), np.stack(images))


def test_drawing_leaves_the_global_random_state_alone():
    before = random.getstate(), [str(part) for part in np.random.get_state()]
    draw_auto_augment(48, range(5))
    assert (random.getstate(), [str(part) for part in np.random.get_state()]) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaders_batches_are_the_same_from_the_worker_and_the_device(muge_root, workers):
    options = {"crop_scale": (0.3, 1.0), "num_workers": workers}
    expected, found = (epoch(module(muge_root, augment_on=place, **options)) for place in ("worker", "device"))
    plain = epoch(module(muge_root, auto_augment=False, **options))
    for ours, theirs, unchanged in zip(found, expected, plain, strict=True):
        assert ours.keys() == theirs.keys()
        assert torch.equal(ours["image_id"], theirs["image_id"])
        assert torch.equal(ours["image"], theirs["image"])
        assert not torch.equal(ours["image"], unchanged["image"])


def test_a_key_has_the_same_pixels_whatever_its_batch(muge_root):
    data = module(muge_root, augment_on="device")
    dataset = data.train_dataloader().dataset

    def pixels(rows):
        batch = dataset.__getitems__([(2, row) for row in rows])
        return data.on_after_batch_transfer(batch, 0)["image"]

    whole = pixels(range(24))
    assert torch.equal(pixels(range(17, 24)), whole[17:])
    assert torch.equal(pixels(reversed(range(24))).flip(0), whole)


def test_a_trainer_of_half_precision_leaves_the_plan_alone():
    planned = plan(draw_auto_augment(16, range(30)), 16)
    converted = HalfPrecision("bf16-true").convert_input({"augment": planned})["augment"]
    assert all(map(torch.equal, converted[2:], planned[2:]))


@pytest.mark.parametrize(
    ("device", "degrade", "planned"),
    [("cpu", 0.0, False), ("cuda", 0.0, True), ("cuda", 0.5, False), (None, 0.0, False)],
)
def test_auto_is_the_device_where_that_is_a_gpu_and_nothing_follows(muge_root, device, degrade, planned):
    data = module(muge_root, degrade=degrade)
    if device is not None:
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    assert ("augment" in data.training_dataset().__getitems__([(0, 0)])) == planned


@pytest.mark.parametrize(
    ("options", "value"), [({"augment_on": "gpu"}, "gpu"), ({"augment_on": "device", "degrade": 0.5}, "device")]
)
def test_impossible_places_are_refused(muge_root, options, value):
    with pytest.raises(UserError) as caught:
        module(muge_root, **options)
    assert (caught.value.argument, caught.value.value) == ("data.augment_on", value)
