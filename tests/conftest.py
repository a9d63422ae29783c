"""What several test files use."""

import importlib.util
import json
import logging
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # what tests and the processes that they start import by name
import forked  # noqa: E402
import tiny  # noqa: E402

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # a GPU's products then repeat; read at the first one
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run two at a time: more threads than processors only wait


def pytest_addoption(parser):
    parser.addoption("--soak-seeds", default="0", help="of end_to_end/test_soak.py: 3, or 0-19")
    parser.addoption("--soak-minutes", type=float, default=2.0, help="of each seed")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Each test and its fixtures begin from one seed, whatever ran before; ZOO_TEST_SEED is another."""
    import numpy as np
    import torch

    # An iterator that an error left behind is told too late to end its workers, and waits for each this long.
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # seconds, for 5
    seed = int(os.environ.get("ZOO_TEST_SEED", "0"))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(scope="session", autouse=True)
def zoo_cache(tmp_path_factory, pytestconfig):
    """Zoo's cache for the whole session, also of the processes that tests start: the user's own is left alone."""
    own = tmp_path_factory.getbasetemp()
    # xdist's workers share one, beside their own folders
    folder = (own.parent if hasattr(pytestconfig, "workerinput") else own) / "zoo-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def demo_root(zoo_cache):
    """What tests take for the embedded data, once a session: a small catalogue in its place; not to be written to."""
    from zoo.data.catalogue.demo import FROZEN, NAME, frozen, locked
    from zoo.data.catalogue.make import write_catalogue

    with locked(zoo_cache / "demo.lock"):
        write_catalogue(zoo_cache / NAME, size=240, image_size=64)
        (zoo_cache / NAME / FROZEN).write_text(json.dumps(frozen()))
    return zoo_cache / NAME


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """Inception with random weights, in a file like the published one (96 MB); read only."""
    import torch

    from zoo.tasks.text_to_image.inception import random_weights

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(random_weights(), path)
    return path


@pytest.fixture(scope="session")
def matcher_file(tmp_path_factory):
    """Writes a retrieval checkpoint with random weights: ``matcher_file(seed=1)`` is its path; read only."""
    folder = tmp_path_factory.mktemp("matchers")

    def write(seed=0):
        path = folder / f"{seed}.ckpt"
        return path if path.exists() else tiny.write_matcher(path, seed=seed)

    return write


@pytest.fixture
def run_bench(tmp_path, capsys, monkeypatch):
    """Runs a bench of two blocks: its JSON, each row's ratio held against its rates and against what is printed."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # what the command would set for good

    def run(*words, loop_steps=20):
        from zoo.__main__ import main

        path = tmp_path / "bench.json"
        assert main(["bench", *map(str, words), "--output", str(path)]) == 0
        result = json.loads(path.read_text())
        printed = capsys.readouterr().out
        for row in result["rows"]:
            assert row["ours"] == statistics.median(row["blocks"][row["ours_is"]]) > 0
            blocks = loop_steps if row["name"].startswith("loop") else 2
            assert all(len(rates) == blocks for rates in row["blocks"].values())
            if row["peer_is"]:
                assert row["peer"] == statistics.median(row["blocks"][row["peer_is"]]) > 0
                assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
                assert f"{row['ratio']:.2f}" in printed
        assert result["protocol"]["torch"] in printed
        return result

    return run


@pytest.fixture
def hide_module(monkeypatch):
    """Makes benches believe that a module is not installed."""

    def hide(module, present=()):
        find = importlib.util.find_spec
        there = find("json")
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: None if name == module else there if name in present else find(name),
        )

    return hide


@pytest.fixture(scope="session")
def muge_root(tmp_path_factory):
    """A tiny data set in MUGE's own files (``tiny.write_muge``); read only."""
    return tiny.write_muge(tmp_path_factory.mktemp("muge"))


@pytest.fixture
def workplace(tmp_path, monkeypatch, muge_root):
    """A folder to work in, with the repository's experiments and a tiny one, ``experiments/tiny.yaml``; no W&B key."""
    experiments = Path(__file__).parents[1] / "experiments"
    shutil.copytree(experiments, tmp_path / "experiments", ignore=shutil.ignore_patterns("results"))
    (tmp_path / "experiments" / "tiny.yaml").write_text(tiny.EXPERIMENT.replace("ROOT", str(muge_root)))
    monkeypatch.chdir(tmp_path)
    saved = dict(os.environ)
    for name in ("MUGE_ROOT", "ZOO_RUN", "LOCAL_RANK", "NETRC", *(name for name in saved if name.startswith("WANDB"))):
        os.environ.pop(name, None)
    os.environ["HOME"] = str(tmp_path / "home")
    yield tmp_path
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def zoo_main(workplace, capfd):
    """Runs a command line in this process: ``code, out, err = zoo_main("fit", "--config", …)``."""
    from zoo.__main__ import main

    def run(*words):
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            for handler in logging.getLogger(name).handlers:
                if type(handler) is logging.StreamHandler:
                    handler.stream = sys.stderr  # it would write into the first test's
        capfd.readouterr()
        code = main([str(word) for word in words])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def zoo_process(tmp_path_factory):
    """Runs a command line as processes of its own: ``code, out, err = zoo_process(place, "fit", …, processes=2)``.

    ``environment`` is added to this process's. ``fresh``: by a new interpreter, in which ``before`` is called first;
    else by one that is forked from an interpreter with PyTorch (forked.py).
    """
    tests = Path(__file__).parent
    outputs = [tmp_path_factory.mktemp("printed") / name for name in ("out", "err")]

    def run(place, *words, processes=1, timeout=300, fresh=False, before=None, **environment):
        if processes > 1:
            words = (*words, "--trainer.strategy", "ddp", "--trainer.devices", str(processes))
        words = [str(word) for word in words]
        path = os.pathsep.join([str(tests), str(tests.parent)])  # callbacks of the tests, and zoo
        env = {**os.environ, "PYTHONPATH": path, "WANDB_MODE": "disabled", **environment}
        if not fresh:
            for file in outputs:
                file.unlink(missing_ok=True)
            code = forked.run(words, processes=processes, cwd=place, env=env, outputs=outputs, timeout=timeout)
            return code, *(file.read_text() for file in outputs)
        done = subprocess.run(
            [sys.executable, "-m", "zoo", *words],
            cwd=place,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            preexec_fn=before,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def only_run():
    """Finds an experiment's one run: ``only_run(workplace)`` is its folder."""

    def find(place, runs="runs", experiment="tiny"):
        (run,) = (place / runs / experiment).iterdir()
        return run

    return find


@pytest.fixture(scope="session")
def cn_clip_model():
    """Builds a randomly initialised model of cn_clip's, with the rest of its arguments as it publishes them."""

    def build(*, vision, text=(64, 1), dimension=512):
        """Of a vision width, head width, patch, image size and layers, and a text width and layers."""
        from cn_clip.clip.model import CLIP

        width, head_width, patch, image_size, layers = vision
        text_width, text_layers = text
        return CLIP(
            embed_dim=dimension,
            image_resolution=image_size,
            vision_layers=layers,
            vision_width=width,
            vision_patch_size=patch,
            vision_head_width=head_width,
            vocab_size=21128,
            text_attention_probs_dropout_prob=0.1,
            text_hidden_act="gelu",
            text_hidden_dropout_prob=0.1,
            text_hidden_size=text_width,
            text_initializer_range=0.02,
            text_intermediate_size=4 * text_width,
            text_max_position_embeddings=512,
            text_num_attention_heads=text_width // 64,
            text_num_hidden_layers=text_layers,
            text_type_vocab_size=2,
        )

    return build


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory, monkeypatch):
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def put_in_cache(hub_cache):
    """Shows a folder where the hub's client would have put a repository's files."""

    def put(repository, folder):
        place = hub_cache / f"models--{repository.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0" * 40)
        (place / "snapshots").mkdir()
        (place / "snapshots" / ("0" * 40)).symlink_to(folder)

    return put


@pytest.fixture
def group_of_one(tmp_path):
    """Makes this process a process group, over gloo: what is gathered goes the whole way, and is what it was."""
    import torch.distributed

    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def run_processes(tmp_path):
    """``run_processes(world_size, function, *arguments)``: what the function returns on each process, over gloo.

    It is called as ``function(rank, world_size, *arguments)``.
    """

    import torch

    def run(world_size, function, *arguments):
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=_run_process, args=(rank, world_size, tmp_path, function, arguments))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * world_size
        return [torch.load(tmp_path / f"{rank}.pt") for rank in range(world_size)]

    return run


def _run_process(rank, world_size, folder, function, arguments):
    import torch
    import torch.distributed

    torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=30), rank=rank, world_size=world_size
    )
    torch.save(function(rank, world_size, *arguments), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def modelscope(tmp_path_factory):
    """ModelScope's cache, by its own client: ``name = modelscope("clip", folder)`` puts a model there.

    The client reads where the cache is once, as it is imported.
    """
    pytest.importorskip("modelscope_hub")
    cache = tmp_path_factory.mktemp("modelscope")
    os.environ["MODELSCOPE_CACHE"] = str(cache)

    def put(name, folder):
        shutil.copytree(folder, cache / "models" / "owner" / name)
        return f"modelscope:owner/{name}"

    return put
