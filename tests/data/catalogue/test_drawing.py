import re
from functools import cache

import numpy as np
import pytest

from zoo.data.catalogue.attributes import COLOURS, PATTERNS, Item
from zoo.data.catalogue.categories import CATEGORIES, render, svg
from zoo.data.catalogue.drawing.paths import ellipse, mirrored, points_on
from zoo.errors import UserError

SIZE = 48
FIELDS = {"服装", "鞋靴", "箱包", "饰品", "美妆", "家居", "数码", "食品"}


def variants(category):
    """One item for each colour, pattern, third second colour and detail of a category, with what it differs in."""
    for colour in category.colours:
        yield f"colour {colour}", Item(category.name, colour)
    for colour, pattern in dict((pattern, (colour, pattern)) for colour, pattern in category.looks()).values():
        yield f"pattern {pattern}", Item(category.name, colour, pattern)
    for colour in category.second_colours[::3]:
        if colour != category.colours[0]:
            yield f"second {colour}", Item(category.name, category.colours[0], second_colour=colour)
    for name, values in category.details.items():
        for value in values:
            yield f"{name} {value}", Item(category.name, category.colours[0], details={name: value})


@cache
def images(name):
    """One image for each item of :func:`variants`, all with one seed, as they differ in nothing else."""
    seed = list(CATEGORIES).index(name)
    return {what: render(item, seed, SIZE) for what, item in variants(CATEGORIES[name])}


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_attribute_is_drawn_whole_and_in_the_middle(name):
    for what, image in images(name).items():
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        inked = image.min(axis=2) < 250
        rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
        side = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.6 * SIZE <= side <= 0.9 * SIZE, what
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert edge.min() >= 250, what


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_attribute_is_seen(name):
    """Each value's image differs, in more than noise, from that of the item of which nothing is said."""
    category = CATEGORIES[name]
    unsaid = {f"colour {category.colours[0]}", "pattern 纯色"}
    unsaid |= {f"{detail} {values[0]}" for detail, values in category.details.items()}
    for what, item in variants(category):
        if what not in unsaid:
            base = images(name)[f"colour {category.colours[0] if item.pattern == '纯色' else item.colour}"]
            differs = np.abs(images(name)[what].astype(int) - base).max(axis=2) > 24
            assert differs.mean() > 0.003, what


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_second_colour_leaves_the_pattern_to_be_seen(name):
    category = CATEGORIES[name]
    pattern = category.patterns[-1]
    colour = next(colour for colour, its in category.looks() if its == pattern)
    second = next((other for other in category.second_colours if other != colour), None)
    for detail, values in category.details.items():
        for value in values:
            two = [Item(name, colour, its, second, {detail: value}) for its in ("纯色", pattern)]
            plain, patterned = (render(item, 1, SIZE).astype(int) for item in two)
            assert (np.abs(plain - patterned).max(axis=2) > 24).mean() > 0.01 or pattern == "纯色", value


def test_the_same_item_and_seed_give_the_same_bytes():
    item = Item("衬衫", "红色", "格子", "白色", {"袖长": "短袖"})
    assert svg(item, 3) == svg(item, 3)
    assert len({svg(item, seed) for seed in range(20)}) == 20
    assert (render(item, 3, SIZE) == render(item, 3, SIZE)).all()


def test_a_detail_left_out_is_the_first():
    assert svg(Item("衬衫", "红色"), 1) == svg(Item("衬衫", "红色", details={"口袋": "无口袋"}), 1)


def test_light_comes_from_the_upper_left_also_in_a_mirrored_image():
    for seed in range(6):
        image = render(Item("抱枕", "蓝色"), seed, 64).mean(axis=2)
        assert image[16:26, 16:26].mean() > image[40:50, 40:50].mean() + 15


def test_the_table_of_what_goes_together_is_sound():
    assert len(CATEGORIES) >= 40
    assert {category.field for category in CATEGORIES.values()} == FIELDS
    for name, category in CATEGORIES.items():
        assert set(category.colours) <= set(COLOURS), name
        assert set(category.patterns) <= set(PATTERNS), name
        assert set(category.second_colours) <= set(COLOURS), name
        assert "纯色" in category.patterns, name
        assert {pattern for _, pattern in category.looks()} == set(category.patterns), name
        assert all(len(set(values)) > 1 for values in category.details.values()), name
    words = [word for category in CATEGORIES.values() for word in (category.name, *category.synonyms)]
    assert len(set(words)) == len(words)
    assert {colour for category in CATEGORIES.values() for colour in category.colours} == set(COLOURS)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Item("飞船", "红色"), "category is 飞船"),
        (Item("苹果", "黑色"), "the colour of 苹果 is 黑色: give one of 红色, 绿色, 黄色"),
        (Item("口红", "红色", "牛仔"), "the pattern of 口红 is 牛仔"),
        (Item("长裤", "红色", "牛仔"), "the colour of 牛仔 is 红色"),
        (Item("苹果", "红色", second_colour="绿色"), "the second colour of 苹果 is 绿色: give one of none"),
        (Item("衬衫", "红色", second_colour="红色"), "the second colour of 衬衫 is 红色"),
        (Item("衬衫", "红色", details={"鞋跟": "细跟"}), "detail is 鞋跟: give one of 袖长, 口袋"),
        (Item("衬衫", "红色", details={"袖长": "七分"}), "衬衫's 袖长 is 七分: give one of 长袖, 短袖"),
    ],
)
def test_what_a_category_has_not_is_refused_by_name(item, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        svg(item, 0)


def test_paths():
    assert mirrored("M10,20 L-5,3.5 Z") == "M90.000,20.000 L105.000,3.500 Z"
    on_circle = list(points_on(ellipse(5, 5, 2)))
    assert len(on_circle) == 33
    assert all(abs((x - 5) ** 2 + (y - 5) ** 2 - 4) < 0.01 for x, y in on_circle)
