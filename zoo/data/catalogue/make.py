"""The catalogue's files: products drawn, and written as MUGE's three tasks have them, with the truth beside them."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from operator import methodcaller
from pathlib import Path
from typing import Any

from zoo.data.attributes import write_attributes, write_vocabulary
from zoo.data.catalogue import texts
from zoo.data.catalogue.categories import render
from zoo.data.catalogue.products import Product, draw_products
from zoo.data.catalogue.queries import make_queries
from zoo.data.convert.images import ImageStore, Source
from zoo.data.formats import Query, write_captions, write_image_tsv, write_queries, write_text_tsv
from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL, Layout
from zoo.errors import UserError, invalid
from zoo.io import expanded, read_json, remove_unfinished, write_json_lines, write_text

CAPTIONS = 5  # of each image
TITLES_READ = 2  # of each image that scorers are trained on, among its queries
QUALITY = 90  # of JPEG
DRAWN = ".drawn"  # in the folder: what is drawn so far
ORDER = ("test", "valid", "scorer_test", "scorer_valid", "scorer", "train")  # in which splits choose their texts
MADE = "catalogue.json"  # what the folder holds; there when all of it is
BRANDS = ("云裳", "木里", "素年", "北岸", "青禾", "拾光", "南屿", "一隅", "鹿野", "半夏", "初见", "远山")


@dataclass(frozen=True)
class Counts:
    """How much a split has.

    Attributes:
        images: Of retrieval; text to image and captioning have the first of them.
        queries: As ``make_queries`` takes it.
        described: Images with a title.
        captioned: Images with copy.
    """

    images: int
    queries: int
    described: int
    captioned: int


def counts_of(size: str | int) -> dict[str, Counts]:
    """Give the counts of each split.

    Args:
        size: ``demo``, ``muge`` (MUGE's own numbers), or a number of training images.

    Raises:
        UserError: It is none of them.
    """
    if size == "muge":
        return {
            "train": Counts(129_380, 0, 90_000, 50_000),
            "valid": Counts(29_806, 5_008, 5_000, 5_000),
            "test": Counts(30_399, 5_004, 5_000, 10_000),
            "scorer": Counts(20_000, 0, 20_000, 20_000),
            "scorer_valid": Counts(1_000, 500, 1_000, 1_000),
            "scorer_test": Counts(1_000, 500, 1_000, 1_000),
        }
    images = 12_000 if size == "demo" else size
    if not isinstance(images, int) or images < 24:
        raise invalid("--size", size, "give demo, muge, or a number of training images of at least 24")
    numbers = {"train": images, "valid": images // 12, "test": images // 4}
    numbers |= {"scorer": images // 3, "scorer_valid": images // 24, "scorer_test": images // 24}
    return {
        split: Counts(n, 0 if split in ("train", "scorer") else max(1, n // 2), n, n) for split, n in numbers.items()
    }


def write_catalogue(root: Path | str, *, size: str | int = "demo", image_size: int = 128) -> dict[str, Any]:
    """Make the catalogue in a folder. What an interrupted call has drawn is not drawn again.

    Args:
        root: A folder, new or empty, or one in which the same was begun.
        size: ``demo`` (12,000 training images, 1,000 to validate and 3,000 to test), ``muge`` (MUGE's own numbers), or
            a number of training images.
        image_size: Pixels of a side, 32 to 1,024.

    Returns:
        What was asked for and, by split, how much there is: what ``catalogue.json`` holds.

    Raises:
        UserError: The folder holds something else, or a number is out of its range.
    """
    root = Path(expanded(root)).absolute()
    if not 32 <= image_size <= 1024:
        raise invalid("--image_size", image_size, "give 32 to 1,024 pixels of a side")
    counts = counts_of(size)
    asked = {"size": size, "image_size": image_size}
    if is_whole(root) and asked.items() <= read_json(root / MADE).items():
        shutil.rmtree(root / DRAWN, ignore_errors=True)  # there if the call that made it was killed at its end
        return read_json(root / MADE)
    begun = root / DRAWN / "metadata.json"  # the store's
    others = root.is_file() or (root.is_dir() and any(path.name != DRAWN for path in root.iterdir()))
    if read_json(begun) != asked if begun.is_file() else others:
        raise UserError(
            f"{root} holds something else already: give a folder that is new or empty", argument="DIR", value=str(root)
        )
    remove_unfinished(root)
    products: dict[str, list[Product]] = {}
    first_id = 100_000
    for split, each in counts.items():
        products[split] = draw_products(split, each.images, first_id)
        first_id += each.images
    taken: set[str] = set()
    splits = {}
    with ImageStore(begun.parent, asked) as store:
        draw_into(store, [source_of(product, image_size) for own in products.values() for product in own])
        for split in ORDER:
            splits[split] = write_split(root, split, counts[split], products[split], store, taken)
    for folder in (root, root / "scorer"):
        for layout in (MULTIMODAL_RETRIEVAL, ECOMMERCE_T2I, ECOMMERCE_IC):
            write_vocabulary(folder / layout.folder, texts.words(), texts.UNSAID)
    files = [path for path in sorted(root.rglob("*.*")) if path.is_file() and begun.parent not in path.parents]
    lengths = {path.relative_to(root).as_posix(): path.stat().st_size for path in files}
    made = {**asked, "splits": {split: splits[split] for split in counts}, "bytes": lengths}
    write_text(root / MADE, json.dumps(made, indent=2) + "\n")
    shutil.rmtree(root / DRAWN)
    return made


def is_whole(root: Path) -> bool:
    """Tell whether a folder holds a catalogue, every file of it at its full length."""
    try:
        lengths = read_json(root / MADE)["bytes"]
        return all((root / name).stat().st_size == length for name, length in lengths.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


# --- images ------------------------------------------------------------------------------------------------------


def source_of(product: Product, size: int) -> Source:
    """Give a product as an image that is read by drawing it."""
    return Source(str(product.id), "", partial(draw, product, size))


def draw(product: Product, size: int) -> bytes:
    """Draw a product as a JPEG."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(render(product.item, product.seed, size)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def draw_into(store: ImageStore, sources: Sequence[Source]) -> None:
    """Draw what the store does not hold yet, on all processors."""
    from rich.console import Console
    from rich.progress import track

    missing = [source for source in sources if not store.holds(source)]
    done, console = len(sources) - len(missing), Console(stderr=True)
    with get_context("spawn").Pool() as pool:
        drawn = pool.imap(methodcaller("read"), missing, chunksize=16)
        for source, data in zip(
            missing, track(drawn, "drawing", total=len(sources), completed=done, console=console), strict=True
        ):
            store.add(source, source.key, data)


# --- files -------------------------------------------------------------------------------------------------------


def write_split(
    root: Path, split: str, counts: Counts, products: Sequence[Product], store: ImageStore, taken: set[str]
) -> dict[str, int]:
    """Write a split's files for the three tasks, and ``catalogue_NAME.jsonl``; gives what it has how many of.

    Args:
        root: The folder; the scorer's splits have one of their own in it.
        split: The split.
        counts: How much of each.
        products: The products.
        store: Their images.
        taken: The texts that there are already; its own are added.
    """
    name = split.removeprefix("scorer").removeprefix("_") or "train"
    root = root / "scorer" if split.startswith("scorer") else root
    source = random.Random(f"texts of {split}")
    described, captioned = products[: counts.described], products[: counts.captioned]
    queries = make_queries(products, counts.queries, products[0].id * 10, split, taken)
    titles = [unique(partial(texts.title, product, source), taken) for product in products]
    if split == "scorer":  # a scorer of generated images reads titles
        further = [(unique(partial(texts.title, each, source), taken), each.id) for each in [*products] * TITLES_READ]
        first = queries[-1].query_id + 1
        queries += [Query(number, text, (image,)) for number, (text, image) in enumerate(further, start=first)]
    copies = [[unique(partial(texts.copy, product, source), taken) for _ in range(CAPTIONS)] for product in captioned]
    write_retrieval(root / MULTIMODAL_RETRIEVAL.folder, name, products, queries, store)
    write_text_to_image(root / ECOMMERCE_T2I.folder, name, described, titles, store)
    write_captioning(root / ECOMMERCE_IC.folder, name, captioned, copies, store)
    records = (truth(product, title) for product, title in zip(products, titles, strict=True))
    write_json_lines(root / f"catalogue_{name}.jsonl", records)
    return {
        "images": len(products),
        "queries": len(queries),
        "descriptions": len(described),
        "captioned": len(captioned),
    }


def write_retrieval(
    folder: Path, name: str, products: Sequence[Product], queries: list[Query], store: ImageStore
) -> None:
    """Write a split of images and queries, the answers of ``test`` beside it."""
    layout = MULTIMODAL_RETRIEVAL
    write_images(layout, folder, name, {product.id: product for product in products}, store)
    if name == "test":
        write_queries(folder / str(layout.answers), queries)
        queries = [Query(query.query_id, query.text, kind=query.kind) for query in queries]
    write_queries(layout.path(folder, "texts", name), queries)


def write_text_to_image(
    folder: Path, name: str, products: Sequence[Product], titles: Iterable[str], store: ImageStore
) -> None:
    """Write a split of images and titles."""
    by_key = {key_of(product): product for product in products}
    write_images(ECOMMERCE_T2I, folder, name, by_key, store)
    write_text_tsv(ECOMMERCE_T2I.path(folder, "texts", name), zip(by_key, titles, strict=False))


def write_captioning(
    folder: Path, name: str, products: Sequence[Product], copies: list[list[str]], store: ImageStore
) -> None:
    """Write a split of images and copy, the answers of ``test`` beside it."""
    layout, by_key = ECOMMERCE_IC, {key_of(product): product for product in products}
    write_images(layout, folder, name, by_key, store)
    captions = [*zip(by_key, copies, strict=True)]
    if name == "test":
        write_captions(folder / str(layout.answers), captions)
        captions = [(key, []) for key in by_key]
    write_captions(layout.path(folder, "texts", name), captions)


def write_images(layout: Layout, folder: Path, name: str, products: Mapping[Any, Product], store: ImageStore) -> None:
    """Write images under their ids, and what they show."""
    images = ((id_, store[str(product.id)]) for id_, product in products.items())
    write_image_tsv(layout.path(folder, "images", name), images)
    write_attributes(folder, name, ((id_, product.attributes) for id_, product in products.items()))


def key_of(product: Product) -> str:
    """Give a product's id in text to image and captioning, as MUGE has them there."""
    return hashlib.md5(str(product.id).encode()).hexdigest()


def unique(say: Callable[[], str], taken: set[str]) -> str:
    """Give a text that is not taken, and take it."""
    while (text := say()) in taken:
        pass
    taken.add(text)
    return text


def truth(product: Product, title: str) -> dict[str, Any]:
    """Give what is known of a product, as ``catalogue_SPLIT.jsonl`` has it; brand, price and stock are made up."""
    source = random.Random(product.seed)
    return {
        "image_id": product.id,
        "key": key_of(product),
        "new": product.new,
        "attributes": product.attributes,
        "title": title,
        "brand": source.choice(BRANDS),
        "price": source.randint(19, 999) - 0.1,
        "stock": source.choice((0, source.randint(1, 500), source.randint(1, 500))),
    }
