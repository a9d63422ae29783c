"""R-precision: whether an image's own prompt is the one, of a hundred, that a matcher puts nearest to it.

As Xu et al. (AttnGAN, 2018, arXiv:1711.10485) define it: one true and 99 mismatched prompts, cosine in the
matcher's space, a hit if the true one comes first. Here the mismatched ones are drawn by a seed, all different from
each other and from the true one, and a tie is a miss. Where a folder says what its images show, a mismatched prompt
also contradicts the image in something to be seen; else it may be as true of it as its own.
"""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.attributes import said_in
from zoo.errors import UserError
from zoo.tasks.text_to_image.contracts import GenerationTargets

DISTRACTORS = 99
CANDIDATES = 4  # for each distractor, where some are to be preferred
FOLDS = 10


class Folded(NamedTuple):
    """A share in percent, 0 to 100: over all images, and its standard deviation over ten folds of them."""

    mean: float
    standard_deviation: float


def draw_distractors(
    texts: Sequence[str], *, contradicts: Callable[[int, int], bool] | None = None, seed: int = 0
) -> Tensor:
    """Draw, for each prompt, the mismatched ones.

    What a prompt draws depends on it, the seed and which others there are, not on their order.

    Args:
        texts: The N prompts of a split; one that comes several times counts as one.
        contradicts: Whether, for two places, the second one's prompt contradicts what the first one's image shows:
            those that do are taken before all others of the candidates, of which there are four for each wanted.
        seed: Of the draw.

    Returns:
        ``[N, K] int64``: places of K prompts that differ from the row's and from each other. K is 99, or all
        others where there are fewer.

    Raises:
        UserError: All prompts are the same.
    """
    first = {text: place for place, text in reversed(list(enumerate(texts)))}
    pool = sorted(first)
    number = min(DISTRACTORS, len(pool) - 1)
    if number < 1:
        raise UserError(f"R-precision needs prompts that differ; all {len(texts)} of these are the same")
    places = np.array([first[text] for text in pool], dtype=np.int64)
    rows = np.empty((len(texts), number), dtype=np.int64)
    for row, text in enumerate(texts):
        own = bisect_left(pool, text)
        digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        candidates = number if contradicts is None else min(CANDIDATES * number, len(pool) - 1)
        drawn = np.random.default_rng((seed, digest)).choice(len(pool) - 1, candidates, replace=False)
        found = places[drawn + (drawn >= own)]  # all but its own
        rows[row] = found if contradicts is None else _first_of(found.tolist(), partial(contradicts, row), number)
    return torch.from_numpy(rows)


def _first_of(places: list[int], chosen: Callable[[int], bool], number: int) -> list[int]:
    """Give the first of the places that are chosen, then of the others."""
    found: list[int] = []
    others: list[int] = []
    for place in places:
        (found if chosen(place) else others).append(place)
        if len(found) == number:
            break
    return (found + others)[:number]


def mismatched_prompts(targets: GenerationTargets) -> Tensor:
    """Draw the mismatched prompts of a split: where it says what images show, such as contradict the row's image."""
    if targets.shown is None:
        return draw_distractors(targets.texts)
    shown, vocabulary = targets.shown
    mentions = [vocabulary.mentions(text) for text in targets.texts]
    return draw_distractors(
        targets.texts, contradicts=lambda row, other: said_in(mentions[other], shown[row]).contradicts
    )


def distractor_records(
    image_ids: Sequence[str], texts: Sequence[str], distractors: Tensor
) -> list[dict[str, str | list[str]]]:
    """The distractor list as lines of JSON: each image's id and prompt, and the ids of the mismatched ones."""
    return [
        {"image_id": image_id, "text": text, "distractors": [image_ids[place] for place in places]}
        for image_id, text, places in zip(image_ids, texts, distractors.tolist(), strict=True)
    ]


def hits(images: Tensor, texts: Tensor, rows: Tensor, distractors: Tensor, *, block: int = 1024) -> Tensor:
    """Tell for each image whether its own prompt is nearest to it.

    Args:
        images: ``[n, D]`` unit vectors.
        texts: ``[N, D]`` unit vectors, those of a whole split.
        rows: ``[n] int64``: the place of each image's own prompt.
        distractors: ``[N, K] int64``, as ``draw_distractors`` gives them.
        block: Images compared at a time.

    Returns:
        ``[n] bool``.
    """
    found = []
    for start in range(0, len(images), block):
        own = rows[start : start + block]
        part = images[start : start + block, :, None].float()  # [b, D, 1]
        true = (texts[own][:, None].float() @ part).flatten()  # [b]
        others = (texts[distractors[own]].float() @ part)[..., 0]  # [b, K]
        found.append(true > others.max(dim=1).values)
    return torch.cat(found)


def over_folds(hit: Tensor, *, seed: int = 0) -> Folded:
    """Average over all images, and spread over ten folds of them, drawn by a seed.

    Args:
        hit: ``[n] bool``.
        seed: Of the folds.

    Returns:
        Percent; the spread is NaN where there are fewer than ten images.
    """
    order = np.random.default_rng(seed).permutation(len(hit))
    share = hit.double().cpu()
    if len(hit) < FOLDS:
        return Folded(100 * share.mean().item(), float("nan"))
    means = torch.stack([share[order[fold::FOLDS]].mean() for fold in range(FOLDS)])
    return Folded(100 * share.mean().item(), 100 * means.std(correction=0).item())


def shuffled_rows(texts: Sequence[str], rows: Sequence[int], *, seed: int = 0) -> list[int]:
    """Give each image another's prompt: a permutation of ``rows`` in which as few as can be keep their text.

    Args:
        texts: The prompts of the split.
        rows: The place of each image's own prompt.
        seed: Of the permutation.

    Returns:
        As many places: the same ones in another order.
    """
    counts = Counter(texts[row] for row in rows)
    place_of = dict(zip(sorted(counts), np.random.default_rng(seed).permutation(len(counts)).tolist(), strict=True))
    by_text = sorted(range(len(rows)), key=lambda place: place_of[texts[rows[place]]])  # equal texts side by side
    step = max(counts.values())  # so far on, the text is another, unless one text is more than half of all
    result = [0] * len(rows)
    for place, other in zip(by_text, by_text[step:] + by_text[:step], strict=True):
        result[place] = rows[other]
    return result
