"""Splits measure composition: what is held out, and what queries ask for."""

from collections import Counter
from itertools import combinations

import pytest

from zoo.data.catalogue import texts
from zoo.data.catalogue.attributes import COLOURS, PATTERNS, Item
from zoo.data.catalogue.categories import CATEGORIES
from zoo.data.catalogue.products import HELD_OUT, PLAIN, draw_products, held_out, pairs
from zoo.data.catalogue.queries import make_queries


def test_the_pairs_of_an_item():
    item = Item("连衣裙", "红色", "碎花", second_colour="白色", details={"袖长": "长袖"})
    assert pairs(item) == {
        ("连衣裙", "红色"),
        ("连衣裙", "白色"),
        ("连衣裙", "碎花"),
        ("红色", "碎花"),
        ("白色", "碎花"),
    }
    assert pairs(Item("连衣裙", "红色")) == {("连衣裙", "红色")}


def test_no_split_has_a_pair_that_is_kept_for_another():
    """Brute force over what each product shows."""
    kept = held_out()
    assert kept.keys() == HELD_OUT.keys()
    assert not kept["valid"] & kept["test"]
    for split in ("train", "valid", "test"):
        elsewhere = set().union(*(pairs for other, pairs in kept.items() if other != split))
        for product in draw_products(split, 400, 1):
            values = [*product.attributes.values()]
            shown = {pair for two in combinations(values, 2) for pair in (two, two[::-1])}
            assert not shown & elsewhere
            assert product.new == bool(shown & kept.get(split, set()))


def test_training_knows_every_word_in_other_company():
    products = draw_products("train", 4000, 1)
    assert {product.item.category for product in products} == set(CATEGORIES)
    assert {product.item.colour for product in products} == set(COLOURS)
    assert {product.item.pattern for product in products} == set(PATTERNS)
    partners = Counter(pair[0] for pair in {pair for product in products for pair in pairs(product.item)})
    assert min(partners.values()) >= 2


def test_most_of_a_tests_products_are_new():
    for split in HELD_OUT:
        share = sum(product.new for product in draw_products(split, 500, 1)) / 500
        assert 0.5 < share < 0.7


def test_a_split_is_the_same_whatever_else_is_drawn():
    assert draw_products("test", 30, 7) == draw_products("test", 50, 7)[:30]
    assert draw_products("test", 30, 7) != draw_products("valid", 30, 7)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_query_has_every_image_that_shows_what_it_asks_for(split, monkeypatch):
    """Its words are read back, by a search of their own over all products."""
    asked = []
    monkeypatch.setattr(texts, "query", lambda wanted, source: asked.append(wanted) or f"{len(asked)}")
    products = draw_products(split, 600, 1)
    queries = make_queries(products, 0 if split == "train" else 200, 9000, split, set())
    if split == "train":
        assert 3 * 600 <= sum(len(query.item_ids) for query in queries) < 3 * 600 + 12
    else:
        assert len(queries) == 200
    kept = held_out().get(split, set())
    for query in queries:
        wanted = asked[int(query.text) - 1].items()
        found = [product.id for product in products if wanted <= product.attributes.items()]
        assert list(query.item_ids) == found
        assert 1 <= len(query.item_ids) <= (12 if split == "train" else 40)
        named = set(dict(wanted).values())
        new = any({*pair} <= named for pair in kept)
        assert query.kind == (None if split == "train" else "new" if new else "seen")
    if split == "test":
        assert 0.3 < sum(query.kind == "new" for query in queries) / 200 < 0.7


def test_a_word_means_one_value():
    """Of one kind: 银色 is a colour and no pattern; a category's other name is no other category's."""
    kinds = {"类别": CATEGORIES, "颜色": COLOURS, "图案": PATTERNS}
    words = [(word, value) for kind, values in kinds.items() for value in values for word in texts.ways(kind, value)]
    details = {
        (name, value)
        for category in CATEGORIES.values()
        for name, values in category.details.items()
        for value in values
    }
    words += [(word, value) for name, value in details for word in texts.ways(name, value)]
    meanings = {}
    for word, value in words:
        meanings.setdefault(word, set()).add(value)
    assert {word: values for word, values in meanings.items() if len(values) > 1} == {}
    assert {PLAIN} <= texts.UNSAID
