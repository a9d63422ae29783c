"""What is to be seen in images, where a folder says it: attributes by image, and the words for their values; no torch.

Beside a split's files lie ``attributes_SPLIT.jsonl``, with a line for each image, ``{"image_id": …, "attributes":
{"颜色": "红色", …}}``; and ``attributes.json``, ``{"words": {"颜色": {"红色": ["红色", "大红"], …}, …}, "unsaid":
["纯色", …]}``: all words for each value, and the values that nobody is expected to say.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.formats import id_errors, is_unicode
from zoo.data.json_values import shown as shown_json
from zoo.data.lines import Found, Id, LineReader
from zoo.errors import FileError
from zoo.io import read_json, write_json_lines, write_text

Attributes = Mapping[str, str]  # by kind
Mentions = list[list[tuple[str, str]]]  # for each word of a text all kinds and values that it may mean
WORDS = "attributes.json"
DETAILS = "details"  # the kinds that few images show, where scores are by kind


class Said(NamedTuple):
    """What a text says of an image.

    Attributes:
        words: How many of its words name a value.
        right: How many of them name a value that the image shows.
        values: Those values.
        contradicts: Whether a word that is not right is of a kind of which the image shows another value.
    """

    words: int
    right: int
    values: frozenset[str]
    contradicts: bool


class Vocabulary:
    """The words for the values of attributes.

    Args:
        words: All words for each value, by kind.
        unsaid: Values that need not be said: what is plain, or lacks something.
    """

    def __init__(self, words: Mapping[str, Mapping[str, Collection[str]]], unsaid: Collection[str] = ()) -> None:
        self.unsaid = frozenset(unsaid)
        self.meanings: dict[str, list[tuple[str, str]]] = {}
        for kind, values in words.items():
            for value, its_words in values.items():
                for word in its_words:
                    self.meanings.setdefault(word, []).append((kind, value))
        longest_first = sorted(self.meanings, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def mentions(self, text: str) -> Mentions:
        """Find the words in a text, the longest at each place; for each all kinds and values that it may mean."""
        return [self.meanings[found[0]] for found in self.pattern.finditer(text)]


class Shown(NamedTuple):
    """What the images of a split show.

    Attributes:
        attributes: Of each image.
        vocabulary: The words for their values.
    """

    attributes: list[Attributes]
    vocabulary: Vocabulary


def said_in(mentions: Mentions, shown: Attributes) -> Said:
    """Hold a text's words, as ``Vocabulary.mentions`` gives them, against what an image shows."""
    values = set(shown.values())
    right = [{value for _, value in meanings} & values for meanings in mentions]
    wrong = [meanings for meanings, found in zip(mentions, right, strict=True) if not found]
    return Said(
        words=len(mentions),
        right=sum(map(bool, right)),
        values=frozenset().union(*right),
        contradicts=any(kind in shown for meanings in wrong for kind, _ in meanings),
    )


def attributes_path(folder: Path, split: str) -> Path:
    """Give the path of what is to be seen in the images of a split."""
    return folder / f"attributes_{split}.jsonl"


def attributes_errors(record: dict[str, Any], id_type: type[Id]) -> Found:
    """Find what is wrong with the line of an image."""
    yield from id_errors(record, "image_id", id_type)
    found = record.get("attributes")
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        yield "wrong_type", f'attributes is {shown_json(found)}; write what the image shows: {{"KIND": "VALUE", …}}'
    elif not is_unicode("".join([*found, *found.values()])):
        yield "not_utf8", "attributes has half of a surrogate pair (\\ud800 to \\udfff); write the whole character"


def read_attributes(folder: Path, split: str) -> dict[Id, Attributes] | None:
    """Read what is to be seen in the images of a split, by their ids; None: the folder does not say.

    Raises:
        FileError: A line is not as it must be, or an id comes twice.
    """
    path = attributes_path(folder, split)
    if not path.is_file():
        return None
    reader = LineReader(path, noun="image")
    found: dict[Id, Attributes] = {}
    for line, told, record in reader.records():
        reader.report_all(attributes_errors(record, int if isinstance(told, int) else str), line, told)
        reader.claim(line, record["image_id"])
        found[record["image_id"]] = record["attributes"]
    return found


def read_shown(folder: Path, split: str, ids: Sequence[Id]) -> Shown | None:
    """Read what is to be seen in each image of a split, and the words for it; None: the folder does not say.

    Args:
        folder: The task's.
        split: The split.
        ids: Its images.

    Raises:
        FileError: A file is not as it must be, or an image has no line.
    """
    found = read_attributes(folder, split)
    if found is None:
        return None
    lacking = [id_ for id_ in ids if id_ not in found]
    if lacking:
        message = f"{len(lacking)} images have no line, {lacking[0]} the first: add them"
        raise FileError(message, file=attributes_path(folder, split))
    return Shown([found[id_] for id_ in ids], read_vocabulary(folder))


def common_kinds(shown: Sequence[Attributes]) -> list[str]:
    """Name the kinds that at least half of the images show, the most frequent first: those worth a score each."""
    counts = Counter(kind for attributes in shown for kind in attributes)
    return [kind for kind, count in counts.most_common() if 2 * count >= len(shown)]


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the words for the values of a folder's attributes.

    Raises:
        FileError: There is no such file, or it is not as it must be.
    """
    path = folder / WORDS
    try:
        contents = read_json(path)
        return Vocabulary(contents["words"], contents["unsaid"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        message = 'is not there, or of another form; write {"words": {"KIND": {"VALUE": ["WORD", …]}}, "unsaid": []}'
        raise FileError(message, file=path, kind="wrong_type") from None


def write_attributes(folder: Path, split: str, attributes: Iterable[tuple[Id, Attributes]]) -> None:
    """Write what is to be seen in the images of a split, atomically."""
    records = ({"image_id": id_, "attributes": dict(seen)} for id_, seen in attributes)
    write_json_lines(attributes_path(folder, split), records)


def write_vocabulary(folder: Path, words: Mapping[str, Mapping[str, Collection[str]]], unsaid: Iterable[str]) -> None:
    """Write the words for the values of a folder's attributes, atomically."""
    listed = {kind: {value: list(its) for value, its in values.items()} for kind, values in words.items()}
    write_text(folder / WORDS, json.dumps({"words": listed, "unsaid": sorted(unsaid)}, ensure_ascii=False) + "\n")
