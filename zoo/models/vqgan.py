"""VQGANs: autoencoders between images and grids of codes, which an autoregressive generator writes one by one."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pixel_shuffle, pixel_unshuffle

from zoo.core.precision import full_float32
from zoo.data.images import to_images, to_pixels
from zoo.errors import UserError, invalid
from zoo.registry import IMAGE_TOKENIZERS

ROWS = 4096  # latents that are held against the codebook at a time


class Quantizer(nn.Module):
    """A codebook: each latent becomes the nearest of its codes.

    The codes follow the latents, and with ``beta`` the latents the codes (van den Oord et al. 2017, arXiv:1711.00937;
    taming-transformers weighs the two the other way round). Few dimensions of unit length keep a large codebook in use
    (Yu et al. 2021, arXiv:2110.04627).

    Args:
        num_codes: Codes of the book.
        code_dim: Dimensions of a code.
        unit_length: Whether latents and codes are compared, and handed on, at length 1.
        beta: Weight of the latents' side of the loss.

    Raises:
        UserError: A number is out of its range.
    """

    def __init__(self, *, num_codes: int, code_dim: int, unit_length: bool, beta: float = 0.25) -> None:
        super().__init__()
        _check_size(num_codes, code_dim)
        self.beta = beta
        self.unit_length = unit_length
        self.embedding = nn.Embedding(num_codes, code_dim)
        if unit_length:
            nn.init.normal_(self.embedding.weight)
        else:
            nn.init.uniform_(self.embedding.weight, -1 / num_codes, 1 / num_codes)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The codes nearest to ``[B, D, h, w]`` in their place, through which gradients pass unchanged.

        Returns:
            ``[B, D, h, w] float32``, the codes ``[B, h, w] int64``, and the codebook's loss, a scalar.
        """
        latents = self._comparable(latents.float())
        codes = self._nearest(latents)
        chosen = self.look_up(codes)
        loss = (chosen - latents.detach()).square().mean() + self.beta * (chosen.detach() - latents).square().mean()
        return latents + (chosen - latents).detach(), codes, loss

    def codes(self, latents: Tensor) -> Tensor:
        """The codes ``[B, h, w] int64`` nearest to ``[B, D, h, w]``."""
        return self._nearest(self._comparable(latents.float()))

    def look_up(self, codes: Tensor) -> Tensor:
        """What codes ``[B, h, w] int64`` stand for: ``[B, D, h, w] float32``."""
        return self._comparable(self.embedding(codes).permute(0, 3, 1, 2))

    @torch.no_grad()
    def replace(self, codes: Tensor, latents: Tensor) -> None:
        """Put latents ``[K, D]`` in the place of those of the K codes that are true in ``codes [K] bool``."""
        weight = self.embedding.weight
        weight.copy_(torch.where(codes[:, None], latents.to(weight), weight))

    def _comparable(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=1) if self.unit_length else vectors

    @torch.no_grad()
    def _nearest(self, latents: Tensor) -> Tensor:
        rows = latents.permute(0, 2, 3, 1)  # [B, h, w, D]
        book = normalize(self.embedding.weight, dim=1) if self.unit_length else self.embedding.weight
        with torch.autocast(latents.device.type, enabled=False):
            found = [
                (part.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * part @ book.T).argmin(dim=1)
                for part in rows.reshape(-1, rows.shape[-1]).split(ROWS)
            ]
        return torch.cat(found).view(rows.shape[:-1])


class GumbelQuantizer(nn.Module):
    """The codebook of taming-transformers' Gumbel VQGAN, as published: it is read, not trained.

    A code is the likeliest one; the original draws it, with noise, also where nothing is trained.

    Args:
        num_codes: Codes of the book.
        code_dim: Dimensions of a code, and of a latent.

    Raises:
        UserError: A number is out of its range.
    """

    def __init__(self, *, num_codes: int, code_dim: int) -> None:
        super().__init__()
        _check_size(num_codes, code_dim)
        self.proj = nn.Conv2d(code_dim, num_codes, 1)  # taming's names
        self.embed = nn.Embedding(num_codes, code_dim)

    def codes(self, latents: Tensor) -> Tensor:
        """The likeliest codes ``[B, h, w] int64`` of ``[B, D, h, w]``."""
        return self.proj(latents).argmax(dim=1)

    def look_up(self, codes: Tensor) -> Tensor:
        """What codes ``[B, h, w] int64`` stand for: ``[B, D, h, w] float32``."""
        return self.embed(codes).permute(0, 3, 1, 2)


class VQGAN(nn.Module):
    """Images ↔ grids of codes: taming-transformers' encoder and decoder around a codebook.

    Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2020), arXiv:2012.09841. Its parts are
    named as there, so that published weights fit.

    Args:
        quantize: The codebook.
        width: Channels at full size, a multiple of 32.
        multipliers: Channels at each size, in widths; each size is half the one before.
        num_blocks: Residual blocks at each size.
        latent_channels: Of the encoder's output.
        code_dim: Dimensions of a code.
        attention: The sizes, counted from 0 at full size, whose blocks attend over the whole image.
        patch_size: Pixels of a side that are one place of the full size: small images take less time so.
    """

    def __init__(
        self,
        quantize: Quantizer | GumbelQuantizer,
        *,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        latent_channels: int,
        code_dim: int,
        attention: Sequence[int] = (),
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        from taming.modules.diffusionmodules.model import Decoder, Encoder

        side = 2 ** len(multipliers)  # any that can be halved so often: only attention is placed by it
        parts = {
            "ch": width,
            "ch_mult": tuple(multipliers),
            "num_res_blocks": num_blocks,
            "attn_resolutions": [side // 2**level for level in attention],
            "resolution": side,
            "in_channels": 3 * patch_size**2,
            "out_ch": 3 * patch_size**2,
            "z_channels": latent_channels,
            "double_z": False,
        }
        with contextlib.redirect_stdout(io.StringIO()):  # the decoder prints the shape of z
            self.encoder: Any = Encoder(**parts)
            self.decoder: Any = Decoder(**parts)
        self.quantize = quantize
        self.quant_conv = nn.Conv2d(latent_channels, code_dim, 1)
        self.post_quant_conv = nn.Conv2d(code_dim, latent_channels, 1)
        self.to(memory_format=torch.channels_last)
        self.patch_size = patch_size
        self.factor: int = patch_size * 2 ** (len(multipliers) - 1)
        self.num_codes: int = self.codebook.num_embeddings
        self.channels = None
        self.published: str | None = None  # a trained one's file or run: whoever builds one says which

    @property
    def codebook(self) -> nn.Embedding:
        """The table of the codes."""
        return self.quantize.embedding if isinstance(self.quantize, Quantizer) else self.quantize.embed

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights that make pixels, by which the losses of pixels and discriminator are balanced."""
        return self.decoder.conv_out.weight

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reconstruct pixels ``[B, 3, S, S]`` from -1 to 1, as training does.

        Returns:
            The reconstruction ``[B, 3, S, S]``, the codes ``[B, h, w] int64``, the codebook's loss, and the latents
            ``[B, D, h, w]`` before they became codes.
        """
        latents = self._latents(pixels)
        quantized, codes, loss = self.quantize(latents)
        return self._pixels(quantized), codes, loss, latents.detach()

    def encode(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as codes ``[B, S / factor, S / factor] int64``, in fp32 whatever the precision.

        Raises:
            UserError: The images' side is no multiple of ``factor``.
        """
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise UserError(f"images: {list(images.shape)} came; this VQGAN takes multiples of {self.factor} pixels")
        with full_float32(images.device):  # a GPU's TF32 would give other codes than a CPU
            return self.quantize.codes(self._latents(to_pixels(images)))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, h, w] int64`` as ``[B, 3, S, S] uint8``."""
        return to_images(self._pixels(self.quantize.look_up(codes)))

    def _latents(self, pixels: Tensor) -> Tensor:
        patches = pixel_unshuffle(pixels, self.patch_size)
        return self.quant_conv(self.encoder(patches.contiguous(memory_format=torch.channels_last)))

    def _pixels(self, quantized: Tensor) -> Tensor:
        patches = self.decoder(self.post_quant_conv(quantized.contiguous(memory_format=torch.channels_last)))
        return pixel_shuffle(patches, self.patch_size)


def _check_size(num_codes: int, code_dim: int) -> None:
    if num_codes < 2 or code_dim < 1:
        raise UserError(f"num_codes is {num_codes}, code_dim {code_dim}: give 2, and 1, or more")


@IMAGE_TOKENIZERS.register
def vqgan_tiny(
    *,
    num_codes: int = 512,
    code_dim: int = 8,
    width: int = 64,
    multipliers: tuple[int, ...] = (1, 2),
    patch_size: int = 2,
) -> VQGAN:
    """Build a VQGAN of 3 M parameters for small images, 4 pixels of a side for each code.

    Args:
        num_codes: Codes of the book.
        code_dim: Dimensions of a code, of unit length.
        width: Channels at full size, a multiple of 32, of which each norm takes a 32nd: at 32 colours get lost.
        multipliers: Channels at each size, in widths; each size is half the one before.
        patch_size: Pixels of a side that are one place of the full size.

    Raises:
        UserError: A number is out of its range.
    """
    if width < 32 or width % 32 or not multipliers or min(multipliers) < 1:
        raise UserError(f"width is {width}, multipliers {list(multipliers)}: give a multiple of 32, and 1 or more each")
    if patch_size < 1:
        raise invalid("patch_size", patch_size, "give 1 or more")
    return VQGAN(
        Quantizer(num_codes=num_codes, code_dim=code_dim, unit_length=True),
        width=width,
        multipliers=multipliers,
        num_blocks=1,
        latent_channels=width * multipliers[-1],
        code_dim=code_dim,
        patch_size=patch_size,
    )


@IMAGE_TOKENIZERS.register
def vqgan_f16(*, num_codes: int = 16384, code_dim: int = 8) -> VQGAN:
    """Build taming's f16 VQGAN, 16 pixels of a side for each code, with a codebook of unit length, to be trained.

    Args:
        num_codes: Codes of the book.
        code_dim: Dimensions of a code, of unit length.
    """
    return _f16(Quantizer(num_codes=num_codes, code_dim=code_dim, unit_length=True), code_dim)


@IMAGE_TOKENIZERS.register
def taming_vqgan_f16(*, num_codes: int = 16384) -> VQGAN:
    """Build the VQGAN of taming's published ImageNet weights, 16 pixels of a side for each code.

    Args:
        num_codes: 1024 or 16384: there is a file of each.
    """
    return _f16(Quantizer(num_codes=num_codes, code_dim=256, unit_length=False), 256)


@IMAGE_TOKENIZERS.register
def taming_vqgan_f8_gumbel(*, num_codes: int = 8192) -> VQGAN:
    """Build the VQGAN of taming's published Gumbel weights (OpenImages), 8 pixels of a side for each code.

    Args:
        num_codes: Codes of the book.
    """
    return VQGAN(
        GumbelQuantizer(num_codes=num_codes, code_dim=256),
        width=128,
        multipliers=(1, 1, 2, 4),
        num_blocks=2,
        latent_channels=256,
        code_dim=256,
        attention=(3,),
    )


def _f16(quantize: Quantizer, code_dim: int) -> VQGAN:
    return VQGAN(
        quantize,
        width=128,
        multipliers=(1, 1, 2, 2, 4),
        num_blocks=2,
        latent_channels=256,
        code_dim=code_dim,
        attention=(4,),
    )
