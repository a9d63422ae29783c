"""The catalogue's files: products drawn, and written as MUGE's three tasks have them, with the truth beside them."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from zoo.data.attributes import write_attributes, write_vocabulary
from zoo.data.catalogue import texts
from zoo.data.catalogue.categories import render
from zoo.data.catalogue.products import Pair, Product, draw_products, held_out, pairs
from zoo.data.formats import Query, write_captions, write_image_tsv, write_queries, write_text_tsv
from zoo.data.images import decode_base64, encode_base64
from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL
from zoo.errors import UserError, invalid
from zoo.io import expanded, write_json_lines, write_text

CAPTIONS = 5  # of each image
PAIRS = 3  # of a query and an image, for each image that is trained on
MOST_RELEVANT, MOST_TRAINED = (
    40,
    12,
)  # images of a query to score on, and to train on: one that has more says too little
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
        queries: Of a split to score on; 0: as many as make ``PAIRS`` pairs of a query and an image for each image.
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


def make_queries(products: Sequence[Product], count: int, first_id: int, split: str, taken: set[str]) -> list[Query]:
    """Make the queries of a split: each asks for some attributes and has all images that show them.

    Args:
        products: The split's.
        count: How many, as of ``Counts``; fewer where the products run out of different ones.
        first_id: The first one's id.
        split: Its name.
        taken: The texts that there are already, in any split; the queries' own are added.
    """
    source = random.Random(f"queries of {split}")
    by_value: dict[tuple[str, str], set[int]] = {}
    for product in products:
        for attribute in product.attributes.items():
            by_value.setdefault(attribute, set()).add(product.id)
    own = held_out().get(split, frozenset())
    queries: list[Query] = []
    most = MOST_RELEVANT if count else MOST_TRAINED
    found = 0  # pairs
    for _ in range(20 * len(products)):
        if (len(queries) == count) if count else (found >= PAIRS * len(products)):
            break
        product = source.choice(products)
        asked, relevant = {"类别": product.item.category}, by_value["类别", product.item.category]
        wanted = source.choice((1, 2, 2, 3, 3, 3))
        for attribute in attributes_to_ask(product, own, source):
            if len(asked) >= wanted and len(relevant) <= most:
                break
            asked |= [attribute]
            relevant = relevant & by_value[attribute]
        text = texts.query(asked, source)
        if len(relevant) > most or text in taken:
            continue
        named = {asked[kind] for kind in ("类别", "颜色", "拼色", "图案") if kind in asked}
        kind = None if not own else "new" if any({*pair} <= named for pair in own) else "seen"
        taken.add(text)
        queries.append(Query(first_id + len(queries), text, tuple(sorted(relevant)), kind=kind))
        found += len(relevant)
    return queries


def attributes_to_ask(product: Product, own: Set[Pair], source: random.Random) -> list[tuple[str, str]]:
    """Give what may be asked of a product beside its category, what makes it new mostly before the rest.

    Args:
        product: The product.
        own: The pairs that only its split has.
        source: Of the order.
    """
    known = [
        (kind, value) for kind, value in product.attributes.items() if kind != "类别" and value not in texts.UNSAID
    ]
    source.shuffle(known)
    new = sorted(pairs(product.item) & own)
    first = source.choice(new) if new and source.random() < 0.8 else ()
    return sorted(known, key=lambda attribute: attribute[1] not in first)


def unique(say: Callable[[], str], taken: set[str]) -> str:
    """Give a text that is not taken, and take it."""
    while (text := say()) in taken:
        pass
    taken.add(text)
    return text


def draw(product: Product, size: int) -> bytes:
    """Draw a product as a JPEG."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(render(product.item, product.seed, size)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def drawn_lines(path: Path) -> int:
    """Count the whole lines of what was drawn before, and cut a torn one off."""
    if not path.is_file():
        return 0
    with path.open("r+b") as file:
        whole, count = 0, 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole, count = whole + len(line), count + 1
        file.truncate(whole)
    return count


def draw_products_into(path: Path, products: Sequence[Product], size: int, advance: Callable[[int], Any]) -> None:
    """Draw what is not drawn yet, on all processors, a line of base64 for each; one that was interrupted goes on."""
    done = drawn_lines(path)
    advance(done)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with path.open("ab") as file, get_context("spawn").Pool(processors) as pool:
        for data in pool.imap(partial(draw, size=size), products[done:], chunksize=16):
            file.write(encode_base64(data) + b"\n")
            advance(1)


def images_of(path: Path, ids: Sequence[int | str]) -> Iterator[tuple[int | str, bytes]]:
    """Read drawn images, with their ids."""
    with path.open("rb") as file:
        for id_, line in zip(ids, file, strict=False):
            yield id_, decode_base64(line.strip())


def key_of(product: Product) -> str:
    """Give a product's id in text to image and captioning, as MUGE has them there."""
    return hashlib.md5(str(product.id).encode()).hexdigest()


def write_split(
    root: Path, split: str, name: str, counts: Counts, products: Sequence[Product], drawn: Path, taken: set[str]
) -> dict[str, Any]:
    """Write a split's files for the three tasks, and ``catalogue_NAME.jsonl``.

    Args:
        root: The folder.
        split: The products' own.
        name: What the files call it.
        counts: How much of each.
        products: The products.
        drawn: Their images, of ``draw_split``.
        taken: The texts that there are already.

    Returns:
        What it has how many of.
    """
    source = random.Random(f"texts of {split}")
    first_query = products[0].id * 10
    queries = make_queries(products, counts.queries, first_query, split, taken)
    titles = [unique(partial(texts.title, product, source), taken) for product in products]
    copies = [
        [unique(partial(texts.copy, product, source), taken) for _ in range(CAPTIONS)]
        for product in products[: counts.captioned]
    ]
    keys = [key_of(product) for product in products]

    folder = root / MULTIMODAL_RETRIEVAL.folder
    write_image_tsv(folder / f"MR_{name}_imgs.tsv", images_of(drawn, [product.id for product in products]))
    if name == "test":
        write_queries(folder / "MR_test_answers.jsonl", queries)
        queries = [Query(query.query_id, query.text, kind=query.kind) for query in queries]
    write_queries(folder / f"MR_{name}_queries.jsonl", queries)

    folder = root / ECOMMERCE_T2I.folder
    write_image_tsv(ECOMMERCE_T2I.path(folder, "images", name), images_of(drawn, keys[: counts.described]))
    described = zip(keys[: counts.described], titles, strict=False)
    write_text_tsv(ECOMMERCE_T2I.path(folder, "texts", name), described)

    folder = root / ECOMMERCE_IC.folder
    write_image_tsv(folder / f"IC_{name}.tsv", images_of(drawn, keys[: counts.captioned]))
    captions = [*zip(keys, copies, strict=False)]
    if name == "test":
        write_captions(folder / "IC_test_answers.jsonl", captions)
        captions = [(key, []) for key, _ in captions]
    write_captions(folder / f"IC_{name}.jsonl", captions)

    shown = [product.attributes for product in products]
    for layout, ids in (
        (MULTIMODAL_RETRIEVAL, [product.id for product in products]),
        (ECOMMERCE_T2I, keys),
        (ECOMMERCE_IC, keys),
    ):
        write_attributes(root / layout.folder, name, zip(ids, shown, strict=True))
        write_vocabulary(root / layout.folder, texts.words(), texts.UNSAID)
    write_json_lines(
        root / f"catalogue_{name}.jsonl",
        (truth(product, key, title) for product, key, title in zip(products, keys, titles, strict=True)),
    )
    return {
        "images": len(products),
        "queries": len(queries),
        "descriptions": counts.described,
        "captioned": len(copies),
    }


def truth(product: Product, key: str, title: str) -> dict[str, Any]:
    """Give what is known of a product, as ``catalogue_SPLIT.jsonl`` has it; brand, price and stock are made up."""
    source = random.Random(product.seed)
    return {
        "image_id": product.id,
        "key": key,
        "new": product.new,
        "attributes": product.attributes,
        "title": title,
        "brand": source.choice(BRANDS),
        "price": source.randint(19, 999) - 0.1,
        "stock": source.choice((0, source.randint(1, 500), source.randint(1, 500))),
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
    if (root / MADE).is_file():
        made: dict[str, Any] = json.loads((root / MADE).read_text("utf-8"))
        if {name: made.get(name) for name in asked} == asked:
            return made
    begun = root / DRAWN / "asked.json"
    same = begun.is_file() and json.loads(begun.read_text("utf-8")) == asked
    if root.exists() and not same and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root} holds something else already: give a folder that is new or empty", argument="DIR", value=str(root)
        )
    write_text(begun, json.dumps(asked))
    products: dict[str, list[Product]] = {}
    first_id = 100_000
    for split, each in counts.items():
        products[split] = draw_products(split, each.images, first_id)
        first_id += each.images
    with progress(sum(each.images for each in counts.values())) as advance:
        for split, own in products.items():
            draw_products_into(begun.with_name(split), own, image_size, advance)
    taken: set[str] = set()
    splits = {}
    for split in ORDER:
        name = split.removeprefix("scorer").removeprefix("_") or "train"
        folder = root / "scorer" if split.startswith("scorer") else root
        drawn = begun.with_name(split)
        splits[split] = write_split(folder, split, name, counts[split], products[split], drawn, taken)
    made = {**asked, "splits": splits}
    write_text(root / MADE, json.dumps(made, indent=2) + "\n")
    shutil.rmtree(root / DRAWN)
    return made


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], Any]]:
    """Show how many images are drawn and when it will be done; gives what to call with the number of further ones."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield partial(bar.advance, bar.add_task("", total=total))
