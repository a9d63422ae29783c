"""Paths as users give them; files of our own, written whole or not at all. Standard library only."""

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import invalid

UNFINISHED = re.compile(r"\..+\.\d+-[0-9a-f]{8}(\.\w+)?")  # names that atomic_write gives


def expanded(path: Path | str) -> str:
    """Give a path with ``~``, ``$NAME`` and ``${NAME}`` spelled out, as shells do where they see them.

    No shell sees a path in YAML or Python, or behind ``=``. What is no path, such as a hub name, stays as it is.

    Raises:
        UserError: There is no such user or variable: a folder of that very name would be made.
    """
    given = os.fspath(path)
    text = os.path.expanduser(os.path.expandvars(given))
    unknown = re.match(r"~[^/]*", text) or re.search(r"\$(\w+|\{\w+\})", text)
    if unknown and not os.path.exists(text):
        kind = "user" if unknown[0][0] == "~" else "variable"
        raise invalid("the path", given, f"there is no {kind} {unknown[0]}; set it, or write the path out")
    return text


def cache_folder() -> Path:
    """Give the folder of what zoo can make again: ``$ZOO_CACHE``, else ``~/.cache/zoo``. It need not exist."""
    given = os.environ.get("ZOO_CACHE")
    return Path(expanded(given)) if given else Path.home() / ".cache" / "zoo"


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``, renamed to ``path`` when the block ends well and removed when it does not.

    A reader sees the old file or the whole new one. Missing folders are made, the suffix is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what ``atomic_write`` was writing below a folder when a process was killed; none may be writing there."""
    for path in folder.rglob(".*"):
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_lines(path: Path | str, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, in UTF-8, Chinese as it is, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
