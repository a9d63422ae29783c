"""Images: encoded bytes ↔ ``[H, W, 3]`` uint8 arrays, over white, upright; cropped and resized in one operation.

PyTorch is imported by the first resize, Pillow by the first image that is not a plain JPEG.
"""

import binascii
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pybase64
import simplejpeg

from zoo.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})  # of whose files mode I is 0 to 65535
_PLAIN_JPEG_COLORS = frozenset({"YCbCr", "RGB", "Gray"})  # the others hold ink: CMYK, YCCK


class ImageError(UserError):
    """An image that cannot be read; the message says why."""


def decode(data: bytes) -> np.ndarray:
    """Decode an encoded image of any usual kind.

    JPEG, PNG, WebP, GIF (its first frame) and what else Pillow reads; grey, palette, CMYK and 16-bit become RGB,
    transparency is laid over white, EXIF orientation is applied. JPEG pixels equal Pillow's.

    Args:
        data: The file's bytes.

    Returns:
        ``[H, W, 3]`` uint8 RGB, contiguous and writable.

    Raises:
        ImageError: If the bytes are empty, cut short or no image.
    """
    # A JPEG with Exif may be rotated: Pillow reads which way.
    if data[:2] == b"\xff\xd8" and b"Exif\0\0" not in data:
        try:
            if simplejpeg.decode_jpeg_header(data)[2] in _PLAIN_JPEG_COLORS:
                return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            pass  # Pillow reads some that simplejpeg does not, and says what is wrong with the others
    return _decode_with_pillow(data)


class Header(NamedTuple):
    """What an image says of itself before its pixels."""

    format: str  # Pillow's name: PNG, JPEG, …
    mode: str  # Pillow's name: RGB, RGBA, L, P, CMYK, …
    height: int
    width: int


def read_header(data: bytes) -> Header:
    """Read what kind of image this is, without decoding it.

    Raises:
        ImageError: If the bytes are empty or begin no image.
    """
    with _open(data) as image:
        return Header(image.format or "unknown", image.mode, image.height, image.width)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize to a square, bicubic and antialiased.

    Equal to Pillow's within one grey level; two in about one value of a million.

    Args:
        image: ``[H, W, 3]`` uint8.
        size: The side in pixels.

    Returns:
        ``[size, size, 3]`` uint8, contiguous; ``image`` itself when it has this size.
    """
    height, width = image.shape[:2]
    # Rounding between the passes shows their order. PyTorch goes across first; Pillow down first where that is less to
    # compute, as seen in version 13.
    if height > size and 2 * width < height + size:
        image = _interpolate(image, size, width)
    return _interpolate(image, size, size)


def resize_batch(images: "Tensor", size: int) -> "Tensor":
    """Resize a batch to squares, on its device, bicubic and antialiased; equal to ``resize`` within one grey level.

    Args:
        images: ``[B, 3, H, W]`` uint8.
        size: The side in pixels.

    Returns:
        ``[B, 3, size, size]`` uint8; ``images`` itself when it has this size.
    """
    import torch
    from torch.nn.functional import interpolate

    if images.shape[-2:] == (size, size):
        return images
    if images.device.type == "cpu":
        pixels = images.contiguous(memory_format=torch.channels_last)  # PyTorch then works on uint8 directly
        return interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)
    resized = interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def to_pixels(images: "Tensor") -> "Tensor":
    """Images ``uint8`` as floats from -1 to 1, which generators compute with."""
    return images.float() / 127.5 - 1


def to_images(pixels: "Tensor") -> "Tensor":
    """Floats from -1 to 1 as ``uint8``, rounded; what lies outside is cut."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def crop_resize(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Cut out a box and resize it to a square, as Pillow's ``crop`` and ``resize`` do but for the order of passes.

    As in torchvision, pixels outside the box have no influence (in Pillow's ``resize(box=…)`` they have).

    Args:
        image: ``[H, W, 3]`` uint8.
        box: Top, left, height and width in pixels, inside the image.
        size: The side in pixels.

    Returns:
        ``[size, size, 3]`` uint8, contiguous; a view of ``image`` where there is nothing to compute.
    """
    top, left, height, width = box
    if not (0 <= top < top + height <= image.shape[0] and 0 <= left < left + width <= image.shape[1]):
        raise ValueError(f"box (top, left, height, width) {box} is not inside an image of {image.shape[:2]} pixels")
    return _interpolate(image[top : top + height, left : left + width], size, size)


def _interpolate(image: np.ndarray, height: int, width: int) -> np.ndarray:
    image = np.ascontiguousarray(image)
    if image.shape[:2] == (height, width):
        return image
    import torch
    from torch.nn.functional import interpolate

    # A [1, 3, H, W] view whose memory is channels-last: PyTorch then works on uint8 directly, several times as fast.
    pixels = torch.from_numpy(image).unsqueeze(0).permute(0, 3, 1, 2)
    resized = interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def random_crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: np.random.Generator,
) -> Box:
    """Choose a random box as torchvision's ``RandomResizedCrop`` does.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        scale: The least and greatest share of the image's area.
        ratio: The least and greatest width / height; torchvision's default is 3/4 to 4/3.
        generator: Where the randomness comes from.

    Returns:
        Top, left, height and width. After ten draws that do not fit, the largest centred box of a valid ratio.
    """
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(10):
        area = height * width * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(*log_ratio))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(generator.integers(0, height - box_height + 1))
            left = int(generator.integers(0, width - box_width + 1))
            return top, left, box_height, box_width
    box_height = max(1, min(height, round(width / ratio[0])))
    box_width = max(1, min(width, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def random_crop_resize(
    image: np.ndarray,
    size: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float] | None,
    generator: np.random.Generator,
) -> np.ndarray:
    """Cut out a random box and resize it to a square.

    Args:
        image: ``[H, W, 3]`` uint8.
        size: The side in pixels.
        scale: The least and greatest share of the area that is kept; ``(1, 1)``: no crop, and no random number is used.
        ratio: The least and greatest width / height of the box; None: the image's own.
        generator: Where the randomness comes from.

    Returns:
        ``[size, size, 3]`` uint8.
    """
    if scale == (1.0, 1.0):
        return resize(image, size)
    height, width = image.shape[:2]
    box = random_crop_box(height, width, scale, ratio or (width / height, width / height), generator)
    return crop_resize(image, box, size)


def encode_base64(data: bytes) -> bytes:
    """Encode as base64 in the standard alphabet, padded, on one line."""
    return pybase64.b64encode(data)


def decode_base64(text: bytes | str) -> bytes:
    """Decode base64 in the standard or the URL-safe alphabet, with or without padding and outer white space.

    Raises:
        ImageError: If it is neither.
    """
    data = (text.encode() if isinstance(text, str) else text).strip()
    if b"-" in data or b"_" in data:  # pybase64's plain decode would pass over these without a word
        data = data.translate(_URL_SAFE_TO_STANDARD)
    try:
        return pybase64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"not base64 ({error}): {data[:24]!r}…, {len(data)} characters") from None


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with _open(data) as image:
        return np.array(over_white(image))


@contextmanager
def _open(data: bytes) -> "Iterator[Image]":
    """Open an image in Pillow; whatever goes wrong with it is an ImageError."""
    from PIL import Image

    if not data:
        raise ImageError("an empty image (0 bytes)")
    try:
        with Image.open(BytesIO(data)) as image:
            yield image
    except Image.UnidentifiedImageError:
        raise ImageError(f"not an image: {len(data)} bytes that begin with {data[:12]!r}") from None
    except Exception as error:  # Pillow's plug-ins raise many kinds for broken files
        raise ImageError(f"an image that cannot be decoded ({len(data)} bytes): {error}") from error


def over_white(image: "Image") -> "Image":
    """Turn a PIL image into RGB: upright as its EXIF says, laid over white where it is transparent.

    Raises:
        ImageError: Its mode, I or F, does not say which values are black and white.
    """
    from PIL import Image, ImageOps

    is_deep_grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS)
    if image.mode in ("I", "F") and not is_deep_grey:
        raise ImageError(
            f"an image of mode {image.mode}, which does not say what is black and what white: scale it to 0 to 255 and"
            " save it as 8-bit grey or RGB"
        )
    image = ImageOps.exif_transpose(image)
    if is_deep_grey:
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(grey, 0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
