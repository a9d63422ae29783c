"""Images that clients send: read within limits of bytes and seconds, decoded within one of pixels."""

import asyncio
import os
from threading import BoundedSemaphore

import numpy as np
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from zoo.data.images import ImageError, decode, read_header
from zoo.tasks.retrieval.search.server.errors import RequestError
from zoo.tasks.retrieval.search.server.limits import Limits

DECODING = BoundedSemaphore(os.cpu_count() or 1)  # a decoded image may take hundreds of megabytes
IMAGE = "image"  # the form's field


def decode_within(data: bytes, pixels: int) -> np.ndarray:
    """Decode an image of not too many pixels, which its header tells: ``[H, W, 3] uint8``.

    Raises:
        ImageError: It has more pixels, or is no image.
    """
    header = read_header(data)
    if header.height * header.width > pixels:
        raise ImageError(
            f"an image of {header.width:,} x {header.height:,} pixels; the most is {pixels:,}: make it smaller"
        )
    with DECODING:
        return decode(data)


def decode_upload(data: bytes, pixels: int) -> np.ndarray:
    """Decode an image that a client sent, as ``decode_within``.

    Raises:
        RequestError: It has too many pixels, or is no image.
    """
    try:
        return decode_within(data, pixels)
    except ImageError as error:
        raise RequestError(400, str(error), argument=IMAGE, valid="a JPEG, PNG, WebP or GIF image") from None


async def read_upload(request: Request, limits: Limits) -> tuple[dict[str, str], bytes]:
    """Read the body of a search: a form (multipart/form-data) with fields and a file ``image``, or an image alone.

    Args:
        request: The request.
        limits: How large the body may be, and how slow.

    Returns:
        The form's other fields; and the file's bytes, empty where there is none.

    Raises:
        RequestError: The body is too large, too slow, or neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    if not is_form and not kind.startswith("image/"):
        raise RequestError(
            415,
            f"Content-Type is {kind[:100]!r}: send multipart/form-data, or an image as image/jpeg",
            argument="Content-Type",
            value=kind,
            valid="multipart/form-data or image/*",
        )
    bounded = _bounded(request, limits.upload_bytes)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            return await _read_form(bounded) if is_form else ({}, await bounded.body())
    except TimeoutError:
        raise RequestError(408, f"The body did not come within {limits.upload_seconds:g} s") from None
    except ClientDisconnect:
        raise RequestError(400, "The client left before the body had come") from None


def _bounded(request: Request, most: int) -> Request:
    """Give a request whose body is read no further than it may be long."""
    error = RequestError(
        413,
        f"The body has more than {most:,} bytes: send a smaller image",
        argument=IMAGE,
        valid=f"at most {most:,} bytes",
        headers={"Connection": "close"},
    )
    length = request.headers.get("content-length", "0")
    if len(length) > 12 or int(length) > most:
        raise error
    read = 0

    async def receive() -> Message:
        nonlocal read
        message = await request.receive()
        read += len(message.get("body", b""))
        if read > most:
            raise error
        return message

    return Request(request.scope, receive)


async def _read_form(request: Request) -> tuple[dict[str, str], bytes]:
    fields: dict[str, str] = {}
    data = b""
    try:
        async with request.form(max_files=1, max_fields=16) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile) != (name == IMAGE):
                    what = "a file" if name == IMAGE else "a text"
                    raise RequestError(400, f"{name[:100]} is not {what}", argument=name, valid=what)
                if name in fields:
                    raise RequestError(400, f"{name[:100]} comes twice", argument=name)
                if isinstance(value, UploadFile):
                    data = await value.read()
                else:
                    fields[name] = value
    except (HTTPException, FormParserError, KeyError, ValueError) as error:
        words = error.detail if isinstance(error, HTTPException) else "it cannot be read as multipart/form-data"
        raise RequestError(400, f"The form: {words}", argument="Content-Type") from None
    return fields, data
