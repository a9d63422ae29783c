"""Configuration files: YAML that says one thing, or is refused by file and line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import FileError

GROUPS = ("model", "data", "trainer")
MOST_VALUES, DEEPEST = 100_000, 50  # of a configuration, with its aliases spelled out; and in how many others
MERGE = "tag:yaml.org,2002:merge"  # the key <<, which may stand twice


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file; those that it names are looked through as well.

    Raises:
        UserError: It is no mapping in YAML, or gives a key twice in one; names the line.
    """
    root, content = _read(path, set())
    if not isinstance(root, yaml.MappingNode):
        what = f"a {type(content).__name__}" if root else "nothing"
        wanted = "give `model:`, `data:`, `trainer:` and what stands under them"
        raise FileError(f"it holds {what}: {wanted}", file=path, line=_line(root.start_mark) if root else None)
    for key, value in root.value:
        if key.value in GROUPS and content[key.value] is not None and not isinstance(content[key.value], str):
            _check_mapping(key, value, path)
    return dict(content)


def check_flags(words: Iterable[str]) -> None:
    """See that no flag's value, or file that it names, gives a key twice in one mapping; other errors are the parser's.

    Raises:
        UserError: One does.
    """
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, _, word = word.partition("=")
        try:
            root = yaml.compose(word, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            continue
        except RecursionError:
            raise FileError("its brackets are nested too deeply", file=flag) from None
        _read_named(root, flag, Path(), set())


def _read(path: Path, read: set[Path]) -> tuple[yaml.Node | None, Any]:
    """What a file holds, as YAML's node and as Python's; files that it names and that are not ``read`` yet are, too."""
    read.add(path.resolve())
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        words = str(error.problem)
        if words == "second occurrence":  # of an anchor: what and where the first is stands in the context
            words = f"{str(error.context).partition(';')[0]}, first on line {_line(error.context_mark)}"
        raise FileError(f"this is no YAML: {words}", file=path, line=_line(error.problem_mark)) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # the bytes or characters of no text; a thousand [
        raise FileError(f"this is no YAML: {str(error).splitlines()[0]}", file=path) from None
    _read_named(root, path, path.parent, read)
    return root, content


def _read_named(root: yaml.Node | None, place: Path | str, folder: Path, read: set[Path]) -> None:
    """Look through all nodes, each once whatever aliases lead there: for keys given twice, and files to read, too."""
    waiting, gone = [root] if root else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in gone:
            continue
        gone.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, place)
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif node.value.endswith((".yaml", ".yml")):
            named = folder / node.value
            if named.is_file() and named.resolve() not in read:
                _read(named, read)
    if root:
        _check_size(root, place)


def _check_size(root: yaml.Node, place: Path | str) -> None:
    """Raise where values are nested without end, or aliases spell out more than anybody means: to copy that hangs."""
    sizes: dict[int, tuple[int, int]] = {}  # values and levels of what a node stands for, its aliases spelled out

    def size(node: yaml.Node, level: int = 0) -> tuple[int, int]:
        if id(node) not in sizes and level <= DEEPEST:
            values = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = [part for value in values for part in (value if isinstance(value, tuple) else [value])]
            within = [size(part, level + 1) for part in parts]
            sizes[id(node)] = (
                1 + sum(count for count, _ in within),
                1 + max((levels for _, levels in within), default=0),
            )
        if level > DEEPEST or level + sizes[id(node)][1] > DEEPEST:
            what = f"values stand in more than {DEEPEST} others, or an alias in what it is of: write them out"
            raise FileError(what, file=place, line=_line(node.start_mark))
        return sizes[id(node)]

    count, _ = size(root)
    if count > MOST_VALUES:
        raise FileError(f"its aliases spell out {count:,} values: give {MOST_VALUES:,} at most", file=place)


def _check_keys(mapping: yaml.MappingNode, place: Path | str) -> None:
    """Raise where a key is given twice: the later value would silently win; and where a class's options are none."""
    lines: dict[tuple[str, str], int | None] = {}
    for key, value in mapping.value:
        if key.value == "init_args":
            _check_mapping(key, value, place)
        line, name = _line(key.start_mark), (key.tag, str(key.value))
        if name in lines and key.tag != MERGE:
            raise FileError(
                f"{key.value} is given twice in one mapping, first on line {lines[name]}: keep one of them",
                file=place,
                line=line,
            )
        lines[name] = line


def _check_mapping(key: yaml.Node, value: yaml.Node, place: Path | str) -> None:
    if not isinstance(value, yaml.MappingNode):
        what = "a list" if isinstance(value, yaml.SequenceNode) else repr(value.value)
        raise FileError(
            f"{key.value} is {what}: give a mapping, `name: value`", file=place, line=_line(value.start_mark)
        )


def _line(mark: yaml.Mark | None) -> int | None:
    return None if mark is None else mark.line + 1
