"""Contact sheets of generated pictures: fixed descriptions by fixed seeds, and those nearest to a training picture."""

from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from zoo.core.grids import GridRow, image_grid
from zoo.tasks.text_to_image.contracts import GenerationData, GenerationTargets
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors
from zoo.tasks.text_to_image.metrics.r_precision import hits

SHEET_ROWS = 8


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
    """The same descriptions by the same seeds every time; framed are those whose own description is nearest.

    Args:
        generator: What draws.
        data: Whose true pictures stand beside.
        targets: Descriptions, some of which, spread evenly, are drawn.
        prompts: Descriptions to draw instead; they have no true pictures.
        seeds: Pictures of each.
        extractors: Who see whether a picture fits.
        read: ``[N, D]``: the matcher's vectors of the descriptions, if there is a matcher.
        distractors: ``[N, K]``: what each description is held against.
    """
    spread = torch.linspace(0, len(targets.rows) - 1, min(SHEET_ROWS, len(targets.rows))).round().long()
    rows = [] if prompts else [targets.rows[place] for place in spread.tolist()]
    texts = prompts or [targets.texts[row] for row in rows]
    columns, framed = [], []
    for seed in range(seeds):
        pictures = generator.generate(texts, seeds=[seed] * len(texts))
        columns.append(pictures.permute(0, 2, 3, 1).cpu().numpy())
        if rows and read is not None and distractors is not None:
            seen = extractors.extract_features(pictures, ["clip"])["clip"].cpu()
            framed.append(hits(seen, read, torch.tensor(rows), distractors).tolist())
        else:
            framed.append([False] * len(texts))
    sheet_rows = []
    for place, text in enumerate(texts):
        true = [data.image(targets.split, rows[place])] if rows else []
        sheet_rows.append(
            GridRow(
                text=text,
                images=[*true, *(column[place] for column in columns)],
                hits=[*([False] * len(true)), *(column[place] for column in framed)],
            )
        )
    titles = [*(["true"] if rows else []), *(f"seed {seed}" for seed in range(seeds))]
    return image_grid(sheet_rows, titles=titles)


def nearest_sheet(
    task: Any, data: GenerationData, targets: GenerationTargets, rows: Tensor, likeness: Tensor, places: Tensor
) -> Image:
    """The generated pictures that are most like a training picture, beside it and the true one.

    Args:
        task: What drew, and draws these again.
        data: Whose pictures stand beside.
        targets: The descriptions.
        rows: ``[n] int64``: those that were drawn.
        likeness: ``[n]``: each picture's cosine with its nearest training picture.
        places: ``[n] int64``: which that is.
    """
    closest = likeness.argsort(descending=True, stable=True)[:SHEET_ROWS]
    chosen = rows[closest].tolist()
    drawn = task.draw([targets.texts[row] for row in chosen], chosen).permute(0, 2, 3, 1).cpu().numpy()
    sheet_rows = [
        GridRow(
            text=targets.texts[row],
            images=[picture, data.image("train", int(places[place])), data.image(targets.split, row)],
            hits=[False] * 3,
            note=f"cosine {likeness[place]:.3f}",
        )
        for place, row, picture in zip(closest.tolist(), chosen, drawn, strict=True)
    ]
    return image_grid(sheet_rows, titles=["generated", "nearest training", "true"])
