import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch

import zoo
from zoo.errors import UserError
from zoo.tasks.retrieval.search.encoder import encode_images, fingerprint, load_encoder

TEXTS = ["红色连衣裙", "帽", "“大码” １００％ Cotton"]


def images():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)


def test_a_checkpoint_embeds_as_the_task_does(matcher):
    encoder, task = load_encoder(matcher), zoo.load(matcher)
    assert encoder.width == task.embedding_dim
    torch.testing.assert_close(torch.from_numpy(encoder.encode_texts(TEXTS)), task.encode_text(TEXTS))
    embedded = encode_images(encoder, list(images()))
    torch.testing.assert_close(torch.from_numpy(embedded), task.encode_image(list(images())), rtol=0, atol=2e-2)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)


def test_other_weights_and_other_sizes_are_other_models(matcher, tmp_path):
    own = fingerprint(zoo.load(matcher))
    assert fingerprint(zoo.load(matcher)) == own
    assert fingerprint(zoo.load(tiny.write_matcher(tmp_path / "other.ckpt", seed=1))) != own
    task = zoo.load(matcher)
    task.hparams["image_tower_options"] = {"image_size": 64}
    assert fingerprint(task) != own
    task = zoo.load(matcher)
    task.hparams["learning_rate"] = 1.0
    assert fingerprint(task) == own


def test_a_task_that_embeds_nothing(tmp_path):
    from zoo.tasks import CaptioningTask

    options = {"captioner": "prefix_tiny", "image_pretrained": False}
    path = tiny.write_task(tmp_path / "captioner.ckpt", CaptioningTask, options)
    with pytest.raises(UserError) as error:
        load_encoder(str(path))
    assert error.value.argument == "model"


@pytest.mark.parity
def test_its_onnx_graphs_embed_the_same_and_are_the_same_model(matcher, tmp_path):
    from zoo.core.export import export

    export(matcher, tmp_path / "onnx", kind="onnx")
    graphs, whole = load_encoder(str(tmp_path / "onnx")), load_encoder(matcher)
    assert (graphs.fingerprint, graphs.width) == (whole.fingerprint, whole.width)
    np.testing.assert_allclose(graphs.encode_texts(TEXTS), whole.encode_texts(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encode_images(graphs, images()), encode_images(whole, images()), atol=1e-5)
    script = (
        "import sys; from zoo.tasks.retrieval.search import query, encoder;"
        f" encoder.load_encoder({str(tmp_path / 'onnx')!r}).encode_texts(['红色']); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    for name in ("tokenizer.json", "image.onnx", "config.json"):
        (tmp_path / "onnx" / name).write_text("{}")
        with pytest.raises(UserError):
            load_encoder(str(tmp_path / "onnx"))
