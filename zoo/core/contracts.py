"""What a model must offer to be used by the tasks. Shapes: B batch, D embedding, H×W pixels, N positions."""

from typing import Any, Protocol, runtime_checkable

from PIL.Image import Image
from torch import Tensor, nn

from zoo.errors import UserError


@runtime_checkable
class ImageTower(Protocol):
    """An image encoder. It owns its mean, standard deviation and size; callers hand it raw pixels."""

    width: int  # of the pooled output and of the sequence
    image_size: int  # the square side in pixels it was built for

    def __call__(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into pooled ``[B, width]``."""

    def sequence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``[B, 3, H, W] uint8`` into ``[B, N, width]`` and its mask ``[B, N] bool`` (true = real)."""

    def preprocess(self, images: list[Image]) -> Tensor:
        """Turn PIL images into the ``[B, 3, image_size, image_size] uint8`` the tower reads."""


@runtime_checkable
class TextTower(Protocol):
    """A text encoder. It owns its tokenizer; callers hand it strings.

    One that has no weights of its own, but reads texts with those of the image tower, has a method
    ``share(image_tower)``, which a task calls before all else.
    """

    width: int

    def __call__(self, texts: list[str]) -> Tensor:
        """Encode B texts into pooled ``[B, width]``."""

    def sequence(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode B texts into ``[B, N, width]`` and its mask ``[B, N] bool`` (true = a real token)."""


@runtime_checkable
class ImageTokenizer(Protocol):
    """An autoencoder between images and a smaller grid, of codes or of latents, an ``nn.Module``.

    It owns its pixel range. h is H / factor, w is W / factor.
    """

    factor: int  # pixels of a side for each place of the grid
    num_codes: int | None  # that a place can have; None: its places have latents
    channels: int | None  # of a latent; None: its places have codes
    published: str | None  # where its trained weights are: a hub name, a run, a file

    def encode(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into codes ``[B, h, w] int64`` or latents ``[B, channels, h, w] float32``."""

    def decode(self, encoded: Tensor) -> Tensor:
        """Decode codes or latents into ``[B, 3, H, W] uint8``."""


def asked(tower: nn.Module, method: str, option: str) -> Any:
    """Give a method that a tower may have, and that an option needs.

    Raises:
        UserError: The tower does not have it, so it cannot be trained with this option.
    """
    if not hasattr(tower, method):
        raise UserError(f"{option}: the tower {type(tower).__name__} has no method {method}(). Leave the option out.")
    return getattr(tower, method)
