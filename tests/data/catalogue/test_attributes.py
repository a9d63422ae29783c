import math
import random

import pytest

from zoo.data.catalogue.attributes import COLOURS, PATTERNS
from zoo.data.catalogue.drawing.tones import jittered, lab, to_hex, tones

JITTERED = {
    name: [lab(jittered(colour.hex, random.Random(seed))) for seed in range(40)] for name, colour in COLOURS.items()
}


def test_sixteen_colours_are_20_apart_in_cie76_after_jitter():
    assert len(COLOURS) == 16
    near = {
        (one, other): distance
        for one, ones in JITTERED.items()
        for other, others in JITTERED.items()
        if one < other and (distance := min(math.dist(a, b) for a in ones for b in others)) < 20
    }
    assert not near


def test_jitter_moves_a_colour_and_stays_near_it():
    for name, colours in JITTERED.items():
        distances = [math.dist(lab(COLOURS[name].hex), colour) for colour in colours]
        assert 0.5 < max(distances) < 10


def test_lab_is_what_it_is_known_to_be():
    assert lab("#ff0000") == pytest.approx((53.24, 80.09, 67.20), abs=0.05)
    assert lab("#ffffff") == pytest.approx((100, 0, 0), abs=0.05)
    assert all(to_hex(lab(colour)) == colour for colour in ("#000000", "#123456", "#fedcba", "#20ff01"))


def test_tones_are_lit_and_outlined_in_the_own_hue():
    for colour in COLOURS.values():
        mixed = tones(colour.hex)
        light, base, shade, outline = (lab(tone)[0] for tone in (mixed.light, mixed.base, mixed.shade, mixed.outline))
        assert light > shade
        assert base > shade > outline
        assert abs(lab(mixed.seam)[0] - base) > 15


def test_ten_patterns_are_each_seen_in_two_colours_and_more():
    assert len(PATTERNS) == 10
    assert all(len(pattern.colours) >= 2 and set(pattern.colours) <= set(COLOURS) for pattern in PATTERNS.values())


@pytest.mark.parametrize("table", [COLOURS, PATTERNS])
def test_no_two_are_called_the_same(table):
    words = [word for entry in table.values() for word in (entry.name, *entry.synonyms)]
    assert len(set(words)) == len(words)
