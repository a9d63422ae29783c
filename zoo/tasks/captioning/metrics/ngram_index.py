"""N-grams of captions as numbers, found for all captions at once; no torch."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from zoo.tasks.captioning.metrics.tokens import Tokens

ORDERS = 4  # n-grams of 1 to 4 tokens
KEY_SHIFT = 32  # an n-gram's key: the number of its first n - 1 tokens, then that of its last


class Ngrams(NamedTuple):
    """The M n-grams of some captions, order by order, in each as they stand."""

    owner: np.ndarray  # [M] int64, the caption
    order: np.ndarray  # [M] int64, 0 for single tokens, to 3
    gram: np.ndarray  # [M] int64, the n-gram's number: below the index's size, or above for one that it does not have
    lengths: np.ndarray  # [C] int64, each caption's tokens


class NgramIndex:
    """Numbers for the n-grams of 1 to 4 tokens that some captions have; made by ``of``.

    An n-gram's key is the number of its first n - 1 tokens and that of its last, so that each order is one sorted
    array of keys, searched for all captions at once.

    Args:
        vocabulary: Each token's number.
        keys: Of n-grams of 2, 3 and 4 tokens, sorted; an index is a number.
    """

    def __init__(self, vocabulary: dict[str, int], keys: list[np.ndarray]) -> None:
        self.vocabulary = vocabulary
        self.keys = keys
        self.sizes = [len(vocabulary), *map(len, keys)]
        self.offsets = np.cumsum([0, *self.sizes])  # [5]: the first number of each order, and the size

    @property
    def size(self) -> int:
        """How many n-grams it has."""
        return int(self.offsets[-1])

    @classmethod
    def of(cls, captions: Sequence[Tokens]) -> tuple["NgramIndex", Ngrams]:
        """Make the index of the captions' n-grams, and give these by number."""
        vocabulary: dict[str, int] = {}
        numbers = [vocabulary.setdefault(token, len(vocabulary)) for token in chain.from_iterable(captions)]
        keys: list[np.ndarray] = []

        def number(order: int, wanted: np.ndarray) -> np.ndarray:
            unique, inverse = np.unique(wanted, return_inverse=True)
            keys.append(unique)
            return inverse

        lengths = _lengths(captions)
        parts = _walk(np.array(numbers, dtype=np.int64), lengths, number)
        index = cls(vocabulary, keys)
        return index, index._joined(parts, lengths)

    def encode(self, captions: Sequence[Tokens]) -> Ngrams:
        """Number the captions' n-grams; those that the index lacks have numbers from its size up, equal if alike."""
        known, strangers = self.vocabulary, dict[str, int]()
        tokens = list(chain.from_iterable(captions))
        for token in tokens:
            if token not in known:
                strangers.setdefault(token, len(known) + len(strangers))
        numbers = [known[token] if token in known else strangers[token] for token in tokens]
        lengths = _lengths(captions)
        parts = _walk(np.array(numbers, dtype=np.int64), lengths, lambda order, keys: _find(self.keys[order - 1], keys))
        return self._joined(parts, lengths)

    def _joined(self, parts: list[tuple[np.ndarray, np.ndarray]], lengths: np.ndarray) -> Ngrams:
        """Join the n-grams of all orders, numbered through: first those of the index, then those that it lacks."""
        following, grams = self.size, []
        for (_, numbers), offset, size in zip(parts, self.offsets, self.sizes, strict=False):
            grams.append(np.where(numbers < size, numbers + offset, numbers - size + following))
            following += max(int(numbers.max(initial=-1)) + 1 - size, 0)
        return Ngrams(
            owner=np.concatenate([owners for owners, _ in parts]),
            order=np.repeat(np.arange(ORDERS), [len(owners) for owners, _ in parts]),
            gram=np.concatenate(grams),
            lengths=lengths,
        )


def _walk(
    numbers: np.ndarray, lengths: np.ndarray, number: Callable[[int, np.ndarray], np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the owners and the numbers within their order of the n-grams of each order.

    Args:
        numbers: ``[T]``, the captions' tokens by number, one caption after the other.
        lengths: ``[C]``, the tokens of each.
        number: Gives keys of an order (1 for pairs, to 3) their numbers.
    """
    owners = np.repeat(np.arange(len(lengths)), lengths)  # [T]
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(numbers))  # [T]: tokens to the caption's end
    parts, grams = [(owners, numbers)], numbers
    for order in range(1, ORDERS):
        indices = np.flatnonzero(left > order)
        found = number(order, (grams[indices] << KEY_SHIFT) | numbers[indices + order])
        parts.append((owners[indices], found))
        grams = np.full_like(numbers, -1)
        grams[indices] = found
    return parts


def _find(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Find the indices of keys in a sorted table; keys that it lacks get numbers from its length up."""
    unique, inverse = np.unique(keys, return_inverse=True)
    indices = np.searchsorted(table, unique)
    lacking = indices == len(table)
    lacking[~lacking] = table[indices[~lacking]] != unique[~lacking]
    indices[lacking] = len(table) + np.arange(np.count_nonzero(lacking))
    return indices[inverse]


def _lengths(captions: Sequence[Tokens]) -> np.ndarray:
    return np.fromiter(map(len, captions), dtype=np.int64, count=len(captions))
