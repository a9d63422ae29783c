"""CN-CLIP's files in: shapes and names here; its own numbers in ``test_cn_clip_parity.py``."""

import pytest
import torch

import zoo
from zoo.core.checkpoint import load_initial_weights
from zoo.errors import UserError
from zoo.models.image import TimmImageTower
from zoo.tasks.retrieval import cn_clip


def text_state(width, layers):
    """The shapes of the original text side, by its names."""
    embeddings = {"word_embeddings": 21128, "position_embeddings": 512, "token_type_embeddings": 2}
    state = {f"bert.embeddings.{name}.weight": (size, width) for name, size in embeddings.items()}
    norms = ["bert.embeddings.LayerNorm"]
    linear = {"bert.pooler.dense": (width, width)}
    for layer in range(layers):
        name = f"bert.encoder.layer.{layer}"
        linear |= {f"{name}.attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        linear |= {f"{name}.attention.output.dense": (width, width)}
        linear |= {f"{name}.intermediate.dense": (4 * width, width), f"{name}.output.dense": (width, 4 * width)}
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    return state | parts(linear, norms)


def parts(linear, norms):
    state = {f"{name}.weight": shape for name, shape in linear.items()}
    state |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    return state | {f"{name}.{part}": None for name in norms for part in ("weight", "bias")}


def vision_state(width, patch, image_size, layers, dimension):
    """The shapes of an original vision transformer, by its names."""
    linear, norms = {}, ["visual.ln_pre", "visual.ln_post"]
    for layer in range(layers):
        name = f"visual.transformer.resblocks.{layer}"
        linear |= {f"{name}.mlp.c_fc": (4 * width, width), f"{name}.mlp.c_proj": (width, 4 * width)}
        linear |= {f"{name}.attn.out_proj": (width, width)}
        norms += [f"{name}.ln_1", f"{name}.ln_2"]
    state = parts(linear, norms)
    for layer in range(layers):
        name = f"visual.transformer.resblocks.{layer}.attn.in_proj"
        state |= {f"{name}_weight": (3 * width, width), f"{name}_bias": (3 * width,)}
    return state | {
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((image_size // patch) ** 2 + 1, width),
        "visual.proj": (width, dimension),
    }


def original_state(vision=(768, 32, 64, 1), text=(768, 1), dimension=512, *, device="cpu"):
    """A whole state dict of a width, patch, image size and layers, and a text width and layers; zeros."""
    shapes = vision_state(*vision, dimension) | text_state(*text)
    shapes |= {"text_projection": (text[0], dimension), "logit_scale": ()}
    widths = {"v": vision[0], "b": text[0]}
    return {
        name: torch.zeros((widths[name[0]],) if shape is None else shape, device=device)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def state():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) / 9 for name, value in original_state().items()}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory, originals):
    return originals.save(tmp_path_factory.mktemp("published") / "clip_cn_small.pt", state)


# --- shapes and names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14"])
def test_published_shapes_are_plain_towers(originals, size):
    (width, _, patch, image_size, layers), text, dimension = originals.SIZES[size]
    state = original_state((width, patch, image_size, layers), text, dimension, device="meta")
    arguments = cn_clip.architecture(cn_clip.plain(state, "x"), "x")
    towers = dict(zip(("image_tower", "text_tower"), originals.TOWERS[size], strict=True))
    assert arguments == {**towers, "embedding_dim": dimension}


def test_loaders_names_the_architecture(file):
    task = zoo.load(file)
    assert task.hparams.image_tower == "vit_base_patch32_clip_quickgelu_224"
    assert task.hparams.image_tower_options == {"image_size": 64, "num_layers": 1}
    assert task.hparams.text_tower_options == {"num_layers": 1}
    assert task.hparams.init_from == str(file)
    assert task.weights == {"init_from": "clip_cn_small.pt"}
    assert not task.training


def assert_loaded(task, state):
    own = task.state_dict()
    block, layer = "image_tower.model.blocks.0", "text_tower.encoder.encoder.layer.0"
    original, bert = "visual.transformer.resblocks.0", "bert.encoder.layer.0"
    for name, other in {
        "loss.logit_scale": "logit_scale",
        "image_tower.model.patch_embed.proj.weight": "visual.conv1.weight",
        f"{block}.attn.qkv.weight": f"{original}.attn.in_proj_weight",
        f"{block}.norm2.bias": f"{original}.ln_2.bias",
        f"{layer}.attention.self.value.bias": f"{bert}.attention.self.value.bias",
        f"{layer}.attention.output.dense.weight": f"{bert}.attention.output.dense.weight",
    }.items():
        assert torch.equal(own[name], state[other]), name
    assert torch.equal(own["image_projection.weight"].T, state["visual.proj"])
    assert torch.equal(own["text_projection.weight"].T, state["text_projection"])


@pytest.mark.parametrize("form", ["module.", "plain", "flash attention"])
def test_names_of_every_kind_are_read(tmp_path, state, form, originals):
    other = dict(state)
    if form == "flash attention":
        for part in ("weight", "bias"):
            vision, text = "visual.transformer.resblocks.0.attn", "bert.encoder.layer.0.attention"
            other[f"{vision}.Wqkv.{part}"] = other.pop(f"{vision}.in_proj_{part}")
            thirds = [other.pop(f"{text}.self.{name}.{part}") for name in ("query", "key", "value")]
            other[f"{text}.self.Wqkv.{part}"] = torch.cat(thirds)
            other[f"{text}.self.out_proj.{part}"] = other.pop(f"{text}.output.dense.{part}")
    assert_loaded(
        zoo.load(originals.save(tmp_path / "x.pt", other, prefix="" if form == "plain" else "module.")), state
    )


def test_initial_weights_win_over_the_towers_own(file, state, tmp_path, monkeypatch, fitting_task):
    def fail(*_, **__):
        raise AssertionError("the towers' pretrained weights were asked for")

    monkeypatch.setattr("zoo.core.task.load_pretrained", fail)
    task = fitting_task(image_pretrained=True, text_pretrained=True, init_from=str(file))
    task.trainer = type("Trainer", (), {"ckpt_path": None})()
    task.setup("fit")
    assert task.weights == {"init_from": "clip_cn_small.pt"}
    assert_loaded(task, state)


def test_half_precision_becomes_whole(tmp_path, state, originals, fitting_task):
    path = originals.save(tmp_path / "half.pt", {name: value.half() for name, value in state.items()})
    task = fitting_task(image_tower_options={"image_size": 96, "num_layers": 1})
    load_initial_weights(task, path)
    assert {value.dtype for value in task.state_dict().values()} == {torch.float32}


def test_positions_follow_the_image_size(file, state, fitting_task):
    task = fitting_task(image_tower_options={"image_size": 160, "num_layers": 1})
    load_initial_weights(task, file)
    positions = task.image_tower.model.pos_embed[0]
    assert len(positions) == 1 + 5 * 5
    # Corners are aligned: they stay, and the class token does.
    corners = positions[[0, 1, 5, 21, 25]]
    torch.testing.assert_close(corners, state["visual.positional_embedding"], rtol=0, atol=1e-6)


# --- errors --------------------------------------------------------------------------------------------------------

KEY = "visual.transformer.resblocks.0.ln_1.weight"
NAME = "image_tower.model.blocks.0.norm1.weight"
FAULTS = {
    "missing": ({KEY: None}, rf"missing +{NAME} \[768\]"),
    "unexpected": ({"surplus": torch.zeros(2)}, r"unexpected +surplus \[2\]"),
    "unexpected in a tower": (
        {"visual.surplus": torch.zeros(2)},
        r"unexpected +image_tower\.model\.surplus \[2\]",
    ),
    "mis-shaped": ({KEY: torch.zeros(9)}, rf"mis-shaped +{NAME} \[9\], wanted \[768\]"),
    "another vocabulary": (
        {"bert.embeddings.word_embeddings.weight": torch.zeros(5, 768)},
        r"mis-shaped +text_tower.encoder.embeddings.word_embeddings.weight \[5, 768\], wanted \[21128, 768\]",
    ),
    "no text side": ({"bert.embeddings.word_embeddings.weight": None}, "missing +bert.embeddings.word_embeddings"),
    "no projection": ({"visual.proj": None}, "missing +visual.proj"),
    "no dimensions": ({"visual.conv1.weight": torch.zeros(3)}, r"mis-shaped +visual.conv1.weight \[3\], wanted 4 dim"),
    "not square": ({"visual.positional_embedding": torch.zeros(4, 768)}, "of 3 patches: they fill no square image"),
    "no tensor": ({"logit_scale": "3"}, "logit_scale is a str and no tensor"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_change_nothing(tmp_path, state, fault, originals, fitting_task):
    changes, message = FAULTS[fault]
    path = originals.save(
        tmp_path / "x.pt", {key: value for key, value in {**state, **changes}.items() if value is not None}
    )
    task = fitting_task()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    for read in (zoo.load, lambda path: load_initial_weights(task, path)):
        with pytest.raises(UserError, match=message) as error:
            read(path)
        assert len(str(error.value).splitlines()) <= 13
    assert all(torch.equal(before[key], value) for key, value in task.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 64}}, r"missing +image_tower\.model\."),
        ({"image_tower": "resnet10t", "image_tower_options": None}, "missing +image_tower.model.conv1"),
        ({"embedding_dim": 64}, r"image_projection.weight \[512, 768\], wanted \[64, 768\]"),
        ({"image_projection_bias": True}, r"missing +image_projection.bias"),
        ({"text_tower": "rbt3", "text_tower_options": None}, r"missing +text_tower.encoder.encoder.layer.1"),
    ],
)
def test_another_task_is_told_what_the_weights_are_of(file, changes, message, fitting_task):
    with pytest.raises(UserError, match=message) as error:
        load_initial_weights(fitting_task(**changes), file)
    words = "--model.image_tower vit_base_patch32_clip_quickgelu_224 --model.text_tower chinese_roberta_wwm_ext"
    assert f"nothing was loaded. They are of {words} --model.embedding_dim 512" in str(error.value).splitlines()[0]


def test_a_tower_with_another_activation_is_refused(file, fitting_task):
    task = fitting_task(
        image_tower=TimmImageTower("vit_base_patch32_clip_224", image_size=64, num_layers=1), image_tower_options=None
    )
    before = {key: value.clone() for key, value in task.state_dict().items()}
    with pytest.raises(UserError, match=r"blocks\.0\.mlp\.act is GELU here and QuickGELU where they come from"):
        load_initial_weights(task, file)
    assert all(torch.equal(before[key], value) for key, value in task.state_dict().items())


def test_an_unknown_architecture_says_what_came_and_what_is_known(tmp_path, originals):
    path = originals.save(tmp_path / "x.pt", original_state((896, 14, 224, 1)))
    with pytest.raises(
        UserError, match=r"width 896, patch 14, image_size 224, num_layers 1\. Known are(?s:.*)huge_pat"
    ):
        zoo.load(path)


class Harmful:
    def __reduce__(self):
        return print, ("a checkpoint's code ran",)


def test_what_is_no_weights_is_refused(tmp_path, file, state, capfd, originals):
    path = originals.save(tmp_path / "code.pt", {**state, "visual.proj": Harmful()})
    with pytest.raises(UserError, match="more than weights and plain data"):
        zoo.load(path)
    assert "ran" not in capfd.readouterr().out
    whole = file.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no checkpoint, or a damaged one"):
        zoo.load(path)
    for content in ({"state_dict": [1]}, {"visual.proj": torch.zeros(1)}, [1]):
        torch.save(content, path)
        with pytest.raises(UserError, match="it has no 'state_dict'"):
            zoo.load(path)
