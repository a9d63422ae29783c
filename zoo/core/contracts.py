"""What a model must offer to be used by the tasks. Shapes: B batch, D embedding, H×W pixels, N positions."""

from typing import Protocol, runtime_checkable

from PIL.Image import Image
from torch import Tensor


@runtime_checkable
class ImageTower(Protocol):
    """A picture encoder. It owns its mean, standard deviation and size; callers hand it raw pixels."""

    width: int  # of the pooled output and of the sequence
    image_size: int  # the square side in pixels it was built for

    def __call__(self, images: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W] uint8`` into pooled ``[B, width]``."""

    def sequence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``[B, 3, H, W] uint8`` into ``[B, N, width]`` and its mask ``[B, N] bool`` (true = real)."""

    def preprocess(self, images: list[Image]) -> Tensor:
        """Turn PIL pictures into the ``[B, 3, image_size, image_size] uint8`` the tower reads."""


@runtime_checkable
class TextTower(Protocol):
    """A text encoder. It owns its tokenizer; callers hand it strings."""

    width: int

    def __call__(self, texts: list[str]) -> Tensor:
        """Encode B texts into pooled ``[B, width]``."""

    def sequence(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode B texts into ``[B, N, width]`` and its mask ``[B, N] bool`` (true = a real token)."""


@runtime_checkable
class FirstStage(Protocol):
    """An autoencoder between pictures and latents, an ``nn.Module``. It owns its pixel range."""

    channels: int  # of a latent
    factor: int  # pixels of a side for each of a latent's

    def encode(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as latents ``[B, channels, S / factor, S / factor] float32``."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as ``[B, 3, S, S] uint8``."""


@runtime_checkable
class Codebook(Protocol):
    """An autoencoder between pictures and grids of codes, an ``nn.Module``. It owns its pixel range."""

    num_codes: int  # that a place of the grid can have
    factor: int  # pixels of a side for each code
    published: str | None  # where its trained weights are: a run, a file

    def encode(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as codes ``[B, S / factor, S / factor] int64``."""

    def decode(self, codes: Tensor) -> Tensor:
        """Codes as ``[B, 3, S, S] uint8``."""
