"""Autoencoders between images and the smaller latents that a generator learns."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.core.hubs import UnavailableError, cached_file, hub_file
from zoo.core.precision import full_float32
from zoo.core.weights import load_strictly, read_weights
from zoo.data.images import to_images, to_pixels
from zoo.errors import UserError
from zoo.io import read_json
from zoo.models.pipelines import read_part
from zoo.registry import IMAGE_TOKENIZERS

IN_PIPELINE = "vae"  # its folder in that of a pipeline


class KLAutoencoder(nn.Module):
    """Diffusers' ``AutoencoderKL``, whose latents are the means of its posterior (Rombach et al., arXiv:2112.10752).

    Args:
        model: The built autoencoder.
        published: Hub name or folder of its weights.
    """

    def __init__(self, model: Any, *, published: str) -> None:
        super().__init__()
        self.model = model
        self.published = published
        self.num_codes = None
        self.channels: int = model.config.latent_channels
        self.factor: int = 2 ** (len(model.config.block_out_channels) - 1)

    def load_published(self, source: str) -> None:
        """Load diffusers' weights: all of them, or none.

        Args:
            source: A hub name, a file, or a folder that holds one; of a whole pipeline too, whose part it is.

        Raises:
            UnavailableError: They cannot be had.
            UserError: They cannot be read, or are of another model.
        """
        names = [f"{IN_PIPELINE}/config.json"]
        in_pipeline = (Path(source) / names[0]).is_file() or cached_file(source, names) is not None
        state = read_part(self.model, source, IN_PIPELINE) if in_pipeline else read_weights(source)
        load_strictly(self.model, state, source)

    def encode(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as latents ``[B, channels, S / factor, S / factor] float32``, in fp32."""
        with full_float32(images.device):
            return self.model.encode(to_pixels(images)).latent_dist.mode()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents as ``[B, 3, S, S] uint8``."""
        return to_images(self.model.decode(latents).sample)


@IMAGE_TOKENIZERS.register_prefix("diffusers:")
def kl_autoencoder(name: str) -> KLAutoencoder:
    """Build any AutoencoderKL of diffusers; its configuration is read from a folder, the cache or the hub.

    Args:
        name: A folder that ``save_pretrained`` wrote, or a hub name (``stabilityai/sd-vae-ft-mse``): of an autoencoder,
            or of a pipeline that has one.

    Raises:
        UserError: The configuration cannot be had, or is not an AutoencoderKL's.
    """
    config = _read_configuration(name)
    if config.get("_class_name") != "AutoencoderKL":
        raise UserError(f"'diffusers:{name}' is a {config.get('_class_name')}; image tokenizers are AutoencoderKL")
    from diffusers import AutoencoderKL

    return KLAutoencoder(AutoencoderKL.from_config(config), published=name)


def _read_configuration(name: str) -> dict[str, Any]:
    folder = Path(name)
    if not folder.is_dir() and (name[:1] in "/.~" or name.count("/") != 1):
        raise UserError(f"'diffusers:{name}': there is no such folder, and it is no hub name")
    try:
        names = ["config.json", f"{IN_PIPELINE}/config.json"]
        own = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
        path = own if folder.is_dir() else hub_file(name, names)
    except UnavailableError as error:
        raise UserError(
            f"'diffusers:{name}': its configuration cannot be had ({error}). Give a folder that save_pretrained wrote,"
            " or a hub name that is cached or reachable"
        ) from None
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"'diffusers:{name}': {path} cannot be read ({error})") from None
