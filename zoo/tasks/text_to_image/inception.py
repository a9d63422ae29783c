"""The Inception network of FID, KID and the Inception score: torch-fidelity's, which equals TensorFlow's of 2015."""

import hashlib
import io
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from zoo.core.hubs import first_line
from zoo.core.precision import full_float32
from zoo.core.weights import check_fit, read_torch, weights_hash
from zoo.errors import UserError
from zoo.io import expanded

URL = URL_INCEPTION_V3
HASH = "6726825d"  # the file's SHA-256 begins so
LAYERS = ("2048", "logits_unbiased")
SECONDS_TO_ANSWER = 5


class NoInceptionError(UserError):
    """Inception's published weights cannot be had now; ``reason`` is why, in one line."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Inception(nn.Module):
    """Inception v3 of 2015, with its own resize to 299 pixels: in evaluation mode, without gradients, in true fp32.

    Attributes:
        width: Dimensions of the features.
        hash: 12 hexadecimal digits that name the weights.
        published: Whether they come from the published file, by its SHA-256: what others makes is no FID.

    Args:
        state: The weights, whole, under torch-fidelity's names; they are taken, not copied.
        source: Where they come from, for errors.

    Raises:
        UserError: They are of another model.

    Source: Szegedy et al., arXiv:1512.00567; https://github.com/toshas/torch-fidelity.
    """

    width = 2048
    published = False

    def __init__(self, state: Mapping[str, Tensor], source: str) -> None:
        super().__init__()
        with torch.device("meta"):  # no time goes into weights that are replaced
            extractor = _Extractor()
        # What batch norms count in training has no effect here, and not every file has it.
        steps = {key: torch.tensor(0) for key in extractor.state_dict() if key.endswith(".num_batches_tracked")}
        state = {**steps, **{key: value.float() for key, value in state.items() if key not in steps}}
        check_fit(extractor, state, source)
        extractor.load_state_dict(state, assign=True)
        self.extractor = extractor.eval().requires_grad_(False)
        self.hash = weights_hash(extractor)

    def train(self, mode: bool = True) -> "Inception":
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Extract the features of images.

        Args:
            images: ``[B, 3, H, W] uint8``, RGB, of any size.

        Returns:
            Features ``[B, 2048] float32`` and the logits of 1,008 classes without their bias ``[B, 1008] float32``.

        Raises:
            ValueError: Another shape or type.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {list(images.shape)} {images.dtype}; they must be [B, 3, H, W] uint8.")
        with torch.no_grad(), full_float32(images.device):
            return self.extractor(images)


def load_inception(source: Literal["auto"] | str = "auto") -> Inception:
    """Load Inception with its published weights; nothing in the file is executed.

    Args:
        source: ``"auto"`` takes the file from torch's hub cache, and otherwise downloads it there; anything else is
            the path of such a file.

    Raises:
        NoInceptionError: The file is not in the cache and cannot be downloaded.
        UserError: There is no file at the path, it is damaged, holds code, or is of another model.
    """
    path = _published_file() if source == "auto" else Path(expanded(source))
    inception = Inception(_read(path), str(path))
    with path.open("rb") as file:
        inception.published = hashlib.file_digest(file, "sha256").hexdigest().startswith(HASH)
    return inception


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights drawn at random, in names and shapes of the published ones: for tests and benches, not for scores."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in _Extractor().state_dict().items()}
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    for key, value in state.items():
        if value.ndim > 1:
            value.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)  # keeps the activations' size
        elif key.endswith(("bn.weight", "running_var")):
            value.uniform_(0.8, 1.2, generator=generator)
        elif not key.endswith(".num_batches_tracked"):
            value.normal_(std=0.1, generator=generator)
    return state


def _read(path: Path) -> dict[str, Tensor]:
    state: Any = read_torch(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: it is no state dict: it holds more than named tensors")
    return state


def _published_file() -> Path:
    """The published file in torch's hub cache, downloaded whole or not at all if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]
    if path.is_file():
        return path
    try:
        urllib.request.urlopen(URL, timeout=SECONDS_TO_ANSWER).close()  # the download itself waits without end
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=HASH)
    except Exception as error:  # of the network, the folder, the hash
        raise NoInceptionError(
            f"Inception's weights {path.name} are neither in {path.parent} nor to be downloaded from {URL} "
            f"({first_line(error)}). Put the file into that folder, or give its path in the place of auto "
            "(--inception PATH).",
            reason=first_line(error),
        ) from None
    return path


class _Extractor(FeatureExtractorInceptionV3):
    """torch-fidelity's network without weights: its constructor reads an empty state dict from memory, no file."""

    def __init__(self) -> None:
        nothing = io.BytesIO()
        torch.save({}, nothing)
        nothing.seek(0)
        super().__init__("inception-v3-compat", list(LAYERS), feature_extractor_weights_path=nothing)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=strict and bool(state_dict), assign=assign)
