import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import images
from zoo.data.images import (
    ImageError,
    crop_resize,
    decode,
    decode_base64,
    encode_base64,
    over_white,
    random_crop_box,
    resize,
)

WHITE, ORIENTATION = 255, 0x0112
RATIO = (3 / 4, 4 / 3)


@pytest.fixture(scope="module")
def picture():
    """Smooth colours with edges, wider than high, nowhere symmetric."""
    rows, columns = np.indices((90, 140))
    pixels = np.stack([rows * 2, columns * 255 // 140, (rows + columns) % 256], axis=-1).astype(np.uint8)
    pixels[10:30, 20:60] = (250, 20, 30)
    return Image.fromarray(pixels)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_jpeg_pixels_equal_pillows(picture, options):
    data = encode(picture, "JPEG", **options)
    decoded = decode(data)
    assert decoded.shape == (90, 140, 3)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, with_pillow(data))


def test_a_plain_jpeg_takes_the_fast_path(picture, monkeypatch):
    monkeypatch.setattr(images, "_decode_with_pillow", lambda data: pytest.fail("slow path"))
    for image in (picture, picture.convert("L")):
        assert decode(encode(image, "JPEG")).shape == (90, 140, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_colour_modes_equal_pillows(picture, mode, kind):
    data = encode(picture.convert(mode), kind)
    np.testing.assert_array_equal(decode(data), with_pillow(data))


@pytest.mark.parametrize(("mode", "kind"), [("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("RGB", "PNG"), ("RGB", "BMP")])
def test_lossless_files_keep_their_pixels(picture, mode, kind):
    image = picture.convert(mode)
    np.testing.assert_array_equal(decode(encode(image, kind)), np.asarray(image.convert("RGB")))


def test_webp(picture):
    np.testing.assert_array_equal(decode(encode(picture, "WEBP", lossless=True)), np.asarray(picture))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(kind, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    pixels = decode(encode(image.convert(mode), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, 1].tolist() == [WHITE] * 3
    assert pixels[0, 2].tolist() == [127] * 3


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_white(kind):
    image = Image.new("P", (3, 2), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    pixels = decode(encode(image, kind, transparency=0))
    assert pixels[0, 0].tolist() == [WHITE] * 3
    assert pixels[0, 1].tolist() == [200, 0, 0]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert decode(encode(Image.fromarray(values), "PNG"))[0, :, 0].tolist() == [0, 1, 127, 255]


def test_sixteen_bit_grey_of_a_pgm_is_scaled():
    data = b"P5 4 1 65535 " + np.array([0, 257, 32768, 65535], dtype=">u2").tobytes()
    assert decode(data)[0, :, 0].tolist() == [0, 1, 127, 255]


@pytest.mark.parametrize("values", [np.arange(256, dtype=np.int32), np.linspace(0, 1, 256, dtype=np.float32)])
def test_deep_grey_that_does_not_say_what_is_white_is_refused(values):
    image = Image.fromarray(values.reshape(16, 16))
    with pytest.raises(ImageError, match=rf"mode {image.mode}, .*: scale it to 0 to 255"):
        over_white(image)
    with pytest.raises(ImageError, match=f"mode {image.mode}"):
        decode(encode(image, "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(picture, orientation, kind):
    transform = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(picture, kind, exif=exif)
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    upright = stored.transpose(transform[orientation]) if orientation > 1 else stored
    np.testing.assert_array_equal(decode(data), np.asarray(upright))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_an_image_error(picture, kind, share):
    data = encode(picture, kind)
    with pytest.raises(ImageError, match="image"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"hello, I am text", "not an image")])
def test_other_bytes_are_an_image_error_with_the_reason(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data)


@pytest.mark.parametrize("size", [32, 64, 90, 224])
def test_resize_equals_pillows_within_one_grey_level(picture, size):
    expected = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    resized = resize(np.array(picture), size)
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    assert np.abs(resized.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("box", [(0, 0, 90, 140), (5, 7, 40, 41), (50, 100, 40, 40), (89, 139, 1, 1)])
def test_crop_resize_equals_pillows_crop_and_resize(picture, box):
    top, left, height, width = box
    cut = picture.crop((left, top, left + width, top + height))
    expected = np.asarray(cut.resize((48, 48), Image.Resampling.BICUBIC))
    assert np.abs(crop_resize(np.array(picture), box, 48).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(300, 311), (300, 200), (200, 300)])
def test_resizing_noise_differs_from_pillows_by_one_level_almost_everywhere(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((224, 224), Image.Resampling.BICUBIC))
    difference = np.abs(resize(noise, 224).astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-4


@pytest.mark.parametrize("size", [16, 64, 200])
def test_a_batch_is_resized_as_its_images_are(picture, size):
    pictures = np.stack([images.resize(np.asarray(picture), 96), images.resize(np.asarray(picture)[:50, :50], 96)])
    batch = images.resize_batch(torch.from_numpy(pictures).permute(0, 3, 1, 2), size)
    assert (batch.dtype, batch.shape) == (torch.uint8, (2, 3, size, size))
    for one, alone in zip(batch.permute(0, 2, 3, 1).numpy(), pictures, strict=True):
        assert np.abs(one.astype(int) - images.resize(alone, size)).max() <= 1


def test_nothing_is_computed_at_the_same_size(picture):
    square = np.asarray(picture)[:90, :90]
    np.testing.assert_array_equal(resize(square, 90), square)
    np.testing.assert_array_equal(crop_resize(np.asarray(picture), (3, 4, 50, 50), 50), np.asarray(picture)[3:53, 4:54])


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 91, 5), (0, 139, 5, 2), (0, 0, 0, 5)])
def test_a_box_outside_the_image_is_refused(picture, box):
    with pytest.raises(ValueError, match="inside"):
        crop_resize(np.asarray(picture), box, 8)


@pytest.mark.parametrize("shape", [(224, 224), (60, 200), (1, 1), (500, 20)])
def test_random_boxes_lie_in_the_image(shape):
    generator = np.random.default_rng(3)
    for _ in range(300):
        top, left, height, width = random_crop_box(*shape, (0.5, 1.0), RATIO, generator)
        assert 0 <= top <= shape[0] - height
        assert 0 <= left <= shape[1] - width
        assert height > 0
        assert width > 0


def test_random_boxes_have_the_area_and_ratio_asked_for():
    generator = np.random.default_rng(4)
    boxes = np.array([random_crop_box(400, 400, (0.3, 0.6), RATIO, generator) for _ in range(2000)])
    share, ratio = boxes[:, 2] * boxes[:, 3] / 400**2, boxes[:, 3] / boxes[:, 2]
    assert 0.29 < share.min() < 0.32 < 0.58 < share.max() < 0.61
    assert 0.74 < ratio.min() < 0.77 < 1.30 < ratio.max() < 1.35
    assert abs(share.mean() - 0.45) < 0.01


def test_random_boxes_follow_the_generator_alone():
    first, second = (
        [random_crop_box(200, 300, (0.2, 1.0), RATIO, np.random.default_rng(seed)) for seed in range(9)]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 9


def test_both_base64_alphabets_are_read():
    data = bytes(range(256)) * 3  # encodes to + and /
    standard = encode_base64(data)
    assert b"+" in standard
    assert b"/" in standard
    url_safe = standard.replace(b"+", b"-").replace(b"/", b"_")
    for text in (standard, url_safe, standard.decode(), url_safe + b"\r\n"):
        assert decode_base64(text) == data


@pytest.mark.parametrize("length", range(1, 7))
def test_missing_padding_is_tolerated(length):
    data = b"\xfb\xff\xfe\x00zoo"[:length]
    assert decode_base64(encode_base64(data).rstrip(b"=")) == data


@pytest.mark.parametrize("text", [b"abc$", b"ab cd", b"abcde", "中文", b"a=bc"])
def test_invalid_base64_is_an_image_error(text):
    with pytest.raises(ImageError, match="not base64"):
        decode_base64(text)


def test_importing_does_not_import_pytorch():
    code = "import sys, zoo.data.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
