"""What embeds texts and images for a search: a trained task, or the ONNX graphs that were exported of one."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from zoo.data.images import resize
from zoo.errors import UserError

Prepare = Callable[[np.ndarray], np.ndarray]
PARTS = ("image_tower", "text_tower", "embedding_dim", "image_projection_bias")


class Encoder(Protocol):
    """A model that embeds texts and images as unit vectors of one space.

    Attributes:
        fingerprint: Tells the model, with all that it computes, from others.
        width: Size of the vectors.
        prepare: Makes the square that the model reads of an image ``[H, W, 3] uint8``; light enough for workers.
    """

    fingerprint: str
    width: int
    prepare: Prepare

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: ``[B, D] float32``."""

    def encode_squares(self, squares: np.ndarray) -> np.ndarray:
        """Embed what ``prepare`` made, ``[B, S, S, 3] uint8``: ``[B, D] float32``."""


def load_encoder(source: str) -> Encoder:
    """Load an encoder; on a GPU where there is one.

    Args:
        source: As of ``zoo.load``; or a folder that ``export --format onnx`` wrote, which embeds texts without PyTorch.

    Raises:
        UserError: It is neither, or embeds no texts.
    """
    if (Path(source) / "text.onnx").is_file():
        return OnnxEncoder(Path(source))
    return TaskEncoder(source)


def encode_images(encoder: Encoder, images: Sequence[np.ndarray]) -> np.ndarray:
    """Embed images ``[H, W, 3] uint8`` of any size: ``[B, D] float32``."""
    return encoder.encode_squares(np.stack([encoder.prepare(image) for image in images]))


def fingerprint(task: Any) -> str:
    """Name a task with all that its embeddings depend on: 16 hexadecimal digits of its weights and towers' options."""
    from zoo.core.options import plain
    from zoo.core.weights import weights_hash

    own = plain(dict(task.hparams))
    named = {name: value for name, value in own.items() if name.startswith(PARTS) and "pretrained" not in name}
    words = json.dumps([weights_hash(task), named], sort_keys=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


class TaskEncoder:
    """A trained task of any kind that embeds texts and images, in fp32.

    Args:
        source: As of ``zoo.load``.

    Raises:
        UserError: It cannot be loaded, or embeds no texts.
    """

    def __init__(self, source: str) -> None:
        import torch

        from zoo.core.checkpoint import load

        self.task = cast(Any, load(source, device="cuda" if torch.cuda.is_available() else "cpu"))
        if not hasattr(self.task, "encode_text") or not hasattr(self.task, "encode_image"):
            raise UserError(
                f"{source}: it is of {type(self.task).__name__}, which embeds no texts and images. Give a retrieval"
                " model",
                argument="model",
                value=source,
            )
        self.fingerprint = fingerprint(self.task)
        self.width: int = int(self.task.embedding_dim)
        own = getattr(self.task, "prepare_image", None)
        self.prepare: Prepare = own or partial(resize, size=int(self.task.image_size))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: ``[B, D] float32``."""
        import torch

        with torch.inference_mode():
            return self.task.encode_text(list(texts)).cpu().numpy()

    def encode_squares(self, squares: np.ndarray) -> np.ndarray:
        """Embed squares ``[B, S, S, 3] uint8``: ``[B, D] float32``."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(squares).permute(0, 3, 1, 2).to(self.task.device)
            return self.task.encode_image(pixels).cpu().numpy()


class OnnxEncoder:
    """The two graphs of ``export --format onnx``, in onnxruntime.

    Args:
        folder: The exported folder.

    Raises:
        UserError: A library is missing, or the folder is damaged or was written by an earlier zoo.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from onnxruntime import InferenceSession
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UserError(f"{folder}: {error.name} is missing: pip install 'muge-zoo[export]'") from None
        from zoo.io import read_json

        try:
            sizes = read_json(folder / "config.json")
            self.fingerprint = str(sizes["fingerprint"])
            self.width = int(sizes["embedding_dim"])
            self.prepare: Prepare = partial(resize, size=int(sizes["image_size"]))
            self._image, self._text = (InferenceSession(folder / name) for name in ("image.onnx", "text.onnx"))
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except KeyError as error:
            raise UserError(f"{folder}: its config.json has no {error.args[0]}: export it anew") from None
        except Exception as error:  # tokenizers raises nothing more special
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{folder} is damaged ({reason}): export it anew", argument="model", value=str(folder)
            ) from None
        self._tokenizer.enable_padding()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: ``[B, D] float32``."""
        read = self._tokenizer.encode_batch(list(texts))
        ids, mask = (np.array([getattr(each, name) for each in read]) for name in ("ids", "attention_mask"))
        return self._text.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    def encode_squares(self, squares: np.ndarray) -> np.ndarray:
        """Embed squares ``[B, S, S, 3] uint8``: ``[B, D] float32``."""
        return self._image.run(None, {"image": np.ascontiguousarray(squares.transpose(0, 3, 1, 2))})[0]
