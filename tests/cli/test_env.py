import importlib.metadata
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import huggingface_hub
import pytest
from packaging.requirements import Requirement

from zoo.__main__ import main as zoo_main
from zoo.cli import env


@pytest.fixture
def rows(capsys, monkeypatch, tmp_path):
    """Prints the table: what stands in each row."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MUGE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)

    def ask(code=0):
        assert zoo_main(["env"]) == code
        lines = capsys.readouterr().out.splitlines()
        assert all(line.count("|") - line.count("\\|") == 3 for line in lines)
        return {title: value for title, value in (line[2:-2].split(" | ", 1) for line in lines[2:])}

    return ask


def test_the_table_tells_versions_precision_and_font(rows):
    from zoo.core.hardware import best_precision

    table = rows()
    assert table["lightning"] == importlib.metadata.version("lightning")
    assert table["Packages known to be bad"] == "none"
    assert table["Precision of fit"] == best_precision()
    assert table["Font of image grids"] == "Noto Sans CJK SC"
    assert table["Hugging Face"] == "not asked: HF_HUB_OFFLINE is set"
    assert table["Data"] == "data/MUGE: no such folder"
    assert not [value for value in table.values() if value.startswith("unknown")]


def test_it_finds_the_data(rows, monkeypatch, muge_root):
    monkeypatch.setenv("MUGE_ROOT", str(muge_root))
    assert set(rows()["Data"].partition(": ")[2].split(", ")) == {
        "Multimodal_Retrieval",
        "ECommerce-T2I",
        "ECommerce-IC",
    }


def test_no_key_password_or_home_is_shown(rows, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    monkeypatch.setenv("MUGE_ROOT", str(tmp_path / "home" / "muge|data"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "home" / "cache"))
    monkeypatch.setitem(
        env.IMPORTING, "Hugging Face", lambda: "HF_ENDPOINT https://me:secret@mirror.example: reachable"
    )
    table = rows()
    assert not [value for value in table.values() if "secret" in value or str(tmp_path / "home") in value]
    assert table["Loggers"].endswith(" a key was found")
    assert table["Data"] == "MUGE_ROOT ~/muge\\|data: no such folder"
    assert table["Hugging Face"] == "HF_ENDPOINT https://mirror.example: reachable"
    assert table["Zoo's cache"].startswith("~/cache: ")


def test_a_malicious_release_is_named_and_nothing_is_imported(rows, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(env, "version", lambda name: "2.6.3" if name == "lightning" else version(name))
    monkeypatch.setitem(env.IMPORTING, "Memory", lambda: pytest.fail("it was imported"))
    table = rows(code=1)
    assert table["Packages known to be bad"] == "lightning 2.6.3 is a malicious release"
    assert "Memory" not in table
    assert table["diffusers"] == version("diffusers")


def test_what_is_broken_is_told_in_its_row(rows, monkeypatch):
    def broken():
        raise OSError("libcuda.so.1:\ncannot open")

    monkeypatch.setitem(env.IMPORTING, "GPUs", broken)
    assert rows()["GPUs"] == "unknown: OSError: libcuda.so.1: cannot open"


def test_hub_and_mirror_have_three_seconds_together(monkeypatch):
    from huggingface_hub import constants

    class Session:
        def head(self, place, timeout):
            if "mirror" not in place:
                time.sleep(60)
            return type("Answer", (), {"status_code": 503})

    monkeypatch.setattr(env, "PATIENCE", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    started = time.monotonic()
    told = env.hub()
    assert time.monotonic() - started < 2
    assert told == "HF_ENDPOINT https://mirror.example: answers 503; the hub https://huggingface.co: no answer in 0.1 s"


def test_its_help_needs_no_pytorch():
    code = (
        "import sys; from zoo.__main__ import main\ntry: main(['env', '--help'])\nfinally: print(sorted(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "paste into an issue" in printed
    assert not {"'torch'", "'lightning'", "'huggingface_hub'"} & set(printed.replace("]", ",").split(", "))


def test_the_malicious_releases_cannot_be_installed():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = {each.name: each.specifier for each in map(Requirement, project["dependencies"])}
    assert not [release for release in env.BAD if release[1] in requirements[release[0]]]
    assert "2.6.6" in requirements["lightning"]
