"""The package as a whole: what importing it costs."""

import subprocess
import sys

import pytest

import zoo


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


HEAVY = ("torch", "lightning", "transformers", "timm", "wandb", "numpy", "PIL")


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        ("--help", HEAVY),
        ("fitt", HEAVY),
        ("score --help", HEAVY[:-2]),
        ("score retrieval --targets a --predictions b", HEAVY[:-2]),
        ("list --help", HEAVY[:-2]),
        ("data --help", HEAVY[:-2]),
        ("results --help", HEAVY[:-2]),
    ],
)
def test_light_commands_import_nothing_heavy(words, heavy):
    code = f"""
import sys
from zoo.__main__ import main
try:
    main({words.split()!r})
except SystemExit:
    pass
print(sorted(set({heavy!r}) & set(sys.modules)))
"""
    assert run_python(code) == "[]"


def test_the_package_is_imported_lazily():
    code = "import sys, zoo; print(sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)), 'load' in dir(zoo))"
    assert run_python(code) == "[] True"


@pytest.mark.parametrize("module", [zoo, zoo.tasks, zoo.callbacks, zoo.metrics], ids=lambda module: module.__name__)
def test_every_public_name_is_there(module):
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert {*module.__all__} < {*dir(module)}
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'lod'"):
        module.lod  # noqa: B018


def test_what_a_task_has_is_offered_under_the_names_that_users_type():
    assert {"load", "create", "RetrievalTask", "RetrievalDataModule", "IMAGE_TOWERS", "GENERATORS"} < {*zoo.__all__}
    assert {"EMA", "RetrievalEvaluation"} < {*zoo.callbacks.__all__}
    assert "RetrievalRecall" in zoo.metrics.__all__
    assert {"RetrievalTask", "ImageTokenizerTask"} < {*zoo.tasks.__all__}
