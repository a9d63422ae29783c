"""Attribute accuracy: whether an image shows what its prompt asks for, as classifiers of its features see it.

As in the linear probing of Alain and Bengio (2016, arXiv:1610.01644): the features of a model that is not trained any
more, and for each kind of attribute one linear layer, trained on images of which the truth is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from zoo.data.attributes import DETAILS, Attributes, Shown, common_kinds, said_in
from zoo.tasks.text_to_image.metrics.r_precision import shuffled_rows

NAME = "attribute_accuracy"
ALL = "all"
STEPS = 60  # of L-BFGS
DECAY = 1e-4  # of the weights
LEAST_IMAGES = 5  # that show a value: a value of fewer is not learned


FLAT = 1e-6  # deviations of a feature that are the rounding of one value


class Probes:
    """A linear classifier of features for each kind of attribute.

    Args:
        features: ``[N, D]`` of images of which the truth is known.
        shown: What each of them shows.
    """

    def __init__(self, features: Tensor, shown: Sequence[Attributes]) -> None:
        self.centre, scale = features.mean(dim=0), features.std(dim=0)
        self.scale = scale.masked_fill(scale < FLAT, torch.inf)  # what never varied says nothing
        self.common = common_kinds(shown)
        self.values: dict[str, list[str]] = {}
        self.layers: dict[str, Tensor] = {}  # [values, 1 + D]
        images = self._scaled(features)
        for kind in sorted({kind for attributes in shown for kind in attributes}):
            rows_of: dict[str, list[int]] = {}
            for row, attributes in enumerate(shown):
                if kind in attributes:
                    rows_of.setdefault(attributes[kind], []).append(row)
            learned = {value: rows for value, rows in sorted(rows_of.items()) if len(rows) >= LEAST_IMAGES}
            if len(learned) > 1:
                self.values[kind] = [*learned]
                labels = [place for place, rows in enumerate(learned.values()) for _ in rows]
                chosen = [row for rows in learned.values() for row in rows]
                self.layers[kind] = _fit(images[chosen], torch.tensor(labels))

    def see(self, features: Tensor) -> list[dict[str, str]]:
        """Give, for ``[n, D]`` features, the value of each kind that each image looks most like."""
        images = self._scaled(features)
        found: list[dict[str, str]] = [{} for _ in features]
        for kind, layer in self.layers.items():
            for each, place in zip(found, (images @ layer.T).argmax(dim=1).tolist(), strict=True):
                each[kind] = self.values[kind][place]
        return found

    def _scaled(self, features: Tensor) -> Tensor:
        scaled = (features.float() - self.centre) / self.scale
        return torch.cat([torch.ones(len(scaled), 1), scaled], dim=1)


def _fit(images: Tensor, labels: Tensor) -> Tensor:
    """Fit a softmax regression: ``[n, 1 + D]`` and ``[n]`` to ``[values, 1 + D]``."""
    with torch.inference_mode(False), torch.enable_grad():  # an evaluation is without gradients
        images, labels = images.clone(), labels.clone()
        layer = torch.zeros(int(labels.max()) + 1, images.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([layer], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = cross_entropy(images @ layer.T, labels) + DECAY * layer.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    return layer.detach()


def asked_for(prompts: Sequence[str], shown: Shown) -> list[dict[str, str]]:
    """Give what each prompt asks for: of what its own image shows, the values that it says."""
    asked = []
    for prompt, attributes in zip(prompts, shown.attributes, strict=True):
        said = said_in(shown.vocabulary.mentions(prompt), attributes).values
        asked.append({kind: value for kind, value in attributes.items() if value in said})
    return asked


class AttributeAccuracy(Metric):
    """The share of what prompts ask for that their images show, as probes see it, in percent.

    ``update(features, asked)`` takes ``[B, D]`` features of images and what the prompt of each asks for,
    ``{kind: value}``. ``compute`` gives the accuracy over all that was asked, ``all``; of each kind that at least half
    of the probes' own images show, under its name; and of all other kinds together, ``details``. Kinds and values that
    the probes have not learned do not count. The numbers are those of the whole set on any number of processes; one of
    nothing is NaN.

    Args:
        probes: The classifiers.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, probes: Probes) -> None:
        super().__init__()
        self.probes = probes
        self.names = [*probes.common, DETAILS]
        self.add_state("counts", torch.zeros(len(self.names), 2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, features: Tensor, asked: Sequence[Mapping[str, str]]) -> None:
        """Take in images, and what was asked for."""
        counts = torch.zeros_like(self.counts)
        for seen, wanted in zip(self.probes.see(features.cpu()), asked, strict=True):
            for kind, value in wanted.items():
                if value in self.probes.values.get(kind, ()):
                    place = self.names.index(kind) if kind in self.names else -1
                    counts[place] += torch.tensor([1, seen[kind] == value], device=counts.device)
        self.counts += counts

    def compute(self) -> dict[str, Tensor]:
        """Give the accuracies, in percent, float64."""
        asked, right = self.counts.double().unbind(dim=1)
        return {ALL: 100 * right.sum() / asked.sum(), **dict(zip(self.names, 100 * right / asked, strict=True))}


def attribute_scores(
    probes: Probes, texts: Sequence[str], shown: Shown, rows: Tensor, generated: Tensor, true: Tensor | None
) -> dict[str, float]:
    """Attribute accuracy in percent, with what it is to be held against.

    Args:
        probes: The classifiers.
        texts: The N prompts of the split.
        shown: What their images show.
        rows: ``[n] int64``: whose prompts images were generated from.
        generated: ``[n, D]`` features of these images.
        true: ``[N, D]`` features of the true images, where there are any.

    Returns:
        What ``AttributeAccuracy`` gives: ``attribute_accuracy`` over all, ``attribute_accuracy/KIND``; the same as
        ``attribute_accuracy_shuffled`` (each image held against another's prompt: the floor) and, of the true images of
        the same rows, as ``attribute_accuracy_true``: the ceiling.
    """
    asked, own = asked_for(texts, shown), rows.tolist()
    held = {"": (generated, own), "_shuffled": (generated, shuffled_rows(texts, own))}
    if true is not None:
        held["_true"] = (true[rows], own)
    scores: dict[str, Any] = {}
    for suffix, (features, prompts) in held.items():
        metric = AttributeAccuracy(probes)
        metric.update(features, [asked[row] for row in prompts])
        for name, value in metric.compute().items():
            scores[f"{NAME}{suffix}" if name == ALL else f"{NAME}{suffix}/{name}"] = value.item()
    return scores
