"""What a notebook has, as a model takes it: a list of strings, a list of RGB images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data import images
from zoo.errors import UserError, invalid
from zoo.io import expanded

_TEXTS = "give a list of strings, [text]"
_IMAGES = (
    "give a list of PIL images, [image], of uint8 arrays [H, W, 3] or of files' paths; or one uint8 tensor [B, 3, H, W]"
)


def as_texts(texts: Any) -> list[str]:
    """Give texts as a list of strings: a list or tuple, a numpy array, a column of a table.

    Raises:
        UserError: One string came where a list belongs, or something in the list is none.
    """
    if isinstance(texts, str):
        raise UserError(f"texts: the string {texts!r} came; give a list of strings: [{texts!r}].", argument="texts")
    values = _as_list("texts", texts, _TEXTS)
    for place, text in enumerate(values):
        if not isinstance(text, str):
            raise invalid(f"texts[{place}]", _named(text), "give a string")
    return values


def as_images(given: Any) -> list[Image.Image]:
    """Give images as a list of RGB ones: PIL images of any mode, ``uint8`` arrays ``[H, W, 3]``, paths of files.

    Raises:
        UserError: One image came where a list belongs, or something in the list is none or cannot be read.
    """
    if isinstance(given, np.ndarray) and given.dtype != object and given.ndim < 4:
        raise UserError(f"images: one {_named(given)} came; {_IMAGES}", argument="images", valid=_IMAGES)
    return [_as_image(f"images[{place}]", image) for place, image in enumerate(_as_list("images", given, _IMAGES))]


def _as_list(argument: str, given: Any, valid: str) -> list[Any]:
    if hasattr(given, "to_numpy"):
        given = given.to_numpy()
    if isinstance(given, np.ndarray) and given.ndim:
        return given.tolist() if given.dtype.kind in "OU" else list(given)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return list(given)
    raise UserError(f"{argument}: one {_named(given)} came; {valid}", argument=argument, valid=valid)


def _as_image(argument: str, image: Any) -> Image.Image:
    try:
        if isinstance(image, str | Path):
            return Image.fromarray(images.decode(Path(expanded(image)).read_bytes()))
        is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size > 0
        if is_array and (image.ndim == 2 or image.shape[2:] in ((3,), (4,))):
            image = Image.fromarray(image)
        if isinstance(image, Image.Image):
            return images.over_white(image)
    except Exception as error:  # whatever a decoder raises for a broken file
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        came = f"{_named(image)}, which cannot be read ({why})"
    else:
        came = _named(image)
    raise invalid(argument, came, _IMAGES)


def _named(value: Any) -> str:
    """Say what came in a few words."""
    if isinstance(value, Image.Image):
        return "image"
    if getattr(value, "shape", ()):
        return f"{type(value).__name__} {list(value.shape)} of {value.dtype}"
    words = repr(value)
    return f"{type(value).__name__} {words if len(words) <= 60 else f'{words[:59]}…'}"
