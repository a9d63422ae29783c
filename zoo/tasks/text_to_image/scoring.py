"""``python -m zoo score text_to_image``: anyone's generated images, scored by a stated protocol."""

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.command import CommandParser, GivenPath, check_output, write_output
from zoo.errors import UserError, invalid, summed_up
from zoo.io import read_json

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from torch import Tensor

    from zoo.tasks.text_to_image.contracts import GenerationTargets
    from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors
    from zoo.tasks.text_to_image.metrics.attribute_accuracy import Probes


def scoring_parser() -> CommandParser:
    """The options of ``score text_to_image``."""
    parser = CommandParser(
        prog="python -m zoo score text_to_image",
        description="E-Commerce T2I: FID, KID and IS where Inception's weights are there; Fréchet distance, precision"
        " and recall in a matcher's features; R-precision with its ceiling and controls. MUGE publishes no evaluator:"
        " the protocol is printed and stored with the numbers. Every error of the file is listed first, with line and"
        " id; then the exit code is 1 and nothing is scored.",
    )
    add_extractor_options(parser)
    parser.add_argument(
        "--predictions", type=GivenPath, required=True, help="T2I_SPLIT.tsv: lines of id, tab, base64 of a PNG or JPEG."
    )
    parser.add_argument(
        "--split",
        choices=["auto", "train", "valid", "test"],
        default="auto",
        help="Whose prompts were generated; auto: as the file's name says.",
    )
    parser.add_argument(
        "--reference",
        choices=["auto", "train", "valid", "test"],
        default="auto",
        help="The split whose images are the true ones; auto: the same, or valid where it has none, as MUGE's test.",
    )
    parser.add_argument(
        "--distractors",
        type=GivenPath,
        default=None,
        help="JSON lines of image_id and distractors (99 ids), as training leaves them in its run; by default drawn"
        " by seed 0, which gives the same.",
    )
    return parser


def add_extractor_options(parser: CommandParser) -> None:
    """Add the options that say who extracts features and where the prompts are."""
    parser.add_argument("--targets", type=GivenPath, required=True, help="The ECommerce-T2I folder, or its parent.")
    parser.add_argument(
        "--matcher",
        type=GivenPath,
        default=None,
        help="A retrieval checkpoint, a run's folder or an experiment's (runs/clip_demo_matcher: its newest run), a"
        " CN-CLIP file or hub name. Without it there is no R-precision.",
    )
    parser.add_argument(
        "--inception",
        type=GivenPath,
        default="auto",
        help="torch-fidelity's Inception: auto takes its weights from the cache or a download and otherwise does"
        " without; none; or their file.",
    )
    parser.add_argument(
        "--features",
        nargs="*",
        type=str,
        default=[],
        help="Image towers with published weights, for further Fréchet distances: timm:NAME.",
    )
    parser.add_argument("--batch_size", type=int, default=64, help="Images whose features are extracted together.")
    parser.add_argument(
        "--output", type=GivenPath, default=None, help="Also write numbers and protocol to this JSON file."
    )


def main(argv: list[str]) -> int:
    """Check, score, print, write; see ``scoring_parser`` for the options."""
    from zoo.core.collected import CollectedRows
    from zoo.tasks.text_to_image.report import print_scores
    from zoo.tasks.text_to_image.submission_files import T2ISubmission

    options = scoring_parser().parse_args(argv)
    split = _split(options)
    data, targets = open_targets(options, split)
    reference = options.reference
    if reference == "auto":
        reference = split if targets.has_images else "valid"
    data.open(reference).need_images()
    distractors = read_distractors(options.distractors, targets)
    beside = Path(options.predictions).with_suffix(".json")
    inputs = [options.predictions, beside, options.distractors, options.matcher, options.inception]
    check_output(options.output, [*inputs, *Path(data.folder).iterdir()])
    submission = T2ISubmission(options.predictions, targets)
    if submission.errors:
        submission.check()
    else:
        extractors = load_extractors(options)
        extractors.refuse(_reranker(beside))
        names = extractors.names_for(targets)
        collected = CollectedRows(targets.rows, names=extractors.keys_for(targets))
        batches = submission.batches(batch_size=options.batch_size)
        for batch in progress(batches, "Extracting features", math.ceil(len(targets.texts) / options.batch_size)):
            if not submission.errors:  # else it is read on for the other errors alone
                images = batch["image"].to(extractors.device)
                collected.update(batch["row"], **extractors.extract_features(images, names))
    if submission.errors:
        for line in summed_up(submission.errors):
            print(line, file=sys.stderr)
        print(f"The submission is not valid: {len(submission.errors)} error(s).", file=sys.stderr)
        return 1
    data.image_size = submission.image_size
    rows, values = collected.gathered()
    probes = probes_of(extractors, data, targets)
    scores = score_features(extractors, data, targets, reference, distractors, probes, rows, values)
    protocol = protocol_of(extractors, data, targets, reference, len(rows), options.distractors, distractors)
    protocol = {"predictions": Path(options.predictions).name, **protocol}
    print_scores(scores, title=f"{options.predictions}, prompts of {split}", protocol=protocol)
    if options.output is not None:
        write_output(
            options.output, json.dumps({"metrics": scores, "protocol": protocol}, indent=2, ensure_ascii=False)
        )
    return 0


# --- scoring ---------------------------------------------------------------------------------------------------


def score_features(
    extractors: "FeatureExtractors",
    data: Any,
    targets: "GenerationTargets",
    reference: str,
    distractors: "Tensor",
    probes: "Probes | None",
    rows: "Tensor",
    values: "dict[str, Tensor]",
) -> dict[str, float]:
    """All scores of generated images' features, those of rows of ``targets``; the true side is ``reference``."""
    from zoo.tasks.text_to_image.feature_extractors import true_features
    from zoo.tasks.text_to_image.metrics.attribute_accuracy import attribute_scores
    from zoo.tasks.text_to_image.metrics.scores import (
        distribution_scores,
        memorisation_scores,
        nearest,
        r_precision_scores,
    )

    values = {name: value.cpu() for name, value in values.items()}
    names, name, probed = extractors.names_for(targets), extractors.first, extractors.probed
    true = own = true_features(extractors, data, reference, names=names)
    if reference != targets.split:
        asked = [each for each in names if each in (name, probed)]
        own = true_features(extractors, data, targets.split, names=asked) if targets.has_images else {}
    scores = distribution_scores(values, {each: true[each] for each in extractors.by_name})
    if extractors.matcher is not None:
        read = extractors.read(targets.texts).cpu()
        scores |= r_precision_scores(values["clip"], rows.cpu(), targets.texts, read, own.get("clip"), distractors)
    if targets.shown is not None and probes is not None:
        scores |= attribute_scores(probes, targets.texts, targets.shown, rows.cpu(), values[probed], own.get(probed))
    if own and targets.split != "train" and _has_training_images(data):
        training = true_features(extractors, data, "train", names=[name])[name]
        scores |= memorisation_scores(nearest(values[name], training)[0], nearest(own[name], training)[0])
    return {key: value for key, value in scores.items() if not math.isnan(value)}


def probes_of(extractors: "FeatureExtractors", data: Any, targets: "GenerationTargets") -> "Probes | None":
    """The probes of attribute accuracy; None where the data do not say what images show."""
    from zoo.tasks.text_to_image.probes import train_probes

    return None if targets.shown is None else train_probes(extractors, data)


def _has_training_images(data: Any) -> bool:
    try:
        data.open("train").need_images()
    except UserError as error:
        print(f"No memorisation report: {error}", file=sys.stderr)
        return False
    return True


def protocol_of(
    extractors: "FeatureExtractors",
    data: Any,
    targets: "GenerationTargets",
    reference: str,
    generated: int,
    listed: str | None,
    distractors: "Tensor",
) -> dict[str, Any]:
    """What numbers were measured on and how; ``listed`` is the file of the distractors, if one was given."""
    true = data.targets(reference)
    drawn = "drawn by seed 0" + ("" if targets.shown is None else ", each contradicting its image")
    if listed is not None:
        drawn = f"of {Path(listed).name}, SHA-256 {hashlib.sha256(Path(listed).read_bytes()).hexdigest()[:12]}"
    return {
        "data": targets.source,
        "split": targets.split,
        "generated": generated,
        "reference": f"{reference} of {true.source}",
        "true": len(true.texts),
        "image_size": data.image_size,
        "extractors": extractors.protocol,
        **({} if targets.shown is None else {"attributes": f"linear probes of {extractors.probed}"}),
        "r_precision": f"1 true and {distractors.shape[1]} mismatched prompts, {drawn}; ties are misses; 10 folds",
    }


# --- what the options name -------------------------------------------------------------------------------------


def _split(options: "Namespace") -> str:
    if options.split != "auto":
        return options.split
    from zoo.data.layouts import ECOMMERCE_T2I, SPLITS

    splits = {ECOMMERCE_T2I.split_name(split): split for split in SPLITS}
    named = re.fullmatch(rf"T2I_({'|'.join(splits)})(\..*)?", Path(options.predictions).name)
    if named is None:
        raise UserError(
            f"--predictions {options.predictions}: the name is not T2I_SPLIT.tsv, so it does not tell whose"
            " prompts were generated: give --split train, valid or test"
        )
    return splits[named[1]]


def open_targets(options: "Namespace", split: str) -> "tuple[Any, GenerationTargets]":
    """The data module and the prompts of a split."""
    import torch

    from zoo.tasks.text_to_image.data import TextToImageDataModule

    if not options.targets or not Path(options.targets).is_dir():
        raise UserError(
            f"--targets {options.targets!r}: there is no such folder. Give an ECommerce-T2I folder or its parent"
        )
    if options.batch_size < 1:
        raise invalid("--batch_size", options.batch_size, "give 1 or more")
    workers = min(2, torch.get_num_threads())
    data = TextToImageDataModule(options.targets, image_size=1, eval_batch_size=options.batch_size, num_workers=workers)
    return data, data.targets(split)


def load_extractors(options: "Namespace") -> "FeatureExtractors":
    """The extractors that the options name, on the GPU where there is one."""
    import torch

    from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors

    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractors = FeatureExtractors(
        inception=options.inception, matcher=options.matcher, features=options.features, device=device
    )
    if extractors.lacking:
        print(f"No FID, KID and IS: {extractors.lacking}", file=sys.stderr)
    return extractors


def _reranker(predictions: Path) -> str | None:
    """The hash of the model that chose the images, as ``predict`` writes it beside them."""
    beside = predictions.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        return read_json(beside)["sampling"]["reranker"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{beside}: it does not say how the images were generated; fix it, or take it away") from None


def read_distractors(path: str | None, targets: "GenerationTargets") -> "Tensor":
    """The mismatched prompts of each row: drawn, or those of a file.

    Raises:
        UserError: The file does not list as many other prompts, all different, for each id of the split.
    """
    import torch

    from zoo.data.lines import LineReader
    from zoo.tasks.text_to_image.metrics.r_precision import mismatched_prompts

    if path is None:
        return mismatched_prompts(targets)
    row_of = {image_id: row for row, image_id in enumerate(targets.image_ids)}
    listed: dict[str, list[int]] = {}
    for number, _, record in LineReader(path, noun="image").records():
        where, image_id, ids = f"--distractors {path}:{number}", record.get("image_id"), record.get("distractors")
        if not isinstance(image_id, str) or not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            raise UserError(f"{where}: give an object with image_id, a string, and distractors, a list of ids")
        unknown = [name for name in (image_id, *ids) if name not in row_of]
        if unknown:
            raise UserError(f"{where}: {unknown[0]!r} is no id of the {targets.split} split")
        texts = {targets.texts[row_of[name]] for name in ids}
        if image_id in listed or len(texts) < len(ids) or targets.texts[row_of[image_id]] in texts:
            what = "is listed twice" if image_id in listed else "has a prompt twice, or its own, among them"
            raise UserError(f"{where}: {image_id} {what}; distractors are other prompts, all different")
        listed[image_id] = [row_of[name] for name in ids]
    counts = sorted({len(rows) for rows in listed.values()})
    if len(listed) != len(row_of) or len(counts) != 1 or counts[0] < 1:
        numbers = " or ".join(map(str, counts)) or "no"
        raise UserError(
            f"--distractors {path}: it lists {len(listed)} ids with {numbers} distractors: each of the {len(row_of)}"
            f" ids of the {targets.split} split needs the same number, 99 as a rule"
        )
    return torch.tensor([listed[image_id] for image_id in targets.image_ids])


def progress(batches: "Iterable[Any]", what: str, total: int) -> "Iterator[Any]":
    """The batches, with a bar on the error stream."""
    from rich.console import Console
    from rich.progress import track

    return iter(track(batches, description=what, total=total, console=Console(stderr=True)))
