import pytest

from zoo.cli.list import MOST_BUILT, main
from zoo.errors import UserError


def listing(capsys, monkeypatch, *argv, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(list(argv)) == 0
    return capsys.readouterr().out


def test_all_registered_towers_in_80_columns(capsys, monkeypatch):
    lines = [line.rstrip() for line in listing(capsys, monkeypatch).splitlines()]
    assert max(map(len, lines)) <= 80
    text = "\n".join(line for line in lines)
    for line in (
        "image tower                           params  size  width  weights",
        "resnet50_clip                          36.2M   224   2048  openai",
        "vit_large_patch14_clip_quickgelu_336  303.5M   336   1024  openai",
        "vit_small_patch16_224                  21.7M   224    384  augreg_in21k_ft_in1k",
        "bert_tiny_chinese                7.9M    52    256  none",
        "rbt3                            37.9M    52    768  hfl/rbt3",
    ):
        assert f"{line}\n" in text


def test_a_pattern_leaves_out_the_rest(capsys, monkeypatch):
    text = listing(capsys, monkeypatch, "vit_base")
    assert "vit_base_patch32_clip_quickgelu_224" in text
    assert "resnet" not in text
    assert "text tower" not in text


def test_one_name_is_told_in_full(capsys, monkeypatch):
    text = listing(capsys, monkeypatch, "vit_huge*")
    assert "Build the ViT-H/14 of Chinese CLIP" in text
    assert "Options: image_size=224, patch_dropout=0.0" in text
    assert "Weights: timm/vit_huge_patch14_clip_224.dfn5b, fetched from the hub when first wanted" in text


def test_names_of_timm(capsys, monkeypatch):
    text = listing(capsys, monkeypatch, "timm:resnet1*t")
    assert "timm:resnet10t" in text
    assert "5.4M" in text or "4.9M" in text


def test_many_names_of_timm_are_listed_without_building_them(capsys, monkeypatch):
    monkeypatch.setattr("zoo.cli.list.measure", None)
    text = listing(capsys, monkeypatch, "timm:*vit*")
    assert len([line for line in text.splitlines() if line.startswith("timm:")]) > 100
    assert f"up to {MOST_BUILT} names" in text


def test_no_match_names_the_nearest():
    families = "dual:NAME, open_clip:NAME, timm:NAME, vlm:NAME, transformers:NAME"
    with pytest.raises(UserError, match=rf"no model matches 'rbtt'. Did you mean rbt3\?.* {families}"):
        main(["rbtt"])
