"""What a table's rows say that images show, gathered by image and written beside the splits' files; no torch."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zoo.data.attributes import Attributes, write_attributes, write_vocabulary
from zoo.data.convert.columns import Row
from zoo.data.convert.splits import Pair
from zoo.data.lines import Id


class TableAttributes:
    """The attributes of images, each said by one row of the image or more.

    Args:
        kinds: The columns that say them.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = kinds
        self._said: dict[str, dict[str, tuple[str, int]]] = defaultdict(dict)  # value and line, by digest and kind

    def add(self, image: str, row: Row) -> str:
        """Take in what a row says of an image.

        Args:
            image: The image's digest.
            row: The row.

        Returns:
            How it contradicts an earlier row, and is not taken in; empty where it does not.
        """
        known = self._said[image]
        for kind, value in row.attributes.items():
            other, line = known.get(kind, (value, row.line))
            if value != other:
                there = f"{other!r} on line {line}, which is of this image too"
                return f"{row.image}: {kind!r} is {value!r}, but {there}; write one of the two, or leave one cell empty"
        for kind, value in row.attributes.items():
            known.setdefault(kind, (value, row.line))
        return ""

    def write(self, folder: Path, splits: Mapping[str, Sequence[Pair]], ids: Iterable[tuple[Id, str]]) -> None:
        """Write a line for each image of each split, and each value as the one word for itself.

        Args:
            folder: Where to.
            splits: The pairs of each split; no image is in two.
            ids: The id of each image, with its digest.
        """
        split_of = {pair.image: split for split, pairs in splits.items() for pair in pairs}
        shown: dict[str, dict[Id, Attributes]] = {split: {} for split in splits}
        words: dict[str, dict[str, list[str]]] = {kind: {} for kind in self.kinds}
        for id_, digest in ids:
            said = self._said[digest]
            attributes = {kind: said[kind][0] for kind in self.kinds if kind in said}
            shown[split_of[digest]][id_] = attributes
            for kind, value in attributes.items():
                words[kind][value] = [value]
        for split, of_images in shown.items():
            write_attributes(folder, split, of_images.items())
        write_vocabulary(folder, words, unsaid=())
