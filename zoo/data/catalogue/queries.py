"""What people ask the catalogue for: some attributes of a product, and every image that shows them."""

import random
from collections.abc import Sequence, Set

from zoo.data.catalogue import texts
from zoo.data.catalogue.products import Pair, Product, held_out, pairs
from zoo.data.formats import Query

PAIRS = 3  # of a query and an image, for each image that is trained on
MOST_RELEVANT = 40  # images of a query to score on: one that has more says too little
MOST_TRAINED = 12  # images of a query to train on


def make_queries(products: Sequence[Product], count: int, first_id: int, split: str, taken: set[str]) -> list[Query]:
    """Make the queries of a split: each asks for some attributes and has all images that show them.

    Args:
        products: The split's.
        count: How many, fewer where the products run out of different ones; 0: as many as make ``PAIRS`` pairs of a
            query and an image for each image.
        first_id: The first one's id.
        split: Its name.
        taken: The texts that there are already, in any split; the queries' own are added.
    """
    source = random.Random(f"queries of {split}")
    by_value: dict[tuple[str, str, str], set[int]] = {}  # of a category: the category is always asked for
    for product in products:
        for attribute in product.attributes.items():
            by_value.setdefault((product.item.category, *attribute), set()).add(product.id)
    own = held_out().get(split, frozenset())
    queries: list[Query] = []
    most = MOST_RELEVANT if count else MOST_TRAINED
    found = 0  # pairs
    for _ in range(20 * len(products)):
        if (len(queries) == count) if count else (found >= PAIRS * len(products)):
            break
        product = source.choice(products)
        category = product.item.category
        asked, relevant = {"类别": category}, by_value[category, "类别", category]
        wanted = source.choice((1, 2, 2, 3, 3, 3))
        for attribute in attributes_to_ask(product, own, source):
            if len(asked) >= wanted and len(relevant) <= most:
                break
            showing = by_value[(category, *attribute)]
            relevant = showing if len(asked) == 1 else relevant & showing
            asked |= [attribute]
        text = texts.query(asked, source)
        if len(relevant) > most or text in taken:
            continue
        named = {asked[kind] for kind in ("类别", "颜色", "拼色", "图案") if kind in asked}
        kind = None if not own else "new" if any({*pair} <= named for pair in own) else "seen"
        taken.add(text)
        queries.append(Query(first_id + len(queries), text, tuple(sorted(relevant)), kind=kind))
        found += len(relevant)
    return queries


def attributes_to_ask(product: Product, own: Set[Pair], source: random.Random) -> list[tuple[str, str]]:
    """Give what may be asked of a product beside its category, what makes it new mostly before the rest.

    Args:
        product: The product.
        own: The pairs that only its split has.
        source: Of the order.
    """
    known = [
        (kind, value) for kind, value in product.attributes.items() if kind != "类别" and value not in texts.UNSAID
    ]
    source.shuffle(known)
    new = sorted(pairs(product.item) & own)
    first = source.choice(new) if new and source.random() < 0.8 else ()
    return sorted(known, key=lambda attribute: attribute[1] not in first)
