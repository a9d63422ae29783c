"""What several test files use."""

import hashlib
import importlib.util
import io
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
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent))  # what tests and the processes that they start import by name
import forked  # noqa: E402

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
    """The embedded data, made once a session (about ten seconds); not to be written to."""
    from zoo.data.catalogue.demo import demo_root as make

    return make()


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
    import torch

    from zoo.tasks import RetrievalTask

    folder = tmp_path_factory.mktemp("matchers")
    options = {
        "image_tower": "timm:test_vit",
        "image_tower_options": {"image_size": 32},
        "image_pretrained": False,
        "text_tower": "bert_tiny_chinese",
        "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2},
        "embedding_dim": 16,
    }

    def write(seed=0):
        path = folder / f"{seed}.ckpt"
        if not path.exists():
            torch.manual_seed(seed)
            task = RetrievalTask(**options)
            contents = {"state_dict": task.state_dict(), "hyper_parameters": options, "global_step": 0}
            task.on_save_checkpoint(contents)
            torch.save(contents, path)
        return path

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


COLOURS = {
    "红色": "#d62828",
    "绿色": "#2a9d3f",
    "蓝色": "#2456c8",
    "黄色": "#f2c230",
    "黑色": "#1d1d1d",
    "紫色": "#7b3fa0",
}
SHAPES = {"方块": "rectangle", "圆球": "ellipse", "十字": "cross", "条纹": "stripes"}


@pytest.fixture(scope="session")
def muge_root(tmp_path_factory):
    """A tiny data set in MUGE's own files, coloured shapes: 24 to train on, 12 to validate, 12 to test; read only.

    Queries name one picture (蓝色圆球) or all of a colour (蓝色); the answers of the test split lie beside it.
    Text to image has as many descriptions (蓝色圆球), pictures in another order than the texts, also of the test split.
    Captioning has as many pictures, with one to three references each (蓝色圆球, 一个蓝色圆球, …).
    """
    from zoo.data.formats import Query, write_captions, write_image_tsv, write_queries, write_text_tsv

    root = tmp_path_factory.mktemp("muge")
    folder = root / "Multimodal_Retrieval"
    for number, (split, colours) in enumerate([("train", 6), ("valid", 3), ("test", 3)], start=1):
        pictures = {
            1000 * number + place: (colour, shape)
            for place, (colour, shape) in enumerate((c, s) for c in list(COLOURS)[-colours:] for s in SHAPES)
        }
        write_image_tsv(folder / f"MR_{split}_imgs.tsv", ((id_, draw(id_, *what)) for id_, what in pictures.items()))
        texts = [*dict.fromkeys(colour for colour, _ in pictures.values()), *map("".join, pictures.values())]
        queries = [
            Query(
                100 * number + place,
                text,
                tuple(id_ for id_, what in pictures.items() if "".join(what).startswith(text)),
            )
            for place, text in enumerate(texts)
        ]
        if split == "test":
            write_queries(folder / "MR_test_answers.jsonl", queries)
            queries = [Query(query.query_id, query.text) for query in queries]
        write_queries(folder / f"MR_{split}_queries.jsonl", queries)
        drawn = {hashlib.md5(str(id_).encode()).hexdigest(): (id_, what) for id_, what in pictures.items()}
        beginning = root / "ECommerce-T2I" / f"T2I_{'val' if split == 'valid' else split}"
        write_text_tsv(f"{beginning}.txt.tsv", ((key, "".join(what)) for key, (_, what) in drawn.items()))
        write_image_tsv(f"{beginning}.img.tsv", ((key, draw(id_, *what)) for key, (id_, what) in sorted(drawn.items())))
        captions = {
            key: [f"{before}{colour}{shape}" for before in ("", "一个", "漂亮的")][: 1 + id_ % 3]
            for key, (id_, (colour, shape)) in drawn.items()
        }
        beginning = root / "ECommerce-IC" / f"IC_{split}"
        write_image_tsv(f"{beginning}.tsv", ((key, draw(id_, *what)) for key, (id_, what) in sorted(drawn.items())))
        if split == "test":
            write_captions(f"{beginning}_answers.jsonl", captions.items())
            captions = dict.fromkeys(captions, [])
        write_captions(f"{beginning}.jsonl", captions.items())
    return root


def draw(seed, colour, shape):
    """One picture, JPEG or PNG, a little different for every seed."""
    width, height, margin = 32 + seed % 7, 30 + seed % 5, 5 + seed % 3
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    box, fill = (margin, margin, width - margin, height - margin), COLOURS[colour]
    if SHAPES[shape] in ("rectangle", "ellipse"):
        getattr(pen, SHAPES[shape])(box, fill=fill)
    if SHAPES[shape] == "cross":
        pen.line((box[0], box[1], box[2], box[3]), fill=fill, width=5)
        pen.line((box[0], box[3], box[2], box[1]), fill=fill, width=5)
    if SHAPES[shape] == "stripes":
        for top in range(margin, height - margin, 6):
            pen.rectangle((margin, top, width - margin, top + 2), fill=fill)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG" if seed % 2 else "PNG")
    return encoded.getvalue()


TINY = """\
model:
  class_path: RetrievalTask
  init_args:
    image_tower: timm:test_vit
    image_tower_options: {image_size: 32}
    text_tower: bert_tiny_chinese
    text_tower_options: {width: 32, num_layers: 1, num_heads: 2}
    image_pretrained: false
    text_pretrained: false
    embedding_dim: 16
    learning_rate: 1e-3
    optimizer: {warmup_steps: 2}
    evaluation: {grid_queries: 0}
data:
  class_path: RetrievalDataModule
  init_args: {root: ROOT, batch_size: 16, num_workers: 0}
trainer:
  accelerator: cpu
  precision: 32-true
  max_epochs: 2
  log_every_n_steps: 1
  enable_model_summary: false
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch, muge_root):
    """A folder to work in, with the repository's experiments and a tiny one, ``experiments/tiny.yaml``; no W&B key."""
    experiments = Path(__file__).parents[1] / "experiments"
    shutil.copytree(experiments, tmp_path / "experiments", ignore=shutil.ignore_patterns("results"))
    (tmp_path / "experiments" / "tiny.yaml").write_text(TINY.replace("ROOT", str(muge_root)))
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
