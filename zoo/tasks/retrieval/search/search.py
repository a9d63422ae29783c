"""``python -m zoo search INDEX TEXT``: products by text, by image, or by both."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.core.command import CommandParser, GivenPath
from zoo.data.images import ImageError, decode
from zoo.errors import UserError, invalid
from zoo.io import atomic_write
from zoo.tasks.retrieval.search.contracts import Found
from zoo.tasks.retrieval.search.filters import parse
from zoo.tasks.retrieval.search.images import ProductImages
from zoo.tasks.retrieval.search.query import Query, add_effort, open_index, rerank, search

COLUMNS = 10  # of an image grid
GRIDS = (".png", ".jpg", ".webp")  # endings of its file


def search_parser() -> CommandParser:
    """Make the options of ``search``."""
    parser = CommandParser(
        prog="python -m zoo search",
        description="Find products in an index by words, by an image, or by both: a line of score, id and title each.",
    )
    parser.add_argument(
        "index", type=str, metavar="INDEX", help="Where the index is: a LanceDB folder, or http://HOST:19530/NAME."
    )
    parser.add_argument("text", type=str, nargs="?", default="", metavar="TEXT", help="What is wanted: 红色碎花连衣裙.")
    parser.add_argument("--image", type=GivenPath | None, default=None, help="An image of what it should look like.")
    parser.add_argument("--minus", type=str, default="", help="What it should not be: 蓝色.")
    parser.add_argument("--like", type=str | None, default=None, help="The id of a product that it should be like.")
    parser.add_argument(
        "--where",
        type=str | None,
        default=None,
        help="What holds of each product that is found: \"price < 200 and 类别 in ('连衣裙', '半身裙')\".",
    )
    parser.add_argument("--k", type=int, default=20, help="The most products to find.")
    parser.add_argument(
        "--by",
        choices=["vector", "text", "hybrid"],
        default="vector",
        help="vector: by embeddings; text: by the words of titles (BM25); hybrid: by both rankings, fused.",
    )
    parser.add_argument(
        "--rerank",
        type=str | None,
        default=None,
        metavar="MODEL",
        help="A model that orders the first --rerank_top anew: a retrieval model of zoo, or a published reranker.",
    )
    parser.add_argument("--rerank_top", type=int, default=50, help="How many products --rerank looks at.")
    add_effort(parser)
    parser.add_argument(
        "--evaluate",
        type=GivenPath | None,
        default=None,
        metavar="QUERIES",
        help="In place of a search: a .jsonl of queries (query_text) with the ids of all relevant products (item_ids),"
        " on which vector, text, hybrid and reranked search are compared.",
    )
    parser.add_argument("--json", action="store_true", help="Print JSON lines, with the products' metadata.")
    parser.add_argument(
        "--grid", type=GivenPath | None, default=None, help="An image file to write: .png, .jpg or .webp."
    )
    parser.add_argument(
        "--model",
        type=str | None,
        default=None,
        help="The model that embedded the index, if it was moved or exported.",
    )
    parser.add_argument(
        "--images", type=GivenPath | None, default=None, help="The folder of images, where it was moved."
    )
    return parser


def main(argv: list[str]) -> int:
    """Search or compare, and print.

    Args:
        argv: The words after ``python -m zoo search``.

    Returns:
        The exit code, 0; also where nothing is found.

    Raises:
        UserError: The index, the model, the image or an option cannot be used.
    """
    options = search_parser().parse_args(argv)
    if options.rerank_top < 1:
        raise invalid("--rerank_top", options.rerank_top, "give 1 or more")
    if options.grid is not None and Path(options.grid).suffix.lower() not in GRIDS:
        raise invalid("--grid", options.grid, f"give a file that ends in {' or '.join(GRIDS)}")
    if options.evaluate is not None and options.text:
        raise invalid("TEXT", options.text, "--evaluate searches by the queries of its file; leave it out")
    engine, encoder = open_index(options.index, options.model, effort=options.effort)
    where = None if options.where is None else parse(options.where, engine.description.fields)
    reranker = images = None
    if options.rerank is not None:
        import torch

        from zoo.tasks.retrieval.reranking import load_reranker

        reranker = load_reranker(options.rerank, device="cuda" if torch.cuda.is_available() else "cpu")
    if reranker is not None or options.grid is not None:
        images = ProductImages(options.images or engine.description.images)
    if options.evaluate is not None:
        from zoo.tasks.retrieval.search.evaluation import evaluate

        scores = evaluate(
            engine, encoder, options.evaluate, where=where, reranker=reranker, images=images, top=options.rerank_top
        )
        print(json.dumps(scores) if options.json else scores_table(scores))
        return 0
    query = Query(
        text=options.text,
        image=None if options.image is None else read_image(options.image),
        minus=options.minus,
        like=options.like,
        where=where,
        k=options.k if reranker is None else max(options.k, options.rerank_top),
        by=options.by,
    )
    found = search(engine, encoder, query)
    if reranker is not None and images is not None:
        found = rerank(found, options.text, reranker, images, top=options.rerank_top)[: options.k]
    for each in found:
        print(as_json(each) if options.json else f"{each.score:.4f}\t{each.id}\t{each.title}")
    if not found:
        print("Nothing is found", file=sys.stderr)
    if options.grid is not None and images is not None:
        write_grid(options.grid, options.text or options.like or Path(options.image).name, found, images)
        print(options.grid, file=sys.stderr)
    return 0


def read_image(path: str) -> np.ndarray:
    """Read an image file as ``[H, W, 3] uint8``.

    Raises:
        UserError: There is no such file, or it is no image.
    """
    try:
        return decode(Path(path).read_bytes())
    except (OSError, ImageError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise invalid("--image", path, f"it cannot be read ({why}); give an image file") from None


def as_json(found: Found) -> str:
    """Give what was found as a line of JSON."""
    metadata = {name: value for name, value in found.metadata.items() if value is not None}
    record = {"id": found.id, "score": round(found.score, 6), "title": found.title, "image": found.image}
    return json.dumps({**record, "metadata": metadata}, ensure_ascii=False)


def write_grid(path: str, text: str, found: Sequence[Found], images: ProductImages) -> None:
    """Write the images of what was found into one, the best first; those that cannot be read any more are told.

    Raises:
        UserError: The file cannot be written.
    """
    from zoo.core.grids import GridRow, image_grid

    decoded = []
    for each in found:
        try:
            decoded.append(decode(images.read(each.image)))
        except UserError as error:  # an ImageError is one
            print(f"{each.id} is not in the grid: {error}", file=sys.stderr)
    parts = [decoded[start : start + COLUMNS] for start in range(0, len(decoded), COLUMNS)] or [[]]
    rows = [GridRow(text if place == 0 else "", part, [False] * len(part)) for place, part in enumerate(parts)]
    try:
        with atomic_write(path) as temporary:
            image_grid(rows).save(temporary)
    except OSError as error:
        raise invalid("--grid", path, f"it cannot be written ({error.strerror}); give another") from None


def scores_table(scores: dict[str, Any]) -> str:
    """Give what ``evaluate`` measured as a table for a terminal."""
    names = list(next(iter(scores["rankings"].values())))
    width = max(map(len, scores["rankings"]))
    lines = [" " * width + "".join(f"{name.replace('milliseconds', 'ms'):>12}" for name in names)]
    for ranking, own in scores["rankings"].items():
        lines.append(f"{ranking:<{width}}" + "".join(f"{own[name]:12.2f}" for name in names))
    lines.append(f"{scores['queries']:,} queries, {scores['products']:,} products; percent, and milliseconds a query")
    if scores["unknown"]:
        lines.append(f"{scores['unknown']:,} of the relevant products are not in the index")
    return "\n".join(lines)
