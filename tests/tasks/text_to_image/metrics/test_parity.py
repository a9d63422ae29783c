"""Scores of generated images against torch-fidelity's, from the same PNG folders and the same random Inception."""

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from zoo.data.images import decode
from zoo.tasks.text_to_image.inception import load_inception
from zoo.tasks.text_to_image.metrics.frechet import feature_statistics, frechet_distance, frechet_distance_of
from zoo.tasks.text_to_image.metrics.inception_score import inception_score
from zoo.tasks.text_to_image.metrics.kernel_distance import kernel_distance
from zoo.tasks.text_to_image.metrics.precision_recall import precision_recall

pytestmark = pytest.mark.parity

PICTURES = {"generated": 20, "real": 24}
SUBSET = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of smooth images, of two distributions that overlap; their names sort as they were made."""
    made = {}
    for place, (name, count) in enumerate(PICTURES.items()):
        made[name] = tmp_path_factory.mktemp(name)
        random = np.random.default_rng(place)
        for number in range(count):
            coarse = random.integers(20 * place, 230 + 20 * place, (4 + place, 4, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((72, 64), Image.Resampling.BICUBIC).save(made[name] / f"{number:03}.png")
    return made


@pytest.fixture(scope="module")
def official(folders, inception_file, tmp_path_factory):
    return torch_fidelity.calculate_metrics(
        input1=str(folders["generated"]),
        input2=str(folders["real"]),
        feature_extractor="inception-v3-compat",  # also of precision and recall, which it measures with VGG otherwise
        feature_extractor_weights_path=str(inception_file),
        **{"isc": True, "fid": True, "kid": True, "prc": True, "kid_subset_size": SUBSET},
        **{"cuda": False, "batch_size": 16, "cache": False, "verbose": False},
    )


def seen(folder, inception_file, batch_size):
    """Features and logits of a folder's images in the order of their names."""
    inception = load_inception(str(inception_file))
    pixels = [decode(path.read_bytes()) for path in sorted(folder.iterdir())]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    features, logits = zip(*map(inception, images.split(batch_size)), strict=True)
    return torch.cat(features), torch.cat(logits)


def scores(folders, inception_file, batch_size):
    generated, logits = seen(folders["generated"], inception_file, batch_size)
    real, _ = seen(folders["real"], inception_file, batch_size)
    kernel = kernel_distance(generated, real, subset_size=SUBSET)
    classes = inception_score(logits)
    shares = precision_recall(generated, real)
    return {
        "frechet_inception_distance": frechet_distance(*feature_statistics(generated), *feature_statistics(real)),
        "kernel_inception_distance_mean": kernel.mean,
        "kernel_inception_distance_std": kernel.deviation,
        "inception_score_mean": classes.mean,
        "inception_score_std": classes.deviation,
        "precision": shares.precision,
        "recall": shares.recall,
    }


@pytest.fixture(scope="module")
def ours(folders, inception_file):
    return scores(folders, inception_file, batch_size=16)


def test_scores_of_folders_are_torch_fidelitys(ours, official):
    for name, tolerance in {
        "frechet_inception_distance": 1e-4,
        "kernel_inception_distance_mean": 1e-4,
        "kernel_inception_distance_std": 1e-4,
        "inception_score_mean": 1e-3,
        "inception_score_std": 1e-3,
        "precision": 1e-6,
        "recall": 1e-6,
    }.items():
        assert ours[name] == pytest.approx(official[name], rel=tolerance), name
    assert 0 < ours["recall"] < 1  # so that something is compared


def test_scores_do_not_depend_on_the_batch_size(ours, folders, inception_file):
    assert scores(folders, inception_file, batch_size=7) == pytest.approx(ours, rel=1e-3)


# --- from features, as many as an evaluation has ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def features():
    """Features like Inception's: not negative, correlated; 2,500 and 2,300 of 2,048 dimensions."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(300, 2048, generator=generator) / 17
    return tuple(
        torch.relu(torch.randn(rows, 300, generator=generator) @ mixing + 0.2 * shift).add_(
            0.1 * torch.rand(rows, 2048, generator=generator)
        )
        for shift, rows in ((0, 2500), (1, 2300))
    )


def test_frechet_distance_of_full_size(features):
    expected = fid_statistics_to_metric(*map(fid_features_to_statistics, features), verbose=False)
    assert frechet_distance_of(*features) == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)


def test_frechet_distance_with_dead_features(features):
    few = [part[:, :256].clone() for part in features]
    for part in few:
        part[:, 10:30] = 0
    expected = fid_statistics_to_metric(*map(fid_features_to_statistics, few), verbose=False)
    assert frechet_distance_of(*few) == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)


def test_kernel_distance_of_full_size(features):
    result = kernel_distance(*features, subsets=10)
    expected = kid_features_to_metric(*features, verbose=False, kid_subsets=10)
    assert result.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    # Its sums in fp32 cost its deviation the fourth digit, so that it is held against its own fp64.
    doubles = [part.double() for part in features]
    expected = kid_features_to_metric(*doubles, verbose=False, kid_subsets=10)
    assert result.deviation == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-5)
    assert result.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)


def test_inception_score_of_full_size(features):
    logits = features[0][:, :1008] * 4
    expected = isc_features_to_metric(logits)
    result = inception_score(logits)
    assert result.mean == pytest.approx(expected["inception_score_mean"], rel=1e-3)
    assert result.deviation == pytest.approx(expected["inception_score_std"], rel=1e-3)


def test_precision_and_recall_of_full_size(features):
    expected = prc_features_to_metric(*features, verbose=False)
    result = precision_recall(*features, block_size=1000)
    assert result == pytest.approx((expected["precision"], expected["recall"]), abs=1e-6)
    assert 0 < result.precision < 1
