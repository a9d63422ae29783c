"""Which products there are: split so that a test asks for known words in combinations that no training image has."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from zoo.data.catalogue.attributes import PATTERNS, Item
from zoo.data.catalogue.categories import CATEGORIES

PLAIN = "纯色"
Pair = tuple[str, str]  # two of a category, a colour and a pattern, in that order

# Of the pairs that a product can have, the share that only a split's own images have.
HELD_OUT = {"test": 0.12, "valid": 0.08}
NEW = 0.6  # share of the products of valid and test that have such a pair
TWO_COLOURS = 0.15  # share of the products whose category may have a second colour that have one


@dataclass(frozen=True)
class Product:
    """One product of the catalogue.

    Attributes:
        id: Its number, in all splits.
        item: What is to be seen.
        seed: Of how it is drawn, named and priced.
        new: Whether it has a pair that no training image has.
    """

    id: int
    item: Item
    seed: int
    new: bool

    @property
    def attributes(self) -> dict[str, str]:
        """What is to be seen, by kind: 类别, 颜色, 图案, 拼色 where there is one, and the category's own."""
        item = self.item
        second = {} if item.second_colour is None else {"拼色": item.second_colour}
        return {"类别": item.category, "颜色": item.colour, "图案": item.pattern, **second, **item.details}


def pairs(item: Item) -> set[Pair]:
    """Give the pairs of an item: of its category, each of its colours, and its pattern where it has one."""
    found: set[Pair] = set()
    for colour in (item.colour, *([item.second_colour] if item.second_colour else [])):
        words = [item.category, colour] + ([] if item.pattern == PLAIN else [item.pattern])
        found |= set(combinations(words, 2))
    return found


@cache
def held_out() -> Mapping[str, frozenset[Pair]]:
    """Give the pairs that only one split's images and texts have: ``valid``'s and ``test``'s, without overlap.

    A category keeps three quarters of its colours and patterns for training, and a pattern of its colours.
    """
    source = random.Random("held out")
    groups = [[(name, colour) for colour in category.colours] for name, category in CATEGORIES.items()]
    groups += [[(name, its) for its in category.patterns if its != PLAIN] for name, category in CATEGORIES.items()]
    groups += [[(colour, name) for colour in its.colours] for name, its in PATTERNS.items() if name != PLAIN]
    found: dict[str, set[Pair]] = {split: set() for split in HELD_OUT}
    for group in groups:
        left = source.sample(group, len(group))
        for split, share in HELD_OUT.items():
            count = min(len(group) // 4, max(1, round(share * len(group)))) if len(group) >= 4 else 0
            found[split] |= set(left[:count])
            left = left[count:]
    return {split: frozenset(kept) for split, kept in found.items()}


def draw_products(split: str, count: int, first_id: int) -> list[Product]:
    """Draw the products of a split: the scorer's of all that there are, others without what another split keeps.

    Args:
        split: ``train``, ``valid``, ``test``, or one of the scorer's.
        count: How many.
        first_id: The first one's id.
    """
    source = random.Random(f"products of {split}")
    kept = {} if split.startswith("scorer") else dict(held_out())
    own = kept.pop(split, frozenset())
    elsewhere = frozenset().union(*kept.values())
    found: list[Product] = []
    while len(found) < count:
        wants_new = bool(own) and source.random() < NEW
        item = draw_item(source)
        while pairs(item) & elsewhere or bool(pairs(item) & own) != wants_new:
            item = draw_item(source)
        found.append(Product(first_id + len(found), item, source.getrandbits(32), wants_new))
    return found


def draw_item(source: random.Random) -> Item:
    """Draw any item that can be: first its category, then a pattern and colours that go with it and with each other."""
    category = CATEGORIES[source.choice([*CATEGORIES])]
    pattern = source.choice(category.patterns)
    colour = source.choice([colour for colour in category.colours if colour in PATTERNS[pattern].colours])
    second = None
    if category.second_colours and source.random() < TWO_COLOURS:
        second = source.choice([other for other in category.second_colours if other != colour])
    details = {name: source.choice(values) for name, values in category.details.items()}
    return Item(category.name, colour, pattern, second, details)
