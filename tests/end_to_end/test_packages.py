"""What other packages add: a backbone by ``imports:``, a task by an entry point; nothing of zoo is edited."""

import os
import re
import subprocess
import sys

import pytest
import torch
import yaml

import zoo
from zoo.errors import UserError

TINY = ("--config", "experiments/tiny.yaml", "--config", "experiments/shop.yaml")
TOWER = '''\
"""Image towers of a shop."""

import torch
from torch import nn

from zoo.registry import IMAGE_TOWERS


class ShopTower(nn.Module):
    """Patches of 8 pixels, seen each alone."""

    width = 24

    def __init__(self, image_size):
        super().__init__()
        self.image_size = image_size
        self.patches = nn.Conv2d(3, self.width, kernel_size=8, stride=8)

    def sequence(self, images):
        features = self.patches(images / 127.5 - 1).flatten(2).transpose(1, 2)
        return features, torch.ones(features.shape[:2], dtype=torch.bool)

    def forward(self, images):
        return self.sequence(images)[0].relu().mean(dim=1)

    def preprocess(self, images):
        raise NotImplementedError


@IMAGE_TOWERS.register
def shop_tower(*, image_size: int = 32) -> ShopTower:
    """Build a tower of one layer."""
    return ShopTower(image_size)
'''
PACKAGE = {
    "labels/spec.py": """\
from zoo.spec import Command, TaskSpec

SPEC = TaskSpec(
    name="labels",
    task="labels.task:LabelTask",
    metrics=("labels.task:Accuracy",),
    registries=("labels.registry:HEADS",),
    commands={"label": Command("labels.command:main", "name the category of images")},
    scorings={"labels": Command("labels.command:main", "accuracy")},
)
""",
    "labels/registry.py": """\
from zoo.registry import Registry

HEADS = Registry("head", "labels.heads")
""",
    "labels/heads/__init__.py": "",
    "labels/heads/linear.py": '''\
from labels.registry import HEADS


@HEADS.register
def linear_head(*, classes: int = 10) -> int:
    """Build a linear head."""
    return classes
''',
    "labels/task.py": "class LabelTask: ...\n\n\nclass Accuracy: ...\n",
    "labels/command.py": "def main(argv):\n    print('labelled', *argv)\n    return 3\n",
    "labels-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: labels\nVersion: 1\n",
    "labels-1.dist-info/entry_points.txt": "[zoo.tasks]\nlabels = labels.spec:SPEC\n",
}


@pytest.fixture
def shop(workplace):
    """An experiment of a backbone that a package beside it registers."""
    package = workplace / "shop_models"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "towers.py").write_text(TOWER)
    tower = {"image_tower": "shop_tower", "image_tower_options": {"image_size": 32}, "image_pretrained": False}
    experiment = {"imports": ["shop_models.towers"], "model": {"init_args": tower}, "trainer": {"max_epochs": 1}}
    (workplace / "experiments" / "shop.yaml").write_text(yaml.safe_dump(experiment))
    return workplace


@pytest.mark.ddp
def test_a_backbone_of_another_package_trains_resumes_and_is_tested(zoo_process, shop, only_run):
    code, _, err = zoo_process(shop, "fit", *TINY, processes=2)
    assert code == 0, err
    run = only_run(shop)
    assert yaml.safe_load((run / "config.yaml").read_text())["imports"] == ["shop_models.towers"]
    code, _, err = zoo_process(shop, "fit", "--ckpt_path", "last", "--trainer.max_epochs", 2, processes=2)
    assert code == 0, err
    assert yaml.safe_load((run / "config.yaml").read_text())["imports"] == ["shop_models.towers"]
    code, _, err = zoo_process(shop, "test", processes=2)
    assert code == 0, err
    assert (run / "test.json").is_file()

    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["imports"] == ["shop_models.towers"]
    with pytest.raises(UserError, match=r"'shop_tower'.* It needs the module 'shop_models.towers': import it first"):
        zoo.load(run)
    code = f"import shop_models.towers, zoo; assert zoo.load({str(run)!r}).image_tower.width == 24"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(shop), *sys.path])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_a_plain_command_imports_too(zoo_process, shop):
    code, out, err = zoo_process(shop, "list", "shop_tower", "--imports", "shop_models.towers")
    assert code == 0, err
    assert "Build a tower of one layer." in out
    code, _, err = zoo_process(shop, "list", "--imports=shop_models.tower")
    assert (code, err.partition(":")[0]) == (1, "zoo list")
    assert "there is no module 'shop_models.tower'" in err


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (
            "imports: [shop_model.towers]",
            [],
            "experiments/more.yaml: imports has 'shop_model.towers': there is no module",
        ),
        ("imports: [shop_models.tower]", [], "there is no module 'shop_models.tower' in the current folder"),
        ("imports: [broken]", [], "imports has 'broken': it needs the module 'nothing_of_this_name', which is not"),
        ("imports: shop.py", [], "experiments/more.yaml: imports is 'shop.py': list modules as Python names them"),
        ("imports: [3]", [], "experiments/more.yaml: imports is [3]: list modules"),
        ("{}", ["--imports", "shops"], "--imports: imports has 'shops': there is no module 'shops'"),
        ("{}", ["--imports", "shop/towers.py"], "--imports: imports is ['shop/towers.py']: list modules"),
    ],
)
def test_what_cannot_be_imported_is_said_with_its_file(zoo_main, shop, monkeypatch, text, words, said):
    (shop / "broken.py").write_text("import nothing_of_this_name\n")
    (shop / "experiments" / "more.yaml").write_text(text)
    monkeypatch.setattr(sys, "path", [str(shop), *sys.path])
    code, _, err = zoo_main("fit", *TINY[:2], "--config", "experiments/more.yaml", *words)
    assert code == 1
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not list(shop.glob("runs/*/*"))


@pytest.fixture
def installed(tmp_path):
    """Runs Python where a package with a task is installed."""
    for name, text in PACKAGE.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])}
        done = subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_task_of_an_installed_package_is_one_of_the_zoo(installed):
    code, printed = installed("-m", "zoo", "--help")
    assert code == 0, printed
    assert re.search(r"^  label +name the category of images$", printed, re.MULTILINE)
    assert installed("-m", "zoo", "label", "a.jpg") == (3, "labelled a.jpg\n")
    assert installed("-m", "zoo", "score", "labels") == (3, "labelled\n")
    code, printed = installed("-m", "zoo", "list", "linear_head")
    assert code == 0, printed
    assert "Build a linear head." in printed
    lines = (
        "import zoo, zoo.tasks; from labels.task import Accuracy, LabelTask; from zoo.spec import find_specs",
        "assert find_specs()[-1].name == 'labels' and zoo.tasks.LabelTask is zoo.LabelTask is LabelTask",
        "assert zoo.metrics.Accuracy is Accuracy and zoo.create('linear_head', classes=3) == 3",
    )
    code, printed = installed("-c", "\n".join(lines))
    assert code == 0, printed


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "labels/spec.py",
            "import gone\n",
            "labels names the task labels (labels.spec:SPEC, entry point zoo.tasks), which",
        ),
        (
            "labels/spec.py",
            PACKAGE["labels/spec.py"].replace('"labels",', '"retrieval",', 1),
            "there is a task 'retrieval'",
        ),
    ],
)
def test_a_package_whose_task_cannot_be_had_is_named(installed, tmp_path, name, text, said):
    (tmp_path / "site" / name).write_text(text)
    code, printed = installed("-m", "zoo", "--help")
    assert code == 1
    assert said in printed
    assert "Traceback" not in printed
