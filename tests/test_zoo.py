"""The package as a whole: what importing it costs, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

ROOT = Path(zoo.__file__).parent

# Who may import whom, by the first part below zoo; errors is everybody's, and a room may import itself.
# DESIGN, "Who may import whom". None: all.
MAY_IMPORT = {
    "errors": set(),
    "interfaces": set(),
    "registry": set(),
    "images": set(),
    "losses": set(),
    "metrics": {"precision"},
    "optim": set(),
    "options": set(),
    "data": {"interfaces", "images"},
    "towers": {"interfaces", "registry", "images"},
    "generators": {"interfaces", "registry", "images", "options", "towers.hub", "towers.tokenizer"},
    "captioners": {"interfaces", "registry", "images", "options", "towers.hub", "towers.tokenizer"},
    "weights": {"towers", "generators", "captioners", "registry", "precision", "runs"},
    "tasks": {"interfaces", "images", "registry", "losses", "metrics", "optim", "weights"},
    "judges": {"interfaces", "images", "metrics", "registry", "weights", "data.formats", "precision"},
    "callbacks": {"interfaces", "metrics", "weights", "images", "data.formats", "hardware", "judges"},
    "runs": set(),
    "loggers": {"data.formats", "runs"},
    "hardware": set(),
    "precision": set(),
    "messages": {"runs"},
    "commands": None,
    "cli": None,
    "__init__": set(),
    "__main__": set(),
}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def zoo_imports(path):
    """The zoo's own modules that a file imports anywhere, functions too: ``data.formats``, ``errors``, …"""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "zoo":
                names = [f"zoo.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("zoo.") for name in names if name.startswith("zoo."))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=module_name)
def test_imports_point_one_way(path):
    room = module_name(path).partition(".")[0]
    assert room in MAY_IMPORT, f"{room} is a new room: say in DESIGN and here what it may import"
    allowed = MAY_IMPORT[room]
    if allowed is None:
        return
    allowed = allowed | {room, "errors"}
    wrong = [name for name in zoo_imports(path) if name.partition(".")[0] not in allowed and name not in allowed]
    assert not wrong, f"zoo.{module_name(path)} imports {wrong}; zoo.{room} may import {sorted(allowed)}"


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
        ("score retrieval --gold a --predictions b", HEAVY[:-2]),
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


def test_every_public_name_is_there():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        zoo.lod  # noqa: B018
