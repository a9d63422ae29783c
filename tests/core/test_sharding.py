"""What cannot be shared out is refused; gradients are clipped together, shared out or not."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from zoo.callbacks.ema import EMA
from zoo.core.sharding import ShardedStrategy, clip_gradients
from zoo.errors import UserError
from zoo.tasks import CaptioningTask, RetrievalTask

OPTIONS = {
    "image_tower": "timm:test_vit",
    "image_tower_options": {"image_size": 32},
    "text_tower": "bert_tiny_chinese",
    "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
    "embedding_dim": 16,
}


def configure(strategy, *, precision="32-true", **options):
    task = RetrievalTask(**(OPTIONS | options))
    task._trainer = SimpleNamespace(strategy=strategy, precision=precision)
    task._device_mesh = {"data_parallel": None}
    task.configure_model()


def test_lightnings_own_strategy_is_refused():
    with pytest.raises(UserError, match="ModelParallelStrategy came; use zoo.core.sharding.ShardedStrategy"):
        configure(ModelParallelStrategy())


def test_towers_without_blocks_are_refused():
    with pytest.raises(UserError, match="image_tower: it has no blocks to share out"):
        configure(ShardedStrategy(), image_tower="timm:test_resnet", image_tower_options={"image_size": 64})
    bare = nn.Module()
    bare.width = 8
    with pytest.raises(UserError, match=r"image_tower: the tower Module has no method blocks\(\)"):
        configure(ShardedStrategy(), image_tower=bare, image_tower_options=None)


@pytest.mark.parametrize(("precision", "half"), [("32-true", None), ("bf16-mixed", torch.bfloat16)])
def test_weights_travel_in_the_precision_of_the_training(precision, half, monkeypatch):
    policies = []
    monkeypatch.setattr("zoo.core.sharding.fully_shard", lambda part, **options: policies.append(options["mp_policy"]))
    configure(ShardedStrategy(), precision=precision)
    assert {policy.param_dtype for policy in policies} == {half}
    assert {policy.reduce_dtype for policy in policies} == {half and torch.float32}


def test_other_tasks_are_refused():
    strategy = ShardedStrategy()
    strategy.connect(CaptioningTask.__new__(CaptioningTask))
    with pytest.raises(UserError, match="CaptioningTask cannot be sharded; RetrievalTask can"):
        strategy.setup(SimpleNamespace())


def test_averages_of_shared_weights_are_refused():
    with pytest.raises(UserError, match="EMA: ShardedStrategy shares the weights out"):
        EMA().setup(SimpleNamespace(strategy=ShardedStrategy()), RetrievalTask, "fit")


@pytest.fixture
def mesh():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("algorithm", "clip"), [("norm", nn.utils.clip_grad_norm_), ("value", nn.utils.clip_grad_value_)]
)
def test_gradients_are_clipped_together(mesh, algorithm, clip):
    expected, shared = nn.Linear(3, 2), nn.Linear(3, 2)
    shared.weight = nn.Parameter(distribute_tensor(shared.weight.detach(), mesh, [Replicate()]))
    expected.weight.grad, expected.bias.grad = torch.arange(1.0, 7).reshape(2, 3), torch.tensor([0.1, -7.0])
    shared.weight.grad = distribute_tensor(expected.weight.grad.clone(), mesh, [Replicate()])
    shared.bias.grad = expected.bias.grad.clone()
    clip(expected.parameters(), 0.5)
    clip_gradients(shared, 0.5, algorithm)
    assert isinstance(shared.weight.grad, DTensor)
    torch.testing.assert_close(shared.weight.grad.full_tensor(), expected.weight.grad)
    torch.testing.assert_close(shared.bias.grad, expected.bias.grad)
