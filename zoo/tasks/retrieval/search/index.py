"""``python -m zoo index EMBEDDINGS``: an index of a shop's products, brought up to date with its embeddings."""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.core.command import CommandParser, GivenPath, progress
from zoo.errors import invalid
from zoo.io import write_json_lines
from zoo.tasks.retrieval.search.contracts import Description, Engine, Product
from zoo.tasks.retrieval.search.duplicates import find_duplicates
from zoo.tasks.retrieval.search.embeddings import Embeddings, as_rows, vectors_of
from zoo.tasks.retrieval.search.engines import create_engine
from zoo.tasks.retrieval.search.query import add_effort, check_effort

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 4096  # written at once
PROBES = 200  # searched for, to compare with the exact ranking
BEST = 10
ENOUGH = 0.95  # of the exact ten best that an index should find


def index_parser() -> CommandParser:
    """Make the options of ``index``."""
    parser = CommandParser(
        prog="python -m zoo index",
        description="Make what `embed` wrote searchable. An index that is there is brought up to date: what is new or"
        " has changed is written, what is gone is removed. Then some searches are made, and what they find is compared"
        " with the exact ranking.",
    )
    parser.add_argument("embeddings", type=GivenPath, metavar="EMBEDDINGS", help="The folder that `embed` wrote.")
    parser.add_argument(
        "--engine",
        type=str | None,
        default=None,
        help="Where the index is: a folder for LanceDB, within this process; or http://HOST:19530/NAME for Milvus. Left"
        " out: EMBEDDINGS.lance.",
    )
    parser.add_argument(
        "--title_weight",
        type=float,
        default=0.0,
        help="The share of a title's embedding in a product's vector, 0 to 1; `search --evaluate` shows what it does.",
    )
    add_effort(parser)
    parser.add_argument(
        "--duplicates",
        type=GivenPath | None,
        default=None,
        help="A .jsonl file to write: products whose images are the same, look the same, or are embedded nearly alike.",
    )
    parser.add_argument(
        "--similar", type=float, default=0.99, help="From which cosine similarity on --duplicates reports two products."
    )
    return parser


def main(argv: list[str]) -> int:
    """Index, compare with the exact ranking, print.

    Args:
        argv: The words after ``python -m zoo index``.

    Returns:
        The exit code, 0.

    Raises:
        UserError: The embeddings are not there or not whole, or the index is another model's.
    """
    options = index_parser().parse_args(argv)
    check_effort(options.effort)
    for name in ("title_weight", "similar"):
        if not 0 <= options[name] <= 1:
            raise invalid(f"--{name}", options[name], "give 0 to 1")
    embeddings = Embeddings(options.embeddings)
    metadata = embeddings.metadata
    address = options.engine or f"{Path(options.embeddings)}.lance"
    engine = create_engine(
        address,
        Description(
            model=metadata.model,
            fingerprint=metadata.fingerprint,
            width=metadata.width,
            images=metadata.images,
            fields=metadata.fields,
            title_weight=options.title_weight,
        ),
    )
    written, removed, left_out = bring_up_to_date(engine, embeddings)
    print("Building the index …", file=sys.stderr)
    engine.optimize()
    counts = f"{written:,} written, {removed:,} removed, {left_out:,} without an image left out"
    print(f"{address}: {engine.count():,} products: {counts}")
    engine.effort = options.effort
    print(agreement(engine, embeddings))
    if options.duplicates:
        groups = find_duplicates(embeddings, similar=options.similar)
        try:
            write_json_lines(options.duplicates, groups)
        except OSError as error:
            raise invalid("--duplicates", options.duplicates, f"it cannot be written ({error.strerror})") from None
        print(f"{options.duplicates}: {len(groups):,} groups of duplicates")
    return 0


def product_vectors(table: "pa.Table", title_weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the unit vectors ``[N, D] float32`` of a file's products, and which of them have an image: ``[N] bool``.

    Args:
        table: The file.
        title_weight: Share of a title's embedding in the vector, in [0, 1]; a product without a title has its image's.
    """
    images, valid = vectors_of(table, "image_vector")
    titles, titled = vectors_of(table, "title_vector")
    vectors = images.astype(np.float32)
    vectors[titled] = (1 - title_weight) * vectors[titled] + title_weight * titles[titled].astype(np.float32)
    return unit(vectors), valid


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors ``[N, D]`` to length 1; those of length 0 stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def products_of(table: "pa.Table", title_weight: float) -> Iterator[Product]:
    """Give the products of a file that have an image; see ``product_vectors``."""
    vectors, valid = product_vectors(table, title_weight)
    for row, vector, has_image in zip(as_rows(table).values(), vectors, valid, strict=True):
        if has_image:
            item = row.item
            rest = json.dumps([item.title, item.image, item.metadata], ensure_ascii=False, sort_keys=True)
            digest = hashlib.sha256(vector.tobytes() + rest.encode()).hexdigest()[:24]
            yield Product(item.id, vector, item.title, item.image, item.metadata, digest)


def bring_up_to_date(engine: Engine, embeddings: Embeddings) -> tuple[int, int, int]:
    """Write what an index has not or has otherwise, and remove what is gone.

    Args:
        engine: The index.
        embeddings: What it is to hold.

    Returns:
        How many products were written, removed, and left out for want of an image.

    Raises:
        UserError: The embeddings are not whole.
    """
    there = dict(engine.digests())
    written = left_out = 0
    waiting: list[Product] = []
    for table in progress(embeddings.tables(), "Writing", total=embeddings.metadata.files):
        left_out += table["image_vector"].null_count
        for product in products_of(table, engine.description.title_weight):
            if there.pop(product.id, None) != product.digest:
                waiting.append(product)
        while len(waiting) >= ROWS:
            engine.upsert(waiting[:ROWS])
            written, waiting = written + ROWS, waiting[ROWS:]
    if waiting:
        engine.upsert(waiting)
    gone = list(there)
    for start in range(0, len(gone), ROWS):
        engine.delete(gone[start : start + ROWS])
    return written + len(waiting), len(gone), left_out


def agreement(engine: Engine, embeddings: Embeddings) -> str:
    """Search for some products, and say how many of the exact ten best are found, and how long a search takes.

    What is searched for are embedded titles, as people's words are; where there are none, embedded images.
    """
    table = next(embeddings.tables())
    (images, valid), (titles, titled) = (vectors_of(table, name) for name in ("image_vector", "title_vector"))
    vectors = np.where(titled[:, None], titles, images)[valid]
    probes = unit(np.random.default_rng(0).permutation(vectors)[:PROBES].astype(np.float32))
    if not len(probes):
        return "There is nothing to search for"
    exact = exact_ids(engine, embeddings, probes, BEST)
    found, seconds = [], []
    for probe in probes:
        began = time.perf_counter()
        found.append({each.id for each in engine.search(vector=probe, k=BEST)})
        seconds.append(time.perf_counter() - began)
    recall = float(np.mean([len(own & set(best)) / len(best) for own, best in zip(found, exact, strict=True)]))
    half, most = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.99))
    told = (
        f"Of the exact {BEST} best, {100 * recall:.1f} % are found; a search takes {half:.1f} ms, one of a hundred more"
        f" than {most:.1f} ms ({len(probes)} searches)"
    )
    return told if recall >= ENOUGH else f"{told}. That is few: try --effort {2 * engine.effort}"


def exact_ids(engine: Engine, embeddings: Embeddings, probes: np.ndarray, k: int) -> list[list[str]]:
    """Rank all products exactly for each probe ``[P, D]``: the ids of the best k."""
    import torch

    from zoo.tasks.retrieval.ranking import top_k

    scores, ids = torch.empty(len(probes), 0), np.empty((len(probes), 0), dtype=object)
    for table in embeddings.tables():
        vectors, valid = product_vectors(table, engine.description.title_weight)
        if valid.any():
            own, rows = top_k(torch.from_numpy(probes), torch.from_numpy(vectors[valid]), k)
            names = np.array(table["id"].to_pylist(), dtype=object)[valid]
            scores, best = torch.cat([scores, own], dim=1).topk(min(k, scores.shape[1] + own.shape[1]), dim=1)
            ids = np.take_along_axis(np.concatenate([ids, names[rows.numpy()]], axis=1), best.numpy(), axis=1)
    return ids.tolist()
