"""VQGANs of taming-transformers: its own classes, randomly initialised, in files as it wrote them."""

import os
import pickle
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import zoo
from zoo.core.checkpoint import load_initial_weights, load_part
from zoo.data.images import to_images, to_pixels
from zoo.errors import UserError
from zoo.registry import IMAGE_TOKENIZERS
from zoo.tasks import ImageTokenizerTask
from zoo.tasks.image_tokenizer.published import read_taming

SIZES = {"f16": ((1, 1, 2, 2, 4), 16), "gumbel f8": ((1, 1, 2, 4), 32)}  # widths, and what attends in an image of 256


def rearrange(tensor, pattern):
    """What taming's codebooks use of einops, which is not installed."""
    return tensor.permute(
        {"b c h w -> b h w c": (0, 2, 3, 1), "b h w c -> b c h w": (0, 3, 1, 2), "n d -> d n": (1, 0)}[pattern]
    )


class Original(nn.Module):
    """taming.models.vqgan's VQModel and GumbelVQ, which need an old Lightning, of taming's own parts."""

    def __init__(self, size, num_codes, *, width=128):
        super().__init__()
        from taming.modules.diffusionmodules.model import Decoder, Encoder
        from taming.modules.vqvae.quantize import GumbelQuantize, VectorQuantizer2

        multipliers, attention = SIZES[size]
        parts = {
            "double_z": False,
            "z_channels": 256,
            "resolution": 256,
            "in_channels": 3,
            "out_ch": 3,
            "ch": width,
            "ch_mult": list(multipliers),
            "num_res_blocks": 2,
            "attn_resolutions": [attention],
            "dropout": 0.0,
        }
        self.encoder, self.decoder = Encoder(**parts), Decoder(**parts)
        self.gumbel = size != "f16"
        if self.gumbel:
            self.quantize = GumbelQuantize(256, 256, n_embed=num_codes)
        else:
            self.quantize = VectorQuantizer2(num_codes, 256, beta=0.25)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(256, 256, 1), nn.Conv2d(256, 256, 1)

    @torch.no_grad()
    def forward(self, pixels):
        """The reconstruction and its codes; of Gumbel's the likeliest, where the original draws."""
        latents = self.quant_conv(self.encoder(pixels))
        shape = (len(latents), *latents.shape[2:])
        if self.gumbel:
            codes = self.quantize.proj(latents).argmax(dim=1)
            one_hot = nn.functional.one_hot(codes, self.quantize.n_embed).permute(0, 3, 1, 2).float()
            quantized = torch.einsum("bnhw,nd->bdhw", one_hot, self.quantize.embed.weight)
        else:
            quantized, _, (_, _, codes) = self.quantize(latents)
        return self.decoder(self.post_quant_conv(quantized)), codes.view(shape)


@pytest.fixture(scope="module")
def original(monkeypatch_module):
    """Builds an original of random weights that tell names apart."""
    einops = ModuleType("einops")
    einops.rearrange = rearrange
    monkeypatch_module.setitem(sys.modules, "einops", einops)

    def build(size, num_codes, **options):
        torch.manual_seed(0)
        model = Original(size, num_codes, **options).eval()
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.data += 0.2 * torch.randn_like(value)
            if name.startswith("quantize.emb"):
                nn.init.normal_(value)
        with torch.no_grad():  # latents that differ: else all would become one code
            latents = model.quant_conv(model.encoder(to_pixels(pictures())))
            mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
            model.quant_conv.weight /= deviation[:, None, None, None]
            model.quant_conv.bias.copy_((model.quant_conv.bias - mean) / deviation)
        return model

    return build


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def save(path, model, **more):
    """A checkpoint as taming's Lightning wrote it, with a class of it as a key and an object of OmegaConf's."""
    from taming.modules.discriminator.model import NLayerDiscriminator

    class ModelCheckpoint:
        pass

    class DictConfig:
        def __init__(self):
            self.contents = {"learning_rate": 4.5e-6}

    torch.manual_seed(1)
    discriminator = NLayerDiscriminator(n_layers=2).state_dict()  # not as many as the task has by default
    loss = {f"loss.discriminator.{name}": value for name, value in discriminator.items()}
    loss |= {"loss.perceptual_loss.net.slice1.0.weight": torch.randn(64, 3, 3, 3)}
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in (
            (ModelCheckpoint, "pytorch_lightning.callbacks.model_checkpoint"),
            (DictConfig, "omegaconf.dictconfig"),
        ):
            module = ModuleType(name)
            kind.__module__, kind.__qualname__ = name, kind.__name__
            setattr(module, kind.__name__, kind)
            patch.setitem(sys.modules, name, module)
        contents = {
            "epoch": 3,
            "global_step": 1000,
            "pytorch-lightning_version": "1.0.8",
            "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "best_model_path": "/a/b.ckpt"}},
            "optimizer_states": [torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict()],
            "lr_schedulers": [],
            "state_dict": {**model.state_dict(), **loss},
            "hyper_parameters": DictConfig(),
        }
        torch.save({**contents, **more}, path)
    assert "pytorch_lightning.callbacks.model_checkpoint" not in sys.modules
    return path


@pytest.fixture(scope="module")
def small(original, tmp_path_factory):
    """The f16 VQGAN with 1,024 codes, and its file."""
    model = original("f16", 1024)
    path = save(tmp_path_factory.mktemp("taming") / "vqgan_imagenet_f16_1024.ckpt", model)
    yield model, path
    path.unlink()  # hundreds of megabytes


def unpickler(*modules):
    """A pickle module that runs what is of these modules and of torch; other classes are empty."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            known = module.startswith(("torch", "collections", *modules))
            return super().find_class(module, name) if known else type(name, (), {})

    module = ModuleType("unpickler")
    module.Unpickler, module.load = Unpickler, pickle.load
    return module


def pictures(count=2, side=64):
    coarse = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return coarse.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)


@torch.no_grad()
def assert_same(tokenizer, model):
    """The same codes, and pixels to 4e-5 of the largest: each is found up to 1e-5 off its own float64."""
    images = pictures()
    expected, codes = model(to_pixels(images))
    found = tokenizer.encode(images)
    assert torch.equal(found, codes)
    assert len(codes.unique()) > 8
    pixels = tokenizer._pixels(tokenizer.quantize.look_up(found))
    torch.testing.assert_close(pixels, expected, rtol=0, atol=4e-5 * expected.abs().max().item())
    assert expected.std() > 0.05
    assert (tokenizer.decode(found).int() - to_images(expected).int()).abs().max() <= 1


def test_a_file_of_tamings_is_loaded_as_a_tokenizer_that_computes_the_same(small):
    model, path = small
    task = zoo.load(path)
    assert isinstance(task, ImageTokenizerTask)
    assert task.hparams["image_tokenizer"] == "taming_vqgan_f16"
    assert task.hparams["discriminator_layers"] == 2
    assert task.weights == {"init_from": path.name}
    assert_same(task.image_tokenizer, model)
    saved = torch.load(path, weights_only=False, pickle_module=unpickler())["state_dict"]
    for name, value in task.discriminator.state_dict().items():
        assert torch.equal(value, saved[f"loss.discriminator.{name}"]), name
    assert not any(parameter.requires_grad for parameter in task.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "num_codes", "name"),
    [("f16", 16384, "taming_vqgan_f16"), ("gumbel f8", 8192, "taming_vqgan_f8_gumbel")],
)
def test_the_larger_ones_compute_the_same(original, tmp_path, size, num_codes, name):
    model = original(size, num_codes)
    path = save(tmp_path / "last.ckpt", model)
    task = zoo.load(path)
    path.unlink()
    assert task.hparams["image_tokenizer"] == name
    assert task.image_tokenizer.num_codes == num_codes
    assert_same(task.image_tokenizer, model)


def test_it_becomes_a_generators_image_tokenizer(small):
    model, path = small
    tokenizer = IMAGE_TOKENIZERS.build("taming_vqgan_f16", num_codes=1024).eval()
    assert load_part(tokenizer, path, "image_tokenizer") == path.name
    assert_same(tokenizer, model)
    with torch.device("meta"):
        others = [IMAGE_TOKENIZERS.build("taming_vqgan_f16"), IMAGE_TOKENIZERS.build("vqgan_tiny")]
    for other in others:
        with pytest.raises(UserError, match="these weights are not of this model"):
            load_part(other, path, "image_tokenizer")


def test_a_training_starts_from_it(small):
    model, path = small
    options = {"image_tokenizer_options": {"num_codes": 1024}, "image_size": 64}
    with pytest.raises(UserError, match="They are of .* --model.discriminator_layers 2"):
        load_initial_weights(ImageTokenizerTask("taming_vqgan_f16", **options), path)
    task = ImageTokenizerTask("taming_vqgan_f16", discriminator_layers=2, **options).eval()
    assert load_initial_weights(task, path) == path.name
    assert_same(task.image_tokenizer, model)


def test_an_image_tokenizer_is_of_a_tokenizer(matcher_file):
    with pytest.raises(UserError, match="it is of zoo.tasks.RetrievalTask, which has no image_tokenizer"):
        load_part(IMAGE_TOKENIZERS.build("vqgan_tiny"), matcher_file(), "image_tokenizer")


class Tiny(nn.Module):
    """A state dict that has a VQGAN's names, of no published shape."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"conv_in": nn.Conv2d(3, 32, 3), "down": nn.ModuleList([nn.Linear(1, 1)] * 3)})
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(16, 4)})
        self.post_quant_conv = nn.Conv2d(4, 8, 1)


def test_a_vqgan_of_another_shape_is_refused(tmp_path):
    path = save(tmp_path / "other.ckpt", Tiny())
    assert read_taming(path) is not None
    with pytest.raises(UserError, match="a VQGAN of 3 sizes, 32 channels and codes of 4 dimensions; of those") as error:
        zoo.load(path)
    assert str(path) in str(error.value)
    with pytest.raises(UserError, match="a VQGAN of 3 sizes"):
        load_part(IMAGE_TOKENIZERS.build("vqgan_tiny"), path, "image_tokenizer")


class Runs:
    """An object whose unpickling calls something."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("call", ["os.system", "exec", "open", "mkdir"])
def test_nothing_in_a_file_is_executed(tmp_path, call):
    trace = tmp_path / "trace"
    danger = {
        "os.system": Runs(os.system, f"touch {trace}"),
        "exec": Runs(exec, f"open({str(trace)!r}, 'w')"),
        "open": Runs(open, str(trace), "w"),
        "mkdir": Runs(os.makedirs, str(trace)),
    }[call]
    path = save(tmp_path / "danger.ckpt", Tiny(), callbacks={"danger": danger})
    with pytest.raises(UserError):  # of another shape, or refused for what it names
        zoo.load(path)
    assert not trace.exists()
    torch.load(path, weights_only=False, pickle_module=unpickler("os", "posix", "builtins", "__builtin__", "io", "_io"))
    assert trace.exists()  # it would have


def test_files_of_something_else_are_left_to_their_own_readers(tmp_path, matcher_file):
    assert read_taming(matcher_file()) is None
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {"module.visual.proj": torch.ones(2)}}, tmp_path / "clip.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    whole = save(tmp_path / "whole.ckpt", Tiny()).read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    for name in ("text.ckpt", "clip.pt", "list.pt", "half.ckpt"):
        assert read_taming(tmp_path / name) is None, name
        with pytest.raises(UserError, match=name):
            zoo.load(tmp_path / name)
    assert zoo.load(matcher_file()).hparams["embedding_dim"] == 16


def test_weights_without_the_rest_of_a_checkpoint_are_read_too(tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / "bare.ckpt")
    assert read_taming(tmp_path / "bare.ckpt").keys() == Tiny().state_dict().keys()
