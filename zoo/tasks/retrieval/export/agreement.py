"""What an exported model is compared on with its task: product images and Chinese titles, drawn from nothing."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from zoo.core.export import Agreement, compare, sample_images
from zoo.errors import UserError
from zoo.tasks.retrieval.data import RetrievalDataModule
from zoo.tasks.retrieval.metrics import RetrievalRecall

Embed = Callable[[Any], Any]
BATCH = 64

SINGLE = 1e-5  # how far unit vectors may be by another library's arithmetic in fp32
HALF = 2e-3  # where weights were rounded to fp16 on the way
RESIZED = 0.02  # where another library resizes, which may differ by a grey level


STRANGE = ("“红色”，连衣裙（新款）！", "[SEP]１００％纯棉[MASK] Nike‘’ &amp; café 👗", "")


def sample_texts(count: int = 8) -> list[str]:
    """Write titles of the embedded catalogue; the last are strange, or longer than any context."""
    from zoo.data.catalogue.products import draw_products
    from zoo.data.catalogue.texts import title

    products = draw_products("test", max(count - len(STRANGE) - 1, 1), 0)
    titles = [title(product, random.Random(product.seed)) for product in products]
    return [*titles, *STRANGE, "".join(titles) * 3][-count:]


def oblong(images: list[Image.Image]) -> list[Image.Image]:
    """Cut images so that a processor has to resize them, and not evenly."""
    return [Image.fromarray(np.asarray(image)[image.height // 8 :]) for image in images]


def agreements(
    task: Any, embed_text: Embed, embed_image: Embed, data: str | None, allowed: float = SINGLE
) -> list[Agreement]:
    """Compare another model's embeddings of samples with a task's.

    Args:
        task: The ``RetrievalTask``.
        embed_text: Turns a list of texts into ``[B, D]``, of any length.
        embed_image: Turns a list of PIL images into ``[B, D]``, of any length.
        data: A folder of retrieval data: recall on its validation split is compared too; None: it is not.
        allowed: How far unit vectors may be from each other.
    """
    texts, images = sample_texts(), sample_images(task.image_size)
    cut = oblong(sample_images(2 * task.image_size))
    return [
        compare("text embeddings", unit(embed_text(texts)), task.encode_text(texts), allowed),
        compare("image embeddings", unit(embed_image(images)), task.encode_image(images), allowed),
        compare(
            "image embeddings, of images that each library resizes",
            unit(embed_image(cut)),
            task.encode_image(cut),
            RESIZED,
        ),
        *recall_agreement(task, embed_text, embed_image, data),
    ]


def recall_agreement(task: Any, embed_text: Embed, embed_image: Embed, data: str | None) -> list[Agreement]:
    """Compare MeanRecall on the validation split of a folder, whose images each side prepares itself.

    It is told and not judged: what is rounded may change it.

    Raises:
        UserError: There is no such folder, or its validation split has no answers.
    """
    if data is None:
        return []
    module = RetrievalDataModule(data, image_size=task.image_size, num_workers=0)
    module.prepare_data()
    module.setup("validate")
    targets = module.targets("valid")
    if targets.positives is None:
        raise UserError(f"--data {data}: its validation split has no answers to compute recall by", argument="--data")
    both = [
        RetrievalRecall(query_ids=targets.query_ids, image_ids=targets.image_ids, positives=targets.positives)
        for _ in range(2)
    ]
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Measuring recall", total=len(targets.query_ids) + len(targets.image_ids))
        for start in range(0, len(targets.query_ids), BATCH):
            part = slice(start, start + BATCH)
            for metric, embed in zip(both, (task.encode_text, embed_text), strict=True):
                vectors = unit(embed(targets.texts[part]))
                metric.update(torch.tensor(targets.query_ids[part]), vectors, side="query")
                progress.update(bar, advance=len(vectors) / 2)
        for start in range(0, len(targets.image_ids), BATCH):
            ids = targets.image_ids[start : start + BATCH]
            images = [Image.fromarray(module.image("valid", number)) for number in ids]
            for metric, embed in zip(both, (task.encode_image, embed_image), strict=True):
                vectors = unit(embed(images))
                metric.update(torch.tensor(ids), vectors, side="image")
                progress.update(bar, advance=len(vectors) / 2)
    before, after = (float(metric.compute()["mean_recall"]) for metric in both)
    sizes = f"{len(targets.query_ids):,} queries, {len(targets.image_ids):,} images"
    what = f"MeanRecall on valid ({sizes}), {before:.2f} before and {after:.2f} after"
    return [Agreement(what, abs(after - before), math.inf)]


def unit(values: Any) -> Tensor:
    """Give embeddings ``[B, D]`` as unit vectors, float32 on the CPU."""
    return torch.nn.functional.normalize(torch.as_tensor(values).float().cpu(), dim=-1)
