"""README.md and README.zh.md are one document in two languages; every command of it and of docs/ can be typed."""

import re
import shlex
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from zoo.__main__ import TRAINING
from zoo.__main__ import main as run_zoo
from zoo.cli.train import ZooCLI
from zoo.core.runs import Plan, take_option

REPOSITORY = Path(__file__).parents[2]
ENGLISH, CHINESE = "README.md", "README.zh.md"
EDITIONS = (ENGLISH, CHINESE)
PAGES = tuple(sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("docs/pages/*.md")))


def read(name):
    return (REPOSITORY / name).read_text(encoding="utf-8")


def code_blocks(text):
    """``(language, code)`` of each block; a comment keeps its ``#``, so that none is in one edition alone."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, re.sub(r"(?:^|[ \t]+)#.*$", " #", code, flags=re.MULTILINE)) for language, code in blocks]


def prose(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text):
    """``(level, heading)`` of each."""
    return [(len(marks), heading) for marks, heading in re.findall(r"^(#+) (.+)$", prose(text), re.MULTILINE)]


def anchors(text):
    """What links name the headings by, on GitHub and in the built documentation."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for _, heading in headings(text)}


def images(text):
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", prose(text))


def links(text):
    """Where the links go, sorted, for a sentence may turn round; without the one to the other edition."""
    targets = re.findall(r"(?<!!)\[[^\]]+\]\(([^)]+)\)", prose(text))
    return sorted(target for target in targets if target not in EDITIONS)


def table_shapes(text):
    """How many cells each row of each table has."""
    return [row.count("|") for row in re.findall(r"^\|.*\|$", prose(text), re.MULTILINE)]


def lines_to_type(text):
    """Every ``python -m zoo …`` of a text's shell blocks and code spans, as its words."""
    blocks = "".join(code for language, code in code_blocks(text) if language == "sh").replace("\\\n", " ")
    spans = re.findall(r"`(python -m zoo [^`]+)`", prose(text))
    found = [line.partition("-m zoo ")[2] for line in [*blocks.splitlines(), *spans] if "-m zoo " in line]
    return [tuple(shlex.split(line, comments=True)) for line in found]


TO_TYPE = sorted({words for name in (*EDITIONS, *PAGES) for words in lines_to_type(read(name))})


def test_the_editions_have_the_same_code_blocks_but_for_comments():
    english = code_blocks(read(ENGLISH))
    assert english
    assert code_blocks(read(CHINESE)) == english


def test_the_editions_have_headings_of_the_same_levels():
    english = [level for level, _ in headings(read(ENGLISH))]
    assert english.count(1) == 1
    assert [level for level, _ in headings(read(CHINESE))] == english


def test_the_editions_show_the_same_images():
    english = images(read(ENGLISH))
    assert english
    assert images(read(CHINESE)) == english


def test_the_editions_have_the_same_links():
    english = links(read(ENGLISH))
    assert english
    assert links(read(CHINESE)) == english


def test_the_editions_have_tables_of_the_same_shape():
    assert table_shapes(read(CHINESE)) == table_shapes(read(ENGLISH))


@pytest.mark.parametrize(("name", "other"), [(ENGLISH, f"[中文]({CHINESE})"), (CHINESE, f"[English]({ENGLISH})")])
def test_an_edition_links_to_the_other_under_its_title(name, other):
    assert read(name).splitlines()[:3] == ["# zoo", "", other]


def test_the_readme_is_read_in_a_few_minutes():
    assert len(prose(read(ENGLISH)).split()) <= 1500


@pytest.mark.parametrize("name", [*EDITIONS, *PAGES])
def test_what_a_page_links_to_is_there(name):
    page = REPOSITORY / name
    for target in [*links(read(name)), *images(read(name))]:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        assert (page.parent / path).exists(), target
        assert not anchor or anchor in anchors((page.parent / path).read_text(encoding="utf-8")), target


def test_every_page_is_in_the_documentations_contents():
    listed = re.findall(r'"(\w+\.md)"', read("docs/zensical.toml"))
    assert sorted(listed) == [Path(page).name for page in PAGES]


def own_experiments():
    """Experiments that a page tells its reader to write, by their paths: a YAML block that opens with one."""
    blocks = (re.findall(r"^```yaml\n# (experiments/\w+\.yaml)\n(.*?)^```$", read(page), re.M | re.S) for page in PAGES)
    return dict(pair for found in blocks for pair in found)


class ParsedError(Exception):
    """Raised where a command line has been parsed, in place of the work."""


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in TO_TYPE if words[0] in TRAINING], ids=" ".join)
def test_a_training_command_of_the_pages_has_its_options(words, monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    for name, text in own_experiments().items():
        (tmp_path / Path(name).name).write_text(text)
        words = [str(tmp_path / Path(name).name) if word == name else word for word in words]
    monkeypatch.setattr(ZooCLI, "parse_arguments", parse_only(ZooCLI.parse_arguments))
    with pytest.raises(ParsedError):
        ZooCLI(plan_of(words))


@pytest.mark.parametrize("words", [words for words in TO_TYPE if words[0] not in TRAINING], ids=" ".join)
def test_another_command_of_the_pages_has_its_options(words, monkeypatch):
    monkeypatch.setattr(ArgumentParser, "parse_args", parse_only(ArgumentParser.parse_args))
    with pytest.raises(ParsedError):
        run_zoo(words)


def parse_only(parse):
    def parse_and_stop(*args, **kwargs):
        parse(*args, **kwargs)
        raise ParsedError

    return parse_and_stop


def plan_of(words):
    """The plan of a training command; a run that a reader has is taken for the experiment that it is of."""
    configs, others = take_option(words[1:], ("--config",))
    checkpoints, flags = take_option(others, ("--ckpt_path",))
    experiments = [f"experiments/{Path(path).parts[1]}.yaml" for path in checkpoints if path.startswith("runs/")]
    layers = [f"--config={path}" for path in ("experiments/_base.yaml", *experiments, *configs)]
    return Plan([words[0], *layers, *flags], "", Path(), continued=False, checkpoint=None)
