import math

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from zoo.core.checkpoint import load, load_initial_weights
from zoo.errors import UserError
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS
from zoo.tasks import RetrievalTask
from zoo.tasks.retrieval.losses.functional import clip_loss

OPTIONS = {
    "image_tower": "timm:test_vit",
    "image_tower_options": {"image_size": 32},
    "text_tower": "bert_tiny_chinese",
    "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
    "image_pretrained": False,
    "text_pretrained": False,
    "embedding_dim": 16,
}
IMAGES = torch.arange(3 * 3 * 32 * 32).remainder(251).to(torch.uint8).reshape(3, 3, 32, 32)
TEXTS = ["红裙", "蓝色长裤女", "帽子"]


@pytest.fixture
def task():
    torch.manual_seed(0)
    return RetrievalTask(**OPTIONS).eval()


@pytest.fixture
def checkpoint(task, tmp_path):
    """A checkpoint as the trainer writes it."""
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.strategy.connect(task)
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_embeddings_are_unit_vectors(task):
    for embeddings in (task.encode_image(IMAGES), task.encode_text(TEXTS)):
        assert embeddings.shape == (3, 16)
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_nothing_has_no_embeddings(task):
    for embeddings in (task.encode_text([]), task.encode_image([]), task.encode_image(IMAGES[:0])):
        assert embeddings.shape == (0, 16)
        assert embeddings.dtype == torch.float32
        assert embeddings.device == task.device
    with pytest.raises(UserError, match="the string '' came"):
        task.encode_text("")


def test_a_checkpoint_gives_the_same_task_back(task, checkpoint):
    for path in (checkpoint, checkpoint.parent.parent):
        loaded = load(path)
        assert isinstance(loaded, RetrievalTask)
        assert not loaded.training
        torch.testing.assert_close(loaded.encode_text(TEXTS), task.encode_text(TEXTS), rtol=0, atol=0)
        torch.testing.assert_close(loaded.encode_image(IMAGES), task.encode_image(IMAGES), rtol=0, atol=0)
    loaded = RetrievalTask.load_from_checkpoint(checkpoint, weights_only=True).eval()
    torch.testing.assert_close(loaded.encode_text(TEXTS), task.encode_text(TEXTS), rtol=0, atol=0)


def test_a_built_module_takes_the_place_of_a_name(task):
    torch.manual_seed(0)
    built = RetrievalTask(
        IMAGE_TOWERS.build("timm:test_vit", image_size=32),
        TEXT_TOWERS.build("bert_tiny_chinese", width=32, num_layers=1, num_heads=2),
        embedding_dim=16,
    ).eval()
    torch.testing.assert_close(built.encode_text(TEXTS), task.encode_text(TEXTS))
    assert "image_tower" not in built.hparams


def test_options_of_a_built_module_are_refused():
    tower = IMAGE_TOWERS.build("timm:test_vit", image_size=32)
    with pytest.raises(UserError, match=r"image_tower_options .* cannot change it"):
        RetrievalTask(tower, image_tower_options={"image_size": 64})


def test_images_are_embedded_as_their_pixels(task):
    images = [Image.new("RGB", (50, 30), "red"), Image.new("LA", (20, 70), (9, 99))]
    expected = task.encode_image(task.image_tower.preprocess(images))
    torch.testing.assert_close(task.encode_image(images), expected, rtol=0, atol=0)
    with pytest.raises(UserError, match=r"one image came; .* \[image\]"):
        task.encode_image(images[0])


def test_what_a_notebook_has_is_embedded(task, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    pictures[0].save(tmp_path / "a.png")
    expected = task.encode_image(pictures)
    for given in (pixels, list(pixels), [tmp_path / "a.png", pictures[1]]):
        assert torch.equal(task.encode_image(given), expected)
    for given in (np.array(TEXTS), np.array(TEXTS, dtype=object), tuple(TEXTS)):
        assert torch.equal(task.encode_text(given), task.encode_text(TEXTS))
    for texts in ([None], [TEXTS[0], float("nan")]):
        with pytest.raises(UserError, match=rf"texts\[{len(texts) - 1}\] is "):
            task.encode_text(texts)


def test_the_image_projection_has_a_bias_where_asked(task):
    biased = RetrievalTask(**OPTIONS, image_projection_bias=True).eval()
    assert set(biased.state_dict()) - set(task.state_dict()) == {"image_projection.bias"}
    load_state = {**task.state_dict(), "image_projection.bias": torch.zeros(16)}
    biased.load_state_dict(load_state)
    torch.testing.assert_close(biased.encode_image(IMAGES), task.encode_image(IMAGES), rtol=0, atol=0)
    biased.image_projection.bias.data += 1
    assert (biased.encode_image(IMAGES) - task.encode_image(IMAGES)).abs().max() > 0.01


def test_positions_of_a_run_follow_the_image_size(checkpoint):
    larger = RetrievalTask(**{**OPTIONS, "image_tower_options": {"image_size": 64}})
    load_initial_weights(larger, checkpoint)
    small = torch.load(checkpoint, weights_only=True)["state_dict"]["image_tower.model.pos_embed"]
    positions = larger.image_tower.model.pos_embed.detach()
    assert positions.shape[1] == 1 + 16
    corners = positions[:, [0, 1, 4, 13, 16]]  # the class token, and the corners, which stay where they are
    torch.testing.assert_close(corners, small, rtol=0, atol=1e-6)


def test_initial_weights_come_whole_or_not_at_all(task, checkpoint):
    other = RetrievalTask(**OPTIONS).eval()
    load_initial_weights(other, checkpoint)
    torch.testing.assert_close(other.encode_text(TEXTS), task.encode_text(TEXTS), rtol=0, atol=0)
    wider = RetrievalTask(**{**OPTIONS, "embedding_dim": 24})
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(
        UserError, match=r"nothing was loaded:\n  mis-shaped  image_projection\.weight \[16, 64\], wanted"
    ):
        load_initial_weights(wider, checkpoint)
    assert all(torch.equal(before[name], value) for name, value in wider.state_dict().items())


def test_a_damaged_checkpoint_and_one_with_code_are_refused(checkpoint):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        load(checkpoint)
    torch.save({"state_dict": {}, "task": print}, checkpoint)
    with pytest.raises(UserError, match="more than weights and plain data"):
        load(checkpoint)
    checkpoint.write_text("just words")
    with pytest.raises(UserError, match="no checkpoint, or a damaged one"):
        load(checkpoint)
    with pytest.raises(UserError, match="no such checkpoint"):
        load(checkpoint.with_name("absent.ckpt"))


def test_a_checkpoint_names_a_task_and_nothing_else_to_call(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    arguments = {"args": ["touch", str(tmp_path / "ran")]}
    for task in (
        "subprocess.Popen",
        "zoo.tasks.retrieval.task.os.system",
        "zoo.tasks.Nothing",
        "zoo.tasks.__name__",
        3,
    ):
        torch.save({**content, "task": task, "hyper_parameters": arguments}, checkpoint)
        with pytest.raises(UserError, match="which this zoo does not have"):
            load(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_the_evaluation_loss_is_the_training_loss_of_each_block(task):
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(7, 16, generator=generator)) for _ in range(2))
    ids = torch.tensor([1, 2, 3, 1, 5, 6, 7])
    loss = task.evaluation_loss(images, texts, ids, torch.arange(7), block=4)
    scale = task.loss.logit_scale.exp()
    first = clip_loss(images[:4], texts[:4], scale, image_ids=ids[:4], query_ids=torch.arange(4))
    second = clip_loss(images[4:], texts[4:], scale, image_ids=ids[4:], query_ids=torch.arange(3))
    torch.testing.assert_close(loss, (4 * first + 3 * second) / 7)


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitems__(self, rows):
        rows = torch.tensor(rows)
        images = torch.randint(0, 256, (len(rows), 3, 32, 32), dtype=torch.uint8)
        return {"image": images, "text": ["红裙"] * len(rows), "image_id": rows, "query_id": rows}


def fit(task, tmp_path, **options):
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=4, collate_fn=lambda batch: batch)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet, **options)
    trainer.fit(task, loader)
    return trainer


@pytest.mark.parametrize(("beyond", "bound"), [(5.0, math.log(100)), (-0.5, 0.0)])
def test_the_logit_scale_stays_within_its_bounds(tmp_path, beyond, bound):
    task = RetrievalTask(**OPTIONS, learning_rate=1e-6, optimizer={"warmup_steps": 0})
    task.loss.logit_scale.data.fill_(beyond)
    fit(task, tmp_path, max_steps=1)
    assert task.loss.logit_scale.item() == pytest.approx(bound, abs=1e-6)


def test_a_temperature_that_is_not_learned_stays(tmp_path):
    for learned in (True, False):
        task = RetrievalTask(
            **OPTIONS,
            loss_options={"temperature": 0.1, "learn_temperature": learned},
            learning_rate=0.01,
            optimizer={"warmup_steps": 0},
        )
        fit(task, tmp_path, max_epochs=1)
        assert (task.loss.logit_scale.exp().item() == pytest.approx(10, abs=1e-4)) is not learned


def test_the_loss_weighs_its_directions_in_training_and_evaluation(tmp_path):
    losses, evaluated = {}, {}
    ids = torch.arange(3)
    for weight in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        task = RetrievalTask(**OPTIONS, loss_options={"text_to_image_weight": weight})
        images, texts = task.encode_image(IMAGES), task.encode_text(["红裙"] * 3)
        evaluated[weight] = task.eval().evaluation_loss(images, texts, ids, ids).item()
        trainer = fit(task.train(), tmp_path, max_steps=1)
        losses[weight] = trainer.callback_metrics["train/loss"].item()
    for measured in (losses, evaluated):
        assert measured[0.0] != pytest.approx(measured[1.0], rel=1e-3)
        assert measured[0.5] == pytest.approx((measured[0.0] + measured[1.0]) / 2, rel=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_leading_dimensions_are_trained_to_be_embeddings(tmp_path, loss):
    torch.manual_seed(0)
    task = RetrievalTask(**OPTIONS, loss=loss, dimensions=[4, 9])
    images, texts = task.encode_image(IMAGES), task.encode_text(TEXTS)
    ids = torch.arange(3)

    def plain(count):
        parts = (side[:, :count] / side[:, :count].norm(dim=1, keepdim=True) for side in (images, texts))
        return task.loss(*parts, image_ids=ids, query_ids=ids)

    expected = (plain(4) + plain(9) + plain(16)) / 3
    torch.testing.assert_close(task.evaluation_loss(images, texts, ids, ids), expected)
    trained = []
    for dimensions in ([4, 9], []):
        torch.manual_seed(0)
        task = RetrievalTask(**OPTIONS, loss=loss, dimensions=dimensions)
        trained.append(fit(task, tmp_path, max_steps=1).callback_metrics["train/loss"].item())
    assert not math.isclose(*trained, rel_tol=1e-3)


@pytest.mark.parametrize("dimensions", [[0], [16], [4, 4], [-1]])
def test_dimensions_are_parts_of_the_whole(dimensions):
    with pytest.raises(UserError, match=r"model.dimensions is .*: give each once, from 1 to 15"):
        RetrievalTask(**OPTIONS, dimensions=dimensions)


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("temperature", 3.0), ("text_to_image_weight", 1.2)])
def test_a_number_out_of_its_range_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name}: {value} came"):
        RetrievalTask(**OPTIONS, loss_options={name: value})


@pytest.mark.parametrize("option", ["embedding_dim", "chunk_size"])
@pytest.mark.parametrize("value", [0, -4])
def test_a_size_below_one_is_refused(option, value):
    with pytest.raises(UserError) as error:
        RetrievalTask(**{**OPTIONS, option: value})
    assert error.value.argument == f"model.{option}"


def test_warm_up_then_cosine_to_zero(tmp_path):
    rates = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    task = RetrievalTask(**OPTIONS, learning_rate=1.0e-3, optimizer={"warmup_steps": 2})
    trainer = fit(task, tmp_path, max_epochs=2, callbacks=[Watch()])
    assert rates[:2] == pytest.approx([0.5e-3, 1e-3])
    assert rates[2] == pytest.approx(1e-3)
    assert rates[-1] < rates[3] < rates[2]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_dropout_is_a_function_of_seed_and_step(tmp_path):
    def losses():
        torch.manual_seed(1)
        task = RetrievalTask(**OPTIONS)
        seen = []

        class Watch(L.Callback):
            def on_train_batch_end(self, trainer, task, outputs, batch, index):
                seen.append(task.encode_text(TEXTS).detach())  # in training mode: with dropout

            def on_train_batch_start(self, trainer, task, batch, index):
                torch.rand(7)  # what else the process draws in between changes nothing

        fit(task, tmp_path, max_steps=2, callbacks=[Watch()])
        return seen

    first, second = losses(), losses()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
