"""An import's task folder: pairs of pictures and texts as MUGE's files have them, with ids of our own; no torch."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from zoo.data.caption_files import write_captions
from zoo.data.convert.splits import Pair
from zoo.data.formats import Query, write_image_tsv, write_queries, write_text_tsv
from zoo.io import write_json_lines

IDS = "ids.jsonl"  # what the pictures were called
ReadPicture = Callable[[str], bytes]  # by digest
Splits = Mapping[str, Sequence[Pair]]


def write_task(folder: Path, task: str, splits: Splits, picture: ReadPicture) -> None:
    """Write a task folder.

    Args:
        folder: Where to.
        task: ``retrieval``, ``t2i`` or ``caption``.
        splits: The pairs of ``train``, ``valid`` and ``test``; of a split without any nothing is written.
        picture: Gives the encoded picture of a digest.
    """
    pairs = [pair for part in splits.values() for pair in part]
    names = _names(pairs)
    ids: Iterable[tuple[int | str, str]]  # with digests
    if task == "retrieval":
        image_ids = {digest: number for number, digest in enumerate(names, start=1)}
        query_ids = {text: number for number, text in enumerate(dict.fromkeys(pair.text for pair in pairs), start=1)}
        for split, part in splits.items():
            if part:
                _write_retrieval(folder, split, part, image_ids, query_ids, picture)
        ids = ((number, digest) for digest, number in image_ids.items())
    elif task == "t2i":
        for split, part in splits.items():
            if part:
                _write_text_to_image(folder, "val" if split == "valid" else split, part, picture)
        ids = ((_description_id(pair), pair.picture) for pair in pairs)
    else:
        for split, part in splits.items():
            if part:
                _write_captions(folder, split, part, picture)
        ids = ((digest, digest) for digest in names)
    write_json_lines(folder / IDS, ({"image_id": id_, "names": names[digest]} for id_, digest in ids))


def _write_retrieval(
    folder: Path,
    split: str,
    pairs: Sequence[Pair],
    image_ids: Mapping[str, int],
    query_ids: Mapping[str, int],
    picture: ReadPicture,
) -> None:
    """A text of several pictures is one query."""
    digests = dict.fromkeys(pair.picture for pair in pairs)
    write_image_tsv(folder / f"MR_{split}_imgs.tsv", ((image_ids[digest], picture(digest)) for digest in digests))
    items: dict[str, list[int]] = defaultdict(list)
    for pair in pairs:
        items[pair.text].append(image_ids[pair.picture])
    queries = [Query(query_ids[text], text, tuple(found)) for text, found in items.items()]
    if split == "test":
        write_queries(folder / "MR_test_answers.jsonl", queries)
        queries = [Query(query.query_id, query.text) for query in queries]
    write_queries(folder / f"MR_{split}_queries.jsonl", queries)


def _write_text_to_image(folder: Path, split: str, pairs: Sequence[Pair], picture: ReadPicture) -> None:
    """MUGE has one description a picture: several are lines of their own, each with a copy."""
    write_text_tsv(folder / f"T2I_{split}.txt.tsv", ((_description_id(pair), pair.text) for pair in pairs))
    write_image_tsv(folder / f"T2I_{split}.img.tsv", ((_description_id(pair), picture(pair.picture)) for pair in pairs))


def _write_captions(folder: Path, split: str, pairs: Sequence[Pair], picture: ReadPicture) -> None:
    """Several texts of a picture are its references."""
    references: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        references[pair.picture].append(pair.text)
    write_image_tsv(folder / f"IC_{split}.tsv", ((digest, picture(digest)) for digest in references))
    if split == "test":
        write_captions(folder / "IC_test_answers.jsonl", references.items())
        references = dict.fromkeys(references, [])
    write_captions(folder / f"IC_{split}.jsonl", references.items())


def _description_id(pair: Pair) -> str:
    """The same wherever the row stands."""
    return hashlib.md5(f"{pair.picture}\t{pair.text}".encode(), usedforsecurity=False).hexdigest()


def _names(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """What each picture is called, by digest; pictures in a table may share a name, and then get a number."""
    names: dict[str, dict[str, None]] = defaultdict(dict)
    owners: dict[str, str] = {}
    for pair in pairs:
        name, number = PurePosixPath(pair.name), 1
        while owners.setdefault(str(name), pair.picture) != pair.picture:
            number += 1
            name = PurePosixPath(pair.name).with_stem(f"{PurePosixPath(pair.name).stem}-{number}")
        names[pair.picture][str(name)] = None
    return {digest: list(found) for digest, found in names.items()}
