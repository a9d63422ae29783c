"""The embedded data, so that every task runs offline: the catalogue of size ``demo``, drawn once into zoo's cache.

What is drawn is held against ``frozen.json``: every number that is published was measured on exactly these texts.
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from zoo.data.catalogue.make import is_whole, write_catalogue
from zoo.data.images import decode
from zoo.data.layouts import MULTIMODAL_RETRIEVAL
from zoo.data.tsv import ImageTsv
from zoo.errors import UserError
from zoo.io import cache_folder, read_json, write_text

NAME = "catalogue-1"  # of the folder, and of the data set in tables of results
FROZEN = "frozen.json"


def demo_root() -> Path:
    """Give the folder with the three task folders, made in the cache when it is not there.

    Raises:
        UserError: The cache folder (``$ZOO_CACHE``, else ``~/.cache/zoo``) cannot be written, or what is made differs
            from what is frozen.
    """
    root = cache_folder() / NAME
    if not is_frozen(root):
        with writing(root), locked(cache_folder() / "demo.lock"):
            if not is_frozen(root):  # another process may have been quicker
                print("Drawing the embedded data, once: about 90 seconds on two cores", file=sys.stderr)
                begun = root.with_name(f".{NAME}")
                write_catalogue(begun)
                made = summary(begun)
                try:
                    check_frozen(made)
                except UserError:
                    shutil.rmtree(begun)  # perhaps another version of zoo began it
                    raise
                write_text(begun / FROZEN, json.dumps(made, indent=2) + "\n")
                shutil.rmtree(root, ignore_errors=True)  # a damaged one, or another version's
                begun.rename(root)
    return root


def is_frozen(root: Path) -> bool:
    """Tell whether a folder holds what is frozen now, every file at its full length."""
    try:
        return is_whole(root) and read_json(root / FROZEN)["files_sha256"] == frozen()["files_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def frozen() -> dict[str, Any]:
    """Read the frozen record: hashes of files and pixels, and what drew them."""
    return json.loads((files("zoo.data.catalogue") / FROZEN).read_text(encoding="utf-8"))


def freeze() -> None:
    """Rewrite ``frozen.json`` from what is in the cache. For maintainers: every published result changes."""
    text = json.dumps(summary(cache_folder() / NAME), ensure_ascii=False, indent=2) + "\n"
    write_text(Path(__file__).with_name(FROZEN), text)


def summary(root: Path) -> dict[str, Any]:
    """Hash what a folder holds: its texts and attributes file by file, its images by their decoded pixels."""
    images = sorted(root.rglob(MULTIMODAL_RETRIEVAL.path(Path(), "images", "*").name))
    written = sorted({*root.rglob("*.jsonl"), *root.rglob("*.txt.tsv"), *root.rglob("attributes.json")})
    return {
        "drawn_with": {name: version(name) for name in ("resvg_py", "pillow")},
        "pixels_sha256": {path.relative_to(root).as_posix(): _pixels(path) for path in images},
        "files_sha256": {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in written
        },
    }


def check_frozen(made: dict[str, Any]) -> None:
    """Refuse other texts; say so when only pixels differ, as another renderer may round edges otherwise.

    Raises:
        UserError: A file of texts differs from the frozen one.
    """
    expected = frozen()
    differ = sorted(dict(made["files_sha256"].items() ^ expected["files_sha256"].items()))
    if differ:
        raise UserError(f"The embedded data came out other than frozen ({differ[0]} first): this is a bug of zoo.")
    if made["pixels_sha256"] != expected["pixels_sha256"]:
        by, before = (
            ", ".join(f"{name} {number}" for name, number in each["drawn_with"].items()) for each in (made, expected)
        )
        print(
            f"The embedded images, drawn with {by}, differ from the frozen ones, drawn with {before}: results may"
            " differ a little.",
            file=sys.stderr,
        )


def _pixels(path: Path) -> str:
    digest, images = hashlib.sha256(), ImageTsv(path)
    for row in range(len(images)):
        digest.update(decode(images[row]).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def writing(root: Path) -> Iterator[None]:
    """Say in one line what a full or read-only disk means."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The embedded data cannot be written to {str(root)!r}: {error}. "
            "Set the environment variable ZOO_CACHE to a folder that can be written."
        ) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let in one process at a time; where the system has no such lock, renaming alone keeps the folder whole."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
