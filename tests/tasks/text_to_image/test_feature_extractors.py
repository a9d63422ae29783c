"""Who judges generated pictures, and the true side's features, which are looked at once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.core.checkpoint import newest_run
from zoo.errors import UserError
from zoo.tasks import RetrievalTask
from zoo.tasks.text_to_image import inception
from zoo.tasks.text_to_image.data import TextToImageDataModule
from zoo.tasks.text_to_image.feature_extractors import Judges, true_features


class Loud(TextToImageDataModule):
    """Counts how often its pictures are read."""

    reads = 0

    def pictures_loader(self, split):
        self.reads += 1
        return super().pictures_loader(split)


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
    judges = Judges(inception="none", matcher=str(matcher))
    found = true_features(judges, data, "valid")["clip"]
    pixels = torch.cat([batch["image"] for batch in data.pictures_loader("valid")])
    assert pixels.shape == (12, 3, 24, 24)
    assert torch.allclose(found, judges.look(pixels)["clip"], atol=1e-6)


def test_they_are_read_again_only_where_something_changed(data, matcher, tmp_path, muge_root):
    judges = Judges(inception="none", matcher=str(matcher))
    first = true_features(judges, data, "valid")
    again = true_features(judges, data, "valid")
    assert data.reads == 1
    assert torch.equal(first["clip"], again["clip"])
    true_features(judges, data, "train")
    assert data.reads == 2
    data.image_size = 16
    true_features(judges, data, "valid")
    assert data.reads == 3
    torch.manual_seed(5)
    true_features(Judges(inception="none", matcher=str(save(tmp_path / "other.ckpt"))), data, "valid")
    assert data.reads == 4
    data.image_size = 24
    true_features(judges, data, "valid")
    assert data.reads == 4


def test_the_precision_around_changes_nothing(matcher):
    judges = Judges(inception="none", matcher=str(matcher))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))
    alone = judges.look(pixels)["clip"], judges.read(["红裙", "短裤"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = judges.look(pixels)["clip"], judges.read(["红裙", "短裤"])
    assert all(torch.equal(one, other) for one, other in zip(alone, inside, strict=True))


def test_inception_is_called_inception_and_has_logits(inception_file):
    judges = Judges(inception=str(inception_file))
    seen = judges.look(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert {name: value.shape for name, value in seen.items()} == {"inception": (2, 2048), "logits": (2, 1008)}
    assert "2048 features, weights " in judges.protocol["inception"]
    assert "NOT THE PUBLISHED WEIGHTS: no FID" in judges.protocol["inception"]


def test_without_inception_there_is_a_reason_and_without_anybody_an_error(matcher, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/weights-inception-2015-12-05-6726825d.pth")
    judges = Judges(matcher=str(matcher))
    assert list(judges.judges) == ["clip"]
    assert "weights-inception-2015-12-05-6726825d.pth" in judges.lacking
    with pytest.raises(UserError, match="nobody is there to judge the pictures: .*6726825d.pth"):
        Judges()
    with pytest.raises(UserError, match="give Inception's weights, a matcher"):
        Judges(inception="none")


def test_a_tower_without_published_weights_is_no_judge():
    with pytest.raises(
        UserError,
        match="features timm:test_vit: a Fréchet distance needs features that were trained, and these are random",
    ):
        Judges(inception="none", features=["timm:test_vit"])


def test_an_experiment_stands_for_its_newest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("20260101-000000", "20260102-000000"):
        save(tmp_path / "runs" / "judge" / run / "checkpoints" / "best.ckpt")
    assert newest_run("runs/judge") == Path("runs/judge/20260102-000000")
    assert Judges(inception="none", matcher="runs/judge").judges["clip"].width == 6
    assert newest_run("runs/judge/20260101-000000") == "runs/judge/20260101-000000"
    assert newest_run("OFA-Sys/chinese-clip") == "OFA-Sys/chinese-clip"
    with pytest.raises(UserError, match="matcher runs/none: no run is there. Train it first: python -m zoo fit"):
        Judges(inception="none", matcher="runs/none")
