"""``~`` and ``$NAME`` where no shell sees them; runs that move."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from zoo.core.weights import load_pretrained
from zoo.errors import UserError
from zoo.tasks.captioning import scoring as captioning
from zoo.tasks.retrieval.scoring import score_retrieval
from zoo.tasks.text_to_image import encode, generate
from zoo.tasks.text_to_image import scoring as text_to_image

TINY = ("--config", "experiments/tiny.yaml")
QUICK = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.logger=false")


@pytest.fixture
def home(workplace, muge_root):
    """A home folder with MUGE in it, ``~/data``; no such folder lies anywhere else."""
    folder = Path(os.environ["HOME"])
    folder.mkdir()
    (folder / "data").symlink_to(muge_root)
    return folder


@pytest.fixture
def tiny(workplace):
    """Lays a configuration over the tiny experiment: ``tiny(data={…}, trainer={…})`` are the words for it."""

    def write(**groups):
        path = workplace / "experiments" / "over.yaml"
        path.write_text(yaml.safe_dump(groups))
        return (*TINY, "--config", str(path))

    return write


def test_flags_and_yaml_of_a_training_may_begin_at_home(zoo_main, home, tiny, only_run, muge_root):
    own = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "$OWN/ckpt"}}
    os.environ["OWN"] = str(home / "own")
    config = tiny(data={"init_args": {"root": "~/data"}}, trainer={"callbacks+": [own]})
    code, _, err = zoo_main("fit", *config, "--runs=~/zr", *QUICK, "--config=${HOME}/../experiments/over.yaml")
    assert code == 0, err
    run = only_run(home, "zr")
    assert not Path("~").exists()
    assert list((home / "own" / "ckpt").glob("*.ckpt"))
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["data"]["init_args"]["root"] == "~/data"  # as they were given
    assert written["trainer"]["callbacks"][-1]["init_args"]["dirpath"] == "$OWN/ckpt"
    code, _, err = zoo_main("test", f"--ckpt_path=$HOME/zr/tiny/{run.name}", "--trainer.limit_test_batches=1")
    assert code == 0, err
    assert zoo.load(f"~/zr/tiny/{run.name}").trained_steps == zoo.load("~/zr/tiny").trained_steps == 3
    task = zoo.load(run)
    assert zoo.core.checkpoint.load_initial_weights(task, "~/zr/tiny").endswith("best.ckpt")


def test_data_and_weights_may_begin_at_home_in_python(home, muge_root, monkeypatch, tmp_path):
    for given in ("~/data", "$HOME/data"):
        assert zoo.RetrievalDataModule(given).folder == home / "data" / "Multimodal_Retrieval"
    monkeypatch.setenv("MUGE_ROOT", "~/data")
    assert zoo.TextToImageDataModule().folder == home / "data" / "ECommerce-T2I"
    monkeypatch.setenv("MUGE_ROOT", "~/nowhere")
    with pytest.raises(UserError, match=r"\$MUGE_ROOT is ~/nowhere: there is no such folder"):
        zoo.RetrievalDataModule().folder  # noqa: B018
    model = torch.nn.Linear(2, 2)
    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, home / "linear.pt")
    load_pretrained(model, "$HOME/linear.pt")
    assert model.weight.tolist() == [[1, 1], [1, 1]]
    answers = "data/Multimodal_Retrieval/MR_test_answers.jsonl"
    assert score_retrieval(f"~/{answers}", f"~/{answers}")["score"] == 0  # it is read: too few images a query
    with pytest.raises(UserError, match=r"/home/nowhere"):
        zoo.IMAGE_TOKENIZERS.build("diffusers:~/nowhere")


def test_the_data_commands_take_paths_at_home(zoo_main, home):
    assert zoo_main("data", "export", "captioning", "~/data", "$HOME/out")[0] == 0
    assert (home / "out" / "images").is_dir()
    table = next((home / "out").glob("*.*sv"))
    words = (f"--table=~/out/{table.name}", "--images=~/out/images", "--on_error=skip")
    assert "not there" not in "".join(map(str, zoo_main("data", "import", "captioning", *words, "~/again")))
    assert "not there" not in "".join(map(str, zoo_main("data", "check", "captioning", "~/data")))
    assert zoo_main("data", "catalogue", "$NOT_SET/shop")[0] == 1
    assert (home / "again").is_dir()
    assert not Path("~").exists()
    assert not Path("$NOT_SET").exists()


@pytest.mark.parametrize(
    ("parser", "words", "names"),
    [
        (captioning.scoring_parser, "--targets=~/t --predictions=~/p --output=~/o --per_image=~/i", 4),
        (captioning.scoring_parser, "--targets=~/t --predictions=~/p --document_frequencies=~/d", 3),
        (text_to_image.scoring_parser, "--targets=~/t --predictions=~/p --output=~/o --matcher=~/m", 4),
        (text_to_image.scoring_parser, "--targets=~/t --predictions=~/p --inception=~/i --distractors=~/d", 4),
        (generate.generate_parser, "run 红 --out=~/g.png", 1),
        (encode.encode_parser, "~/data --image_tokenizer=x --out=~/l", 1),
    ],
)
def test_options_of_the_other_commands_are_spelled_out(home, parser, words, names):
    options = vars(parser().parse_args(words.split()))
    assert sum(str(value).startswith(f"{home}/") for value in options.values()) == names


def test_a_missing_relative_root_of_a_run_says_whose_it_is_and_where_it_was_looked_for(
    zoo_main, home, tiny, only_run, monkeypatch, tmp_path
):
    config = tiny(data={"init_args": {"root": "home/data"}})
    assert zoo_main("fit", *config, *QUICK)[0] == 0
    run = only_run(tmp_path)
    monkeypatch.chdir(home)
    for verb in ("test", "fit"):
        code, _, err = zoo_main(verb, "--ckpt_path", run)
        assert code == 1
        assert f"data.root is home/data in the run's {run}/config.yaml: there is no such folder in {home}" in err
    _, _, err = zoo_main("test", "--ckpt_path", run, "--data.root=nowhere")
    assert "the run's" not in err


def test_other_data_of_the_same_relative_name_are_not_taken_in_silence(
    zoo_main, home, tiny, only_run, monkeypatch, tmp_path, muge_root
):
    config = tiny(data={"init_args": {"root": "home/data"}})
    assert zoo_main("fit", *config, *QUICK)[0] == 0
    run, there = only_run(tmp_path), tmp_path / "there"
    shutil.copytree(muge_root, there / "home" / "data")
    monkeypatch.chdir(there)
    for verb in ("test", "fit"):
        code, _, err = zoo_main(verb, "--ckpt_path", run)
        assert code == 1
        assert f"data.root is home/data in the run's configuration, which meant {tmp_path}/home/data" in err
        assert f"and would mean {there}/home/data here. Give one of them: --data.root PATH" in err
    for chosen in (tmp_path, there):
        code, _, err = zoo_main("test", "--ckpt_path", run, "--data.root", chosen / "home" / "data")
        assert code == 0, err


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_a_run_that_moved_goes_on_as_if_it_had_stayed(zoo_main, workplace, tiny, move):
    old, new = workplace / "runs" / "tiny" / "first", workplace / "elsewhere" / "second"
    os.environ |= {"LOCAL_RANK": "0", "ZOO_RUN": str(old)}  # names the folder
    own = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"monitor": "val/loss", "save_top_k": 2, "dirpath": str(old / "mine"), "filename": "{step}"},
    }
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(old)}}
    config = tiny(trainer={"callbacks+": [own], "logger": logger})
    assert zoo_main("fit", *config, "--trainer.max_epochs=2")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    kept = {path.name for path in (old / "mine").iterdir()}
    new.parent.mkdir()
    move(old, new)
    del os.environ["LOCAL_RANK"], os.environ["ZOO_RUN"]
    code, _, err = zoo_main("fit", "--ckpt_path", new, "--trainer.max_epochs=3", "--model.learning_rate=0")
    assert code == 0, err
    if move is shutil.copytree:
        assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before
    else:
        assert not old.exists()
    config = (new / "config.yaml").read_text()
    assert str(old) not in config
    assert str(new / "mine") in config
    state = next(
        state
        for name, state in torch.load(new / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"].items()
        if name.startswith("ModelCheckpoint")
    )
    assert state["dirpath"] == str(new / "mine")
    assert len(state["best_k_models"]) == 2
    assert {Path(path).parent for path in state["best_k_models"]} == {new / "mine"}
    assert {path.name for path in (new / "mine").iterdir()} == {Path(path).name for path in state["best_k_models"]}
    assert kept & {Path(path).name for path in state["best_k_models"]}
