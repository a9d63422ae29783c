"""The container files of the server: there is no docker here, so what matters of them is read."""

import json
import re
from pathlib import Path

import pytest
import yaml

import zoo
from zoo.tasks.retrieval.search.index import index_parser
from zoo.tasks.retrieval.search.serve import serve_parser

ROOT = Path(zoo.__file__).parents[1]
FOLDER = ROOT / "experiments/_launch/serve"


@pytest.fixture(scope="module")
def instructions():
    """Each instruction of the Dockerfile and what stands behind it, comments and broken lines apart."""
    text = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text())
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def is_pinned(image):
    return re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image) is not None


def test_the_image_is_pinned_and_its_process_is_no_root(instructions):
    names = [name for name, _ in instructions]
    assert set(names) <= {
        "FROM",
        "ARG",
        "RUN",
        "WORKDIR",
        "COPY",
        "USER",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    given = dict(instructions)
    assert is_pinned(given["FROM"])
    assert given["USER"] not in ("root", "0")
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]
    assert "/health" in given["HEALTHCHECK"]
    assert json.loads(given["ENTRYPOINT"]) == ["python", "-m", "zoo"]
    assert not re.search(r"curl|wget|ADD", " ".join(value for name, value in instructions if name == "RUN"))


def test_what_is_copied_is_there_and_sent_to_the_builder(instructions):
    copied = [source for name, value in instructions if name == "COPY" for source in value.split()[:-1]]
    sent = [line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    assert sorted(copied) == sorted(sent)
    assert all((ROOT / source).exists() for source in copied)


def test_the_commands_of_the_composed_services_are_understood(services):
    for name, parser in (("index", index_parser()), ("serve", serve_parser())):
        command = services[name]["command"]
        assert command[0] == name
        options = parser.parse_args([str(word) for word in command[1:]])
        assert "http://milvus:19530/shop" in (options.get("engine"), options.get("index"))


def test_the_composed_services_are_pinned_and_closed(services):
    assert is_pinned(services["milvus"]["image"])
    assert "ports" not in services["milvus"]
    serve = services["serve"]
    assert [port.startswith("127.0.0.1:") for port in serve["ports"]] == [True]
    assert serve["read_only"]
    assert serve["cap_drop"] == ["ALL"]
    assert all(volume.endswith(":ro") for volume in serve["volumes"])
    assert serve["depends_on"]["milvus"]["condition"] == "service_healthy"
    assert (FOLDER / serve["build"]["context"]).resolve() == ROOT
    assert (ROOT / serve["build"]["dockerfile"]).is_file()
