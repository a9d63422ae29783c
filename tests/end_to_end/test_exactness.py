"""On files, through ``python -m zoo``, with loader workers: any number of processes gives what one process gives."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from zoo.core.checkpoint import load
from zoo.data.formats import Query, write_image_tsv, write_queries

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CHARACTERS = "红蓝绿黄黑白长短裙裤鞋帽男女童新款夏冬棉麻"
MODEL = {
    "class_path": "zoo.tasks.RetrievalTask",
    "init_args": {
        "image_tower": "timm:test_vit",  # no batch norm: a batch's gradient is the sum of its parts
        "image_tower_options": {"image_size": 32},
        "image_pretrained": False,
        "text_tower": "bert_tiny_chinese",
        "text_tower_options": {"width": 32, "num_layers": 1, "num_heads": 2, "dropout": 0.0},
        "embedding_dim": 16,
        "learning_rate": 1.0e-3,
        "optimizer": {"warmup_steps": 1},
    },
}


def write_split(folder, split, *, queries, pictures, first_id):
    """Random pictures, two of them twice under different ids, and queries with one to three true pictures each."""
    random = np.random.default_rng(first_id)

    def jpeg():
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
        return buffer.getvalue()

    images = [jpeg() for _ in range(pictures)]
    images[-2:] = images[:2]
    ids = [first_id + 3 * place for place in random.permutation(pictures)]
    write_image_tsv(folder / f"MR_{split}_imgs.tsv", zip(ids, images, strict=True))
    rows = []
    for place in range(queries):
        text = "".join(random.choice(list(CHARACTERS), random.integers(2, 12)))
        items = random.choice(ids, random.integers(1, 4), replace=False)
        kind = "name" if len(items) == 1 else "base"
        rows.append(Query(query_id=900 - place, text=text, item_ids=tuple(map(int, items)), kind=kind))
    if split == "test":
        write_queries(folder / "MR_test_answers.jsonl", rows)
        rows = [Query(query_id=row.query_id, text=row.text) for row in rows]
    write_queries(folder / f"MR_{split}_queries.jsonl", rows)


def make_place(place, *, queries, pictures):
    """A folder of data in MUGE's files and an experiment that trains on it."""
    folder = place / "data" / "Multimodal_Retrieval"
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "valid", "test")):
        write_split(folder, split, queries=queries, pictures=pictures, first_id=10_000 * (number + 1))
    experiments = place / "experiments"
    experiments.mkdir()
    (experiments / "_base.yaml").write_text((EXPERIMENTS / "_base.yaml").read_text())
    experiment = {
        "model": MODEL,
        "data": {
            "class_path": "zoo.tasks.retrieval.data.RetrievalDataModule",
            "init_args": {"root": str(place / "data"), "batch_size": 6, "eval_batch_size": 4, "num_workers": 1},
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "precision": "32-true",
            "enable_progress_bar": False,
        },
    }
    (experiments / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    return place


@pytest.fixture(scope="session")
def zoo(zoo_process):
    """Runs a command line in a folder, on a number of processes of one thread: ``code, printed = zoo(place, …)``.

    Without a number it is on as many as the experiment or the run says.
    """

    def run(place, *words, processes=None):
        if processes == 1:  # whatever the run was trained on
            words = (*words, "--trainer.strategy", "auto", "--trainer.devices", "1")
        code, out, err = zoo_process(place, *words, processes=processes or 1)
        return code, out + err

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("uneven"), queries=37, pictures=29)


@pytest.fixture(scope="module")
def run(zoo, place):
    return fit(zoo, place, processes=2)


def fit(zoo, place, *, processes):
    code, printed = zoo(place, "fit", "--config", "experiments/tiny.yaml", processes=processes)
    assert code == 0, printed
    return next((place / "runs" / "tiny").iterdir())


def results(zoo, place, run, *, processes):
    """The numbers of ``test`` and the lines of ``predict``."""
    for verb in ("test", "predict"):
        code, printed = zoo(place, verb, "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), processes=processes)
        assert code == 0, printed
    metrics, submission = run / "test.json", run / "predictions" / "MR_test_queries.jsonl"
    found = json.loads(metrics.read_text())["metrics"], submission.read_text()
    metrics.unlink()
    submission.rename(place / "submission.jsonl")
    return found


@pytest.mark.ddp
def test_training_on_two_processes_logs_what_one_process_measures(zoo, place, run):
    names, *lines = ((run / "metrics.csv").read_text()).splitlines()
    rows = [dict(zip(names.split(","), line.split(","), strict=True)) for line in lines]
    logged = [row for row in rows if row["val/mean_recall"]]
    assert logged[0]["step"] == "0"
    last = str(run / "checkpoints" / "last.ckpt")
    code, printed = zoo(place, "validate", "--ckpt_path", last, processes=1)
    assert code == 0, printed
    shown = next(line for line in printed.splitlines() if line.startswith("│ all"))
    assert float(shown.split("│")[5]) == pytest.approx(float(logged[-1]["val/mean_recall"]), abs=0.005)


@pytest.mark.ddp
def test_scores_and_submissions_are_those_of_one_process(zoo, place, run):
    metrics, submission = results(zoo, place, run, processes=1)
    assert {"test/recall@1", "test/mean_recall", "test/mean_recall/name", "test/loss"} <= metrics.keys()
    others, other_submission = results(zoo, place, run, processes=3)
    assert others == pytest.approx(metrics, rel=1e-6, abs=1e-6)
    assert other_submission == submission
    answers = "data/Multimodal_Retrieval/MR_test_answers.jsonl"
    words = ("--targets", answers, "--predictions", "submission.jsonl", "--output", "score.json")
    code, printed = zoo(place, "score", "retrieval", *words)
    assert code == 0, printed
    scored = json.loads((place / "score.json").read_text())["scoreJson"]
    ours = [metrics[f"test/{name}"] for name in ("mean_recall", "recall@1", "recall@5", "recall@10")]
    assert [scored[name] for name in ("mean_recall", "r1", "r5", "r10")] == pytest.approx(ours, rel=1e-6)


@pytest.mark.slow
@pytest.mark.ddp
def test_seven_rows_on_three_processes(zoo, tmp_path):
    """Four batches of queries and six of images, on three processes."""
    place = make_place(tmp_path, queries=7, pictures=11)
    experiment = place / "experiments" / "tiny.yaml"
    experiment.write_text(experiment.read_text().replace("eval_batch_size: 4", "eval_batch_size: 2"))
    run = fit(zoo, place, processes=3)
    metrics, submission = results(zoo, place, run, processes=1)
    others, other_submission = results(zoo, place, run, processes=3)
    assert others == pytest.approx(metrics, rel=1e-6, abs=1e-6)
    assert other_submission == submission


@pytest.mark.ddp
def test_lightnings_own_sampler_does_not_pass_unnoticed(zoo, place, run):
    code, printed = zoo(
        place, "test", "--ckpt_path", str(run), "--trainer.use_distributed_sampler", "true", processes=2
    )
    assert code != 0
    assert "use_distributed_sampler" in printed
    assert not (run / "test.json").exists()


@pytest.mark.slow
@pytest.mark.ddp
def test_towers_shared_out_are_those_of_whole_processes(zoo, tmp_path, monkeypatch):
    """FSDP, interrupted and resumed, against DDP: what they log, keep in the checkpoint and are tested to be."""
    place = make_place(tmp_path, queries=37, pictures=29)
    shutil.copytree(EXPERIMENTS / "_overlays", place / "experiments" / "_overlays")
    words = ("fit", "--config", "experiments/tiny.yaml", "--trainer.gradient_clip_val", "0.1")
    words += ("--data.eval_batch_size", "3")  # of the queries, seven batches for one process and six for the other
    shared_out = ("--config", "experiments/_overlays/fsdp.yaml", "--runs", "shared")
    code, printed = zoo(place, *words, "--runs", "whole", processes=2)
    assert code == 0, printed
    monkeypatch.setenv("INTERRUPT", "term end 4 all")
    code, printed = zoo(place, *words, *shared_out, "--trainer.callbacks+", "interrupt.Interrupt")
    assert code == 143, printed
    monkeypatch.delenv("INTERRUPT")
    code, printed = zoo(place, *words, *shared_out, "--ckpt_path", "last")
    assert code == 0, printed

    whole, shared = (next((place / kind / "tiny").iterdir()) for kind in ("whole", "shared"))
    assert len(validation_losses(whole)) == 2
    assert validation_losses(shared) == pytest.approx(validation_losses(whole), rel=1e-5)
    expected, kept = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, shared))
    assert kept.keys() == expected.keys()
    torch.testing.assert_close(kept["state_dict"], expected["state_dict"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(optimizer_states(kept), optimizer_states(expected), rtol=1e-3, atol=1e-6)
    assert load(shared).trained_steps == 6

    metrics = []
    for run, *alone in ((whole,), (shared,), (shared, "--trainer.strategy", "auto", "--trainer.devices", "1")):
        code, printed = zoo(place, "test", "--ckpt_path", str(run), *alone)
        assert code == 0, printed
        metrics.append(json.loads((run / "test.json").read_text())["metrics"])
    # Weights that differ in the last digits may turn a near tie of ranks: of one query, among the fewest scored apart.
    one_query = 100 / 14
    for others in metrics[1:]:
        assert others.keys() == metrics[0].keys()
        for name, number in metrics[0].items():
            assert others[name] == pytest.approx(number, rel=1e-5, abs=one_query + 0.1 if "recall" in name else 0)


def validation_losses(run):
    """What a run logged, by its steps."""
    names, *lines = (run / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(names.split(","), line.split(","), strict=True)) for line in lines]
    return {row["step"]: float(row["val/loss"]) for row in rows if row["val/loss"]}


def optimizer_states(checkpoint):
    """The states of the parameters, in the order of their groups."""
    (optimizer,) = checkpoint["optimizer_states"]
    places = [place for group in optimizer["param_groups"] for place in group["params"]]
    return [optimizer["state"][place] for place in places]


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("counts", "everywhere", "on_several"),
    [
        ((1, 3), (), ()),
        pytest.param((1, 2, 3), ("--model.loss", "sigmoid"), (), marks=pytest.mark.slow),  # a share on each process
        pytest.param((1, 2, 3), (), ("--model.chunk_size", "1"), marks=pytest.mark.slow),  # nothing kept of a chunk
    ],
    ids=["softmax", "sigmoid", "chunks"],
)
def test_gradients_are_those_of_the_concatenated_batch(zoo, place, counts, everywhere, on_several):
    gradients, losses = {}, {}
    for processes in counts:
        target = place / f"gradients-{processes}.pt"
        code, printed = zoo(
            place,
            *("fit", "--config", "experiments/tiny.yaml", "--runs", f"runs-{processes}"),
            *everywhere,
            *(on_several if processes > 1 else ()),
            *("--trainer.max_steps", "1", "--trainer.num_sanity_val_steps", "0", "--trainer.limit_val_batches", "0"),
            *("--data.batch_size", str(6 // processes)),
            *("--trainer.callbacks", "save_gradients.SaveGradients", "--trainer.callbacks.path", str(target)),
            processes=processes,
        )
        assert code == 0, printed
        saved = torch.load(target, weights_only=True)
        gradients[processes], losses[processes] = saved["gradients"], saved["loss"]
    largest = max(gradient.abs().max() for gradient in gradients[1].values())
    for processes in counts[1:]:
        assert losses[processes] == pytest.approx(losses[1], rel=1e-5)
        assert gradients[processes].keys() == gradients[1].keys()
        for name, expected in gradients[1].items():
            error = (gradients[processes][name] - expected).abs().max()
            assert error <= 1e-5 * max(expected.abs().max(), 0.01 * largest), name
    assert largest > 0.01
