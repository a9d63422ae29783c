import logging
import time

import huggingface_hub
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import BertForMaskedLM, BertModel

from zoo.core import hubs
from zoo.core.hubs import unreachable
from zoo.core.weights import WeightSource, is_cached, load_pretrained, load_strictly
from zoo.errors import UserError
from zoo.models import text
from zoo.models.image import TimmImageTower
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS


def image_tower():
    return TimmImageTower("test_vit.r160_in1k")


def text_tower(**options):
    tower = TEXT_TOWERS.build("bert_tiny_chinese", **{"width": 32, "num_layers": 2, "num_heads": 2, **options})
    tower.published = "somebody/bert"
    return tower


def masked_language_model():
    return BertForMaskedLM(text_tower().encoder.config)


def snapshot(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same(module, state):
    own = module.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], state[key]) for key in own)


# --- policy --------------------------------------------------------------------------------------------------------


def test_false_is_random():
    assert load_pretrained(image_tower(), False) == WeightSource("random", wanted=False, found=False)


def test_auto_of_a_tower_that_nobody_published_is_random_without_alarm():
    tower = TEXT_TOWERS.build("bert_tiny_chinese", width=32)
    assert load_pretrained(tower) == WeightSource("random", wanted=False, found=False)
    assert load_pretrained(nn.Linear(2, 2)) == WeightSource("random", wanted=False, found=False)


@pytest.mark.parametrize("build", [image_tower, text_tower])
def test_auto_without_a_network_is_random_and_says_so(build):
    tower = build()
    before = snapshot(tower)
    reason = "random (pretrained weights not available: HF_HUB_OFFLINE is set)"
    assert load_pretrained(tower, "auto") == WeightSource(reason, wanted=True, found=False)
    assert_same(tower, before)


@pytest.mark.parametrize("build", [image_tower, text_tower])
def test_true_without_a_network_fails_with_reason_and_fix(build):
    with pytest.raises(UserError, match=r"true, but .* cannot be had \(HF_HUB_OFFLINE is set\).*give a path"):
        load_pretrained(build(), True)


def test_true_of_a_tower_that_nobody_published_fails():
    with pytest.raises(UserError, match="nobody published weights of this tower"):
        load_pretrained(TEXT_TOWERS.build("bert_tiny_chinese", width=32), True)


@pytest.mark.parametrize("build", [image_tower, text_tower])
def test_an_unreachable_hub_fails_fast_and_quietly(build, monkeypatch, caplog, capfd):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    with caplog.at_level(logging.WARNING):
        source = load_pretrained(build(), "auto")
    assert time.perf_counter() - start < 4
    assert source.text.startswith("random (pretrained weights not available: the hub cannot be reached: ")
    assert "\n" not in source.text
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_model_whose_weights_are_not_on_the_hub_says_where_they_are():
    source = load_pretrained(TimmImageTower("gcvit_xxtiny.in1k"))
    assert source.wanted
    assert "not on the hub; download that file and give its path" in source.text


# --- published -----------------------------------------------------------------------------------------------------


def test_picture_weights_from_the_cache(put_in_cache, tmp_path):
    tower, published = image_tower(), timm.create_model("test_vit")
    (tmp_path / "files").mkdir()
    save_file(published.state_dict(), tmp_path / "files" / "model.safetensors")
    assert not is_cached(tower.published)
    put_in_cache(tower.published, tmp_path / "files")
    assert is_cached(tower.published)
    assert load_pretrained(tower, True) == WeightSource("timm/test_vit.r160_in1k", wanted=True, found=True)
    assert_same(tower.model, {k: v for k, v in published.state_dict().items() if not k.startswith("head.")})


def test_picture_weights_from_the_hub(tmp_path, monkeypatch):
    published = timm.create_model("test_vit")
    torch.save(published.state_dict(), tmp_path / "pytorch_model.bin")

    def download(repository, name):
        if name == "model.safetensors":
            raise huggingface_hub.errors.EntryNotFoundError("no such file")
        return str(tmp_path / name)

    monkeypatch.setattr(hubs, "unreachable", lambda: None)
    monkeypatch.setattr(hubs, "hf_hub_download", download)
    assert load_pretrained(image_tower(), True).found


def test_text_weights_from_the_cache(put_in_cache, tmp_path):
    tower, published = text_tower(), masked_language_model()
    published.save_pretrained(tmp_path / "files")
    put_in_cache("somebody/bert", tmp_path / "files")
    assert load_pretrained(tower, True) == WeightSource("somebody/bert", wanted=True, found=True)
    assert_same(tower.encoder, published.bert.state_dict())


def test_text_weights_from_the_hub(tmp_path, monkeypatch):
    tower, published = text_tower(), masked_language_model()
    published.save_pretrained(tmp_path)

    class Hub:
        @staticmethod
        def from_pretrained(name, *, local_files_only=False, **options):
            if local_files_only:
                raise OSError("not cached")
            return BertModel.from_pretrained(tmp_path, **options)

    monkeypatch.setattr(hubs, "unreachable", lambda: None)
    monkeypatch.setattr(text, "AutoModel", Hub)
    assert load_pretrained(tower, True).found
    assert_same(tower.encoder, published.bert.state_dict())


def test_transformers_is_as_talkative_afterwards(tmp_path):
    masked_language_model().save_pretrained(tmp_path)
    before = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    load_pretrained(text_tower(), str(tmp_path))
    after = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    assert after == before


# --- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "checkpoint.pth"])
def test_picture_weights_of_a_file(tmp_path, name):
    tower, published = image_tower(), timm.create_model("test_vit").state_dict()
    if name.endswith(".safetensors"):
        save_file(published, tmp_path / name)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in published.items()}}, tmp_path / name)
    path = tmp_path if name != "checkpoint.pth" else tmp_path / name
    assert load_pretrained(tower, str(path)) == WeightSource(f"path {path}", wanted=True, found=True)
    assert_same(tower.model, {k: v for k, v in published.items() if not k.startswith("head.")})


def test_position_embeddings_follow_the_size(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pt")
    tower = TimmImageTower("test_vit", image_size=64)
    assert load_pretrained(tower, str(tmp_path / "weights.pt")).found


def test_text_weights_of_a_folder(tmp_path):
    tower, published = text_tower(), BertModel(text_tower().encoder.config)
    published.save_pretrained(tmp_path)
    load_pretrained(tower, str(tmp_path))
    assert_same(tower.encoder, {k: v for k, v in published.state_dict().items() if not k.startswith("pooler.")})


def test_text_weights_of_an_old_file(tmp_path):
    tower, published = text_tower(), masked_language_model()
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in published.state_dict().items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(512)[None]
    old["bert.pooler.dense.weight"] = torch.zeros(32, 32)
    torch.save(old, tmp_path / "pytorch_model.bin")
    load_pretrained(tower, str(tmp_path / "pytorch_model.bin"))
    assert_same(tower.encoder, published.bert.state_dict())


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_layers": 3}, r"missing +encoder\.layer\.2\."),
        ({"num_layers": 1}, r"unexpected +encoder\.layer\.1\."),
        ({"width": 16}, r"mis-shaped +embeddings\.word_embeddings\.weight \[21128, 32\], wanted \[21128, 16\]"),
    ],
)
def test_text_weights_that_do_not_fit_change_nothing(tmp_path, kind, options, fault):
    masked_language_model().save_pretrained(tmp_path)
    tower = text_tower(**options)
    before = snapshot(tower)
    with pytest.raises(UserError, match=fault) as error:
        load_pretrained(tower, str(tmp_path if kind == "folder" else tmp_path / "model.safetensors"))
    assert len(str(error.value).splitlines()) <= 12
    assert_same(tower, before)


def test_picture_weights_that_do_not_fit_change_nothing(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pt")
    tower = image_tower()
    before = snapshot(tower)
    with pytest.raises(UserError, match=r"(?s)missing +cls_token .*and \d+ more"):
        load_pretrained(tower, str(tmp_path / "resnet.pt"))
    assert_same(tower, before)


def test_weights_that_are_not_finite_are_refused_and_change_nothing():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = snapshot(module)
    state["1.running_mean"].fill_(-torch.inf)  # a buffer, such as a mask, may be
    load_strictly(module, state, "a.ckpt")
    for value in (torch.nan, -torch.inf):
        changed = snapshot(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
        changed["0.weight"][1, 0] = value
        with pytest.raises(UserError, match=r"a\.ckpt: 1 of its weights are not finite \(0\.weight\)"):
            load_strictly(module, changed, "a.ckpt")
    assert_same(module, state)


class Harmful:
    def __reduce__(self):
        return print, ("a checkpoint's code ran",)


@pytest.mark.parametrize("content", ["code", "rubbish", "empty", "list", "nested", "safetensors"])
@pytest.mark.parametrize("build", [image_tower, text_tower])
def test_what_is_no_weights_is_refused(tmp_path, content, build, capfd):
    path = tmp_path / ("x.safetensors" if content == "safetensors" else "x.pt")
    if content in ("code", "list", "nested"):
        value = {"code": {"a": Harmful()}, "list": [torch.zeros(1)], "nested": {"a": {"b": torch.zeros(1)}}}[content]
        torch.save(value, path)
    else:
        path.write_bytes(b"" if content == "empty" else b"no weights at all")
    with pytest.raises(UserError, match="cannot be read as weights|no state dict"):
        load_pretrained(build(), str(path))
    assert "ran" not in capfd.readouterr().out


def test_paths_that_hold_nothing(tmp_path):
    with pytest.raises(UserError, match=r"'nowhere' does not exist\. Valid are auto, true, false, a run or a path"):
        load_pretrained(image_tower(), "nowhere")
    for build in (image_tower, text_tower):
        with pytest.raises(UserError, match="holds n"):
            load_pretrained(build(), str(tmp_path))


def test_another_module_takes_a_file_of_its_own_keys(tmp_path):
    published = nn.Linear(3, 2)
    torch.save(published.state_dict(), tmp_path / "linear.pt")
    tower = nn.Linear(3, 2)
    load_pretrained(tower, str(tmp_path / "linear.pt"))
    assert_same(tower, published.state_dict())


def test_a_module_reads_its_own_format(tmp_path):
    class Reader(nn.Linear):
        published = str(tmp_path)

        def load_published(self, source):
            self.read = source
            if not list(tmp_path.iterdir()):
                raise hubs.UnavailableError("nothing is there")

    tower = Reader(3, 2)
    assert load_pretrained(tower).text == "random (pretrained weights not available: nothing is there)"
    (tmp_path / "anything").touch()
    assert load_pretrained(tower) == WeightSource(str(tmp_path), wanted=True, found=True)
    load_pretrained(tower, str(tmp_path / "anything"))
    assert tower.read == str(tmp_path / "anything")


def test_constructors_read_no_weights(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a constructor asked for weights")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr("zoo.core.hubs.hf_hub_download", fail)
    monkeypatch.setattr(torch, "load", fail)
    image, text = IMAGE_TOWERS.build("resnet10t"), TEXT_TOWERS.build("bert_tiny_chinese")
    assert (image.width, image.published) == (512, "timm/resnet10t.c3_in1k")
    assert (text.width, text.published) == (256, None)


def test_the_hub_says_why_it_cannot_be_asked(monkeypatch):
    assert unreachable() == "HF_HUB_OFFLINE is set"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert unreachable().startswith("the hub cannot be reached: ")
