"""The rooms of the package and the arrows between them, read from the code: see CONTRIBUTING, "Where things are"."""

import ast
import re
from pathlib import Path

import pytest

import zoo
from zoo.spec import find_specs

ROOT = Path(zoo.__file__).parent

# From the ground up: a room may import itself and those before it.
ROOMS = ("errors", "io", "spec", "registry", "data", "core", "models", "callbacks", "tasks", "cli")
FACADES = ("__main__", "metrics", "")  # stand above all rooms: they offer what specs name; "" is zoo itself
BETWEEN_TASKS = {("image_tokenizer", "text_to_image")}
NAMES_A_TASK = re.compile(r"zoo\.tasks\.\w")  # a place in a string; "zoo.tasks." alone begins that of any task


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(tree):
    """The zoo's own modules that a file imports anywhere, functions too: ``data.formats``, ``errors``, …"""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names = [node.module]
            if node.module == "zoo":
                names = [f"zoo.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("zoo.") for name in names if name.startswith("zoo."))


def strings_of(tree):
    """The string constants of a file, docstrings apart."""
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            docstrings.add(id(body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def errors_of(name, source):
    """What of a module's code breaks the rules; ``name`` is its path below ``zoo``."""
    tree = ast.parse(source)
    room, _, rest = name.partition(".")
    room = room.removeprefix("__init__")
    errors = [] if room in ROOMS + FACADES else [f"{room} is a room that nobody knows"]
    for imported in imports_of(tree):
        other, _, inside = imported.partition(".")
        if room in ROOMS and (other in FACADES or other in ROOMS and ROOMS.index(other) > ROOMS.index(room)):
            errors.append(f"{room} imports zoo.{imported}, which stands above it")
        if other == "tasks" and inside and room != "tasks":
            errors.append(f"it imports zoo.{imported}: only tasks import tasks")
        own, its = rest.partition(".")[0], inside.partition(".")[0]
        if room == other == "tasks" and own and its and own != its and (own, its) not in BETWEEN_TASKS:
            errors.append(f"the task {own} imports the task {its}")
    if room != "tasks":
        names = {name for spec in find_specs() for name in (spec.name, spec.folder, *spec.class_names)}
        texts = [*strings_of(tree), *imports_of(tree)]
        errors += [f"it names a task: {text!r}" for text in texts if text in names or NAMES_A_TASK.match(text)]
    return errors


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize("name", FILES)
def test_a_module_keeps_to_its_room(name):
    assert not errors_of(name, FILES[name].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("data.formats", "from zoo.core import optim"),
        ("core.task", "def load():\n    from zoo.models.image import TimmImageTower"),
        ("models.image", "import zoo.tasks.retrieval.task"),
        ("cli.train", "from zoo.tasks.captioning.task import CaptioningTask"),
        ("cli.score", 'if name == "retrieval":\n    pass'),
        ("core.checkpoint", 'TASK = "RetrievalTask"'),
        ("tasks.captioning.task", "from zoo.tasks.retrieval.losses.functional import clip_loss"),
        ("tasks.text_to_image.task", "from zoo.tasks.image_tokenizer.task import ImageTokenizerTask"),
        ("core.bench.harness", "from zoo.tasks.retrieval.bench.step import main"),
        ("cli.bench", "from zoo.core.bench import harness\nTASKS = ['text_to_image']"),
        ("callbacks.ema", "from zoo.cli import loggers"),
        ("io", "import zoo.data.tsv"),
        ("core.results", 'DATA = "CaptioningDataModule"'),
        ("tasks.image_tokenizer.task", "from zoo.tasks.captioning.loss import token_losses"),
        ("core.checkpoint", 'kind = load_object("zoo.tasks.retrieval.task:RetrievalTask")'),
        ("cli.train", "from zoo import RetrievalTask"),
        ("core.optim", "from zoo.metrics import RetrievalRecall"),
        ("bench.step", ""),
        ("attic.things", ""),
    ],
)
def test_the_rules_notice(name, source):
    assert errors_of(name, source)


def test_the_rules_allow():
    assert not errors_of("core.task", '"""retrieval"""\nfrom zoo.data.images import resize\n')
    assert not errors_of("cli.bench", "from zoo.core.bench import harness\nfrom zoo.spec import find_specs")
    assert not errors_of("tasks.retrieval.bench.step", "from zoo.core.bench.harness import run\nNAME = 'retrieval'")
    assert not errors_of("tasks.image_tokenizer.task", "from zoo.tasks.text_to_image.metrics import frechet")
