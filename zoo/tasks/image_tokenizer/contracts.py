"""What the parts of the image tokenizer's task hand each other."""

from typing import NotRequired, TypedDict

from torch import Tensor


class ImageBatch(TypedDict):
    """One batch of B images; where each has a description, ``text``, which no part of the task reads, comes too."""

    image_id: list[str]  # B ids
    row: Tensor  # [B] int64, the image's index among the split's, in file order
    image: NotRequired[Tensor]  # [B, 3, S, S] uint8, RGB
    flip: NotRequired[Tensor]  # [B] bool, chosen by the worker; flipped and taken out on the device
