"""Random small trainings of all tasks, ended at random places and resumed: as if none had ever been interrupted.

A minute and a half on one seed in CI. Many of them, two beside each other:

    pytest -m slow --dist load tests/end_to_end/test_soak.py --soak-seeds 0-19 --soak-minutes 5
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
import yaml

from zoo.tasks.retrieval.registry import LOSSES

TEXT = {"width": 32, "num_layers": 1, "num_heads": 2}
CODES = {"width": 32, "multipliers": [1, 2], "patch_size": 1, "num_codes": 32}
EXPECTED = {  # how a training was ended → its exit codes; another process that was killed ends the first with 1
    "kill": (-9, 1),
    "write": (-9, 1),
    "term": (143,),
    "int": (130,),
    "raise": (1, -9),
    "disk": (1,),
}
OF_THE_RUN = {"config.yaml", "fit.json"}  # which name folders, dates and times


def pytest_generate_tests(metafunc):
    """One test a seed: ``3``, or a range, ``0-19``."""
    first, _, last = metafunc.config.getoption("--soak-seeds").partition("-")
    metafunc.parametrize("seed", range(int(first), int(last or first) + 1))


class Draw:
    """Draws the parts of an experiment by one seed."""

    def __init__(self, seed, matcher, tokenizer):
        self.random = random.Random(seed)
        self.matcher = str(matcher)
        self.tokenizer = str(tokenizer)

    def one(self, *choices):
        return self.random.choice(choices)

    def some(self, **options):
        """A few of the options, each one of its values."""
        return {name: self.one(*values) for name, values in options.items() if self.random.random() < 0.4}

    def experiment(self, root):
        task = self.one(self.retrieval, self.retrieval, self.text_to_image, self.captioning, self.image_tokenizer)
        name, model, data, callbacks = task()
        model |= {"learning_rate": 1e-3, "optimizer": {"warmup_steps": self.one(0, 2)}}
        data |= {"root": str(root), "batch_size": self.one(4, 6, 8), "num_workers": self.one(0, 0, 1, 2)}
        data |= self.some(eval_batch_size=(3, 5, 16), flip=(0.5,))
        trainer = {
            "accelerator": "cpu",
            "precision": "32-true",
            "max_epochs": self.one(1, 2, 2, 3),
            "limit_train_batches": self.one(3, 5),
            "log_every_n_steps": self.one(1, 2, 3),
            "num_sanity_val_steps": self.one(0, -1),
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        trainer |= self.some(check_val_every_n_epoch=(2,), val_check_interval=(0.5, 2))
        if name != "ImageTokenizerTask":  # which has two optimisers
            trainer |= self.some(gradient_clip_val=(0.5,), accumulate_grad_batches=(2, 3))
        if self.one(True, False):
            callbacks.append({"class_path": "EMA", "init_args": {"decay": 0.9}})
        return {
            "save_every": self.one(1, 2, 3, 5),
            "model": {"class_path": name, "init_args": model},
            "data": {"class_path": name.replace("Task", "DataModule"), "init_args": data},
            "trainer": {**trainer, "callbacks": [*callbacks, {"class_path": "interrupt.Interrupt"}]},
        }

    def retrieval(self):
        vit = self.one(True, True, False)
        model = {
            "image_tower": "timm:test_vit" if vit else "timm:test_resnet",
            "image_tower_options": {"image_size": 32},
            "text_tower": "bert_tiny_chinese",
            "text_tower_options": {**TEXT, "dropout": self.one(0.0, 0.2)},
            "image_pretrained": False,
            "text_pretrained": False,
            "embedding_dim": 16,
            "loss": self.one(*LOSSES.names()),
            "evaluation": {"grid_queries": self.one(0, 2)},
        }
        if vit:
            model |= self.some(chunk_size=(2, 3), gradient_checkpointing=(True,))
            finetuning = self.one({}, {}, {"lora_rank": 2, "lora_dropout": 0.1}, {"image_trainable_layers": 1})
            model["finetuning"] = finetuning or self.some(layer_decay=(0.7,))
        data = self.some(crop_scale=([0.5, 1.0],), auto_augment=(True,), degrade=(0.5,))
        kind = self.one("plain", "groups", "mined")
        if kind == "groups":
            data["group_size"] = 2
        mined = {"class_path": "HardNegatives", "init_args": {"group_size": 4, "from_epoch": self.one(0, 1)}}
        return "RetrievalTask", model, data, [mined] if kind == "mined" else []

    def text_to_image(self):
        generator, options = self.one(
            ("dit_tiny", {"num_layers": 1, "text_tower_options": {**TEXT, "dropout": 0.1}, "sampling": {"steps": 2}}),
            ("unet_tiny", {"widths": [32], "text_tower_options": TEXT, "sampling": {"steps": 2}}),
            ("dalle_tiny", {**TEXT, "context_length": 8, **self.codes(), "image_tokenizer_weights": self.tokenizer}),
        )
        evaluation = {"matcher": self.matcher, "inception": "none", "grid_seeds": self.one(1, 2)}
        model = {"generator": generator, "generator_options": {"image_size": 16, **options}, "evaluation": evaluation}
        return "TextToImageTask", model, self.some(train_images=(7,)), []

    def captioning(self):
        options = {"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}, **TEXT}
        captioner, parts = self.one(("encoder_decoder_tiny", {"dropout": self.one(0.0, 0.2)}), ("prefix_tiny", {}))
        options |= {**parts, "decoding": {"beams": self.one(1, 2), "max_tokens": 4}}
        model = {
            "captioner": captioner,
            "captioner_options": options,
            "image_pretrained": False,
            "language_pretrained": False,
            "evaluation": {"grid_images": self.one(0, 3), "nearest_copy": self.one(True, False)},
        }
        if self.one(True, False):
            model["reward"] = {"samples": 2, "from_epoch": 1}
        return "CaptioningTask", model, self.some(captions_per_image=(1, 2)), []

    def codes(self):
        return {"image_tokenizer": "vqgan_tiny", "image_tokenizer_options": CODES}

    def image_tokenizer(self):
        model = {
            **self.codes(),
            "image_size": 16,
            "perceptual": "laplacian",
            "discriminator_start": self.one(0, 3, None),
            "discriminator_width": 8,
            "discriminator_layers": 1,
            "evaluation": {"matcher": self.matcher, "inception": "none"},
            **self.some(restart_after=(2,)),
        }
        return "ImageTokenizerTask", model, {}, []

    def interruption(self, steps_done, steps):
        """How, where and at which step; on which ranks."""
        step = self.random.randint(steps_done, max(steps_done, steps - 1))
        where = self.one("forward", "end", "end", "validation")
        return self.one(*EXPECTED), where, step, self.one("all", "0")


def contents(run):
    """What a run leaves that must be as if never interrupted: files by their bytes, checkpoints by tensors."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in OF_THE_RUN]
    found = {}
    for path in files:
        whole = path.suffix == ".ckpt" and not path.name.startswith(".")  # what a kill left is removed by the next fit
        found[str(path.relative_to(run))] = tensors(path) if whole else path.read_bytes()
    return found


def tensors(path):
    """The numbers of a checkpoint from which training goes on, as bytes."""
    kept = torch.load(path, weights_only=True)
    found = [kept["state_dict"], kept["optimizer_states"], kept["callbacks"].get("EMA"), kept["global_step"]]

    def flat(value):
        if isinstance(value, torch.Tensor):
            assert value.isfinite().all()
            return value.contiguous().numpy().tobytes()
        if isinstance(value, dict):
            return [(str(name), flat(inner)) for name, inner in value.items()]
        return [flat(inner) for inner in value] if isinstance(value, list | tuple) else value

    return flat(found)


def left_behind(mark):
    """The processes that have the mark in their environment and are not this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry.name, (entry / "cmdline").read_bytes()))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def wait_until_none(mark):
    deadline = time.monotonic() + 15
    while (found := left_behind(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@pytest.mark.slow
@pytest.mark.ddp
def test_soak(seed, tmp_path, workplace, muge_root, matcher_file, zoo_process, pytestconfig):
    deadline = time.monotonic() + 60 * pytestconfig.getoption("--soak-minutes")
    tokenizer = train_tokenizer(workplace, zoo_process, muge_root, matcher_file())
    rounds = 0
    while time.monotonic() < deadline:
        place = tmp_path / f"round-{rounds}"
        shutil.copytree(workplace / "experiments", place / "experiments")
        name, told = f"{seed}.{rounds}", []
        try:
            soak(name, place, Draw(name, matcher_file(), tokenizer), muge_root, zoo_process, told)
        except AssertionError as error:
            (place / "told.txt").write_text("\n".join(told))
            raise AssertionError(f"round {name}; what happened: {place}/told.txt") from error
        shutil.rmtree(place)
        rounds += 1
    assert rounds


def train_tokenizer(workplace, zoo_process, root, matcher):
    """The run of an image tokenizer, for DALL·E."""
    draw = Draw("tokenizer", matcher, "")
    _, model, data, _ = draw.image_tokenizer()
    config = {
        "model": {"class_path": "ImageTokenizerTask", "init_args": model},
        "data": {"class_path": "ImageTokenizerDataModule", "init_args": {**data, "root": str(root), "num_workers": 0}},
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_epochs": 1, "enable_progress_bar": False},
    }
    (workplace / "experiments" / "tokenizer.yaml").write_text(yaml.safe_dump(config))
    code, _, err = zoo_process(workplace, "fit", "--config", "experiments/tokenizer.yaml")
    assert code == 0, err
    return next((workplace / "runs" / "tokenizer").iterdir())


def soak(name, place, draw, root, zoo_process, told):
    """One training without interruption, and one with some; what is done and printed goes to ``told``."""
    experiment, processes = draw.experiment(root), draw.one(1, 1, 1, 2)
    if processes > 1:  # each has three batches at least
        experiment["data"]["init_args"]["batch_size"] = 4
    (place / "experiments" / "soak.yaml").write_text(yaml.safe_dump(experiment))
    told += [f"{processes} processes", yaml.safe_dump(experiment)]
    mark = f"ZOO_SOAK={os.getpid()}.{name}."

    def fit(*words, interrupt="never never -1 none"):
        told.append(f"{interrupt}: fit {' '.join(words)}")
        code, out, err = zoo_process(
            place, "fit", *words, processes=processes, INTERRUPT=interrupt, ZOO_SOAK=mark.partition("=")[2]
        )
        told.append(f"{code}\n{out}{err}")
        assert not wait_until_none(mark)
        return code, err

    fresh = ("--config", "experiments/soak.yaml")
    code, _ = fit(*fresh, "--runs", "whole")
    assert code == 0
    (whole,) = (place / "whole" / "soak").iterdir()
    expected, words, run, steps_done = contents(whole), fresh, None, 0
    steps = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    copies = []
    for number in range(draw.one(1, 2, 3)):
        how, *rest = draw.interruption(steps_done, steps)
        code, err = fit(*words, interrupt=" ".join(map(str, (how, *rest))))
        if code == 0:  # it was never there
            break
        assert code in EXPECTED[how]
        assert how == "raise" or "Traceback" not in err
        if how == "disk":
            assert "File too large" in err
        run = run or next((place / "runs" / "soak").iterdir())
        last = run / "checkpoints" / "last.ckpt"
        if not last.exists():
            shutil.rmtree(run)
            words, run = fresh, None
            continue
        steps_done = torch.load(last, weights_only=True)["global_step"]
        move = draw.one("stay", "stay", "rename", "copy")
        if move != "stay":
            told.append(move)
            new = place / f"moved-{number}" / "soak" / "run"
            shutil.copytree(run, new)
            if move == "rename":
                shutil.rmtree(run)
            else:
                copies.append((run, contents(run)))
            run = new
        words = ("--ckpt_path", str(run))
    else:
        code, _ = fit(*words)
    assert code == 0
    run = run or next((place / "runs" / "soak").iterdir())
    found = contents(run)
    assert sorted(found) == sorted(expected)
    differ = [path for path in found if found[path] != expected[path]]
    assert not differ
    for copied, before in copies:
        assert contents(copied) == before
