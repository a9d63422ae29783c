"""What a GPU would refuse, make wrong or wait for, on a machine without one: every task on a pretended ``cuda:0``."""

from functools import partial

import pytest
import torch
from gpu.pretend_cuda import PretendTensor, pretend_cuda
from gpu.tasks import TASKS, TEXTS, batch, fit, retrieval
from tiny_vlm import write_vlm

from zoo import CaptioningTask
from zoo.callbacks import EMA, RunProgressBar


@pytest.mark.parametrize("name", TASKS)
def test_a_gpu_trains_and_evaluates(name, tmp_path):
    with pretend_cuda():
        task = fit(TASKS[name], tmp_path, "gpu").to("cuda").eval()
        assert all(isinstance(parameter, PretendTensor) for parameter in task.parameters())
        moved = {key: value.to("cuda") if torch.is_tensor(value) else value for key, value in batch().items()}
        with torch.no_grad():
            task.validation_step(moved, 0)


def test_a_gpu_trains_and_asks_a_vision_language_model(tmp_path, monkeypatch):
    """InternVL; the code of Qwen makes tensors of lists of single ones, which pretended ones cannot be."""
    write_vlm(tmp_path / "model", "internvl")
    options = {"image_size": 56, "lora_rank": 2, "decoding": {"beams": 2, "max_tokens": 3}}
    asked = batch() | {"image": torch.nn.functional.interpolate(batch()["image"], size=56)}
    monkeypatch.setattr("gpu.tasks.batch", lambda: asked)
    with pretend_cuda():
        make = partial(CaptioningTask, f"vlm:{tmp_path / 'model'}", captioner_options=options)
        task = fit(make, tmp_path, "gpu").to("cuda").eval()
        moved = {key: value.to("cuda") if torch.is_tensor(value) else value for key, value in asked.items()}
        with torch.no_grad():
            assert len(task.validation_step(moved, 0)["captions"]) == 4


@pytest.mark.parametrize("name", TASKS)
def test_no_step_of_a_training_waits_for_the_gpu(name, tmp_path, monkeypatch):
    """Counted by difference: what the first steps do once is left out."""
    monkeypatch.setattr("zoo.callbacks.progress.EVERY", 1e9)  # seconds between two looks at the loss
    with pretend_cuda() as gpu:
        waits = []
        for steps in (2, 5):
            gpu.waits.clear()
            fit(
                TASKS[name], tmp_path, "gpu", steps=steps, callbacks=[RunProgressBar(), EMA()], enable_progress_bar=True
            )
            waits.append(gpu.waits.copy())
    assert waits[1] - waits[0] == {}


@pytest.mark.parametrize("name", ["retrieval", "unet", "dalle"])
def test_a_gpus_training_goes_on_on_a_cpu(name, tmp_path):
    with pretend_cuda():
        fit(TASKS[name], tmp_path, "gpu").trainer.save_checkpoint(tmp_path / "last.ckpt")
    task = fit(TASKS[name], tmp_path, "cpu", steps=5, ckpt_path=tmp_path / "last.ckpt")
    assert task.trainer.global_step == 5
    assert not any(isinstance(parameter, PretendTensor) for parameter in task.parameters())


@pytest.mark.parametrize("name", ["retrieval", "siglip", "dalle", "vqgan"])
def test_where_nothing_is_drawn_a_gpu_learns_what_a_cpu_does(name, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
    expected = fit(TASKS[name], tmp_path, "cpu").state_dict()
    with pretend_cuda():
        found = {key: value.cpu() for key, value in fit(TASKS[name], tmp_path, "gpu").state_dict().items()}
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4, msg=key)


def test_chunks_have_the_gradients_of_the_dropout_that_their_embeddings_had(monkeypatch):
    """A checkpoint keeps the device's noise only where a tensor of the device is among what it is given."""

    def gradients(task):
        task.zero_grad()
        torch.manual_seed(3)
        images, texts = (task._in_chunks(*side) for side in sides)
        task.loss(images, texts, image_ids=batch()["row"].cuda(), query_ids=batch()["row"].cuda()).backward()
        return [parameter.grad.cpu() for parameter in task.parameters() if parameter.grad is not None]

    with pretend_cuda():
        task = retrieval(chunk_size=2).to("cuda").train()
        sides = (task.encode_image, batch()["image"].to("cuda")), (task.encode_text, TEXTS)
        chunked = gradients(task)
        monkeypatch.setattr("zoo.tasks.retrieval.task.checkpoint", lambda encode, *chunk, **_: encode(*chunk))
        kept = gradients(task)
    for one, other in zip(chunked, kept, strict=True):
        torch.testing.assert_close(one, other)
