"""All scores of generated images from features that are already there: pure functions of tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric

from zoo.core.collected import CollectedRows
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors
from zoo.tasks.text_to_image.metrics.frechet import frechet_distance_of
from zoo.tasks.text_to_image.metrics.inception_score import inception_score
from zoo.tasks.text_to_image.metrics.kernel_distance import kernel_distance
from zoo.tasks.text_to_image.metrics.precision_recall import precision_recall
from zoo.tasks.text_to_image.metrics.r_precision import draw_distractors, hits, over_folds, shuffled_rows

SPLITS = 10  # of the Inception score
NEIGHBOURS = 3  # of precision and recall
SHUFFLES = 10  # over which the control of R-precision is averaged
COPIED_QUANTILE = 0.99


def distribution_scores(generated: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> dict[str, float]:
    """How near generated images are to true ones as distributions, in every feature space that both have.

    Args:
        generated: ``[n, width]`` by extractor; Inception's ``logits`` too.
        true: ``[N, width]`` by extractor.

    Returns:
        Of Inception ``fid``, ``kid``, ``kid_std``, ``is``, ``is_std``; of any other extractor ``fd_NAME``; of each
        ``precision_NAME`` and ``recall_NAME`` in percent. A Fréchet distance is left out where there are no more
        images than features, IS where there are fewer than its ten splits, precision and recall of three images.
    """
    scores: dict[str, float] = {}
    for name, features in true.items():
        drawn = generated[name]
        enough = min(len(drawn), len(features)) > features.shape[1]
        if enough:
            scores["fid" if name == "inception" else f"fd_{name}"] = frechet_distance_of(drawn, features)
        if name == "inception":
            scores["kid"], scores["kid_std"], _ = kernel_distance(drawn, features)
            if len(drawn) >= SPLITS:
                scores["is"], scores["is_std"] = inception_score(generated["logits"], splits=SPLITS)
        if min(len(drawn), len(features)) > NEIGHBOURS:
            precision, recall = precision_recall(drawn, features, neighbours=NEIGHBOURS)
            scores[f"precision_{name}"], scores[f"recall_{name}"] = 100 * precision, 100 * recall
    return scores


class RPrecision(Metric):
    """R-precision of images generated from a split's prompts, with its controls.

    ``compute`` gives what ``r_precision_scores`` names, in percent, float64, on every process the same.

    Args:
        prompts: The N prompts of the split.
        matcher: A retrieval checkpoint, a run's folder or a published model. None: the unit vectors of images
            ``[B, D]`` come in the place of images.
        prompt_features: ``[N, D]`` unit vectors of the prompts, where there is no matcher.

    Raises:
        UserError: The matcher cannot be had, or all prompts are the same.
        ValueError: Neither, or both, of ``matcher`` and ``prompt_features`` are given.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self, prompts: Sequence[str], *, matcher: str | None = None, prompt_features: Tensor | None = None
    ) -> None:
        super().__init__(sync_on_compute=False)  # gathered once, by what collects the images
        if (matcher is None) == (prompt_features is None):
            raise ValueError("give matcher or prompt_features, one of both.")
        self.prompts = list(prompts)
        self.extractors = None if matcher is None else FeatureExtractors(inception="none", matcher=matcher)
        self.prompt_features = prompt_features
        self.distractors = draw_distractors(self.prompts)
        self.collected = CollectedRows(None, names=["features"])

    def update(self, images: Tensor, rows: Tensor) -> None:
        """Take a batch.

        Args:
            images: Generated images ``[B, 3, S, S] uint8``, or their unit vectors ``[B, D]``.
            rows: ``[B] int64``, the index of each image's prompt.
        """
        if self.extractors is not None:
            images = self.extractors.to(images.device).extract_features(images)["clip"]
        self.collected.update(rows, features=images)

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Take a batch, as ``update``: a part of a split has no score of its own."""
        self.update(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Give the scores."""
        rows, values = self.collected.gathered()
        read = self.prompt_features if self.extractors is None else self.extractors.read(self.prompts)
        scores = r_precision_scores(
            values["features"].cpu(),
            rows.cpu(),
            self.prompts,
            read.cpu(),  # type: ignore[union-attr]
            None,
            self.distractors,
        )
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in scores.items()}

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.collected.reset()


def r_precision_scores(
    generated: Tensor,
    rows: Tensor,
    texts: Sequence[str],
    read: Tensor,
    true: Tensor | None,
    distractors: Tensor,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """R-precision in percent, with what it is to be held against.

    Args:
        generated: ``[n, D]`` unit vectors of generated images.
        rows: ``[n] int64``: whose prompts they were generated from.
        texts: The N prompts of the split.
        read: ``[N, D]`` unit vectors of them.
        true: ``[N, D]`` unit vectors of the true images, where there are any.
        distractors: ``[N, K] int64``: the mismatched prompts of each row, as ``draw_distractors`` gives them.
        seed: Of folds and shuffling.

    Returns:
        ``r_precision`` and ``r_precision_std`` (over ten folds), ``r_precision_shuffled`` (each image held against
        another's prompt, on average over ten shuffles), ``r_precision_true`` (the ceiling: the true images of
        the same rows), and ``r_precision_chance``.
    """
    distractors, rows = distractors.to(read.device), rows.to(read.device)
    mean, spread = over_folds(hits(generated, read, rows, distractors), seed=seed)
    scores = {"r_precision": mean, "r_precision_std": spread}
    shuffles = [
        hits(generated, read, torch.tensor(shuffled_rows(texts, rows.tolist(), seed=seed + number)), distractors)
        for number in range(SHUFFLES)
    ]
    scores["r_precision_shuffled"] = 100 * torch.stack(shuffles).double().mean().item()
    if true is not None:
        scores["r_precision_true"] = over_folds(hits(true[rows], read, rows, distractors), seed=seed).mean
    scores["r_precision_chance"] = 100 / (1 + distractors.shape[1])
    return scores


def nearest(features: Tensor, training: Tensor, *, block: int = 1024) -> tuple[Tensor, Tensor]:
    """The training image that is most like each of n images.

    Args:
        features: ``[n, width]``.
        training: ``[N, width]`` of the training images.
        block: Images compared at a time.

    Returns:
        The cosine ``[n]`` and the place ``[n]`` of the nearest.
    """
    wanted = normalize(training.float(), dim=-1).T
    found = [(normalize(part.float(), dim=-1) @ wanted).max(dim=1) for part in features.split(block)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def memorisation_scores(similarity: Tensor, true_similarity: Tensor) -> dict[str, float]:
    """How much generated images look as if copied from the training images.

    Args:
        similarity: ``[n]``: each generated image's cosine with its nearest training image.
        true_similarity: ``[N]``: the same of true images that were not trained on.

    Returns:
        ``nearest_training`` and ``nearest_training_true``, the mean cosines, and ``copied``: the percentage of
        generated images that are nearer to a training image than 99 % of the true ones are (1, if they are alike).
    """
    bar = torch.quantile(true_similarity.float(), COPIED_QUANTILE)
    return {
        "nearest_training": similarity.mean().item(),
        "nearest_training_true": true_similarity.mean().item(),
        "copied": 100 * (similarity > bar).double().mean().item(),
    }
