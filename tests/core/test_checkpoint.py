"""What ``zoo.load`` makes of a checkpoint whose task is another package's, of another format, or published."""

from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from zoo.core import checkpoint as checkpoints
from zoo.core.checkpoint import (
    FORMAT,
    Published,
    load_initial_weights,
    load_part,
    part_of_run,
    read_checkpoint,
    task_keys,
)
from zoo.errors import UserError
from zoo.models.image import TimmImageTower
from zoo.spec import TaskSpec


class ToyTask(nn.Module):
    """As little as ``load`` asks of a task."""

    def __init__(self, width=2):
        super().__init__()
        self.encoder = nn.Linear(width, width)

    def on_load_checkpoint(self, checkpoint):
        self.weights = checkpoint["weights"]


def read_text_files(source, contents):
    if not source.endswith(".txt"):
        return None
    width = int(Path(source).read_text())
    if width == 0:
        raise UserError(f"{source}: a width of 0")
    return Published(ToyTask, {"width": width}, ToyTask(width).state_dict(), name="a text")


def refuse(source, contents):
    raise UserError(f"{source}: I read nothing")


@pytest.fixture
def toys(monkeypatch):
    """A task of another package, with a reader of text files behind one that refuses all."""
    here = __name__
    spec = TaskSpec(name="toy", task=f"{here}:ToyTask", published=(f"{here}:refuse", f"{here}:read_text_files"))
    monkeypatch.setattr(checkpoints, "find_specs", lambda: (spec,))


def write(path, **changes):
    task = ToyTask()
    contents = {**task_keys(task), "state_dict": task.state_dict(), "hyper_parameters": {}, "weights": {}}
    torch.save({**contents, **changes}, path)
    return path


def test_a_run_without_a_best_checkpoint_says_which_it_has(tmp_path, toys):
    file = tmp_path / "run" / "checkpoints" / "val" / "loss=1.ckpt"
    file.parent.mkdir(parents=True)
    write(file)
    with pytest.raises(UserError, match=f"this run has no checkpoints/best.ckpt. Give another: {file}$"):
        zoo.load(tmp_path / "run")


def test_the_weights_of_a_run_are_called_by_it_at_any_depth(tmp_path, toys):
    file = tmp_path / "runs" / "toy" / "1" / "checkpoints" / "val" / "loss=1.ckpt"
    file.parent.mkdir(parents=True)
    (tmp_path / "runs" / "toy" / "1" / "config.yaml").touch()
    assert load_initial_weights(ToyTask(), write(file)) == "toy/1/checkpoints/val/loss=1.ckpt"


def test_a_task_of_another_package_is_found_by_its_spec(tmp_path, toys):
    task = zoo.load(write(tmp_path / "toy.ckpt"))
    assert isinstance(task, ToyTask)
    assert not task.training


def test_without_that_package_the_error_names_it(tmp_path):
    path = write(tmp_path / "toy.ckpt", task_package="toy_zoo")
    with pytest.raises(
        UserError, match=r"'zoo\.tasks\.ToyTask', which this zoo does not have: .* in 'toy_zoo', which is"
    ):
        zoo.load(path)
    with pytest.raises(UserError, match=r"'zoo\.tasks\.ToyTask', which this zoo does not have$"):
        zoo.load(write(tmp_path / "toy.ckpt", task_package="zoo"))


@pytest.mark.parametrize(
    ("found", "age"), [(None, "an earlier"), (1, "an earlier"), (FORMAT + 1, "a later"), ("x", "")]
)
def test_a_checkpoint_of_another_zoo_is_refused_by_name(tmp_path, toys, found, age):
    path = write(tmp_path / "old.ckpt", zoo_format=found)
    if found is None:
        contents = torch.load(path)
        del contents["zoo_format"]
        torch.save(contents, path)
    for read in (zoo.load, read_checkpoint, lambda path: load_initial_weights(ToyTask(), path)):
        with pytest.raises(UserError, match=f"old.ckpt: it was written by {age}.*this one reads format {FORMAT}"):
            read(path)


def test_a_checkpoint_of_no_task_is_read_and_not_loaded(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "other.ckpt")
    assert read_checkpoint(tmp_path / "other.ckpt").keys() == {"state_dict"}
    with pytest.raises(UserError, match="does not say which task"):
        zoo.load(tmp_path / "other.ckpt")


def test_the_first_reader_that_can_reads_what_others_published(tmp_path, toys):
    (tmp_path / "three.txt").write_text("3")
    task = zoo.load(tmp_path / "three.txt")
    assert task.encoder.in_features == 3
    assert task.weights == {"init_from": "a text"}
    with pytest.raises(UserError, match=r"They are of --model.width 3\n"):
        load_initial_weights(ToyTask(), tmp_path / "three.txt")
    assert load_initial_weights(ToyTask(3), tmp_path / "three.txt") == "a text"


def test_where_none_can_the_first_fault_is_told(tmp_path, toys):
    (tmp_path / "none.txt").write_text("0")
    with pytest.raises(UserError, match="I read nothing"):
        zoo.load(tmp_path / "none.txt")


def test_a_part_of_a_trained_task_is_loaded_by_its_name(tmp_path):
    path = write(tmp_path / "toy.ckpt")
    part = nn.Linear(2, 2)
    assert load_part(part, path, "encoder").endswith("toy.ckpt")
    assert torch.equal(part.weight, read_checkpoint(path)["state_dict"]["encoder.weight"])
    with pytest.raises(UserError, match=r"it is of zoo\.tasks\.ToyTask, which has no decoder, but encoder\. Give"):
        load_part(part, path, "decoder")


def test_a_part_of_a_part_is_loaded_too_and_fits_itself(tmp_path):
    small, large = (TimmImageTower("test_vit", image_size=size) for size in (32, 64))
    state = {f"captioner.image_tower.{name}": value for name, value in small.state_dict().items()}
    path = write(tmp_path / "toy.ckpt", state_dict=state)
    assert part_of_run(large, str(path), "image_tower").endswith("toy.ckpt")
    assert torch.equal(large.model.patch_embed.proj.weight, small.model.patch_embed.proj.weight)
    with pytest.raises(UserError, match="which has no tower"):
        load_part(large, path, "tower")


def test_what_is_no_run_is_left_to_the_readers_of_published_weights(tmp_path):
    part = nn.Linear(2, 2)
    (tmp_path / "runs" / "bert").mkdir(parents=True)
    torch.save(part.state_dict(), tmp_path / "runs" / "tower.ckpt")
    for source in ("auto", True, False, "", ".", tmp_path / "runs" / "bert", tmp_path / "runs" / "tower.ckpt"):
        assert part_of_run(part, str(source), "encoder") is None
    with pytest.raises(UserError, match=r"pretrained .*runs/other: no run is there\. Train it first"):
        part_of_run(part, str(tmp_path / "runs" / "other"), "encoder")


def test_parts_fit_weights_to_themselves(tmp_path):
    class Described(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.inner = nn.ModuleDict({"tower": TimmImageTower("test_vit", image_size=size)})

    small, large = Described(32), Described(64)
    torch.save({"state_dict": small.state_dict()}, tmp_path / "small.ckpt")
    load_initial_weights(large, tmp_path / "small.ckpt")
    key = "inner.tower.model.norm.weight"
    assert torch.equal(large.state_dict()[key], small.state_dict()[key])


def test_an_experiment_without_a_best_checkpoint_says_what_there_is(tmp_path):
    last = tmp_path / "runs" / "clip" / "20260102-030405" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"")
    with pytest.raises(UserError, match=r"no run there has a best checkpoint\. There is .*last\.ckpt"):
        zoo.load(tmp_path / "runs" / "clip")
