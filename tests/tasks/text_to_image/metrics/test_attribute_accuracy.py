"""Attribute accuracy and mismatched prompts, on a catalogue's images and by features that anybody can compute."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from zoo.data.attributes import DETAILS, Shown, Vocabulary, said_in
from zoo.data.catalogue import texts
from zoo.data.catalogue.categories import render
from zoo.data.catalogue.products import draw_products
from zoo.data.images import resize
from zoo.tasks.text_to_image.contracts import GenerationTargets
from zoo.tasks.text_to_image.metrics.attribute_accuracy import (
    AttributeAccuracy,
    Probes,
    _fit,
    asked_for,
    attribute_scores,
)
from zoo.tasks.text_to_image.metrics.r_precision import draw_distractors, mismatched_prompts

CATEGORIES = ("连衣裙", "手机壳", "杯子", "双肩包")
COLOURS = ("红色", "蓝色", "绿色", "黄色")


def images(count, split="scorer", **changes):
    """Plain products of a few categories and colours: features (8 × 8 pixels), and what they show."""
    drawn = itertools.cycle(draw_products(split, 4000, 0))
    wanted = (
        each
        for each in drawn
        if each.item.category in CATEGORIES and each.item.colour in COLOURS and not each.item.second_colour
    )
    pixels, shown = [], []
    for product in itertools.islice(wanted, count):
        item = replace(product.item, pattern="纯色", **changes)
        pixels.append(resize(render(item, product.seed, 32), 8))
        shown.append(replace(product, item=replace(product.item, pattern="纯色")).attributes)
    return torch.from_numpy(np.stack(pixels)).flatten(1).float(), shown


@pytest.fixture(scope="module")
def probes():
    return Probes(*images(240))


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(texts.words(), texts.UNSAID)


def accuracy(probes, features, asked):
    metric = AttributeAccuracy(probes)
    metric.update(features, asked)
    return {name: float(value) for name, value in metric.compute().items()}


def test_it_is_the_share_of_what_was_asked_for(probes):
    features, shown = images(60, "scorer_test")
    asked = [
        {kind: value for kind, value in each.items() if place % 3 or kind != "颜色"} for place, each in enumerate(shown)
    ]
    metric = AttributeAccuracy(probes)
    for part in (slice(0, 25), slice(25, 60)):
        metric.update(features[part], asked[part])
    found = {name: float(value) for name, value in metric.compute().items()}
    seen = probes.see(features)
    right: dict[str, list[bool]] = {}
    for own, wanted in zip(seen, asked, strict=True):
        for kind, value in wanted.items():
            if value in probes.values.get(kind, []):
                right.setdefault(kind if kind in probes.common else DETAILS, []).append(own[kind] == value)
    for kind, hits in right.items():
        assert found[kind] == pytest.approx(100 * sum(hits) / len(hits)), kind
    everything = [hit for hits in right.values() for hit in hits]
    assert found["all"] == pytest.approx(100 * sum(everything) / len(everything))
    assert set(probes.common) >= {"类别", "颜色"}


def test_it_falls_where_images_are_of_another_colour_another_category_or_another_prompt(probes, vocabulary):
    features, shown = images(60, "scorer_test")
    own = accuracy(probes, features, shown)
    assert own["类别"] > 90
    assert own["颜色"] > 90
    recoloured = accuracy(probes, images(60, "scorer_test", colour="蓝色")[0], shown)
    blue = np.mean([100 * (each["颜色"] == "蓝色") for each in shown])
    assert recoloured["颜色"] == pytest.approx(blue, abs=10)
    assert recoloured["类别"] > 85
    other = accuracy(probes, images(60, "scorer_test", category="手机壳", details={})[0], shown)
    assert other["类别"] == pytest.approx(np.mean([100 * (each["类别"] == "手机壳") for each in shown]), abs=10)
    prompts = [" ".join(each.values()) for each in shown]  # they say all of it
    scores = attribute_scores(probes, prompts, Shown(shown, vocabulary), torch.arange(60), features, features)
    assert scores["attribute_accuracy"] == scores["attribute_accuracy_true"] == own["all"]
    assert scores["attribute_accuracy_shuffled"] < 50 < scores["attribute_accuracy/颜色"]


def test_features_are_brought_to_mean_0_and_deviation_1_beside_a_column_of_ones():
    features = torch.randn(50, 4) * torch.tensor([0.01, 1.0, 50.0, 0.0]) + torch.tensor([3.0, 0.0, -200.0, 7.0])
    scaled = Probes(features, [{}] * 50)._scaled(features)
    assert torch.equal(scaled[:, 0], torch.ones(50))
    torch.testing.assert_close(scaled[:, 1:4].mean(dim=0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled[:, 1:4].std(dim=0), torch.ones(3), atol=1e-3, rtol=0)
    assert torch.equal(scaled[:, 4:], torch.zeros(50, 1))  # the same of all images


def shown_by(**counts):
    """What images show of one kind: each value as often as told."""
    return [{"袖长": value} for value, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("counts", "learned"),
    [
        ({"长袖": 5, "短袖": 5}, {"袖长": ["短袖", "长袖"]}),
        ({"长袖": 5, "短袖": 6, "无袖": 4}, {"袖长": ["短袖", "长袖"]}),
        ({"长袖": 9, "短袖": 4}, {}),
        ({"长袖": 9}, {}),
    ],
)
def test_a_value_of_five_images_is_learned_and_a_kind_of_two_values(counts, learned):
    shown = shown_by(**counts)
    made = Probes(torch.randn(len(shown), 3), shown)
    assert made.values == learned
    assert {kind: len(layer) for kind, layer in made.layers.items()} == {kind: len(of) for kind, of in learned.items()}


@pytest.mark.parametrize(("count", "width", "largest"), [(60, 8, 30), (30, 40, 1)])
def test_a_layer_is_at_the_minimum_of_its_loss(count, width, largest):
    """Of features of unlike sizes, and of images that a layer can tell apart wholly; the slope is written out here."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count, width)) * np.geomspace(1, largest, width)
    rows, labels = np.concatenate([np.ones((count, 1)), features], axis=1), generator.integers(0, 3, count)
    layer = _fit(torch.tensor(rows, dtype=torch.float32), torch.tensor(labels)).double().numpy()
    exponents = np.exp(rows @ layer.T - (rows @ layer.T).max(axis=1, keepdims=True))
    shares = exponents / exponents.sum(axis=1, keepdims=True)
    slope = (shares - np.eye(3)[labels]).T @ rows / count + 2e-4 * layer  # of cross-entropy, and of the weights' decay
    assert np.abs(slope).max() < 1e-2
    assert np.abs(layer).max() < 10


def blobs(count):
    """Features of images that nobody can take for each other, and what these show."""
    corners = [(place % 2, place // 2 % 2) for place in range(count)]
    features = torch.tensor(corners, dtype=torch.float32) + 0.01 * torch.randn(count, 2)
    return features, [{"类别": ("杯子", "口红")[one], "颜色": ("红色", "蓝色")[other]} for one, other in corners]


def test_counts_are_whole_numbers_that_add_up_over_batches_and_processes():
    probes = Probes(*blobs(40))
    features, asked = blobs(16)
    asked[4], asked[5], asked[9] = {"类别": "口红"}, {}, {"颜色": "红色"}  # another, nothing, and the own colour alone
    first, second = AttributeAccuracy(probes), AttributeAccuracy(probes)
    for metric, parts in ((first, ((0, 5), (5, 12))), (second, ((12, 16),))):
        assert (metric.counts.dtype, metric.counts.sum().item()) == (torch.int64, 0)
        for start, stop in parts:
            metric.update(features[start:stop], asked[start:stop])
    second.merge_state(first)
    assert dict(zip(second.names, second.counts.tolist(), strict=True)) == {
        "类别": [14, 13],
        "颜色": [14, 14],
        DETAILS: [0, 0],
    }


def test_what_was_never_learned_does_not_count_and_nothing_is_no_number(probes):
    features, _ = images(1, "scorer_test")
    found = accuracy(probes, features, [{"颜色": "透明", "材质": "丝绸"}])
    assert all(math.isnan(value) for value in found.values())


def test_a_prompt_asks_for_what_it_says_of_its_own_image(vocabulary):
    shown = [{"类别": "连衣裙", "颜色": "红色", "图案": "碎花"}, {"类别": "口红", "颜色": "红色", "图案": "纯色"}]
    asked = asked_for(["大红连衣裙 显瘦", "唇膏 蓝色"], Shown(shown, vocabulary))
    assert asked[0] == {"类别": "连衣裙", "颜色": "红色"}
    assert "颜色" not in asked[1]


def targets(prompts, shown):
    rows = [*range(len(prompts))]
    ids = list(map(str, rows))
    return GenerationTargets("test", "here", ids, prompts, rows, True, shown)


def test_mismatched_prompts_contradict_the_image_that_they_are_held_against(vocabulary):
    products = draw_products("test", 400, 0)
    prompts = list(dict.fromkeys(texts.title(product, random.Random(product.seed)) for product in products))
    shown = [product.attributes for product in products][: len(prompts)]
    drawn = mismatched_prompts(targets(prompts, Shown(shown, vocabulary)))
    assert drawn.shape == (len(prompts), 99)
    for row, places in enumerate(drawn.tolist()):
        assert len({prompts[place] for place in places} | {prompts[row]}) == 100
        assert all(said_in(vocabulary.mentions(prompts[place]), shown[row]).contradicts for place in places)
    plain = targets(prompts, None)
    assert torch.equal(mismatched_prompts(plain), draw_distractors(prompts))
    agree = [
        not said_in(vocabulary.mentions(prompts[place]), shown[row]).contradicts
        for row, places in enumerate(draw_distractors(prompts).tolist())
        for place in places
    ]
    assert any(agree)  # drawn blindly, some are as true of the image


def test_where_too_few_contradict_the_others_fill_up(vocabulary):
    prompts = ["红色连衣裙", "红色裙子甲", "红色裙子乙", "蓝色连衣裙"]
    shown = [{"类别": "连衣裙", "颜色": "红色"}] * 3 + [{"类别": "连衣裙", "颜色": "蓝色"}]
    drawn = mismatched_prompts(targets(prompts, Shown(shown, vocabulary)))
    assert [sorted(places) for places in drawn.tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert drawn[0, 0] == 3


def test_a_feature_that_never_varied_says_nothing():
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(2, (60,), generator=generator)
    features = torch.randn(60, 3, generator=generator) * 0.1
    features[:, 0] += colours
    features[:, 2] = 0.1  # its mean is not quite 0.1
    probes = Probes(features, [{"颜色": "红" if colour else "蓝"} for colour in colours])
    features[:, 2] = 0.2
    found = [each["颜色"] for each in probes.see(features)]
    assert found == ["红" if colour else "蓝" for colour in colours]
