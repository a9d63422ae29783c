"""Files of our own: written whole or not at all, and a folder for what can be made again. Standard library only."""

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Give the folder of what zoo can make again: ``$ZOO_CACHE``, else ``~/.cache/zoo``. It need not exist."""
    given = os.environ.get("ZOO_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "zoo"


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


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_lines(path: Path | str, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, in UTF-8, Chinese as it is, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
