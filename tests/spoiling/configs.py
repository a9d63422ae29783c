"""``fit``: an experiment of each task, whose YAML, options or flags are spoiled; no step is taken of any training."""

import codecs
import json
import math
from pathlib import Path

import tiny
import yaml

from spoiling import ACCEPTED, EITHER, SAME, Area, Input, refused
from spoiling.changes import noisy
from spoiling.folders import more, words

FILE = "experiments/tiny.yaml"
NAN, INF = math.nan, math.inf
TOWER = {"width": 32, "num_layers": 1, "num_heads": 2}


def outcome(place, out, err):
    """The configuration that the run keeps."""
    (file,) = place.glob("runs/*/*/config.yaml")
    return yaml.safe_load(file.read_text())


def leaves(name, accepted):
    """A run; of one that was refused when it had begun, its configuration."""
    return name.startswith("runs/") and (accepted or name.endswith("/config.yaml"))


FIT = Area("fit", 12, outcome, leaves=leaves)


def make(root, matcher):
    """Make the experiments on the data of ``root``; ``matcher`` is a checkpoint."""
    base = (Path(__file__).parents[2] / "experiments" / "_base.yaml").read_bytes()
    retrieval = yaml.safe_load(tiny.EXPERIMENT.replace("ROOT", str(root)))
    trainer = {
        **{"accelerator": "cpu", "precision": "32-true", "max_epochs": 2, "max_steps": 0, "num_sanity_val_steps": 0},
        **{"enable_progress_bar": False, "enable_model_summary": False, "logger": False},
    }
    captioning = {
        "class_path": "CaptioningTask",
        "init_args": {
            "captioner": "encoder_decoder_tiny",
            "captioner_options": {
                **{"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}, **TOWER},
                "decoding": {"beams": 2, "max_tokens": 8},
            },
            **{"image_pretrained": False, "language_pretrained": False, "learning_rate": 0.003},
            **{"optimizer": {"warmup_steps": 2}, "reward": {"samples": 0}, "evaluation": {"grid_images": 3}},
        },
    }
    drawing = {
        "class_path": "TextToImageTask",
        "init_args": {
            "generator": "dit_tiny",
            "generator_options": {
                **{"image_size": 16, "num_layers": 2, "num_heads": 1, "text_tower_options": TOWER},
                "sampling": {"steps": 3},
            },
            **{"text_pretrained": False, "learning_rate": 0.003, "optimizer": {"warmup_steps": 2}},
            "evaluation": {"matcher": str(matcher), "inception": "none", "grid_seeds": 2},
        },
    }
    for name, model, module in (
        ("retrieval", retrieval["model"], "RetrievalDataModule"),
        ("captioning", captioning, "CaptioningDataModule"),
        ("text_to_image", drawing, "TextToImageDataModule"),
    ):
        data = {"class_path": module, "init_args": {"root": str(root), "batch_size": 6, "num_workers": 0}}
        experiment = {"save_every": 5, "seed_everything": 1, "model": model, "data": data, "trainer": trainer}
        files = {FILE: dumped(experiment), "experiments/_base.yaml": base}
        FIT.bases[name] = Input(["fit", "--config", FILE], files)


def dumped(experiment):
    return yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True).encode()


def read(given):
    return yaml.safe_load(given.files[FILE])


def place_of(experiment, name):
    """The mapping in which an option stands, and its key there: ``model.optimizer.eps``."""
    group, *path = name.split(".")
    mapping = experiment[group]["init_args"] if group in ("model", "data") else experiment
    *path, key = path if group in ("model", "data") else [group, *path]
    for each in path:
        if not isinstance(mapping.get(each), dict):
            mapping[each] = {}
        mapping = mapping[each]
    return mapping, key


def spelled(value):
    """A value as it is typed behind a flag."""
    return value if isinstance(value, str) else json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")


# --- values ------------------------------------------------------------------------------------------------------

NO_NUMBERS = ["fast", "", "1e", "--", "1,5", "一", "１０px", [], [1], {}, {"a": 1}, None, True]
WRONG = {
    "a number": NO_NUMBERS,
    "a whole number": [*NO_NUMBERS, 1.5, math.nan, math.inf, -math.inf, "1.5"],
    "true or false": ["maybe", 3, 1.5, "", [], {}, "ja", None],
}
OPTIONS = yaml.safe_load((Path(__file__).parent / "options.yaml").read_text(encoding="utf-8"))


def by_value(name, values, verdict):
    """Give an option each of some values, in the file or as a flag."""

    def spoil(given, random):
        value = random.choice(values)
        value = "x" * 300 if value == "LONG" else value
        if random.random() < 0.5 and value is not None and value != "" and "\0" not in str(value):
            typed = spelled(value)
            given.words += [f"--{name}={typed}"] if random.random() < 0.5 else [f"--{name}", typed]
        else:
            experiment = read(given)
            mapping, key = place_of(experiment, name)
            mapping[key] = value
            given.files[FILE] = dumped(experiment)
        return verdict

    return spoil


def said_of(name):
    """How an error names an option: by its last part; Lightning's classes by their own names."""
    return "" if name in ("trainer.callbacks", "trainer.logger", "trainer.max_time") else name.rpartition(".")[2]


for base, options in OPTIONS.items():
    bases = () if base == "any" else (base,)
    for each, values in options.items():
        wrong = [*WRONG.get(values.get("is"), []), *values.get("wrong", [])]
        if wrong:
            FIT.add(f"wrong {each}", by_value(each, wrong, refused(said_of(each))), bases)
        if "right" in values:
            FIT.add(f"another {each}", by_value(each, values["right"], ACCEPTED), bases)


# --- keys --------------------------------------------------------------------------------------------------------


def mappings(value, path=()):
    """All mappings of a configuration, with their paths."""
    if isinstance(value, dict):
        yield path, value
        for key, each in value.items():
            yield from mappings(each, (*path, key))


@FIT.spoils()
def key_that_is_not_there(given, random):
    experiment = read(given)
    path, mapping = random.choice([found for found in mappings(experiment) if found[0][-1:] != ("metrics",)])
    key = random.choice(
        ["nope", "learning_rates", "Model", "中文", "a.b", "a b", "self", "kwargs", "__class__", "-", "0"]
    )
    mapping[key] = random.choice([1, None, "x", []])  # an empty mapping says nothing
    given.files[FILE] = dumped(experiment)
    return refused(key.rpartition(".")[2])


@FIT.spoils()
def key_misspelled(given, random):
    experiment = read(given)
    _, mapping = random.choice(list(mappings(experiment)))
    key = random.choice(list(mapping))
    place = random.randrange(len(key))
    wrong = random.choice([key[:place] + key[place + 1 :], key + "s", key.upper(), key[:place] + "x" + key[place:]])
    if wrong in mapping or wrong == "":
        return None
    changed = {wrong if name == key else name: value for name, value in mapping.items()}
    mapping.clear()
    mapping.update(changed)
    given.files[FILE] = dumped(experiment)
    return refused() if wrong == f"{key}s" and key in ("model", "data", "trainer") else refused(wrong)


@FIT.spoils()
def flag_misspelled(given, random):
    experiment = read(given)
    group = random.choice(["model", "data"])
    key = random.choice([key for key in experiment[group]["init_args"] if len(key) > 4])
    place = random.randrange(1, len(key))
    wrong = random.choice([key[:place] + key[place + 1 :], key + "s", key.replace("_", "-") + "-", key.title()])
    word = f"--{group}.{wrong}"
    given.words += random.choice([[f"{word}=1"], [word, "1"]])
    return refused(wrong)


@FIT.spoils()
def class_misspelled(given, random):
    experiment = read(given)
    group = random.choice(["model", "data"])
    name = experiment[group]["class_path"]
    place = random.randrange(1, len(name))
    wrong = random.choice(
        [
            *(
                name[:place] + name[place + 1 :],
                name.lower(),
                f"zoo.tasks.{name}x",
                f"nope.{name}",
                f"{name}()",
                f"zoo.{group}.x.{name}",
            ),
            *(
                "",
                "os.path.join",
                "json",
                "torch.nn.Linear",
                "zoo.tasks",
                "." + name,
                name + ".",
                "lightning.LightningModule",
            ),
        ]
    )
    if wrong == name[:place] + name[place + 1 :] and wrong == name:
        return None
    experiment[group]["class_path"] = wrong
    given.files[FILE] = dumped(experiment)
    return refused(group)


@FIT.spoils()
def class_of_another_kind(given, random):
    experiment = read(given)
    group = random.choice(["model", "data"])
    experiment[group]["class_path"] = random.choice(
        [experiment["data" if group == "model" else "model"]["class_path"], "EMA", "lightning.Trainer", 5, None, [], {}]
    )
    given.files[FILE] = dumped(experiment)
    return refused(group)


@FIT.spoils()
def part_lost(given, random):
    experiment = read(given)
    group, key = random.choice([("model", None), ("data", None), ("model", "class_path"), ("data", "class_path")])
    if key is None:
        del experiment[group]
    else:
        del experiment[group][key]
    given.files[FILE] = dumped(experiment)
    return refused(group)


@FIT.spoils()
def part_of_another_type(given, random):
    experiment = read(given)
    group = random.choice(["model", "data", "trainer"])
    wrong = random.choice([5, "x", [], [1], True, "nowhere.yaml", "../x.yaml", 1.5])
    if group == "trainer" or random.random() < 0.5:
        experiment[group] = wrong
    else:
        experiment[group]["init_args"] = wrong
    given.files[FILE] = dumped(experiment)
    return refused("init_args" if experiment[group] is not wrong else group)


@FIT.spoils()
def any_option_a_mapping(given, random):
    """No option of one value takes a mapping or a list of lists."""
    experiment = read(given)
    group = random.choice(["model", "data", "trainer"])
    mapping = experiment[group] if group == "trainer" else experiment[group]["init_args"]
    key = random.choice(sorted(mapping))
    mapping[key] = random.choice([{"no such": [1]}, [[1]], [{"a": 1}]])
    given.files[FILE] = dumped(experiment)
    return refused(key)


# --- YAML --------------------------------------------------------------------------------------------------------


def yaml_text(*changes, verdict=None):
    """Register changes of the file's text."""

    def spoil(given, random):
        text = given.files[FILE].decode()
        changed = random.choice(changes)(text, random)
        given.files[FILE] = changed if isinstance(changed, bytes) else changed.encode("utf-8", "surrogatepass")
        return verdict or refused("tiny.yaml")

    return spoil


def line_changed(change):
    """Change one line."""

    def changed(text, random):
        lines = text.splitlines()
        place = random.randrange(len(lines))
        lines[place : place + 1] = change(lines[place], random)
        return "\n".join(lines) + "\n"

    return changed


FIT.add(
    "no_yaml",
    yaml_text(
        line_changed(lambda line, random: ["\t" + line]),
        line_changed(lambda line, random: [line.rstrip() + ": :: x" if ":" in line else line + ": : x"]),
        line_changed(lambda line, random: [line + " }"]),
        line_changed(lambda line, random: [line, "{[}"]),
        line_changed(lambda line, random: [line, "@x: 1"]),
        line_changed(lambda line, random: [line, "%x"]),
        lambda text, random: text + "x: [1, 2\n",
        lambda text, random: text + 'x: "1\n',
        lambda text, random: text + "x: *nowhere\n",
        lambda text, random: text + "x: !!python/object/apply:os.system ['true']\n",
        lambda text, random: text + "x: !nope 1\n",
        lambda text, random: text + "---\nmodel: {}\n",
        lambda text, random: "a: &x 1\nb: &x 2\n" + text,
        lambda text, random: text.replace("model:", "model", 1),
        lambda text, random: text.encode("utf-16"),
        lambda text, random: text.encode() + b"# \xff\xfe\n",
        lambda text, random: text.encode() + b"# \x00\n",
        lambda text, random: text + "# \x07\n",
        lambda text, random: "x: " + "[" * 5_000 + "\n" + text,
        lambda text, random: text + "x: " + "[" * 5_000 + "]" * 5_000 + "\n",
        lambda text, random: "",
        lambda text, random: "# nothing\n",
        lambda text, random: "null\n",
        lambda text, random: "- a\n- b\n",
        lambda text, random: "hello\n",
        lambda text, random: "5\n",
        lambda text, random: "[]\n",
        lambda text, random: "--- \n...\n",
        lambda text, random: json.dumps([yaml.safe_load(text)]),
    ),
)
FIT.add(
    "key_twice",
    yaml_text(
        lambda text, random: text + "trainer: {max_epochs: 3}\n",
        lambda text, random: text.replace(
            "  init_args:\n", "  init_args:\n    learning_rate: 1\n    learning_rate: 2\n", 1
        ),
        lambda text, random: text + "save_every: 5\nsave_every: 5\n",
        lambda text, random: text.replace("trainer:\n", "trainer:\n  max_epochs: 3\n", 1),
        lambda text, random: text + 'x: {a: 1, "a": 1}\n',
    ),
)
FIT.add(
    "many_aliases",
    yaml_text(
        lambda text, random: (
            "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}, *a{n}]\n" for n in range(25)) + text
        ),
        lambda text, random: "a: &a {b: *a}\n" + text,
        lambda text, random: text + "x: &a [*a]\n",
    ),
)
FIT.add(
    "yaml_otherwise",
    yaml_text(
        lambda text, random: json.dumps(yaml.safe_load(text)),
        lambda text, random: yaml.safe_dump(yaml.safe_load(text), default_flow_style=True),
        lambda text, random: text.replace("\n", "\r\n"),
        lambda text, random: codecs.BOM_UTF8 + text.encode(),
        lambda text, random: "# 中文 comment\n\n" + text.replace("\n", "  # x\n", 1),
        lambda text, random: "---\n" + text,
        lambda text, random: text.rstrip("\n"),
        lambda text, random: text.replace("save_every: 5", "save_every: 0x5"),
        lambda text, random: text.replace("save_every: 5", 'save_every: "5"'),
        lambda text, random: text.replace("save_every: 5", "save_every: 0_5"),
        lambda text, random: text.replace("false", "no"),
        lambda text, random: text + "imports: []\n",
        lambda text, random: text.replace("save_every: 5\n", "") + "save_every: 5\n",
        verdict=SAME,
    ),
)


@FIT.spoils()
def yaml_bytes_at_random(given, random):
    end = given.files[FILE].index(b"trainer:")
    given.files[FILE] = noisy(given.files[FILE], random, 5, (b":", b" ", b"-", b"*", b"&"), end)
    return EITHER


# --- words -------------------------------------------------------------------------------------------------------


def config(path):
    return lambda words: ["fit", "--config", path, *words[3:]]


FIT.add(
    "config_that_is_not_there",
    words(
        *(
            (config(path), path)
            for path in (
                "experiments/tny.yaml",
                "tiny.yaml",
                "experiments",
                "/nowhere/x.yaml",
                "$NOT_SET/x.yaml",
                "~no_such_user/x.yaml",
                "x" * 300,
                "experiments/tiny.yml",
            )
        ),
        (config(""), "--config"),
        (lambda words: ["fit"], "--config"),
        (lambda words: ["fit", "--config"], "--config"),
        (lambda words: ["fit", FILE], "--config"),
        (lambda words: ["fit", "--confg", FILE], "--config"),
        (more("--config", "nowhere.yaml"), "nowhere.yaml"),
        (lambda words: ["fti", *words[1:]], "fti"),
        (lambda words: ["Fit", *words[1:]], "Fit"),
    ),
)
FIT.add(
    "wrong_words",
    words(
        (more("more"), "more"),
        (more("-x"), "-x"),
        (more("--"), "--"),
        (more("--trainer.max_epoch", "2"), "max_epoch"),
        (more("--trainer"), "trainer"),
        (more("--trainer", "x"), "trainer"),
        (more("--model", "Nope"), "Nope"),
        (more("--data", "5"), "data"),
        (more("--model.learning_rate"), "learning_rate"),
        (more("--model.learning_rate="), "learning_rate"),
        (more("--model.learning_rate", "--data.seed", "1"), "learning_rate"),
        (more("--learning_rate", "1"), "learning_rate"),
        (more("--model.optimizer.lr", "1"), "lr"),
        (more("--model.optimizer", "5"), "optimizer"),
        (more("--data.root"), "root"),
        (more("--ckpt_path", "nowhere.ckpt"), "nowhere.ckpt"),
        (more("--ckpt_path", "last"), "last"),
        (more("--ckpt_path", FILE), FILE),
        (more("--ckpt_path", "experiments"), "experiments"),
        (more("--ckpt_path"), "--ckpt_path"),
        (more("--ckpt_path", ""), "--ckpt_path"),
        (more("--runs", FILE), FILE),
        (more("--runs", "/proc/x"), "/proc/x"),
        (more("--runs", "$NOT_SET/x"), "$NOT_SET"),
        (more("--runs"), "--runs"),
        (more("--imports", "no_such_module"), "no_such_module"),
        (more("--imports", "a b"), "imports"),
        (more("--imports"), "--imports"),
        (more("--imports", ""), "imports"),
        (more("--save_every", "0"), "save_every"),
        (more("--trainer.callbacks+", "Nope"), "Nope"),
        (more("--trainer.callbacks.decay", "1"), "decay"),
        (more("--model.class_path", "Nope"), "Nope"),
        (more("--model={"), "model"),
        (more("--data={root: x, root: y}"), "root"),
        (more("--model.optimizer={a: b"), "optimizer"),
        (more("--print_confg"), "print_confg"),
        (more("--config", FILE, "--config", "x.yaml"), "x.yaml"),
    ),
)
FIT.add(
    "same_words_otherwise",
    words(
        (lambda words: ["fit", f"--config={FILE}"],),
        (config(f"./{FILE}"),),
        (config(f"$PWD/{FILE}"),),
        (more("--config", FILE),),
        (more("--save_every", "5"),),
        (more("--save_every=5"),),
        (more("--save_every", "7", "--save_every", "5"),),
        (more("--trainer.max_epochs", "2"),),
        (more("--model.optimizer", "{warmup_steps: 2}"),),
        (more("--data", '{"init_args": {"batch_size": 6}}'),),
        (lambda words: ["fit", "--save_every", "5", *words[1:]],),
        (more("--ckpt_path", "null"),),
        verdict=SAME,
    ),
)


@FIT.spoils()
def base_that_is_not_there(given, random):
    del given.files["experiments/_base.yaml"]
    return refused("_base.yaml")


@FIT.spoils()
def base_broken(given, random):
    given.files["experiments/_base.yaml"] = random.choice(
        [b"", b"[]\n", b"x: [\n", b"\xff\xfe", b"trainer: 5\n", b"nope: 1\n"]
    )
    return refused("_base.yaml")


@FIT.spoils()
def layer_broken(given, random):
    given.files["experiments/_overlays/x.yaml"] = random.choice(
        [
            b"",
            b"[]\n",
            b"x: [\n",
            b"trainer: {max_epoch: 1}\n",
            b"model: 5\n",
            b"data: {init_args: {rot: 1}}\n",
            b"trainer: {max_epochs: x}\n",
        ]
    )
    given.words += ["--config", "experiments/_overlays/x.yaml"]
    return refused("x.yaml")
