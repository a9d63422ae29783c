"""Inception: torch-fidelity's own outputs from the same file, its hash, and files that are refused."""

import pickle
import urllib.request

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from zoo.core.weights import weights_hash
from zoo.errors import UserError
from zoo.tasks.text_to_image import inception as module
from zoo.tasks.text_to_image.inception import NoInceptionError, load_inception, random_weights

NAME = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def inception(inception_file):
    return load_inception(str(inception_file))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache, and no network."""

    def refuse(*arguments, **options):
        raise OSError("no network here\nreally")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "hub"


def pictures(count, size=48):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size + 9), dtype=torch.uint8, generator=generator)


def test_it_computes_what_torch_fidelity_computes(inception, inception_file):
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_file)
    )
    for ours, expected in zip(inception(pictures(2)), theirs(pictures(2)), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert inception(pictures(2))[0].shape == (2, inception.width) == (2, 2048)
    assert inception(pictures(2))[1].shape == (2, 1008)


def test_autocast_and_training_change_nothing(inception):
    expected = inception(pictures(1))[0]
    inception.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = inception(pictures(1))[0]
    assert not inception.training
    assert not features.requires_grad
    assert torch.equal(features, expected)


@pytest.mark.parametrize("images", [pictures(1).float(), pictures(1)[0], pictures(1)[:, :1]])
def test_other_pictures_are_named(inception, images):
    with pytest.raises(ValueError, match=r"they must be \[B, 3, H, W\] uint8"):
        inception(images)


def test_the_hash_names_the_weights(inception, inception_file, tmp_path):
    assert len(inception.hash) == 12
    assert inception.hash == weights_hash(inception.extractor) == load_inception(str(inception_file)).hash
    state = {key: value for key, value in random_weights().items() if not key.endswith("num_batches_tracked")}
    assert module.Inception(state, "here").hash == inception.hash
    state["fc.bias"] = state["fc.bias"] + 1e-3
    assert module.Inception(state, "here").hash != inception.hash


def test_a_hash_depends_on_names_types_shapes_and_values():
    class Holder(nn.Module):
        def __init__(self, **values):
            super().__init__()
            for name, value in values.items():
                self.register_buffer(name, value)

    ones = torch.ones(2, 3)
    others = [{"b": ones}, {"a": ones.T}, {"a": ones.half()}, {"a": ones * 2}, {"a": ones, "b": torch.tensor(1)}]
    hashes = [weights_hash(Holder(**values)) for values in ({"a": ones}, *others)]
    assert len(set(hashes)) == len(hashes)
    assert weights_hash(Holder(a=ones.clone())) == hashes[0]
    assert weights_hash(Holder(a=torch.ones(3, 2).T)) == hashes[0]  # whatever the strides
    assert weights_hash(Holder(a=ones, b=ones.bfloat16())) == weights_hash(Holder(b=ones.bfloat16(), a=ones))


def test_auto_takes_the_file_of_the_cache(hub, inception, inception_file):
    (hub / "checkpoints").mkdir(parents=True)
    (hub / "checkpoints" / NAME).symlink_to(inception_file)
    assert load_inception().hash == inception.hash


def test_auto_without_file_and_network_says_what_to_do(hub):
    with pytest.raises(NoInceptionError) as raised:
        load_inception("auto")
    message = str(raised.value)
    for part in (NAME, str(hub / "checkpoints"), URL_INCEPTION_V3, "(no network here)", "--inception PATH"):
        assert part in message
    assert raised.value.reason == "no network here"
    assert "\n" not in message


def test_auto_downloads_whole_or_not_at_all(hub, inception, inception_file, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    monkeypatch.setattr(module, "URL", f"{inception_file.parent.as_uri()}/{inception_file.name}")
    with pytest.raises(NoInceptionError, match="invalid hash value"):
        load_inception()
    assert list((hub / "checkpoints").iterdir()) == []
    monkeypatch.setattr(module, "HASH", "")
    assert load_inception().hash == inception.hash
    assert [path.name for path in (hub / "checkpoints").iterdir()] == [inception_file.name]


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_holds_code_is_refused(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    torch.save({"weight": Harmful()}, path)
    with pytest.raises(UserError, match="more than weights and plain data"):
        load_inception(str(path))
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(UserError, match=r"weights\.pth: "):
        load_inception(str(path))
    assert "executed" not in capsys.readouterr().out


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    state = random_weights()
    state["fc.weight"] = torch.zeros(1000, 2048)
    state["more"] = torch.zeros(1)
    del state["Mixed_5b.branch1x1.conv.weight"]
    torch.save(state, path)
    with pytest.raises(UserError, match="not of this model") as raised:
        load_inception(str(path))
    for part in (
        "missing     Mixed_5b.branch1x1.conv.weight [64, 192, 1, 1]",
        "unexpected  more [1]",
        "mis-shaped  fc.weight [1000, 2048], wanted [1008, 2048]",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"state_dict": {"a": torch.ones(1)}}])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="more than named tensors"):
        load_inception(str(tmp_path / "weights.pth"))


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth: there is no such checkpoint"):
        load_inception(str(tmp_path / "nowhere.pth"))
