"""CIDEr-D from n-grams, as coco-caption computes it (Vedantam et al., https://arxiv.org/abs/1411.5726); no torch."""

from typing import NamedTuple

import numpy as np

from zoo.tasks.captioning.metrics.ngram_index import ORDERS

SIGMA = 6.0  # tokens that a length may be off by


class Counted(NamedTuple):
    """The different n-grams of each of some captions."""

    owner: np.ndarray  # [T] the caption
    order: np.ndarray  # [T] 0 to 3
    gram: np.ndarray  # [T] the n-gram's number
    times: np.ndarray  # [T] how often the caption has it
    weight: np.ndarray  # [T] what CIDEr-D weighs it by


class Matches(NamedTuple):
    """Where n-grams of captions stand in the references of their images."""

    table: Counted
    lengths: np.ndarray  # [H] tokens of each caption
    which: np.ndarray  # [X] a row of the table
    references: np.ndarray  # [X] a reference that has it too
    times: np.ndarray  # [X] how often that has it


def cider_d(matches: Matches, lengths: np.ndarray, norms: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Average clipped cosines over orders and references, less for another length, times 10.

    Args:
        matches: What the captions share with the references.
        lengths: ``[R] int64``, tokens of each reference.
        norms: ``[R, 4] float64``, ``vector_norms`` of the references.
        against: ``[H] int64``, how many references each caption is held against.

    Returns:
        ``[H] float64``, from 0 to 10.
    """
    table, which, references = matches.table, matches.which, matches.references
    owner, order = table.owner[which], table.order[which]
    products = np.minimum(table.times[which], matches.times) * matches.times * table.weight[which] ** 2
    own_norms = vector_norms(table.owner, table.order, table.times * table.weight, len(against))
    both = own_norms[owner, order] * norms[references, order]
    longer = _pairs_in(matches.lengths)[owner] - _pairs_in(lengths)[references]
    shares = np.exp(-(longer**2) / (2 * SIGMA**2)) * products / np.where(both > 0, both, 1)
    return 10 / ORDERS * np.bincount(owner, weights=shares, minlength=len(against)) / against


def vector_norms(owner: np.ndarray, order: np.ndarray, values: np.ndarray, captions: int) -> np.ndarray:
    """Compute the length of each caption's vector of each order from its different n-grams: ``[captions, 4]``."""
    sums = np.bincount(owner * ORDERS + order, weights=values**2, minlength=captions * ORDERS)
    return np.sqrt(sums).reshape(-1, ORDERS)


def _pairs_in(lengths: np.ndarray) -> np.ndarray:
    """Count the pairs of tokens that captions have, which coco-caption takes for their lengths."""
    return np.maximum(lengths - 1, 0)
