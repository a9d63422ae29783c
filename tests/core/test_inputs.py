import numpy as np
import pytest
import torch
from PIL import Image

from zoo.core.inputs import as_images, as_texts
from zoo.errors import UserError

TEXTS = ["红裙", "蓝鞋"]
PIXELS = np.arange(2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)


class Column:
    """A table's column, as pandas and polars have them."""

    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        array = np.empty(len(self.values), dtype=object)
        array[:] = self.values
        return array


@pytest.mark.parametrize("kind", [list, tuple, np.array, Column])
def test_texts_are_a_list_of_strings(kind):
    assert as_texts(kind(TEXTS)) == TEXTS
    assert as_texts(kind([])) == []


@pytest.mark.parametrize("wrong", [None, float("nan"), 7, b"a", ["红"], np.datetime64("2026-01-01")])
def test_what_is_no_text_is_named_by_its_place(wrong):
    with pytest.raises(UserError) as raised:
        as_texts([*TEXTS, wrong])
    assert raised.value.argument == "texts[2]"
    assert repr(wrong) in raised.value.value


@pytest.mark.parametrize("wrong", [None, 7, {"text": "红"}, {"红"}, (text for text in TEXTS), np.array("红"), b"a"])
def test_one_thing_is_no_list(wrong):
    for take in (as_texts, as_images):
        with pytest.raises(UserError, match=r": one .* came; give a list of"):
            take(wrong)


@pytest.mark.parametrize("kind", [list, tuple, np.array, Column])
def test_arrays_are_images(kind):
    found = as_images(kind(list(PIXELS)) if kind is not Column else Column([Image.fromarray(each) for each in PIXELS]))
    assert [image.mode for image in found] == ["RGB", "RGB"]
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in found]), PIXELS)


def test_grey_and_transparent_arrays_are_images():
    grey, clear = as_images([PIXELS[0, :, :, 0], np.zeros((3, 2, 4), dtype=np.uint8)])
    np.testing.assert_array_equal(np.asarray(grey)[:, :, 2], PIXELS[0, :, :, 0])
    assert np.asarray(clear).min() == 255


def test_paths_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    for image in as_images([tmp_path / "a.png", str(tmp_path / "a.png"), "~/a.png"]):
        np.testing.assert_array_equal(np.asarray(image), PIXELS[0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "NoneType None"),
        (PIXELS[0] / 255, r"ndarray \[6, 5, 3\] of float64"),
        (PIXELS[0].transpose(2, 0, 1), r"ndarray \[3, 6, 5\] of uint8"),
        (torch.zeros(3, 6, 5), r"Tensor \[3, 6, 5\] of torch.float32"),
        ("红裙", "str '红裙', which cannot be read .No such file"),
        (b"GIF89a", "bytes b'GIF89a'"),
        (PIXELS[0, 0, 0], r"ndarray \[3\] of uint8"),
        (PIXELS[0, :0], r"ndarray \[0, 5, 3\] of uint8"),
        (Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "image, which cannot be read .an image of mode F"),
    ],
)
def test_what_is_no_image_is_named_by_its_place(wrong, words):
    with pytest.raises(UserError, match=rf"images\[1\] is {words}.* give a list of PIL images") as raised:
        as_images([PIXELS[0], wrong])
    assert raised.value.argument == "images[1]"


def test_an_image_that_is_cut_short_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    for image in (Image.open(tmp_path / "a.jpg"), tmp_path / "a.jpg"):
        with pytest.raises(UserError, match=r"images\[0\] is .* cannot be read .*truncated"):
            as_images([image])


def test_one_array_is_no_list_of_images():
    with pytest.raises(UserError, match=r"one ndarray \[6, 5, 3\] of uint8 came"):
        as_images(PIXELS[0])
