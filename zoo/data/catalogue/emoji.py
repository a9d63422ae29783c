"""Which emoji the embedded data holds: Chinese names, base emoji, and the split that keeps relatives together; no I/O.

An image's name is the emoji's Chinese CLDR name. Package ``emoji`` writes CLDR's colon and brackets as an underscore;
they are put back: 宇航员_较浅肤色 becomes 宇航员：较浅肤色, 刚果_布 becomes 刚果（布）.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SPLITS = ("train", "valid", "test")

_JOINER, _VARIATION = "\u200d", "\ufe0f"
_SKIN_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")
_DROPPED_PARTS = frozenset("♀♂➡🦰🦱🦲🦳")  # joined to a person: gender, direction, hair
_ONE_PERSON = {
    "👨": "🧑",
    "👩": "🧑",
    "👦": "🧒",
    "👧": "🧒",
    "👴": "🧓",
    "👵": "🧓",
    "🤴": "🫅",
    "👸": "🫅",
    "🤰": "🫄",
    "🫃": "🫄",
}
# What Unicode writes as one emoji in one skin tone, and as a joined sequence in two, or in another gender.
_SAME_AS = {
    "🧑‍❤‍🧑": "💑",
    "🧑‍❤‍💋‍🧑": "💏",
    "🧑‍🐰‍🧑": "👯",
    "🧑‍🫯‍🧑": "🤼",
    "🫱‍🫲": "🤝",
    "👫": "🧑‍🤝‍🧑",
    "👬": "🧑‍🤝‍🧑",
    "👭": "🧑‍🤝‍🧑",
    "🎅": "🧑‍🎄",
    "🤶": "🧑‍🎄",
}
# A unit of more looks always trains, so that no one base makes up more than a tenth of a held-out split; the others
# are split size class by size class, so that the splits are alike.
_LARGEST_HELD_OUT = 39
_SIZE_CLASSES = (1, 6, _LARGEST_HELD_OUT)


@dataclass(frozen=True, slots=True)
class EmojiImage:
    """One emoji of the embedded data.

    Attributes:
        emoji: The fully qualified sequence.
        name: Its Chinese name.
        base: The base emoji it is a variant of, possibly itself.
        base_name: The base emoji's Chinese name.
    """

    emoji: str
    name: str
    base: str
    base_name: str

    @property
    def code(self) -> str:
        """Code points as OpenMoji names its files: ``1F469-200D-1F680``."""
        return code_points(self.emoji)


def code_points(emoji: str) -> str:
    """Code points in hexadecimal, joined by hyphens."""
    return "-".join(f"{ord(character):04X}" for character in emoji)


def chinese_name(short_name: str) -> str:
    """Package ``emoji``'s ``:宇航员_较浅肤色:`` as CLDR writes it: ``宇航员：较浅肤色``."""
    name = re.sub(r"_([\u4e00-\u9fff])$", r"（\1）", short_name.strip(":"))
    return name.replace("_", "：")


def base_emoji(emoji: str) -> str:
    """Give the emoji without skin tone, gender, hair, direction and variation selector.

    👨, 👩 and 🧑 are one, and so are boy, girl and child, the old, the crowned, the pregnant, Father and Mother
    Christmas; two people in whatever tones and genders are their common sign (👬 becomes 🧑‍🤝‍🧑, 👩🏽‍❤️‍👨🏿
    becomes 💑), and all families are 👪.
    """
    first, *rest = emoji.replace(_VARIATION, "").split(_JOINER)
    parts = [_SKIN_TONE.sub("", part) for part in (first, *(part for part in rest if part not in _DROPPED_PARTS))]
    parts = [_ONE_PERSON.get(part, part) for part in parts]
    if len(parts) > 1 and set(parts) <= {"🧑", "🧒"}:
        return "👪"
    base = _JOINER.join(parts)
    return _SAME_AS.get(base, base)


def list_images(names: Mapping[str, str]) -> list[EmojiImage]:
    """List all images, in an order that is fixed and mixes relatives.

    Args:
        names: Chinese names by fully qualified emoji.
    """
    by_bare_emoji = {emoji.replace(_VARIATION, ""): name for emoji, name in names.items()}
    images = [
        EmojiImage(emoji=emoji, name=name, base=base_emoji(emoji), base_name=by_bare_emoji[base_emoji(emoji)])
        for emoji, name in names.items()
    ]
    return sorted(images, key=lambda image: _hash(image.code))


def split_images(images: Iterable[EmojiImage], looks: Mapping[str, str]) -> dict[str, list[EmojiImage]]:
    """Split 80/10/10 (of what looks different, nearly) by base emoji, in the order given.

    Bases that share an image (the flags of Norway and of Svalbard) stay together too, so no image is in two splits.

    Args:
        images: What :func:`list_images` gives.
        looks: A hash of the rendered pixels by emoji.
    """
    images = list(images)
    units = _units(images, looks)
    looks_of: dict[str, set[str]] = defaultdict(set)
    for image in images:
        looks_of[units[image.base]].add(looks[image.emoji])
    sizes = {unit: len(different) for unit, different in looks_of.items()}
    share = sum(sizes.values()) / 10 / sum(size for size in sizes.values() if size <= _LARGEST_HELD_OUT)
    split_of = dict.fromkeys(sizes, "train")
    for smallest, largest in zip((0, *_SIZE_CLASSES), _SIZE_CLASSES, strict=False):
        members = sorted((unit for unit, size in sizes.items() if smallest < size <= largest), key=_hash)
        count = round(len(members) * share)
        split_of.update(dict.fromkeys(members[:count], "valid"))
        split_of.update(dict.fromkeys(members[count : 2 * count], "test"))
    splits: dict[str, list[EmojiImage]] = {split: [] for split in SPLITS}
    for image in images:
        splits[split_of[units[image.base]]].append(image)
    return splits


def _units(images: Iterable[EmojiImage], looks: Mapping[str, str]) -> dict[str, str]:
    """For each base the unit it is split with: the first, by code point, of the bases it is tied to by equal pixels."""
    bases_by_look: dict[str, set[str]] = defaultdict(set)
    unit: dict[str, str] = {}
    for image in images:
        bases_by_look[looks[image.emoji]].add(image.base)
        unit[image.base] = image.base
    for bases in bases_by_look.values():
        tied = {unit[base] for base in bases}
        if len(tied) > 1:
            unit = {base: min(tied) if name in tied else name for base, name in unit.items()}
    return unit


def _hash(text: str) -> str:
    return hashlib.sha256(f"zoo demo 1 {text}".encode()).hexdigest()
