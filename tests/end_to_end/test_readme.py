"""README.md and README.zh.md are one document: the same commands, sections, links and tables, in two languages."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ENGLISH, CHINESE = "README.md", "README.zh.md"
EDITIONS = (ENGLISH, CHINESE)


def read(name):
    return (REPOSITORY / name).read_text(encoding="utf-8")


def code_blocks(text):
    """``(language, code)`` of each block; a comment keeps its ``#``, so that none is in one edition alone."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, without_comments(language, code)) for language, code in blocks]


def without_comments(language, code):
    if not language:  # the listing of a run's folder: a name, spaces, what it is
        return re.sub(r"(?<=\S) {2,}.*$", " #", code, flags=re.MULTILINE)
    return re.sub(r"(?:^|[ \t]+)#.*$", " #", code, flags=re.MULTILINE)


def prose(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def heading_levels(text):
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(text), re.MULTILINE)]


def images(text):
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", prose(text))


def links(text):
    """Where the links go, sorted, for a sentence may turn round; without the one to the other edition."""
    targets = re.findall(r"(?<!!)\[[^\]]+\]\(([^)]+)\)", prose(text))
    return sorted(target for target in targets if target not in EDITIONS)


def generated_tables(text):
    """What is between each pair of markers, and the markers: ``(name, command, table)``."""
    return re.findall(r"^<!-- (\w+): (.*?) -->\n(.*?)^<!-- /\1 -->$", text, re.MULTILINE | re.DOTALL)


def table_shapes(text):
    """How many cells each row of each table has, written by hand or not."""
    return [row.count("|") for row in re.findall(r"^\|.*\|$", prose(text), re.MULTILINE)]


def test_the_editions_have_the_same_code_blocks_but_for_comments():
    english = code_blocks(read(ENGLISH))
    assert english
    assert code_blocks(read(CHINESE)) == english


def test_the_editions_have_headings_of_the_same_levels():
    english = heading_levels(read(ENGLISH))
    assert english.count(1) == 1
    assert heading_levels(read(CHINESE)) == english


def test_the_editions_show_the_same_images():
    english = images(read(ENGLISH))
    assert english
    assert images(read(CHINESE)) == english


def test_the_editions_have_the_same_links():
    english = links(read(ENGLISH))
    assert english
    assert links(read(CHINESE)) == english


def test_the_editions_have_the_same_generated_tables():
    english = generated_tables(read(ENGLISH))
    assert len(english) == read(ENGLISH).count("<!-- /")
    assert generated_tables(read(CHINESE)) == english


def test_the_editions_have_tables_of_the_same_shape():
    assert table_shapes(read(CHINESE)) == table_shapes(read(ENGLISH))


@pytest.mark.parametrize("name", EDITIONS)
def test_what_an_edition_links_to_is_there(name):
    relative = [target for target in links(read(name)) + images(read(name)) if not target.startswith("https://")]
    missing = [target for target in relative if not (REPOSITORY / target).exists()]
    assert not missing


@pytest.mark.parametrize(("name", "other"), [(ENGLISH, f"[中文]({CHINESE})"), (CHINESE, f"[English]({ENGLISH})")])
def test_an_edition_links_to_the_other_under_its_title(name, other):
    assert read(name).splitlines()[:3] == ["# zoo", "", other]
