"""Which rows are to train on, which to validate and which to test, with no image and no text in two; no torch."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.data.layouts import SPLITS
from zoo.errors import FileError, UserError


class Pair(NamedTuple):
    """A row whose image has been read."""

    line: int  # of the table
    image: str  # the digest of its file: one image under two names is one
    name: str
    text: str
    split: str | None


def split_by_shares(
    pairs: Sequence[Pair], *, labels: bool = False, valid: float, test: float, seed: int, notes: list[str]
) -> dict[str, list[Pair]]:
    """Assign images to splits by a hash of what they are; those tied by a text they share go together.

    Groups of tied images come in the order of a hash of seed and digest, whatever that of the rows, and each goes to
    the first of test and valid that lacks as many images, else to train: so shares are met to the image unless
    ties are larger than what they ask for.

    Args:
        pairs: The rows.
        labels: Whether texts are labels, which tie no images.
        valid: The share of the images to validate on, 0 to 1.
        test: The share of the images to test on, 0 to 1.
        seed: Another seed gives other splits.
        notes: Where it is said that ties leave a split smaller than was asked for, with the figures.

    Returns:
        The rows of each split, in their order.

    Raises:
        UserError: Nothing is left to train on.
    """
    groups = [[image] for image in dict.fromkeys(pair.image for pair in pairs)] if labels else _groups(pairs)
    num_images = sum(map(len, groups))
    wanted = {
        split: max(1, round(share * num_images)) if share else 0 for split, share in (("test", test), ("valid", valid))
    }
    left = dict(wanted)
    split_of: dict[str, str] = {}
    for group in sorted(groups, key=lambda group: _hash(seed, min(group))):
        split = next((name for name in left if len(group) <= left[name]), "train")
        if split != "train":
            left[split] -= len(group)
        split_of |= dict.fromkeys(group, split)
    if "train" not in split_of.values():
        raise UserError(
            f"{num_images} images cannot be split by --valid {valid} --test {test}: nothing is left to train on."
            " Ask for less, or give the table a column of splits."
        )
    for split in ("valid", "test"):
        if left[split] > max(1, wanted[split] // 10) or left[split] == wanted[split] > 0:
            got = wanted[split] - left[split]
            notes.append(f"{split} has {got:,} of the {wanted[split]:,} images asked for. {_tie(groups, pairs)}")
    return {split: [pair for pair in pairs if split_of[pair.image] == split] for split in SPLITS}


def split_by_column(
    pairs: Sequence[Pair], errors: list[FileError], *, joined: bool, labels: bool = False, table: Path
) -> dict[str, list[Pair]]:
    """Take the splits that the table names.

    Args:
        pairs: The rows.
        errors: Where rows are listed whose image or text is in valid or test too; those are left out.
        joined: Whether the texts of an image are one line of references, which counts as the text then: one slogan
            fits several products.
        labels: Whether texts are labels, which images of all splits share.
        table: The table, for the errors.

    Returns:
        The rows of each split, in their order.
    """
    references = defaultdict(set)
    for pair in pairs if joined else ():
        references[pair.split, pair.image].add(pair.text)
    lists = {key: frozenset(texts) for key, texts in references.items()}

    def image(pair: Pair) -> Hashable:
        return pair.image

    def text(pair: Pair) -> Hashable:
        return lists[pair.split, pair.image] if joined else pair.text

    leaks = _leaks(pairs, image, "image") | ({} if labels else _leaks(pairs, text, "text"))
    for index, message in sorted(leaks.items()):
        errors.append(FileError(message, file=table, line=pairs[index].line))
    kept = [pair for index, pair in enumerate(pairs) if index not in leaks]
    return {split: [pair for pair in kept if pair.split == split] for split in SPLITS}


def _leaks(pairs: Sequence[Pair], key: Callable[[Pair], Hashable], what: str) -> dict[int, str]:
    """Find the indices of rows that a later split has too, and what to say of them."""
    last: dict[Hashable, Pair] = {}
    for pair in pairs:
        there = last.setdefault(key(pair), pair)
        if SPLITS.index(str(pair.split)) > SPLITS.index(str(there.split)):
            last[key(pair)] = pair
    return {
        index: f"this {what} is in {there.split} too (line {there.line}, {there.name}), here in {pair.split}; take one"
        " out: scores would be of what was trained on"
        for index, pair in enumerate(pairs)
        if (there := last[key(pair)]).split != pair.split
    }


def _groups(pairs: Iterable[Pair]) -> list[list[str]]:
    """Images that texts tie together, directly or by way of others: the connected parts of images and texts."""
    nodes: dict[tuple[str, str], int] = {}
    parents: list[int] = []

    def root(key: tuple[str, str]) -> int:
        node = nodes.setdefault(key, len(nodes))
        if node == len(parents):
            parents.append(node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]  # halves the path for the next
            node = parents[node]
        return node

    for pair in pairs:
        one, other = root(("image", pair.image)), root(("text", pair.text))
        parents[max(one, other)] = min(one, other)
    groups = defaultdict(list)
    for kind, name in list(nodes):
        if kind == "image":
            groups[root((kind, name))].append(name)
    return list(groups.values())


def _tie(groups: list[list[str]], pairs: Iterable[Pair]) -> str:
    """Say what ties the most images together, and what to do."""
    group = max(groups, key=len)
    largest = set(group)
    tied = {(pair.image, pair.text): pair for pair in pairs if pair.image in largest}.values()
    text, num_images = Counter(pair.text for pair in tied).most_common(1)[0]
    image, num_texts = Counter(pair.image for pair in tied).most_common(1)[0]
    name = next(pair.name for pair in tied if pair.image == image)
    return (
        f"{len(largest):,} of all {sum(map(len, groups)):,} hang together by texts they share and go to one split:"
        f" {num_images:,} have the text {text[:40]!r}, and {name} has {num_texts:,} texts."
        " Take out what says little, or give the table a column of splits."
    )


def _hash(seed: int, image: str) -> bytes:
    return hashlib.blake2b(f"{seed} {image}".encode(), digest_size=16).digest()
