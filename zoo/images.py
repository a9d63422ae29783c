"""Pictures: encoded bytes ↔ ``[H, W, 3]`` uint8 arrays, over white, upright; cropped and resized in one operation."""

import binascii

import pybase64

from zoo.errors import UserError

_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


class ImageError(UserError):
    """A picture that cannot be read; the message says why."""


def encode_base64(data: bytes) -> bytes:
    """Base64 in the standard alphabet, padded, on one line."""
    return pybase64.b64encode(data)


def decode_base64(text: bytes | str) -> bytes:
    """Decode base64 in the standard or the URL-safe alphabet, with or without padding and outer white space.

    Raises:
        ImageError: If it is neither.
    """
    data = (text.encode() if isinstance(text, str) else text).strip()
    if b"-" in data or b"_" in data:
        data = data.translate(_URL_SAFE_TO_STANDARD)
    try:
        return pybase64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"not base64 ({error}): {data[:24]!r}…, {len(data)} characters") from None
