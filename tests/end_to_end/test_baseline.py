"""What the zoo computes, frozen: training losses, scores, submissions, data files and exit codes, by command line.

It is the safety net of changes that must not change numbers. Everything runs small, on a CPU, in processes of one
thread. ``baseline.json`` beside this file holds what is expected; ``ZOO_WRITE_BASELINE=1`` rewrites the parts that run.
On the machine that wrote it (its key ``machine``) numbers must be equal to the bit. On others scores
and first losses may differ by a thousandth, what follows from a training is not compared, nor are files that hold what
a network made; keys, exit codes and other files must be equal everywhere.

    pytest tests/end_to_end/test_baseline.py -m slow -n 2 --dist=loadgroup     # the whole
    pytest tests/end_to_end/test_baseline.py -m slow -n 0 -k captioning        # one part
"""

import base64
import csv
import fcntl
import hashlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

# === What a redesign may rename: edit it here, and leave baseline.json as it is ====================================
#
# Only names: class paths, options, flags, files. A value that changes is another computation, and another baseline.
# Options that are not named have their defaults, which are thereby frozen too: betas, eps, weight decay, smoothing.

REPOSITORY = Path(__file__).parents[2]
BASE = REPOSITORY / "experiments" / "_base.yaml"  # what experiments are laid over

TRAINER = """\
trainer:
  accelerator: cpu
  precision: 32-true
  max_epochs: 5
  check_val_every_n_epoch: 5
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
"""
RETRIEVAL = """\
model:
  class_path: zoo.tasks.RetrievalTask
  init_args:
    image_tower: timm:test_vit
    image_tower_options: {image_size: 32}
    text_tower: bert_tiny_chinese
    text_tower_options: {width: 32, num_layers: 1, num_heads: 2, dropout: 0.2}
    image_pretrained: false
    text_pretrained: false
    embedding_dim: 16
    learning_rate: 1e-3
    optimizer: {warmup_steps: 4}
    evaluation: {grid_queries: 0}
"""
RETRIEVAL_DATA = """\
data:
  class_path: zoo.tasks.retrieval.data.RetrievalDataModule
  init_args:
    root: ROOT
    batch_size: 12
    eval_batch_size: 5
    num_workers: 0
"""
T2I_DATA = """\
data:
  class_path: zoo.tasks.text_to_image.data.TextToImageDataModule
  init_args:
    root: ROOT
    batch_size: 6
    eval_batch_size: 5
    num_workers: 0
    flip: 0.5
"""
IMAGE_DATA = T2I_DATA.replace("text_to_image.data.TextToImage", "image_tokenizer.data.ImageTokenizer")
AVERAGES = """\
  callbacks+:
    - class_path: zoo.callbacks.ema.EMA
      init_args: {decay: 0.9}
"""
FIRST_STAGE = """\
image_tokenizer: vqgan_tiny
    image_tokenizer_options: {width: 32, multipliers: [1, 2], patch_size: 1, num_codes: 32}
"""


# Of each part that trains: its experiment. ROOT, MATCHER and RUNS are replaced.
EXPERIMENTS = {
    "retrieval/softmax": RETRIEVAL
    + "    loss: softmax\n    loss_options: {text_to_image_weight: 0.7}\n"
    + RETRIEVAL_DATA
    + "    group_size: 4\n    crop_scale: [0.5, 1.0]\n    flip: 0.5\n"
    + TRAINER,
    "retrieval/sigmoid": RETRIEVAL
    + "    loss: sigmoid\n    loss_options: {temperature: 0.1}\n    chunk_size: 5\n    finetuning: {layer_decay: 0.9}\n"
    + RETRIEVAL_DATA
    + TRAINER,
    "captioning": """\
model:
  class_path: zoo.tasks.CaptioningTask
  init_args:
    captioner: encoder_decoder_tiny
    captioner_options:
      image_tower: timm:test_vit
      image_tower_options: {image_size: 32}
      width: 32
      num_layers: 1
      num_heads: 2
      dropout: 0.2
      decoding: {beams: 2, max_tokens: 8}
    image_pretrained: false
    language_pretrained: false
    learning_rate: 2e-2
    optimizer: {warmup_steps: 2}
    reward: {samples: 5, from_epoch: 3, learning_rate: 1e-3}
    evaluation: {nearest_copy: true, grid_images: 0}
data:
  class_path: zoo.tasks.captioning.data.CaptioningDataModule
  init_args:
    root: ROOT
    batch_size: 6
    eval_batch_size: 5
    num_workers: 0
    crop_scale: [0.5, 1.0]
    flip: 0.5
    captions_per_image: 2
"""
    + TRAINER,
    "t2i/diffusion": """\
model:
  class_path: zoo.tasks.TextToImageTask
  init_args:
    generator: dit_tiny
    generator_options:
      image_size: 16
      num_layers: 2
      num_heads: 1
      text_tower_options: {width: 32, num_layers: 1, num_heads: 2, dropout: 0.1}
      sampling: {steps: 3}
    text_pretrained: false
    learning_rate: 3e-3
    optimizer: {warmup_steps: 2}
    evaluation: {matcher: MATCHER, inception: none, grid_seeds: 1}
"""
    + T2I_DATA
    + "    train_images: 7\n    crop_scale: [0.5, 1.0]\n"
    + TRAINER
    + AVERAGES,
    "tokenizer": f"""\
model:
  class_path: zoo.tasks.ImageTokenizerTask
  init_args:
    {FIRST_STAGE}\
    image_size: 16
    learning_rate: 1e-3
    optimizer: {{warmup_steps: 2}}
    perceptual: laplacian
    discriminator_start: 6
    discriminator_width: 8
    discriminator_layers: 1
    restart_after: 3
    evaluation: {{matcher: MATCHER, inception: none}}
"""
    + IMAGE_DATA
    + TRAINER,
    "t2i/dalle": f"""\
model:
  class_path: zoo.tasks.TextToImageTask
  init_args:
    generator: dalle_tiny
    generator_options:
      image_size: 16
      width: 32
      num_layers: 2
      num_heads: 2
      context_length: 8
      {FIRST_STAGE.replace("    ", "      ")}\
      image_tokenizer_weights: RUNS/tokenizer
    text_pretrained: false
    learning_rate: 3e-3
    optimizer: {{warmup_steps: 2}}
    evaluation: {{matcher: MATCHER, inception: none, grid_seeds: 1}}
"""
    + T2I_DATA
    + "    train_images: 7\n    latents: codes-16\n"
    + TRAINER
    + AVERAGES,
}
SUBMISSIONS = {  # in the run's folder
    "retrieval/softmax": "predictions/MR_test_queries.jsonl",
    "retrieval/sigmoid": "predictions/MR_test_queries.jsonl",
    "captioning": "predictions/IC_test.jsonl",
    "t2i/diffusion": "predictions/T2I_test.tsv",
    "t2i/dalle": "predictions/T2I_test.tsv",
}
TEST_SCORES, TEST_METRICS = "test.json", "metrics"  # the run's file, and what holds the metrics in it


def fit_words(experiment, runs):
    return ["fit", "--config", experiment, "--runs", runs]


def evaluation_words(verb, run, logs):
    """``validate``, ``test`` or ``predict`` of a run's last weights; what is logged goes to a metrics.csv in logs."""
    logger = ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", logs]
    return [verb, "--ckpt_path", Path(run) / "checkpoints" / "last.ckpt", *logger]


def encode_words(root, run):
    return ["data", "encode", root, "--image_tokenizer", run, "--image_size", "16", "--flipped", "--num_workers", "0"]


CODES = "ECommerce-T2I/codes-16/train.npy"  # where that writes, in the root

# Runs several command lines in one process, so that torch is imported once.
SEVERAL = """\
import json, sys
from zoo.__main__ import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    if code:
        sys.exit(code)
"""


def score_words(task, targets, predictions):
    return ["score", task, "--targets", targets, "--predictions", predictions]


T2I_JUDGES = ("--inception", "none", "--matcher")  # then its file
T2I_SCORES = "score.json"


def t2i_score_words(targets, predictions, matcher, output):
    return [*score_words("text_to_image", targets, predictions), *T2I_JUDGES, matcher, "--output", output]


SCORED = ("metrics", "shuffled", "human_ceiling", "scoreJson")  # what holds numbers in the JSON of a score
RENAMED = {"human_ceiling/images": "human_ceiling/pictures"}  # in that JSON, since the baseline was written
FAULT_COUNT = re.compile(r"not valid: (\d+) error")  # on the error stream


TASKS = {"retrieval": "retrieval", "t2i": "text_to_image", "caption": "captioning"}  # what commands call them


def check_words(task, root):
    return ["data", "check", TASKS[task], root, "--json"]


def kinds_of(printed):
    return [error["kind"].replace("image", "picture") for error in printed["errors"]]


def import_words(task, table, images, out, *more):
    shares = ["--valid", "0.25", "--test", "0.25"]
    return ["data", "import", TASKS[task], "--table", table, "--images", images, *shares, *more, out]


SMALLER = ("--max_size", "6")


def export_words(task, root, out):
    return ["data", "export", TASKS[task], root, out]


def as_before(exported):
    """Give an exported folder the names that it had when images were called pictures."""
    (exported / "images").rename(exported / "pictures")
    table = exported / "pairs.csv"
    table.write_bytes(table.read_bytes().replace(b"split,image,text", b"split,picture,text", 1))


def catalogue_words(root):
    return ["data", "catalogue", root, "--size", "48", "--image_size", "64"]


# Formats and names of MUGE's own files, which no redesign renames.
TASK_FOLDERS = {"retrieval": "Multimodal_Retrieval", "t2i": "ECommerce-T2I", "caption": "ECommerce-IC"}

# === Up to here ====================================================================================================

BASELINE = Path(__file__).with_name("baseline.json")
WRITES = os.environ.get("ZOO_WRITE_BASELINE") == "1"
STEPS = 20
TOLERANCE = {"rel_tol": 1e-3, "abs_tol": 1e-6}
SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
TRAINED = ("captioning", "retrieval", "t2i", "tokenizer")  # parts whose numbers follow from a training
MADE = "made"  # in the key of what holds a network's or an encoder's own bytes: compared on the same machine only

pytestmark = pytest.mark.slow
codes_group = pytest.mark.xdist_group("codes")  # the generator learns the tokenizer's codes


def machine():
    """What decides the last bits of arithmetic, and of pictures that are encoded."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = " ".join(sorted(facts.get("flags", "").split()))
    model = " ".join(facts.get(name, "") for name in ("vendor_id", "cpu family", "model"))
    return {
        "architecture": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_sha256": hashlib.sha256(f"{model} {flags}".encode()).hexdigest(),
        **{name: version(name) for name in ("torch", "numpy", "pillow", "timm", "transformers", "diffusers")},
    }


# --- comparing ---------------------------------------------------------------------------------------------------


def verify(part, found):
    """Compare what a part found, by key, with the baseline; or write it there."""
    found = json.loads(json.dumps({f"{part}/{key}": value for key, value in found.items()}))
    if WRITES:
        write(part, found)
        return
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    expected = {key: value for key, value in baseline.items() if key.startswith(f"{part}/")}
    assert expected, f"{BASELINE.name} has no {part}"
    same_machine = baseline["machine"] == machine()
    errors = [f"{key}: no longer there" for key in expected.keys() - found.keys()]
    errors += [f"{key}: new" for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        pair = [values[key] if same_machine else robust(key, values[key]) for values in (expected, found)]
        errors += differences(key, *pair, exact=same_machine)
    what = "to the bit" if same_machine else "within a thousandth: another machine wrote them"
    assert not errors, f"{len(errors)} differences ({what}):\n" + "\n".join(sorted(errors)[:40])


def robust(key, value):
    """The part of a value that is the same on any machine; None: nothing.

    Of a training that is its first loss: later a near tie decides its course, of codes or of samples.
    """
    numbers = isinstance(value, float) or (
        isinstance(value, list) and all(isinstance(each, float | None) for each in value)
    )
    if f"/{MADE}/" in key or (numbers and key.startswith("t2i/dalle")):  # it learns the codes of a trained tokenizer
        return None
    if numbers and key.startswith(TRAINED):
        return value[:1] if key.endswith("/train/loss") else None
    return value


def differences(key, expected, found, *, exact):
    """The first difference of two values, in words."""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return next((told for n, pair in pairs if (told := differences(f"{key}[{n}]", *pair, exact=exact))), [])
    if isinstance(expected, float) and isinstance(found, float):
        close = math.isclose(expected, found, **TOLERANCE) and not exact
        if close or repr(expected) == repr(found):
            return []
    elif type(expected) is type(found) and expected == found:
        return []
    return [f"{key}: {expected!r} expected, {found!r} found"]


def write(part, found):
    """Put a part into the file; parts of another machine are dropped. Other processes may do the same meanwhile."""
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        baseline = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
        here = machine()
        if baseline.get("machine") != here:
            baseline = {}
        baseline = {key: value for key, value in baseline.items() if not key.startswith(f"{part}/")} | found
        baseline.pop("machine", None)
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(baseline.items())]
        lines.insert(0, f' "machine": {json.dumps(here)}')
        whole = BASELINE.with_suffix(".new")
        whole.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        whole.replace(BASELINE)


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def hashes(folder):
    """Of every file in a folder, by its path there."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


# --- training and evaluation -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory, muge_root, matcher_file):
    """A folder with data and experiments."""
    place = tmp_path_factory.mktemp("baseline")
    shutil.copytree(muge_root, place / "data")
    (place / "experiments").mkdir()
    shutil.copyfile(BASE, place / "experiments" / BASE.name)
    names = {"ROOT": place / "data", "MATCHER": matcher_file(), "RUNS": place / "runs"}
    for part, text in EXPERIMENTS.items():
        for name, value in names.items():
            text = text.replace(name, str(value))
        (place / "experiments" / f"{name_of(part)}.yaml").write_text(text, encoding="utf-8")
    return place


def name_of(part):
    return {"tokenizer": "tokenizer"}.get(part, part.replace("/", "_"))


@pytest.fixture(scope="module")
def train(place, zoo_process):
    """Trains a part's experiment, in a process of its own; once."""
    done = {}

    def fit(part):
        if part not in done:
            words = fit_words(f"experiments/{name_of(part)}.yaml", place / "runs")
            code, _, err = zoo_process(place, *words, **SINGLE)
            assert code == 0, err
            (done[part],) = (place / "runs" / name_of(part)).iterdir()
        return done[part]

    return fit


@pytest.fixture(scope="module")
def encoded(place, train):
    """The training pictures' codes."""
    several(place, [encode_words(place / "data", train("tokenizer"))])
    return place / "data" / CODES


def several(place, commands):
    """Runs command lines one after the other in one process."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps([list(map(str, words)) for words in commands])],
        cwd=place,
        env={**os.environ, **SINGLE, "PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def series(rows, name):
    """A column's values in their order."""
    return [float(row[name]) for row in rows if row[name]]


def by_step(rows, name):
    """A column's value of each step, None where there is none."""
    found = {int(row["step"]): float(row[name]) for row in rows if row[name]}
    assert max(found) < STEPS
    return [found.get(step) for step in range(STEPS)]


def names_of(rows):
    return sorted(rows[0].keys() - {"step", "epoch"})


def trained_and_evaluated(place, part, run):
    """All that a part's run logs, writes and scores."""
    rows = rows_of(run / "metrics.csv")
    assert max(int(row["step"]) for row in rows) == STEPS - 1
    names = names_of(rows)
    found = {"keys/fit": names}
    for name in names:
        if name.startswith(("train/", "lr")):
            found[name] = by_step(rows, name)
        else:
            found[f"fit/{name}"] = series(rows, name)
    verbs = ["validate", "test", *(["predict"] if part in SUBMISSIONS else [])]
    logs = {verb: place / "logs" / name_of(part) / verb for verb in verbs}
    several(place, [evaluation_words(verb, run, logs[verb]) for verb in verbs])
    for verb in ("validate", "test"):
        (path,) = logs[verb].rglob("metrics.csv")
        found[f"keys/{verb}"] = names_of(rows_of(path))
        found |= {name: series(rows_of(path), name)[0] for name in found[f"keys/{verb}"]}
    metrics = json.loads((run / TEST_SCORES).read_text(encoding="utf-8"))[TEST_METRICS]
    found["keys/test_file"] = sorted(metrics)
    found |= {f"test_file/{name}": value for name, value in metrics.items()}
    if part in SUBMISSIONS:
        found[f"{MADE}/submission"] = sha256(run / SUBMISSIONS[part])
        found["submission/lines"] = len((run / SUBMISSIONS[part]).read_bytes().splitlines())
    return found


@pytest.mark.parametrize("part", ["retrieval/softmax", "retrieval/sigmoid", "captioning", "t2i/diffusion"])
def test_training_and_evaluation(place, train, part):
    verify(part, trained_and_evaluated(place, part, train(part)))


@codes_group
def test_a_tokenizer(place, train, encoded):
    found = trained_and_evaluated(place, "tokenizer", train("tokenizer"))
    verify("tokenizer", found | {f"{MADE}/codes": sha256(encoded)})


@codes_group
def test_a_generator_of_codes_dalle(place, train, encoded):
    verify("t2i/dalle", trained_and_evaluated(place, "t2i/dalle", train("t2i/dalle")))


# --- scores ------------------------------------------------------------------------------------------------------


def write_lines(path, lines):
    text = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    return path


def numbers(name, value):
    """The numbers of nested JSON, by their path."""
    if isinstance(value, dict):
        return {key: number for inner in value for key, number in numbers(f"{name}/{inner}", value[inner]).items()}
    return {name: value} if isinstance(value, bool | int | float) else {}


def scored(printed):
    result = json.loads(printed)
    found = {"success": result["success"]} if "success" in result else {}
    found |= {"score": result["score"]} if "score" in result else {}
    for name in SCORED:
        found |= numbers(name, result.get(name, {}))
    return {RENAMED.get(name, name): value for name, value in found.items()}


def refused(code, err):
    counted = FAULT_COUNT.search(err)
    return [code, int(counted.group(1)) if counted else None]


QUERIES = [(100 + n, f"第{n}款", [n % 16, *([20 + n] if n % 3 == 0 else [])]) for n in range(24)]
RANKED = [{"query_id": id_, "item_ids": [(id_ * 7 + k) % 48 for k in range(10)]} for id_, _, _ in reversed(QUERIES)]


def test_score_retrieval(tmp_path, zoo_process):
    targets = [{"query_id": id_, "query_text": text, "item_ids": items} for id_, text, items in QUERIES]
    files = [write_lines(tmp_path / "targets.jsonl", targets), write_lines(tmp_path / "predictions.jsonl", RANKED)]
    code, out, err = zoo_process(tmp_path, *score_words("retrieval", *files))
    assert code == 0, err
    found = scored(out)
    first, rest = RANKED[0], RANKED[1:]
    broken = {
        "short": [{**first, "item_ids": first["item_ids"][:9]}, *rest],
        "twice": [{**first, "item_ids": [1, *first["item_ids"][:8], 1]}, *rest],
        "texts": [{**first, "item_ids": [*map(str, first["item_ids"])]}, *rest],
        "missing": rest,
        "repeated": [first, *RANKED],
        "no_json": ["{", *rest],
        "several": [{"query_id": 999, "item_ids": [1]}, "{", *rest[3:]],
    }
    for name, lines in broken.items():
        code, out, err = zoo_process(
            tmp_path, *score_words("retrieval", files[0], write_lines(tmp_path / f"{name}.jsonl", lines))
        )
        found[f"broken/{name}"] = [*refused(code, err), json.loads(out)["success"]]
    verify("score/retrieval", found)


THINGS = list(itertools.product("红绿蓝黄", ("短裤", "连衣裙", "手机壳")))
REFERENCES = {
    f"{n:02x}": [f"{colour}色{thing}", f"新款{colour}色{thing}夏季Top{n}！", f"{thing}很好"][: 1 + n % 3]
    for n, (colour, thing) in enumerate(THINGS)
}


def test_score_caption(tmp_path, zoo_process):
    targets = write_lines(tmp_path / "targets.jsonl", [{"image_id": id_, "text": t} for id_, t in REFERENCES.items()])
    captions = [
        {"image_id": id_, "text": [texts[0], f"{texts[-1].lower()}新款", "红色短裤top3", "好"][n % 4]}
        for n, (id_, texts) in enumerate(reversed(REFERENCES.items()))
    ]
    files = targets, write_lines(tmp_path / "predictions.jsonl", captions)
    found = {}
    for name, words in {
        "default": (),
        "case": ("--lowercase", "false"),
        "plain": ("--punctuation", "false", "--max_references", 1),
    }.items():
        code, out, err = zoo_process(tmp_path, *score_words("captioning", *files), *words)
        assert code == 0, err
        found |= {f"{name}/{key}": value for key, value in scored(out).items()}
    first, rest = captions[0], captions[1:]
    broken = {
        "list": [{**first, "text": [first["text"]]}, *rest],
        "missing": rest,
        "repeated": [first, *captions],
        "no_json": ["{", *rest],
        "unknown": [{**first, "image_id": "zz"}, *captions],
    }
    for name, lines in broken.items():
        code, _, err = zoo_process(
            tmp_path, *score_words("captioning", targets, write_lines(tmp_path / f"{name}.jsonl", lines))
        )
        found[f"broken/{name}"] = refused(code, err)
    verify("score/caption", found)


def test_score_t2i(tmp_path, muge_root, matcher_file, zoo_process):
    descriptions = (muge_root / TASK_FOLDERS["t2i"] / "T2I_test.txt.tsv").read_text(encoding="utf-8").splitlines()
    ids = [line.split("\t")[0] for line in descriptions]
    drawn = [f"{id_}\t{base64.b64encode(png(n, height=12)).decode()}" for n, id_ in enumerate(ids)]
    found = {}

    def score(name, lines):
        (tmp_path / name).mkdir()
        predictions = write_lines(tmp_path / name / "T2I_test.tsv", lines)
        output = tmp_path / name / T2I_SCORES
        code, _, err = zoo_process(tmp_path, *t2i_score_words(muge_root, predictions, matcher_file(), output), **SINGLE)
        return code, err, output

    code, err, output = score("valid", drawn)
    assert code == 0, err
    found |= scored(output.read_text(encoding="utf-8"))
    broken = {
        "missing": drawn[1:],
        "several": [drawn[0], drawn[0], drawn[2][:80], "zz\tAAAA", *drawn[4:]],
    }
    for name, lines in broken.items():
        code, err, _ = score(name, lines)
        found[f"broken/{name}"] = refused(code, err)
    verify("score/t2i", found)


# --- data --------------------------------------------------------------------------------------------------------


JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    "q62rZ4C8ybqmx5moq6T/wAALCAAIAAwBAREA/8QAFQABAQAAAAAAAAAAAAAAAAAAAwT/xAAfEAABAwMFAAAAAAAAAAAAAAABAgMh"
    "AAQREhMycZP/2gAIAQEAAD8AHbZbeUgItcAxhta47EGqkBnTxtvByv/Z"
)


def png(number, *, height=8):
    """A picture 12 px wide without compression, so that its bytes are nobody's encoder's."""
    colours = [[(x * 20 + number * 9, y * 30, number * 20) for x in range(12)] for y in range(height)]
    rows = b"".join(b"\0" + bytes(value % 256 for colour in row for value in colour) for row in colours)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 12, height, 8, 2, 0, 0, 0)
    body = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    body += struct.pack(">I", zlib.adler32(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture
def shop(tmp_path):
    """A table, and a folder of pictures."""
    (tmp_path / "pictures").mkdir()
    rows = []
    for number in range(16):
        name = f"{number}号.{'jpg' if number == 5 else 'png'}"
        (tmp_path / "pictures" / name).write_bytes(JPEG if number == 5 else png(number))
        rows.append((name, f"第{number}件商品"))
        if number % 5 == 0:
            rows.append((name, f'也叫第{number}，"好"'))
        if number % 8 > 5:
            rows.append((name, f"第{number // 8}种"))
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "text"), *rows])
    return tmp_path


@pytest.mark.parametrize("task", TASK_FOLDERS)
def test_data_import_and_export(shop, zoo_process, task):
    source = (shop / "table.csv", shop / "pictures")
    found = {}
    for name, words in {
        "imported": import_words(task, *source, shop / "imported"),
        "exported": export_words(task, shop / "imported", shop / "exported"),
        "smaller": import_words(task, *source, shop / "smaller", *SMALLER),
        "clean": check_words(task, shop / "imported"),
    }.items():
        code, out, err = zoo_process(shop, *words)
        assert code == 0, out + err
        if name == "exported":
            as_before(shop / name)
        for path, digest in hashes(shop / name).items():
            found[f"{MADE}/{name}/{path}" if name == "smaller" else f"{name}/{path}"] = digest
    verify(f"data/import/{task}", found)


def spoiled(folder):
    """The smallest files of all tasks, with errors."""
    picture = base64.b64encode(png(1)).decode()
    for name in TASK_FOLDERS.values():
        (folder / name).mkdir()
    t2i, caption, retrieval = (folder / TASK_FOLDERS[task] for task in ("t2i", "caption", "retrieval"))
    write_lines(t2i / "T2I_train.txt.tsv", ["a\t红色", "b\t ", "a\t绿色", "c 蓝色", "d\t黄色"])
    write_lines(t2i / "T2I_train.img.tsv", [f"a\t{picture}", "b\t[italic]", f"e\t{picture}", "d\tAAAA"])
    write_lines(caption / "IC_train.jsonl", [{"image_id": "a", "text": ["红"]}, {"image_id": "b", "text": "绿"}, "{"])
    write_lines(caption / "IC_train.tsv", [f"a\t{picture}", f"a\t{picture}", f"b\t{picture[:40]}"])
    queries = [
        {"query_id": 1, "query_text": "红", "item_ids": [1, 2]},
        {"query_id": 1, "query_text": "绿", "item_ids": [1]},
        {"query_id": 3, "query_text": "", "item_ids": [1]},
        {"query_id": "4", "query_text": "蓝", "item_ids": [99]},
        {"query_id": 5, "query_text": "黄", "item_ids": [99]},
    ]
    write_lines(retrieval / "MR_train_queries.jsonl", queries)
    write_lines(retrieval / "MR_train_imgs.tsv", [f"1\t{picture}", f"2\t{picture[:60]}", f"x\t{picture}"])


def test_data_check(tmp_path, muge_root, zoo_process):
    spoiled(tmp_path)
    found = {}
    for task in TASK_FOLDERS:
        for name, root in (("shared_texts", muge_root), ("spoiled", tmp_path)):
            code, out, err = zoo_process(tmp_path, *check_words(task, root))
            assert code in (0, 1), err
            kinds = kinds_of(json.loads(out))
            found |= {f"{task}/{name}/exit": code, f"{task}/{name}/faults": len(kinds)}
            found |= {f"{task}/{name}/kinds/{kind}": count for kind, count in sorted(Counter(kinds).items())}
    verify("data/check", found)


def test_data_catalogue(tmp_path, zoo_process):
    code, _, err = zoo_process(tmp_path, *catalogue_words(tmp_path / "shop"))
    assert code == 0, err
    verify("data/catalogue", hashes(tmp_path / "shop"))
