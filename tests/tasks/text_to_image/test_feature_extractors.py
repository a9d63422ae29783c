"""Name who extracts features generated images, and the true side's features, which are looked at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.core.runs import newest_run
from zoo.data.attributes import Shown, Vocabulary
from zoo.data.images import resize_batch
from zoo.errors import UserError
from zoo.tasks import RetrievalTask
from zoo.tasks.text_to_image import inception
from zoo.tasks.text_to_image.corruptions import degraded
from zoo.tasks.text_to_image.data import TextToImageDataModule
from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors, true_features


class Loud(TextToImageDataModule):
    """Counts how often its images are read."""

    reads = 0

    def images_loader(self, split):
        self.reads += 1
        return super().images_loader(split)


@pytest.fixture
def data(muge_root):
    return Loud(str(muge_root), image_size=24, eval_batch_size=5, num_workers=0)


def save(path, **options):
    options = {
        "image_tower": "timm:test_vit",
        "image_tower_options": {"image_size": 32},
        "text_tower": "bert_tiny_chinese",
        "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
        "embedding_dim": 6,
        **options,
    }
    task = RetrievalTask(**options)
    contents = {"state_dict": task.state_dict(), "hyper_parameters": options, "global_step": 0}
    task.on_save_checkpoint(contents)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(contents, path)
    return path


@pytest.fixture
def matcher(tmp_path):
    return save(tmp_path / "matcher.ckpt")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def test_true_features_are_those_of_every_picture_in_file_order(data, matcher):
    extractors = FeatureExtractors(inception="none", matcher=str(matcher))
    found = true_features(extractors, data, "valid")["clip"]
    pixels = torch.cat([batch["image"] for batch in data.images_loader("valid")])
    assert pixels.shape == (12, 3, 24, 24)
    assert torch.allclose(found, extractors.extract_features(pixels)["clip"], atol=1e-6)


def test_what_an_image_shows_is_told_by_the_stages_of_the_matchers_tower(data, matcher):
    extractors = FeatureExtractors(inception="none", matcher=str(matcher))
    assert extractors.probed == "stages"
    targets = data.targets("valid")
    assert targets.shown is None
    assert extractors.names_for(targets) == extractors.keys_for(targets) == ["clip"]
    telling = replace(targets, shown=Shown([{}] * len(targets.texts), Vocabulary({})))
    assert extractors.names_for(telling) == extractors.keys_for(telling) == ["clip", "stages"]
    found = true_features(extractors, data, "valid", names=["stages"])["stages"]
    images = resize_batch(next(iter(data.images_loader("valid")))["image"], 32)
    assert torch.allclose(found[: len(images)], extractors.matcher.image_tower.stages(images), atol=1e-5)
    assert set(true_features(extractors, data, "valid")) == {"clip"}  # of the same weights, and kept apart
    without = true_features(extractors, data, "valid", names=["stages"], corrupt=degraded)["stages"]
    assert not torch.allclose(found, without)


def test_degraded_images_are_a_function_of_their_rows():
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together, alone = degraded(images, torch.tensor([5, 6, 7])), degraded(images[1:2], torch.tensor([6]))
    assert torch.equal(together[1:2], alone)
    assert together.dtype == torch.uint8
    assert not torch.equal(degraded(images[1:2], torch.tensor([5])), alone)


def test_they_are_read_again_only_where_something_changed(data, matcher, tmp_path, muge_root):
    extractors = FeatureExtractors(inception="none", matcher=str(matcher))
    first = true_features(extractors, data, "valid")
    again = true_features(extractors, data, "valid")
    assert data.reads == 1
    assert torch.equal(first["clip"], again["clip"])
    true_features(extractors, data, "train")
    assert data.reads == 2
    data.image_size = 16
    true_features(extractors, data, "valid")
    assert data.reads == 3
    torch.manual_seed(5)
    true_features(FeatureExtractors(inception="none", matcher=str(save(tmp_path / "other.ckpt"))), data, "valid")
    assert data.reads == 4
    data.image_size = 24
    true_features(extractors, data, "valid")
    assert data.reads == 4


def test_the_precision_around_changes_nothing(matcher):
    extractors = FeatureExtractors(inception="none", matcher=str(matcher))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))
    alone = extractors.extract_features(pixels)["clip"], extractors.read(["红裙", "短裤"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = extractors.extract_features(pixels)["clip"], extractors.read(["红裙", "短裤"])
    assert all(torch.equal(one, other) for one, other in zip(alone, inside, strict=True))


def test_inception_is_called_inception_and_has_logits(inception_file):
    extractors = FeatureExtractors(inception=str(inception_file))
    seen = extractors.extract_features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert {name: value.shape for name, value in seen.items()} == {"inception": (2, 2048), "logits": (2, 1008)}
    assert "2048 features, weights " in extractors.protocol["inception"]
    assert "NOT THE PUBLISHED WEIGHTS: no FID" in extractors.protocol["inception"]


def test_without_inception_there_is_a_reason_and_without_anybody_an_error(matcher, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/weights-inception-2015-12-05-6726825d.pth")
    extractors = FeatureExtractors(matcher=str(matcher))
    assert list(extractors.by_name) == ["clip"]
    assert "weights-inception-2015-12-05-6726825d.pth" in extractors.lacking
    with pytest.raises(UserError, match="there is no feature extractor for the images: .*6726825d.pth"):
        FeatureExtractors()
    with pytest.raises(UserError, match="give Inception's weights, a matcher"):
        FeatureExtractors(inception="none")


def test_a_tower_without_published_weights_is_no_judge():
    with pytest.raises(
        UserError,
        match="features timm:test_vit: a Fréchet distance needs features that were trained, and these are random",
    ):
        FeatureExtractors(inception="none", features=["timm:test_vit"])


def test_an_experiment_stands_for_its_newest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("20260101-000000", "20260102-000000"):
        save(tmp_path / "runs" / "extractor" / run / "checkpoints" / "best.ckpt")
    assert newest_run("runs/extractor") == Path("runs/extractor/20260102-000000")
    assert FeatureExtractors(inception="none", matcher="runs/extractor").by_name["clip"].width == 6
    assert newest_run("runs/extractor/20260101-000000") == "runs/extractor/20260101-000000"
    assert newest_run("OFA-Sys/chinese-clip") == "OFA-Sys/chinese-clip"
    with pytest.raises(UserError, match="matcher runs/none: no run is there. Train it first: python -m zoo fit"):
        FeatureExtractors(inception="none", matcher="runs/none")
