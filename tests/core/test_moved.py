from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from zoo.core.evaluation import BestCheckpoint
from zoo.core.moved import follow_run, rebased, refuse_other_paths
from zoo.errors import UserError


@pytest.fixture
def checkpointing(tmp_path):
    """Builds the trainer of a run and what a checkpoint holds of its ``ModelCheckpoint``, which kept two files."""

    def build(callback, kept_in, *, folder=tmp_path / "new"):
        files = [str(kept_in / name) for name in ("a.ckpt", "b.ckpt")]
        state = {
            **callback.state_dict(),
            "dirpath": str(kept_in),
            "best_k_models": {path: torch.tensor(place) for place, path in enumerate(files)},
            "best_model_path": files[0],
            "kth_best_model_path": files[1],
            "last_model_path": "",
            "best_model_score": torch.tensor(0),
        }
        checkpoint = {"callbacks": {callback.state_key: state}}
        place = folder / "checkpoints" / "last.ckpt"
        return SimpleNamespace(default_root_dir=folder, ckpt_path=place, checkpoint_callbacks=[callback]), checkpoint

    return build


def touch(folder):
    folder.mkdir(parents=True)
    for name in ("a.ckpt", "b.ckpt"):
        (folder / name).touch()


@pytest.mark.parametrize("copied", [False, True])
def test_what_was_kept_is_found_where_the_run_is_now(checkpointing, tmp_path, copied):
    old, new = tmp_path / "old" / "checkpoints", tmp_path / "new" / "checkpoints"
    touch(new)
    if copied:
        touch(old)
    for callback in (BestCheckpoint("val/loss", "min"), ModelCheckpoint(monitor="val/loss", save_top_k=2)):
        callback.dirpath = str(new)
        trainer, checkpoint = checkpointing(callback, old)
        follow_run(trainer, checkpoint)
        callback.load_state_dict(checkpoint["callbacks"][callback.state_key])
        assert callback.best_model_path == str(new / "a.ckpt")
        assert callback.kth_best_model_path == str(new / "b.ckpt")
        assert list(callback.best_k_models) == [str(new / "a.ckpt"), str(new / "b.ckpt")]
        assert callback.best_model_score == 0


def test_a_folder_of_ones_own_that_changed_is_refused(checkpointing, tmp_path):
    callback = ModelCheckpoint(dirpath=tmp_path / "second", monitor="val/loss", save_top_k=2)
    touch(tmp_path / "first")
    trainer, checkpoint = checkpointing(callback, tmp_path / "first")
    with pytest.raises(UserError) as error:
        follow_run(trainer, checkpoint)
    assert error.value.valid == str(tmp_path / "first")


def test_a_new_run_from_anothers_checkpoint_starts_its_own_best(checkpointing, tmp_path):
    callback = ModelCheckpoint(dirpath=tmp_path / "new" / "checkpoints", monitor="val/loss", save_top_k=2)
    touch(tmp_path / "old" / "checkpoints")
    trainer, checkpoint = checkpointing(callback, tmp_path / "old" / "checkpoints")
    trainer.ckpt_path = tmp_path / "old" / "checkpoints" / "a.ckpt"
    follow_run(trainer, checkpoint)
    assert checkpoint["callbacks"][callback.state_key]["dirpath"] == str(tmp_path / "old" / "checkpoints")


def test_a_best_that_is_lost_is_said(checkpointing, tmp_path):
    callback = ModelCheckpoint(dirpath=tmp_path / "new" / "checkpoints", monitor="val/loss", save_top_k=2)
    trainer, checkpoint = checkpointing(callback, tmp_path / "old" / "checkpoints")
    with pytest.warns(match="best checkpoints by val/loss are not in"):
        follow_run(trainer, checkpoint)


def test_a_text_that_names_nothing_is_no_path(tmp_path, monkeypatch):
    """As the folder of a logger that was given none."""
    for folder in ("old", "new"):
        (tmp_path / folder / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "new")
    old = str(tmp_path / "old")
    refuse_other_paths({"trainer": {"logger": {"init_args": {"save_dir": ""}}, "precision": "32-true"}}, old)
    refuse_other_paths({"data": {"init_args": {"root": str(tmp_path / "old" / "data")}}}, old)
    with pytest.raises(UserError) as caught:
        refuse_other_paths({"data": {"init_args": {"root": "data"}}}, old)
    assert caught.value.argument == "data.root"
    refuse_other_paths({"data": {"init_args": {"root": "data"}}}, str(tmp_path / "new"))


def test_only_paths_into_the_folder_follow_it():
    new = Path("/b")
    assert rebased("/a/run/x/y", "/a/run", new) == "/b/x/y"
    assert rebased("/a/run", "/a/run", new) == "/b"
    for other in ("/a/run2/x", "run/x", "min", "/a"):
        assert rebased(other, "/a/run", new) == other
