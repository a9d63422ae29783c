"""The image tokenizer's training: two networks, their beginnings, what is logged, codes that nobody uses."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.utils.data import DataLoader, IterableDataset

from zoo.data.images import to_pixels
from zoo.errors import UserError
from zoo.models.vqgan import VQGAN, GumbelQuantizer
from zoo.tasks import ImageTokenizerTask

CODES, SIZE, BATCHES = 32, 8, 5
VQGAN_OPTIONS = {"num_codes": CODES, "width": 32, "multipliers": (1, 1), "patch_size": 1}
SMALL = {
    "image_tokenizer": "vqgan_tiny",
    "image_tokenizer_options": VQGAN_OPTIONS,
    "image_size": SIZE,
    "learning_rate": 1e-3,
    "optimizer": {"warmup_steps": 3},
    "perceptual": "laplacian",
    "discriminator_start": 3,
    "discriminator_width": 8,
    "discriminator_layers": 1,
}


def build(seed=0, **options):
    torch.manual_seed(seed)
    return ImageTokenizerTask(**{**SMALL, **options})


def batches(seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 3, SIZE // 2, SIZE // 2)
    coarse = [torch.randint(256, shape, dtype=torch.uint8, generator=generator) for _ in range(BATCHES)]
    return [{"image": each.repeat_interleave(2, 2).repeat_interleave(2, 3), "text": ["红"] * 4} for each in coarse]


class Recorder(Callback):
    """What a training looked like, batch by batch."""

    def __init__(self):
        self.steps, self.logged, self.before, self.after, self.rates, self.gradients = [], [], [], [], [], []
        self.usage = []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.before.append({name: value.clone() for name, value in task.state_dict().items()})
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])

    def on_before_optimizer_step(self, trainer, task, optimizer):
        if optimizer is trainer.optimizers[0]:
            named = {"image_tokenizer": task.image_tokenizer, "discriminator": task.discriminator}
            self.gradients.append({k: [p.grad is not None for p in part.parameters()] for k, part in named.items()})

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.steps.append(trainer.global_step)
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.after.append({name: value.clone() for name, value in task.state_dict().items()})
        self.free = [parameter.requires_grad for parameter in task.discriminator.parameters()]

    def on_train_epoch_start(self, trainer, task):
        self._use(trainer)

    def on_train_end(self, trainer, task):
        self._use(trainer)

    def _use(self, trainer):
        if "train/codebook_usage" in trainer.callback_metrics:
            self.usage.append(float(trainer.callback_metrics["train/codebook_usage"]))

    def changed(self, batch, prefix):
        """Whether a batch changed the parameters of a network, not the statistics of its norms."""
        keys = [key for key in self.before[0] if key.startswith(prefix) and key.endswith((".weight", ".bias"))]
        return any(not torch.equal(self.before[batch][key], self.after[batch][key]) for key in keys)


def fit(task, *, epochs=1, steps=-1, data=None):
    recorder = Recorder()
    trainer = L.Trainer(
        max_epochs=epochs,
        max_steps=steps,
        accelerator="cpu",
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(task, DataLoader(batches() if data is None else data, batch_size=None))
    return recorder


@pytest.fixture(scope="module")
def recorded():
    """A training of two epochs of five batches, whose discriminator begins with the fourth."""
    return fit(build(), epochs=2)


# --- two networks ----------------------------------------------------------------------------------------------


def test_a_step_is_a_batch_also_when_two_networks_step(recorded):
    assert recorded.steps == list(range(1, 2 * BATCHES + 1))


def test_the_discriminator_learns_from_its_beginning_on(recorded):
    assert [recorded.changed(batch, "discriminator.") for batch in range(6)] == [False] * 3 + [True] * 3
    assert all(recorded.changed(batch, "image_tokenizer.") for batch in range(6))


def test_the_discriminator_counts_from_its_beginning_on(recorded):
    for name in ("train/discriminator", "train/adversarial_weight"):
        assert [name in logged for logged in recorded.logged[:5]] == [False] * 3 + [True] * 2, name
    for logged in recorded.logged[:3]:
        expected = logged["train/likeness"] + logged["train/codebook"]
        assert logged["train/loss"] == pytest.approx(expected, rel=1e-6)
    for logged in recorded.logged[3:]:
        assert abs(logged["train/loss"] - logged["train/likeness"] - logged["train/codebook"]) > 1e-6
        assert 0 < logged["train/adversarial_weight"] < 0.8e4


def test_without_a_discriminator_none_learns():
    recorded = fit(build(discriminator_start=None))
    assert not any(recorded.changed(batch, "discriminator.") for batch in range(BATCHES))
    assert "train/discriminator" not in recorded.logged[-1]


def test_no_gradient_of_the_vqgans_loss_reaches_the_discriminator(recorded):
    """At the VQGAN's step its own parameters have gradients, all of them, and the discriminator's none."""
    assert len(recorded.gradients) == 2 * BATCHES
    for gradients in recorded.gradients:
        assert all(gradients["image_tokenizer"])
        assert not any(gradients["discriminator"])
    assert all(recorded.free)  # for its own next step


def test_an_opinion_that_does_not_count_changes_nothing(monkeypatch):
    """The discriminator learns from images that are no part of the VQGAN's graph."""
    monkeypatch.setattr("zoo.tasks.image_tokenizer.task.DISCRIMINATOR_WEIGHT", 0.0)
    silent = fit(build(discriminator_start=0))
    alone = fit(build(discriminator_start=None))
    assert silent.changed(0, "discriminator.")
    for key, value in alone.after[-1].items():
        if key.startswith("image_tokenizer."):
            torch.testing.assert_close(silent.after[-1][key], value, atol=1e-6, rtol=0)


def test_the_opinion_pulls_at_the_last_layer_as_hard_as_likeness_does():
    task = build()
    task._trainer = SimpleNamespace(strategy=SingleDeviceStrategy(device="cpu"))
    pixels = to_pixels(batches()[0]["image"])
    reconstruction = task.image_tokenizer(pixels)[0]
    likeness, opinion = (reconstruction - pixels).abs().mean(), -task.discriminator(reconstruction).mean()
    weight = task._adversarial_weight(likeness, opinion)
    last = task.image_tokenizer.last_layer
    norms = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (likeness, opinion)]
    assert weight.item() == pytest.approx(0.8 * (norms[0] / (norms[1] + 1e-4)).item(), rel=1e-5)


def test_each_network_warms_up_from_its_own_beginning_and_ends_at_zero(recorded):
    vqgan, discriminator = zip(*recorded.rates, strict=True)
    assert discriminator[3:6] == pytest.approx(vqgan[:3])
    assert max(vqgan) == max(discriminator) == pytest.approx(1e-3)
    assert vqgan[0] < vqgan[1] < vqgan[2]
    assert vqgan[-1] < 0.1 * max(vqgan)
    assert discriminator[-1] < 0.2 * max(discriminator)
    assert len(set(discriminator[:4])) == 1  # it waits


def test_it_learns_pictures():
    recorded = fit(build(discriminator_start=None, learning_rate=3e-3), epochs=8)
    likeness = [logged["train/likeness"] for logged in recorded.logged]
    assert likeness[-1] < 0.7 * likeness[0]


# --- the codebook in use ---------------------------------------------------------------------------------------

STILL = {"learning_rate": 0.0, "discriminator_start": None}  # nothing but restarts changes
BOOK = "image_tokenizer.quantize.embedding.weight"


@torch.no_grad()
def look(task, batch):
    _, codes, _, latents = task.image_tokenizer(to_pixels(batch["image"]))
    return set(codes.flatten().tolist()), latents.permute(0, 2, 3, 1).flatten(0, 2)


def test_codes_that_no_picture_uses_are_put_where_pictures_are():
    task = build(**STILL, restart_after=3)
    one = batches()[0]
    used, rows = look(task, one)
    idle = sorted(set(range(CODES)) - used)
    assert 0 < len(idle) < len(rows)
    recorded = fit(task, data=[one] * 4)
    before = recorded.before[0][BOOK]
    assert torch.equal(recorded.after[1][BOOK], before)
    after = recorded.after[2][BOOK]
    assert torch.equal(after[sorted(used)], before[sorted(used)])
    places = [(rows == code).all(dim=1).nonzero().flatten().tolist() for code in after[idle]]
    assert all(places)
    assert len({place for found in places for place in found}) >= len(idle)  # not all at one place
    assert not recorded.after[2]["idle"].any()
    assert len(look(task, one)[0]) > len(used)


def test_a_code_that_is_used_now_and_then_is_left_alone():
    task = build(restart_after=3)
    task._trainer = SimpleNamespace(strategy=SingleDeviceStrategy(device="cpu"), global_step=0, fit_loop=None)
    book = task.image_tokenizer.quantize.embedding.weight
    before = book.detach().clone()
    for code in (5, 6, 6, 5, 6, 6, 5):  # 5 is idle for two batches at a time
        task._keep_in_use(torch.full((1, 6, 6), code), torch.randn(1, 8, 6, 6))
    moved = (book != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [code for code in range(CODES) if code not in (5, 6)]
    assert task.idle[[5, 6]].tolist() == [0, 1]


def test_more_idle_codes_than_latents_wait_for_the_next_batch():
    task = build(**STILL, restart_after=2, image_tokenizer_options={**VQGAN_OPTIONS, "num_codes": 512})
    recorded = fit(task, data=batches()[:4])
    changed = [(after[BOOK] != recorded.before[0][BOOK]).any(dim=1).sum().item() for after in recorded.after]
    assert changed[0] == 0
    assert changed[1] == 4 * (SIZE // 2) ** 2  # all latents of a batch
    assert changed[2] > changed[1]


class Halves(IterableDataset):
    """Other images every epoch."""

    def __init__(self):
        self.epochs = iter([batches()[:3], batches()[3:]])

    def __iter__(self):
        return iter(next(self.epochs))


def test_the_share_of_codes_that_the_epoch_used_is_logged():
    task = build(**STILL, restart_after=1000)
    found = fit(task, epochs=2, steps=6, data=Halves()).usage
    used = [set().union(*(look(task, batch)[0] for batch in half)) for half in (batches()[:3], batches()[3:])]
    assert found == pytest.approx([100 * len(codes) / CODES for codes in used])
    assert len(set(found)) == 2


# --- evaluation ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_an_evaluation_gives_reconstructions_and_their_codes():
    task = build().eval()
    found = task.validation_step(batches()[0], 0)
    assert found["images"].dtype == torch.uint8
    assert found["images"].shape == (4, 3, SIZE, SIZE)
    assert torch.equal(found["codes"], task.image_tokenizer.encode(batches()[0]["image"]))


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 9}, "image_size is 9: this VQGAN takes multiples of 2"),
        ({"image_size": 0}, "image_size is 0"),
        ({"discriminator_start": -1}, "discriminator_start is -1: give 0 or more"),
        ({"restart_after": 0}, "restart_after is 0: give 1 or more"),
        ({"discriminator_width": 0}, "discriminator_width is 0: give 1 or more"),
        ({"perceptual": "vgg"}, "perceptual is 'vgg': give auto, lpips or laplacian"),
        ({"discriminator_layers": 0}, "discriminator_layers is 0: give 1 or more"),
        ({"discriminator_layers": 3}, "discriminator_layers"),  # of 8 pixels nothing would be left
        ({"image_tokenizer": "vqgan_huge"}, "There is no image tokenizer 'vqgan_huge'. Did you mean vqgan_"),
        ({"image_tokenizer_options": {"heads": 2}}, "image tokenizer 'vqgan_tiny' has no option 'heads'"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(UserError) as error:
        build(**options)
    assert message in str(error.value)


def test_an_autoencoder_without_codes_is_refused():
    from diffusers import AutoencoderKL

    from zoo.models.autoencoder import KLAutoencoder

    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    with pytest.raises(UserError, match="KLAutoencoder has no codes: it is no VQGAN"):
        build(image_tokenizer=KLAutoencoder(model, published="x"), image_tokenizer_options=None)


def begin(task, **trainer):
    """What Lightning calls before the first batch."""
    plain = {"strategy": SingleDeviceStrategy(device="cpu"), "precision": "32-true", "datamodule": None}
    task._trainer = SimpleNamespace(**{**plain, **trainer})
    task.on_fit_start()


def test_a_precision_that_two_optimisers_cannot_do_is_refused():
    with pytest.raises(UserError, match="16-mixed, which scales one optimiser's losses: give bf16-mixed or 32"):
        begin(build(), precision="16-mixed")
    begin(build(), precision="bf16-mixed")


def test_several_devices_are_told_that_an_optimiser_leaves_parameters_alone():
    task, strategy = build(), DDPStrategy()
    task._trainer = SimpleNamespace(strategy=strategy, ckpt_path="last.ckpt", is_global_zero=False)
    task.setup("fit")
    assert strategy._ddp_kwargs == {"find_unused_parameters": True}


def test_a_gumbel_codebook_is_not_trained():
    quantize = GumbelQuantizer(num_codes=8, code_dim=4)
    tokenizer = VQGAN(quantize, width=32, multipliers=(1, 1), num_blocks=1, latent_channels=4, code_dim=4)
    with pytest.raises(UserError, match="a Gumbel codebook is read, not trained: take vqgan_f16"):
        begin(build(image_tokenizer=tokenizer, image_tokenizer_options=None))


def test_lpips_is_asked_for_where_it_cannot_be_had(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="LPIPS needs VGG-16"):
        fit(build(perceptual="lpips"), data=batches()[:1])
    fit(build(perceptual="auto"), data=batches()[:1])
    assert "No LPIPS, for torch's cache has no VGG-16: the Laplacian pyramid stands in" in capsys.readouterr().err
