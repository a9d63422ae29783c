"""What the queries of a split ask for, where the data say what images show: labels by which they are scored alone."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zoo.data.attributes import DETAILS, Attributes, Vocabulary, common_kinds, read_shown
from zoo.tasks.retrieval.contracts import Labels, RetrievalTargets

NEARLY_ALL = 0.98  # of the queries: a few may name what they ask for by words that the vocabulary cuts otherwise


def labels_of(folder: Path, targets: RetrievalTargets) -> Sequence[Labels]:
    """Give the labels of each query: its kind in the files, and the kinds of attributes that it asks for.

    Kinds that few images show have one label together, ``DETAILS``. What nearly all queries ask for is no label, for it
    would be scored as all are; nor is a label that the files give in a sense of their own.

    Args:
        folder: The task's.
        targets: The split's.

    Raises:
        FileError: A file of attributes is not as it must be, or lacks an image.
    """
    if targets.positives is None:
        return targets.kinds
    shown = read_shown(folder, targets.split, targets.image_ids)
    if shown is None:
        return targets.kinds
    common = common_kinds(shown.attributes)
    shown_by = dict(zip(targets.image_ids, shown.attributes, strict=True))
    asked = []
    for text, images in zip(targets.texts, targets.positives, strict=True):
        kinds = asked_kinds(text, [shown_by[image] for image in images if image in shown_by], shown.vocabulary)
        asked.append({kind if kind in common else DETAILS for kind in kinds})
    counts = Counter(label for labels in asked for label in labels)
    kept = {label for label, count in counts.items() if count < NEARLY_ALL * len(asked)} - {*targets.kinds}
    return [
        [*([] if kind is None else [kind]), *sorted(labels & kept)]
        for kind, labels in zip(targets.kinds, asked, strict=True)
    ]


def asked_kinds(text: str, shown: Sequence[Attributes], vocabulary: Vocabulary) -> set[str]:
    """Find the kinds of attributes that a query asks for: those of which it names a value that all its images show.

    Args:
        text: The query.
        shown: What each of its relevant images shows; of no images it asks for nothing.
        vocabulary: The words for the values.
    """
    named = {meaning for meanings in vocabulary.mentions(text) for meaning in meanings}
    return {kind for kind, value in named if shown and all(each.get(kind) == value for each in shown)}
