"""``python -m zoo embed MODEL SOURCE OUT``: the embeddings of a shop's products, once each."""

import hashlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np

from zoo.core.command import CommandParser, GivenPath
from zoo.errors import FileError, UserError, invalid, summed_up
from zoo.tasks.retrieval.search.catalogue import Item, read_catalogue
from zoo.tasks.retrieval.search.embeddings import (
    PRODUCTS_A_FILE,
    Embeddings,
    EmbeddingsMetadata,
    Row,
    as_rows,
    schema_of,
)
from zoo.tasks.retrieval.search.encoder import Encoder, load_encoder
from zoo.tasks.retrieval.search.images import ProductImages

GROWTH = 8  # from so many times as many products as files are made for, that is told

In = TypeVar("In")
Out = TypeVar("Out")


def embed_parser() -> CommandParser:
    """Make the options of ``embed``."""
    parser = CommandParser(
        prog="python -m zoo embed",
        description="Embed the images and titles of a shop's products, for `index`. What is there and has not changed"
        " is not embedded again, so that the same command goes on after an interruption, and brings the embeddings up"
        " to date after the shop has changed. Under torchrun, or with --part, several processes share the work.",
    )
    parser.add_argument(
        "model",
        type=str,
        metavar="MODEL",
        help="A retrieval model: a checkpoint, a run's folder or an experiment's (runs/clip_demo: its newest run),"
        " published weights, or a folder that `export --format onnx` wrote.",
    )
    parser.add_argument(
        "source",
        type=str,
        metavar="SOURCE",
        help="A folder of images; a table (.csv, .tsv, .jsonl, .parquet) with columns called id, image and title, all"
        " others being metadata; a folder of MUGE's retrieval files; auto: the embedded data.",
    )
    parser.add_argument("out", type=GivenPath, metavar="OUT", help="The folder to write: new, or begun before.")
    parser.add_argument(
        "--images", type=str | None, default=None, help="The folder that a table's paths start from; its own if none."
    )
    parser.add_argument(
        "--split", type=str | None, default=None, help="The one split of MUGE's files to embed: train, valid or test."
    )
    parser.add_argument(
        "--part",
        type=str | None,
        default=None,
        help="The part of the work that is this process's: 2/8 is the second of eight.",
    )
    parser.add_argument("--batch_size", type=int, default=64, help="Images or titles that are embedded together.")
    parser.add_argument("--num_workers", type=int, default=2, help="Threads that read and decode images.")
    return parser


def main(argv: list[str]) -> int:
    """Embed, and say what was done.

    Args:
        argv: The words after ``python -m zoo embed``.

    Returns:
        0, also where some images cannot be read, which are listed; 130 where it was interrupted.

    Raises:
        UserError: The model, the source or the folder cannot be used.
    """
    options = embed_parser().parse_args(argv)
    for name in ("batch_size", "num_workers"):
        if options[name] < 1:
            raise invalid(f"--{name}", options[name], "give 1 or more")
    part, parts = part_of(options.part)
    source = options.source
    if source == "auto":
        from zoo.core.loaders import resolve_root

        source = str(resolve_root(source))
    catalogue = read_catalogue(source, images=options.images, split=options.split)
    for line in [*catalogue.notes, *summed_up(catalogue.errors)]:
        print(line, file=sys.stderr)
    encoder = load_encoder(options.model)
    files = max(1, -(-len(catalogue.items) // PRODUCTS_A_FILE))
    metadata = EmbeddingsMetadata(
        options.model, encoder.fingerprint, encoder.width, str(catalogue.images), files, catalogue.fields
    )
    embeddings = Embeddings(options.out, metadata)
    if files > GROWTH * embeddings.metadata.files:
        print(
            f"{options.out} was begun with much fewer products, and has {embeddings.metadata.files} files for now"
            f" {len(catalogue.items):,}: an interruption loses more, and few processes can share the work. A new folder"
            " would have more files",
            file=sys.stderr,
        )
    try:
        done = embed(
            embeddings,
            encoder,
            list(catalogue.items.values()),
            part=part,
            parts=parts,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
        )
    except KeyboardInterrupt:
        print("Stopped. The same command goes on.", file=sys.stderr)
        return 128 + signal.SIGINT
    tell(done, options.out, f", part {part + 1} of {parts}" if parts > 1 else "")
    return 0


def tell(done: "Done", folder: str, share: str) -> None:
    """Print what was done in a folder, by which share of the processes."""
    for line in summed_up(done.errors):
        print(line, file=sys.stderr)
    if done.errors:
        print(f"The column `error` of the files in {folder} has all of them", file=sys.stderr)
    print(
        f"{folder}{share}: {done.products:,} products: {done.images:,} images and {done.titles:,} titles embedded,"
        f" {done.kept:,} products were there, {len(done.errors):,} images cannot be read, {done.gone:,} products gone"
    )


def part_of(given: str | None) -> tuple[int, int]:
    """Give which part of how many is this process's, from 0: as the option says, or torchrun's environment.

    Raises:
        UserError: It is no part.
    """
    if given is None:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    part, _, parts = given.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise invalid("--part", given, "give 1/8 to 8/8, of eight parts")
    return int(part) - 1, int(parts)


class Done(NamedTuple):
    """What was done."""

    products: int
    images: int  # that were embedded
    titles: int
    kept: int  # products that were there, unchanged
    gone: int  # products that were there and are no more
    errors: list[FileError]  # of images that cannot be read


def embed(
    embeddings: Embeddings,
    encoder: Encoder,
    items: Sequence[Item],
    *,
    part: int = 0,
    parts: int = 1,
    batch_size: int = 64,
    num_workers: int = 2,
) -> Done:
    """Bring a folder of embeddings up to date with a catalogue.

    Args:
        embeddings: The folder.
        encoder: What embeds; that of the folder.
        items: All products of the catalogue.
        part: The part of the files that this process writes, from 0.
        parts: How many parts there are.
        batch_size: Images or titles that are embedded together.
        num_workers: Threads that read and decode images.

    Raises:
        UserError: A file cannot be read or written.
    """
    by_file: dict[int, list[Item]] = {number: [] for number in range(embeddings.metadata.files)}
    for item in items:
        by_file[embeddings.file_of(item.id)].append(item)
    own = range(part, len(by_file), parts)
    worker = Worker(embeddings, encoder)
    totals = np.zeros(4, dtype=np.int64)  # images, titles, kept, gone
    errors: list[FileError] = []
    work = ((number, by_file[number]) for number in own)
    with ThreadPoolExecutor(num_workers) as pool, _progress(sum(len(by_file[number]) for number in own)) as advance:
        for number, new in work:
            rows, counts, changed = worker.rows(number, new, pool, batch_size, advance)
            if changed:
                embeddings.write(number, rows)
            totals += counts
            errors += [
                FileError(row.error, file=embeddings.metadata.images, id=row.item.id, noun="product")
                for row in rows
                if row.error
            ]
    images, titles, kept, gone = totals.tolist()
    return Done(sum(len(by_file[number]) for number in own), images, titles, kept, gone, errors)


class Worker:
    """What brings one file of embeddings up to date.

    Args:
        embeddings: The folder.
        encoder: What embeds.
    """

    def __init__(self, embeddings: Embeddings, encoder: Encoder) -> None:
        self.embeddings, self.encoder = embeddings, encoder
        self.images = ProductImages(embeddings.metadata.images)
        self._file_of_image: dict[str, int] = {}  # by the content's hash: an image that was renamed is there
        for number in range(embeddings.metadata.files):
            table = embeddings.read(number, ["sha256"])
            if table is not None:
                self._file_of_image |= dict.fromkeys(table["sha256"].to_pylist(), number)
        self._file_of_image.pop("", None)
        self._gone: dict[str, Row] = {}  # of files that were written anew: a product of another id may have its image
        self._by_content = lru_cache(maxsize=4)(self._rows_by_content)

    def rows(
        self,
        number: int,
        items: Sequence[Item],
        pool: ThreadPoolExecutor,
        batch_size: int,
        advance: Callable[[int], Any],
    ) -> tuple[list[Row], tuple[int, int, int, int], bool]:
        """Give a file's rows; how many images and titles were embedded, products kept and gone; whether it changed."""
        table = self.embeddings.read(number)
        old = {} if table is None else as_rows(table)
        rows = {item.id: self._begun(item, old.get(item.id)) for item in items}
        unread = [row for row in rows.values() if row.image_vector is None and not row.error]
        read = 0
        for batch in _batches(read_ahead(pool, self._read, unread, 2 * batch_size), batch_size):
            squares = [(row, square) for row, square in batch if square is not None]
            if squares:
                vectors = self.encoder.encode_squares(np.stack([square for _, square in squares]))
                for (row, _), vector in zip(squares, vectors, strict=True):
                    row.image_vector = vector.astype(np.float16)
            read += len(squares)
            advance(len(batch))
        untitled = [row for row in rows.values() if row.item.title and row.title_vector is None]
        for some in _batches(untitled, batch_size):
            for row, vector in zip(some, self.encoder.encode_texts([row.item.title for row in some]), strict=True):
                row.title_vector = vector.astype(np.float16)
        advance(len(items) - len(unread))
        same = [id_ for id_, row in rows.items() if id_ in old and _same(row, old[id_])]
        up_to_date = table is not None and table.schema.equals(schema_of(self.embeddings.metadata))
        gone = [old[id_] for id_ in old.keys() - rows.keys()]
        self._gone |= {row.sha256: row for row in gone if row.image_vector is not None}
        changed = not up_to_date or len(same) < len(rows) or bool(gone)
        return list(rows.values()), (read, len(untitled), len(same), len(gone)), changed

    def _begun(self, item: Item, old: Row | None) -> Row:
        """A product's row with what of its old one still holds."""
        try:
            stamp = self.images.stamp(item.image)
        except UserError as error:
            return Row(item, "", error=str(error), title_vector=_title(item, old))
        row = Row(item, stamp, title_vector=_title(item, old))
        if old is not None and (old.item.image, old.stamp) == (item.image, stamp):
            row.sha256, row.phash, row.error, row.image_vector = old.sha256, old.phash, old.error, old.image_vector
        return row

    def _read(self, row: Row) -> tuple[Row, np.ndarray | None]:
        """Read a row's image: the square that the encoder reads; None where that cannot be, or was embedded before."""
        from zoo.data.images import decode

        try:
            data = self.images.read(row.item.image)
            row.sha256 = hashlib.sha256(data).hexdigest()
            found = self._embedded(row.sha256)
            if found is not None:
                row.phash, row.image_vector = found.phash, found.image_vector
                return row, None
            square = self.encoder.prepare(decode(data))
        except UserError as error:  # an ImageError is one
            row.error = str(error)
            return row, None
        row.phash = perceptual_hash(square)
        return row, square

    def _embedded(self, sha256: str) -> Row | None:
        """A row of an image of this content, in whatever file."""
        number = self._file_of_image.get(sha256)
        found = None if number is None else self._by_content(number).get(sha256)
        return found or self._gone.get(sha256)

    def _rows_by_content(self, number: int) -> dict[str, Row]:
        table = self.embeddings.read(number)
        rows = {} if table is None else as_rows(table)
        return {row.sha256: row for row in rows.values() if row.image_vector is not None}


def _title(item: Item, old: Row | None) -> np.ndarray | None:
    """The embedding of a product's title, where it is there."""
    return old.title_vector if old is not None and old.item.title == item.title else None


def _same(new: Row, old: Row) -> bool:
    """Whether a row is as it was; its vectors follow from the rest."""
    return (new.item, new.stamp, new.sha256, new.error) == (old.item, old.stamp, old.sha256, old.error)


def _batches(values: Iterable[In], size: int) -> Iterator[list[In]]:
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda count: progress.advance(bar, count)


def perceptual_hash(image: np.ndarray) -> str:
    """Hash what an image ``[H, W, 3] uint8`` looks like: 64 bits in hexadecimal digits; few differ of images alike."""
    from imagehash import phash
    from PIL import Image

    return str(phash(Image.fromarray(image)))


def read_ahead(pool: ThreadPoolExecutor, work: Callable[[In], Out], values: Iterable[In], ahead: int) -> Iterator[Out]:
    """Map in order on a pool's threads, at most ``ahead`` values before the one that is wanted."""
    waiting: deque[Any] = deque()
    for value in values:
        waiting.append(pool.submit(work, value))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
