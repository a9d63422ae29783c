"""Paths as users give them; files of our own, written whole or not at all. Standard library only."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import invalid

UNFINISHED = re.compile(r"\..+\.\d+-[0-9a-f]{8}(\.\w+)?")  # names that atomic_write gives


def expanded(path: Path | str, what: str = "the path") -> str:
    """Give a path with ``~``, ``$NAME`` and ``${NAME}`` spelled out, as shells do where they see them.

    No shell sees a path in YAML or Python, or behind ``=``. What is no path, such as a hub name, stays as it is.

    Args:
        path: The path.
        what: The argument that it came by, for errors.

    Raises:
        UserError: There is no such user or variable: a folder of that very name would be made. Or it cannot even be
            looked for: its name is too long, a folder on the way is not to be entered.
    """
    given = os.fspath(path)
    text = os.path.expanduser(os.path.expandvars(given))
    try:
        os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        unknown = re.match(r"~[^/]*", text) or re.search(r"\$(\w+|\{\w+\})", text)
        if unknown:
            kind = "user" if unknown[0][0] == "~" else "variable"
            raise invalid(what, given, f"there is no {kind} {unknown[0]}; set it, or write the path out") from None
    except (OSError, ValueError) as error:
        raise invalid(what, given, f"{getattr(error, 'strerror', error)}; give another") from None
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
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside ``path``, as ``atomic_write`` gives a file; what is there must be empty in the end."""
    temporary = _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def remove_unfinished(folder: Path) -> None:
    """Remove what ``atomic_write`` was writing below a folder when a process was killed; none may be writing there."""
    for path in folder.rglob(".*"):
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: It is none, or its brackets are nested too deeply to be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from None


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_lines(path: Path | str, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, in UTF-8, Chinese as it is, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
