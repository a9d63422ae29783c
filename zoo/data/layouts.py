"""MUGE's three folders: which files a split has, what a line of them is, and how they are checked, read and written.

A task names its layout in its spec (``TaskSpec.files``); a task in another package brings its own. No torch.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.data.formats import (
    Query,
    caption_errors,
    description_errors,
    is_integer,
    keys_of,
    query_errors,
    write_captions,
    write_image_tsv,
    write_queries,
    write_text_tsv,
)
from zoo.data.lines import Id, LineReader, as_id
from zoo.errors import UserError, nearest
from zoo.io import expanded
from zoo.spec import find_specs, load_object

if TYPE_CHECKING:
    from zoo.data.convert.splits import Pair

SPLITS = ("train", "valid", "test")
ReadImage = Callable[[str], bytes]  # by the digest of its file


class SplitFiles(NamedTuple):
    """The files of one split."""

    images: Path
    texts: Path
    answers: Path | None  # of the test split, where somebody has them


class TextRow(NamedTuple):
    """One line of a file of texts, as far as it can be read."""

    line: int
    id: Id | None
    texts: tuple[str, ...]
    image_ids: tuple[Id, ...]  # the images that it is about


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout(ABC):
    """A folder of data.

    Attributes:
        folder: The folder's name.
        names: The names of a split's images and texts, ``{}`` for the split; MUGE's first, then others that are read.
        id_type: The type of an image's id.
        noun: What a line of texts is.
        answers: The name of the test split's answers.
        split_names: What files call a split, where it is not ``train``, ``valid`` or ``test``.
        without_images: The splits whose images MUGE keeps to itself.
        copies: Whether each text of an image has a copy of it in the file of images.
        joined: Whether several texts of an image are one line.
        labels: Whether texts are labels, which images of all splits share.
        names_images: Whether a line names its images, and has an id of its own.
        least_images: The images that a split needs for a submission.
    """

    folder: str
    names: tuple[tuple[str, str], ...]
    id_type: type[Id] = str
    noun: str
    answers: str | None = None
    split_names: Mapping[str, str] | None = None
    without_images: tuple[str, ...] = ()
    copies: bool = False
    joined: bool = False
    labels: bool = False
    names_images: bool = False
    least_images: int = 0

    @abstractmethod
    def rows(self, reader: LineReader, *, labelled: bool = False) -> Iterator[TextRow]:
        """Read a file of texts, and report what is wrong to the reader, repeated ids too.

        Args:
            reader: The file. Where it lists mistakes, a line that has some is given as far as it goes.
            labelled: Whether texts must have their images, and images their texts.
        """

    @abstractmethod
    def write(
        self, folder: Path, splits: Mapping[str, Sequence["Pair"]], digests: Iterable[str], image: ReadImage
    ) -> Iterable[tuple[Id, str]]:
        """Write the splits that have pairs of an image and a text.

        Args:
            folder: Where to.
            splits: The pairs of ``train``, ``valid`` and ``test``.
            digests: The digest of each image.
            image: Gives the encoded image of a digest.

        Returns:
            The id of each image that was written, with its digest.
        """

    def split_name(self, split: str) -> str:
        """Give what files call a split."""
        return (self.split_names or {}).get(split, split)

    def find(self, folder: Path, split: str) -> SplitFiles:
        """Find the files of a split, there or not: under the names that most files of the folder have.

        Raises:
            UserError: There is no such split.
        """
        if split not in SPLITS:
            raise UserError(
                f"Split {split!r} is not one of {', '.join(SPLITS)}.{nearest(split, SPLITS)}",
                argument="split",
                value=split,
                valid=SPLITS,
            )
        counts = [sum(self._path(folder, name, of).is_file() for name in pair for of in SPLITS) for pair in self.names]
        usual = counts.index(max(counts))

        def first(part: int) -> Path:
            paths = [self._path(folder, pair[part], split) for pair in self.names]
            return next((path for path in paths if path.is_file()), paths[usual])

        answers = folder / self.answers if self.answers and split == "test" else None
        return SplitFiles(first(0), first(1), answers if answers and answers.is_file() else None)

    def files(self, folder: Path, split: str, *, need_images: bool = True) -> SplitFiles:
        """Find the files of a split, which must be there.

        Args:
            folder: The folder.
            split: ``train``, ``valid`` or ``test``.
            need_images: Whether the images must be there too.

        Raises:
            UserError: There is no such split, or a file of it is not there.
        """
        found = self.find(folder, split)
        for path, part in ((found.images, 0), (found.texts, 1)):
            if not path.is_file() and (part or need_images):
                names = dict.fromkeys(self._path(folder, pair[part], split).name for pair in self.names)
                raise UserError(
                    f"{str(folder)!r} has no {' or '.join(names)}. It holds {_listing(folder)}.",
                    argument="root",
                    value=str(folder),
                    valid=tuple(names),
                )
        return found

    def path(self, folder: Path, part: str, split: str) -> Path:
        """Give MUGE's own path of a split's ``images`` or ``texts``."""
        return self._path(folder, self.names[0][("images", "texts").index(part)], split)

    def _path(self, folder: Path, name: str, split: str) -> Path:
        return folder / name.format(self.split_name(split))


class MultimodalRetrieval(Layout):
    """Queries that name their images, by numbers; a text of several images is one query."""

    def rows(self, reader: LineReader, *, labelled: bool = False) -> Iterator[TextRow]:
        """Read queries; see the base class."""
        for line, told, record in reader.records():
            reader.report_all(query_errors(record, labelled=labelled), line, told)
            _, text_key, items_key = keys_of(record)
            items = record.get(items_key)
            yield TextRow(
                line,
                _claimed(reader, line, as_id(told, int)),
                _strings([record.get(text_key)]),
                tuple(item for item in items if is_integer(item)) if isinstance(items, list) else (),
            )

    def write(
        self, folder: Path, splits: Mapping[str, Sequence["Pair"]], digests: Iterable[str], image: ReadImage
    ) -> Iterable[tuple[Id, str]]:
        """Write queries; see the base class."""
        image_ids = {digest: number for number, digest in enumerate(digests, start=1)}
        texts = dict.fromkeys(pair.text for pairs in splits.values() for pair in pairs)
        query_ids = {text: number for number, text in enumerate(texts, start=1)}
        for split, pairs in splits.items():
            own = dict.fromkeys(pair.image for pair in pairs)
            write_image_tsv(self.path(folder, "images", split), ((image_ids[digest], image(digest)) for digest in own))
            items: dict[str, list[int]] = defaultdict(list)
            for pair in pairs:
                items[pair.text].append(image_ids[pair.image])
            queries = [Query(query_ids[text], text, tuple(found)) for text, found in items.items()]
            if split == "test" and self.answers:
                write_queries(folder / self.answers, queries)
                queries = [Query(query.query_id, query.text) for query in queries]
            write_queries(self.path(folder, "texts", split), queries)
        return ((number, digest) for digest, number in image_ids.items())


class ECommerceT2I(Layout):
    """Descriptions, each with an image of its own under the same id."""

    def rows(self, reader: LineReader, *, labelled: bool = False) -> Iterator[TextRow]:
        """Read descriptions; see the base class."""
        for line, image_id, text in reader.columns():
            reader.report_all(description_errors(image_id, text), line, image_id or None)
            own = _claimed(reader, line, image_id or None)
            yield TextRow(line, own, (text.strip(),), (image_id,))

    def write(
        self, folder: Path, splits: Mapping[str, Sequence["Pair"]], digests: Iterable[str], image: ReadImage
    ) -> Iterable[tuple[Id, str]]:
        """Write descriptions; see the base class."""
        for split, pairs in splits.items():
            ids = [_text_id(pair) for pair in pairs]
            texts, images = (pair.text for pair in pairs), (image(pair.image) for pair in pairs)
            write_text_tsv(self.path(folder, "texts", split), zip(ids, texts, strict=True))
            write_image_tsv(self.path(folder, "images", split), zip(ids, images, strict=True))
        return ((_text_id(pair), pair.image) for pairs in splits.values() for pair in pairs)


class ECommerceIC(Layout):
    """Images by the digests of their files, with the references of each on a line."""

    def rows(self, reader: LineReader, *, labelled: bool = False) -> Iterator[TextRow]:
        """Read captions; see the base class."""
        for line, told, record in reader.records():
            reader.report_all(caption_errors(record, labelled=labelled), line, told)
            texts = record.get("text")
            image_id = _claimed(reader, line, as_id(told, str))
            image_ids = () if image_id is None else (image_id,)
            yield TextRow(line, image_id, _strings(texts if isinstance(texts, list) else []), image_ids)

    def write(
        self, folder: Path, splits: Mapping[str, Sequence["Pair"]], digests: Iterable[str], image: ReadImage
    ) -> Iterable[tuple[Id, str]]:
        """Write captions; see the base class."""
        for split, pairs in splits.items():
            references: dict[str, list[str]] = defaultdict(list)
            for pair in pairs:
                references[pair.image].append(pair.text)
            write_image_tsv(self.path(folder, "images", split), ((digest, image(digest)) for digest in references))
            if split == "test" and self.answers:
                write_captions(folder / self.answers, references.items())
                references = dict.fromkeys(references, [])
            write_captions(self.path(folder, "texts", split), references.items())
        return ((digest, digest) for digest in digests)


MULTIMODAL_RETRIEVAL = MultimodalRetrieval(
    folder="Multimodal_Retrieval",
    names=(("MR_{}_imgs.tsv", "MR_{}_queries.jsonl"), ("{}_imgs.tsv", "{}_texts.jsonl")),
    id_type=int,
    noun="query",
    answers="MR_test_answers.jsonl",
    names_images=True,
    least_images=10,
)
ECOMMERCE_T2I = ECommerceT2I(
    folder="ECommerce-T2I",
    names=(("T2I_{}.img.tsv", "T2I_{}.txt.tsv"), ("T2I_{}.img.tsv", "T2I_{}.text.tsv")),
    noun="description",
    split_names={"valid": "val"},
    without_images=("test",),
    copies=True,
)
ECOMMERCE_IC = ECommerceIC(
    folder="ECommerce-IC",
    names=(("IC_{}.tsv", "IC_{}.jsonl"),),
    noun="caption",
    answers="IC_test_answers.jsonl",
    joined=True,
)


def find_layouts() -> dict[str, Layout]:
    """Find the layouts of all tasks that have one, by the task's name."""
    return {spec.name: load_object(spec.files) for spec in find_specs() if spec.files}


def find_task_folder(root: Path | str, layout: Layout) -> Path:
    """Find the folder of a layout.

    Args:
        root: The folder itself, under whatever name, or the folder that holds it under MUGE's.
        layout: The layout.

    Raises:
        UserError: ``root`` is not there, or holds nothing of it.
    """
    root = Path(expanded(root))
    patterns = dict.fromkeys(name.replace("{}", "*") for pair in layout.names for name in pair)
    if not root.is_dir():
        raise UserError(
            f"Data root {str(root)!r} is {'a file' if root.exists() else 'not there'}: give a folder.",
            argument="root",
            value=str(root),
            valid="a folder",
        )
    below = root / layout.folder
    if below.is_dir():
        return below
    if root.name == layout.folder or any(next(root.glob(pattern), None) for pattern in patterns):
        return root
    raise UserError(
        f"Data root {str(root)!r} has neither a folder {layout.folder!r} nor files like {' or '.join(patterns)}. It "
        f"holds {_listing(root)}. Give the folder {layout.folder} or the one that contains it.",
        argument="root",
        value=str(root),
        valid=layout.folder,
    )


def _listing(folder: Path, limit: int = 8) -> str:
    if not folder.is_dir():
        return "nothing (there is no such folder)"
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more


def _claimed(reader: LineReader, line: int, id: Id | None) -> Id | None:
    """Note the line of an id, where there is one."""
    if id is not None:
        reader.claim(line, id)
    return id


def _strings(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str))


def _text_id(pair: "Pair") -> str:
    """Give an id of image and text that is the same wherever the row stands."""
    return hashlib.md5(f"{pair.image}\t{pair.text}".encode(), usedforsecurity=False).hexdigest()
