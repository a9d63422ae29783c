"""One ONNX graph a tower, for any runtime and without PyTorch: pixels or token ids in, unit vectors out."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo.core.export import Agreement, compare, require_library, sample_images
from zoo.errors import UserError
from zoo.io import write_text
from zoo.models.tokenizer import pad
from zoo.tasks.retrieval.export.agreement import recall_agreement, sample_texts
from zoo.tasks.retrieval.export.towers import check_towers
from zoo.tasks.retrieval.search.encoder import fingerprint

IMAGE, TEXT, TOKENIZER = "image.onnx", "text.onnx", "tokenizer.json"
MOST_INSIDE = 1_500_000_000  # bytes of weights; a graph's file holds 2 GB at most, beyond it they lie beside it
BATCHES = (1, 2, 5)


class ImageGraph(nn.Module):
    """``[B, 3, S, S] uint8`` to unit vectors ``[B, D]``."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.tower, self.projection = task.image_tower, task.image_projection

    def forward(self, image: Tensor) -> Tensor:
        """Embed."""
        return normalize(self.projection(self.tower(image)), dim=-1)


class TextGraph(nn.Module):
    """Token ids and their mask, ``[B, N] int64``, to unit vectors ``[B, D]``."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.encoder, self.pool, self.projection = task.text_tower.encoder, task.text_tower.pool, task.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return normalize(self.projection(self.pool(hidden, attention_mask)), dim=-1)


class OnnxFolder:
    """``image.onnx`` and ``text.onnx`` in fp32, ``tokenizer.json`` for the library ``tokenizers``, ``config.json``."""

    library = "onnx"
    allowed = 1e-4  # of unit vectors

    def check(self, task: Any) -> None:
        """See that the towers are timm's and transformers', and that there is an exporter."""
        check_towers(task)
        for name in ("onnx", "onnxscript", "onnxruntime"):
            require_library(name)

    def write(self, task: Any, folder: Path) -> None:
        """Write graphs, tokenizer and sizes."""
        size, batch = task.image_size, torch.export.Dim("batch")
        image = torch.zeros(2, 3, size, size, dtype=torch.uint8)
        _write(ImageGraph(task), (image,), folder / IMAGE, {"image": {0: batch}}, "image_embedding")
        ids = torch.full((2, 4), 5)
        sides = {0: batch, 1: torch.export.Dim("length", max=task.text_tower.context_length)}
        shapes = {"input_ids": sides, "attention_mask": sides}
        _write(TextGraph(task), (ids, torch.ones_like(ids)), folder / TEXT, shapes, "text_embedding")
        task.text_tower.tokenizer.to_tokenizers(task.text_tower.context_length).save(str(folder / TOKENIZER))
        sizes = {
            "image_size": size,
            "resize": "to a square, bicubic, antialiased",
            "context_length": task.text_tower.context_length,
            "embedding_dim": task.text_projection.out_features,
            "fingerprint": fingerprint(task),
        }
        write_text(folder / "config.json", json.dumps(sizes, indent=2) + "\n")

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare embeddings by onnxruntime, of batches of several sizes."""
        embed = Runtime(folder, task)
        texts, images = sample_texts(sum(BATCHES)), sample_images(task.image_size, sum(BATCHES))
        batches = f"batches of {', '.join(map(str, BATCHES))}"
        own = task.encode_text(texts), task.encode_image(images)
        found = [
            compare(f"text embeddings, {batches}", _by_batches(embed.texts, texts), own[0], self.allowed),
            compare(f"image embeddings, {batches}", _by_batches(embed.images, images), own[1], self.allowed),
        ]
        return [*found, *recall_agreement(task, embed.texts, embed.images, data)]

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Refuse: the names of weights are gone."""
        raise UserError(f"{folder}: ONNX graphs hold no weights to go on with. Load the checkpoint that they came from")

    def usage(self, task: Any, name: str) -> str:
        """Python without torch."""
        return f'''import numpy as np
from onnxruntime import InferenceSession
from PIL import Image
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/{TOKENIZER}")
ids = np.array([tokenizer.encode("红色连衣裙").ids])
(text,) = InferenceSession("{name}/{TEXT}").run(None, {{"input_ids": ids, "attention_mask": np.ones_like(ids)}})

pixels = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
pixels = pixels.resize(({task.image_size}, {task.image_size}), Image.Resampling.BICUBIC)
image = np.asarray(pixels).transpose(2, 0, 1)[None]  # [1, 3, {task.image_size}, {task.image_size}] uint8
(image,) = InferenceSession("{name}/{IMAGE}").run(None, {{"image": image}})
print(text @ image.T)'''


class OnnxHalf(OnnxFolder):
    """The graph of images in fp16, half as large, for GPUs and phones; that of texts in fp32, which may overflow."""

    allowed = 5e-3

    def write(self, task: Any, folder: Path) -> None:
        """Write the graphs, then round the weights of the one."""
        super().write(task, folder)
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that are rounded to 0
            onnx.save(convert_float_to_float16(onnx.load(folder / IMAGE), keep_io_types=True), folder / IMAGE)


class OnnxInt8(OnnxFolder):
    """The graph of texts with matrices of int8, a quarter as large and faster on a CPU; that of images in fp32."""

    allowed = 0.1

    def write(self, task: Any, folder: Path) -> None:
        """Write the graphs, then quantise the matrices of the one."""
        super().write(task, folder)
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole = folder / f"whole_{TEXT}"
        (folder / TEXT).rename(whole)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it asks to pre-process what needs none
        try:
            quantize_dynamic(whole, folder / TEXT, weight_type=QuantType.QInt8, per_channel=True)
        finally:
            root.setLevel(level)
        whole.unlink()


class Runtime:
    """An exported folder in onnxruntime.

    Args:
        folder: The folder.
        task: The task that it was exported from, which prepares images.
    """

    def __init__(self, folder: Path, task: Any) -> None:
        from onnxruntime import InferenceSession, SessionOptions
        from tokenizers import Tokenizer

        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._image, self._text = (InferenceSession(folder / name, options) for name in (IMAGE, TEXT))
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._task = task

    def texts(self, texts: list[str]) -> Tensor:
        """Embed texts."""
        ids, mask = pad([self._tokenizer.encode(text).ids for text in texts], value=0)
        inputs = {"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()}
        return torch.from_numpy(self._text.run(None, inputs)[0])

    def images(self, images: Any) -> Tensor:
        """Embed PIL images, or ``[B, 3, S, S] uint8``."""
        if not isinstance(images, Tensor):
            images = self._task.image_tower.preprocess(images)
        return torch.from_numpy(self._image.run(None, {"image": images.numpy()})[0])


def _by_batches(embed: Callable[[list[Any]], Tensor], inputs: list[Any]) -> Tensor:
    """Embed inputs in batches of ``BATCHES``."""
    ends = [sum(BATCHES[: place + 1]) for place in range(len(BATCHES))]
    return torch.cat([embed(inputs[end - count : end]) for count, end in zip(BATCHES, ends, strict=True)])


def _write(graph: nn.Module, inputs: tuple[Tensor, ...], path: Path, shapes: dict[str, Any], output: str) -> None:
    weights = sum(parameter.numel() * parameter.element_size() for parameter in graph.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        torch.onnx.export(
            graph.eval(),
            inputs,
            path,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(shapes),
            output_names=[output],
            external_data=weights > MOST_INSIDE,
            verbose=False,
        )
