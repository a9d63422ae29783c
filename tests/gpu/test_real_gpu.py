"""What only a GPU can show, seconds each: ``python -m pytest -m gpu``."""

from functools import partial

import lightning as L
import pytest
import torch
from gpu.tasks import TASKS, TEXTS, batch, fit, retrieval

from zoo.callbacks import EMA, RunProgressBar
from zoo.cli.refusals import out_of_memory
from zoo.core.device import Later, running_sums
from zoo.core.precision import full_float32
from zoo.registry import IMAGE_TOKENIZERS, create

pytestmark = pytest.mark.gpu

QUICK = {"learning_rate": 1e-3, "optimizer": {"warmup_steps": 0}}
CLIPPED = [name for name in TASKS if name != "vqgan"]  # its two optimisers are its own business


class Losses(L.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, *_):
        self.values.append(
            trainer.callback_metrics.get("train/likeness", trainer.callback_metrics["train/loss"]).item()
        )


@pytest.mark.parametrize("name", TASKS)
def test_bf16_training_lowers_the_loss(name, tmp_path):
    losses = Losses()
    fit(partial(TASKS[name], **QUICK), tmp_path, "gpu", steps=40, precision="bf16-mixed", callbacks=[losses])
    first, last = sum(losses.values[:10]), sum(losses.values[-10:])
    assert last < 0.95 * first


class Unwaited(L.Callback):
    """Raises where a step, from the third on, makes the host wait."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx >= 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", TASKS)
def test_no_step_of_a_training_waits(name, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.callbacks.progress.EVERY", 1e9)
    options = {"callbacks": [Unwaited(), EMA(), RunProgressBar()], "enable_progress_bar": True}
    options["gradient_clip_val"] = 1.0 if name in CLIPPED else None
    try:
        task = fit(TASKS[name], tmp_path, "gpu", steps=5, precision="bf16-mixed", **options)
        assert task.trainer.global_step == 5  # none of them raised
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", TASKS)
def test_deterministic_trainings_are_equal_to_the_bit(name, tmp_path):
    first, second = (fit(TASKS[name], tmp_path, "gpu", steps=5, deterministic=True).state_dict() for _ in range(2))
    torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["dalle", "captioning", "captioning by cross-attention"])
def test_what_is_sampled_is_sampled_deterministically_too(name):
    task = TASKS[name]().cuda().eval()
    torch.use_deterministic_algorithms(True)
    try:
        if name == "dalle":
            first, second = (task.generator.write(TEXTS, seeds=range(4)) for _ in range(2))
        else:
            encoded = task.captioner.encode(batch()["image"].cuda())
            drawn = []
            for _ in range(2):
                torch.manual_seed(0)
                drawn.append(task.captioner.sample(encoded, 3)[0])
            first, second = drawn
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, second)


def test_embeddings_are_those_of_a_cpu():
    task, images = retrieval().eval().requires_grad_(False), batch()["image"]
    expected = task.encode_image(images), task.encode_text(TEXTS)
    task.cuda()
    with full_float32(task.device):
        found = task.encode_image(images.cuda()).cpu(), task.encode_text(TEXTS).cpu()
    for own, there in zip(expected, found, strict=True):
        torch.testing.assert_close(there, own, atol=1e-4, rtol=0)


def test_codes_are_those_of_a_cpu():
    tokenizer, images = IMAGE_TOKENIZERS.build("vqgan_tiny").eval(), batch()["image"]
    expected = tokenizer.encode(images)
    assert (tokenizer.cuda().encode(images.cuda()).cpu() == expected).float().mean() > 0.99


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_graph_writes_the_codes_that_a_cpu_writes(guidance):
    torch.manual_seed(0)
    generator = create("dalle_tiny", num_layers=2).eval()
    options = {"seeds": range(4), "guidance": guidance, "top_k": 50, "top_p": 0.9}
    expected = generator.write(TEXTS, **options)
    with full_float32(torch.device("cuda")):
        found = generator.cuda().write(TEXTS, **options)
    assert (found.cpu() == expected).float().mean() > 0.95


@pytest.mark.parametrize("name", ["unet", "dit", "dalle"])
def test_a_seed_has_one_image_in_whatever_batch(name, tmp_path):
    generator = fit(partial(TASKS[name], **QUICK), tmp_path, "gpu", steps=10).cuda().eval().generator
    with full_float32(torch.device("cuda")):
        together = generator.generate(TEXTS, seeds=range(4)).int()
        alone = torch.cat([generator.generate([text], seeds=[seed]) for seed, text in enumerate(TEXTS)]).int()
    assert (together - alone).abs().max() <= 1


def test_chunks_have_the_gradients_of_the_dropout_that_their_embeddings_had(monkeypatch):
    def gradients():
        task.zero_grad()
        torch.manual_seed(3)
        images = task._in_chunks(task.encode_image, batch()["image"].cuda())
        rows = batch()["row"].cuda()
        task.loss(images, task._in_chunks(task.encode_text, TEXTS), image_ids=rows, query_ids=rows).backward()
        return [parameter.grad.clone() for parameter in task.parameters() if parameter.grad is not None]

    task = retrieval(chunk_size=2).cuda().train()
    chunked = gradients()
    monkeypatch.setattr("zoo.tasks.retrieval.task.checkpoint", lambda encode, *chunk, **_: encode(*chunk))
    for one, other in zip(chunked, gradients(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_chunks_take_the_memory_of_one():
    images = torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8).cuda()

    def peak(task):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        task._in_chunks(task.encode_image, images).sum().backward()
        return torch.cuda.max_memory_allocated() - before

    assert peak(retrieval(chunk_size=32).cuda()) < 0.5 * peak(retrieval().cuda())


def test_compiled_towers_compute_the_same(tmp_path):
    found = []
    for compiled in (False, True):
        losses = Losses()
        make = partial(retrieval, dropout=0.0, compile_towers=compiled)
        fit(make, tmp_path, "gpu", steps=5, callbacks=[losses])
        found.append(losses.values)
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_gpus_training_goes_on_on_a_cpu(tmp_path):
    task = fit(retrieval, tmp_path, "gpu")
    task.trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = fit(retrieval, tmp_path, "cpu", steps=5, ckpt_path=tmp_path / "last.ckpt")
    assert again.global_step == 5
    assert {parameter.device.type for parameter in again.parameters()} == {"cpu"}


def test_full_memory_says_what_was_free():
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(1 << 44, dtype=torch.uint8, device="cuda")
    assert "were free" in str(out_of_memory(caught.value, {"batch_size": 8, "chunk_size": None}))


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_running_sums_are_the_same_each_time(rows):
    values = torch.rand(rows, 16384, device="cuda")
    expected = running_sums(values)
    assert all(torch.equal(running_sums(values), expected) for _ in range(20))
    torch.testing.assert_close(expected, values.double().cumsum(1).float(), atol=0.1, rtol=1e-4)


def test_a_number_is_read_later_without_waiting_for_more():
    number = Later(torch.full((), 3.0, device="cuda"))
    busy = torch.rand(8192, 8192, device="cuda")
    for _ in range(50):
        busy = busy @ busy
    done = torch.cuda.Event()
    done.record()
    assert number.item() == 3.0
    assert not done.query()
