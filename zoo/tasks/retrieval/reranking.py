"""Rerankers: models that score the first images of a ranking anew, each together with the query."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from zoo.core.checkpoint import EXPORTED, load
from zoo.core.collected import CollectedRows
from zoo.core.hubs import UnavailableError
from zoo.core.inputs import as_images
from zoo.core.weights import check_fit
from zoo.errors import UserError
from zoo.io import expanded
from zoo.models.hub import read_model
from zoo.models.vlm import IMAGE, QWEN, ImagePrompt, family_of, is_embedder, own_size, read_vlm, squares

# What Qwen3-VL-Reranker is asked, and the instruction of its published example.
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided."
    ' Note that the answer can only be "yes" or "no".'
)
INSTRUCTION = "Retrieve images or text relevant to the user's query."
ANSWERS = ("yes", "no")
BATCH = 16  # images of a query that a vision-language model reads at a time
BLOCK = 64  # queries or images that are embedded at a time, on however many processes
QUIET = 60.0  # seconds between two lines about how far it has come


class Reranker(Protocol):
    """A model that scores images for a query."""

    def score(self, query: str, images: Sequence[Image]) -> Tensor:
        """Score N images for a query.

        Args:
            query: The query.
            images: N images of any size; N may be 0.

        Returns:
            ``[N] float32``, higher is better; scores of different queries are not compared.
        """


class EmbeddingReranker:
    """Any retrieval model as a reranker: the cosines of its own embeddings.

    Args:
        task: A model with ``encode_text`` and ``encode_image``.
    """

    def __init__(self, task: Any) -> None:
        self.task = task

    @torch.no_grad()
    def score(self, query: str, images: Sequence[Image]) -> Tensor:
        """Score N images for a query: ``[N] float32``, from -1 to 1."""
        return self.task.encode_image([*images]) @ self.task.encode_text([query])[0]


class VisionLanguageReranker:
    """A vision-language model that is asked whether an image answers a query (Qwen3-VL-Reranker, arXiv:2601.04720).

    The score is the logit of ``yes`` less that of ``no`` as the next token. Images are resized to squares.

    Args:
        model: The model of transformers, with its head.
        processor: Its processor.

    Raises:
        UserError: Its tokenizer has no such tokens.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor, self.image_size = model, processor, own_size(processor)
        vocabulary = processor.tokenizer.get_vocab()
        missing = [word for word in ANSWERS if word not in vocabulary]
        if missing:
            raise UserError(f"its tokenizer has no token {missing[0]!r}, with which it would answer")
        self.answers = [vocabulary[word] for word in ANSWERS]

    @torch.no_grad()
    def score(self, query: str, images: Sequence[Image]) -> Tensor:
        """Score N images for a query: ``[N] float32``, the odds of yes as a logarithm."""
        for token in (self.processor.image_token, self.processor.video_token):  # the query shows none
            query = query.replace(token, " ")
        prompt = ImagePrompt(self.processor, turns(query), self.image_size)
        yes, no = self.model.get_output_embeddings().weight[self.answers]
        device = self.model.device
        scores = [torch.empty(0, device=device)]
        for start in range(0, len(images), BATCH):
            pixels = squares(as_images([*images[start : start + BATCH]]), self.image_size).to(device)
            hidden = prompt.last_hidden(self.model.model, pixels)  # [B, width]
            scores.append(nn.functional.linear(hidden, (yes - no)[None])[:, 0].float())
        return torch.cat(scores)


def turns(query: str) -> list[dict[str, Any]]:
    """Give the chat in which Qwen3-VL-Reranker reads a query and an image."""
    texts = (f"<Instruct>: {INSTRUCTION}", "<Query>:", query, "\n<Document>:")
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [*({"type": "text", "text": text} for text in texts), IMAGE]},
    ]


def load_reranker(source: str | Path, *, device: str | torch.device = "cpu") -> Reranker:
    """Load a reranker.

    Args:
        source: A Qwen-VL of transformers that answers yes or no, in a folder or by its hub name
            (``Qwen/Qwen3-VL-Reranker-2B``); or any retrieval model, as of ``zoo.load``.
        device: Where it goes.

    Raises:
        UserError: It cannot be loaded, or scores no images.
    """
    source = expanded(source)
    exported = (Path(source) / EXPORTED).is_file()
    if not exported and family_of(source) in QWEN and not is_embedder(source):
        return _vision_language_reranker(source, device)
    task: Any = load(source, device=device)
    if not (hasattr(task, "encode_text") and hasattr(task, "encode_image")):
        raise UserError(f"{source}: it is of {type(task).__name__}, which scores no images for a query")
    return EmbeddingReranker(task)


def _vision_language_reranker(source: str, device: str | torch.device) -> VisionLanguageReranker:
    config, processor = read_vlm(source, QWEN)
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(config)
    try:
        model, state, _ = read_model(AutoModelForImageTextToText, network, source)
    except UnavailableError as error:
        raise UserError(f"{source}: its weights cannot be had ({error})") from None
    check_fit(network, state, source)
    try:
        return VisionLanguageReranker(model.to(device).eval().requires_grad_(False), processor)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def score_candidates(
    trainer: L.Trainer,
    reranker: Reranker,
    queries: Sequence[str],
    candidates: Tensor,
    image: Callable[[int], Image],
) -> Tensor:
    """Score each query's candidates; all processes call this together, and each scores some.

    What a retrieval model embeds is embedded once. The scores do not depend on the number of processes.

    Args:
        trainer: Says the precision, the device and the processes.
        reranker: It is on the device.
        queries: Q queries.
        candidates: ``[Q, k]`` ids of images.
        image: Gives the image of an id.

    Returns:
        ``[Q, k] float32``, the same on every process.
    """

    def embedded_images(part: range) -> Tensor:
        return reranker.task.encode_image([image(int(ids[place])) for place in part])  # type: ignore[attr-defined]

    def embedded_texts(part: range) -> Tensor:
        return reranker.task.encode_text([queries[place] for place in part])  # type: ignore[attr-defined]

    def scored(part: range) -> Tensor:
        images = [[image(number) for number in candidates[place].tolist()] for place in part]
        return torch.stack([reranker.score(queries[place], own) for place, own in zip(part, images, strict=True)])

    with torch.no_grad(), trainer.precision_plugin.forward_context():
        if not isinstance(reranker, EmbeddingReranker):
            return _on_all(trainer, "queries", len(queries), 1, scored)
        ids, places = candidates.unique(return_inverse=True)  # [U], [Q, k]
        images = _on_all(trainer, "images", len(ids), BLOCK, embedded_images)
        texts = _on_all(trainer, "queries", len(queries), BLOCK, embedded_texts)
    return torch.stack([images[own] @ text for own, text in zip(places.to(images.device), texts, strict=True)])


def _on_all(trainer: L.Trainer, what: str, count: int, block: int, compute: Callable[[range], Tensor]) -> Tensor:
    """Compute rows in blocks, which the processes take in turn, and gather them."""
    rows = CollectedRows([*range(count)], ["value"]).to(trainer.strategy.root_device)
    told = time.perf_counter()
    for start in range(trainer.global_rank * block, count, trainer.world_size * block):
        part = range(start, min(start + block, count))
        rows.update(torch.tensor(part), value=compute(part))
        if trainer.is_global_zero and time.perf_counter() - told > QUIET:
            told = time.perf_counter()
            print(f"The reranker: {what}, {part.stop:,} of {count:,}")
    return rows.gathered()[1]["value"].float()
