"""Image grids of generated images: fixed prompts by fixed seeds, and those nearest to a training image."""

from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from zoo.core.grids import GridRow, image_grid
from zoo.tasks.text_to_image.contracts import GenerationData, GenerationTargets
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors
from zoo.tasks.text_to_image.metrics.r_precision import hits

GRID_ROWS = 8


def grid(
    generator: Any,
    data: GenerationData,
    targets: GenerationTargets,
    *,
    prompts: list[str] | None,
    seeds: int,
    extractors: FeatureExtractors,
    read: Tensor | None,
    distractors: Tensor | None,
) -> Image:
    """The same prompts by the same seeds every time; framed are those whose own prompt is nearest.

    Args:
        generator: What generates.
        data: Whose true images stand beside.
        targets: Prompts, some of which, spread evenly, are generated.
        prompts: Prompts to generate images of instead; they have no true images.
        seeds: Images of each.
        extractors: Who see whether an image fits.
        read: ``[N, D]``: the matcher's vectors of the prompts, if there is a matcher.
        distractors: ``[N, K]``: what each prompt is held against.
    """
    spread = torch.linspace(0, len(targets.rows) - 1, min(GRID_ROWS, len(targets.rows))).round().long()
    rows = [] if prompts else [targets.rows[place] for place in spread.tolist()]
    texts = prompts or [targets.texts[row] for row in rows]
    columns, framed = [], []
    for seed in range(seeds):
        images = generator.generate(texts, seeds=[seed] * len(texts))
        columns.append(images.permute(0, 2, 3, 1).cpu().numpy())
        if rows and read is not None and distractors is not None:
            seen = extractors.extract_features(images, ["clip"])["clip"].cpu()
            framed.append(hits(seen, read, torch.tensor(rows), distractors).tolist())
        else:
            framed.append([False] * len(texts))
    grid_rows = []
    for place, text in enumerate(texts):
        true = [data.image(targets.split, rows[place])] if rows else []
        grid_rows.append(
            GridRow(
                text=text,
                images=[*true, *(column[place] for column in columns)],
                hits=[*([False] * len(true)), *(column[place] for column in framed)],
            )
        )
    titles = [*(["true"] if rows else []), *(f"seed {seed}" for seed in range(seeds))]
    return image_grid(grid_rows, titles=titles)


def nearest_grid(
    task: Any, data: GenerationData, targets: GenerationTargets, rows: Tensor, similarity: Tensor, places: Tensor
) -> Image:
    """The generated images that are most like a training image, beside it and the true one.

    Args:
        task: What generated them, and does so again.
        data: Whose images stand beside.
        targets: The prompts.
        rows: ``[n] int64``: those that were generated.
        similarity: ``[n]``: each image's cosine with its nearest training image.
        places: ``[n] int64``: which that is.
    """
    closest = similarity.argsort(descending=True, stable=True)[:GRID_ROWS]
    chosen = rows[closest].tolist()
    images = task.generate([targets.texts[row] for row in chosen], chosen).permute(0, 2, 3, 1).cpu().numpy()
    grid_rows = [
        GridRow(
            text=targets.texts[row],
            images=[image, data.image("train", int(places[place])), data.image(targets.split, row)],
            hits=[False] * 3,
            note=f"cosine {similarity[place]:.3f}",
        )
        for place, row, image in zip(closest.tolist(), chosen, images, strict=True)
    ]
    return image_grid(grid_rows, titles=["generated", "nearest training", "true"])
