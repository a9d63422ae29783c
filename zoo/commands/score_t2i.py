"""``python -m zoo score t2i`` and ``score t2i-controls``: anyone's generated pictures, scored by a stated protocol."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands.output import write_output
from zoo.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from torch import Tensor

    from zoo.commands.parser import CommandParser
    from zoo.interfaces import GenerationGold
    from zoo.judges import Judges


def t2i_parser() -> "CommandParser":
    """The options of ``score t2i``."""
    from zoo.commands.parser import CommandParser

    parser = CommandParser(
        description="E-Commerce T2I: FID, KID and IS where Inception's weights are there; Fréchet distance, precision"
        " and recall in a matcher's features; R-precision with its ceiling and controls. MUGE publishes no evaluator:"
        " the protocol is printed and stored with the numbers. Every fault of the file is listed first, with line and"
        " id; then the exit code is 1 and nothing is scored.",
    )
    _add_judges(parser)
    parser.add_argument(
        "--predictions", type=str, required=True, help="T2I_SPLIT.tsv: lines of id, tab, base64 of a PNG or JPEG."
    )
    parser.add_argument(
        "--split",
        choices=["auto", "train", "val", "test"],
        default="auto",
        help="Whose descriptions were drawn; auto: as the file's name says.",
    )
    parser.add_argument(
        "--reference",
        choices=["auto", "train", "val", "test"],
        default="auto",
        help="The split whose pictures are the true ones; auto: the same, or val where it has none, as MUGE's test.",
    )
    parser.add_argument(
        "--distractors",
        type=str,
        default=None,
        help="JSON lines of image_id and distractors (99 ids), as training leaves them in its run; by default drawn"
        " by seed 0, which gives the same.",
    )
    return parser


def controls_parser() -> "CommandParser":
    """The options of ``score t2i-controls``."""
    from zoo.commands.parser import CommandParser

    parser = CommandParser(
        description="What the scores of text to image say of true pictures that were spoiled: blurred, noised,"
        " duplicated, exchanged. The first row, true pictures as they are, is the matcher's ceiling.",
    )
    _add_judges(parser)
    parser.add_argument("--split", choices=["train", "val", "test"], default="val", help="Whose pictures.")
    parser.add_argument("--image_size", type=int, default=64, help="Side in pixels that the pictures are brought to.")
    return parser


def _add_judges(parser: "CommandParser") -> None:
    parser.add_argument("--gold", type=str, required=True, help="The ECommerce-T2I folder, or its parent.")
    parser.add_argument(
        "--matcher",
        type=str,
        default=None,
        help="A retrieval checkpoint, a run's folder or an experiment's (runs/clip_demo_matcher: its newest run), a"
        " CN-CLIP file or hub name. Without it there is no R-precision.",
    )
    parser.add_argument(
        "--inception",
        type=str,
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
    parser.add_argument("--batch_size", type=int, default=64, help="Pictures that the judges look at together.")
    parser.add_argument("--output", type=str, default=None, help="Also write numbers and protocol to this JSON file.")


def score_t2i_files(options: "Namespace") -> int:
    """Check, score, print, write; see ``t2i_parser`` for the options."""
    from zoo.callbacks.reporting import print_scores
    from zoo.data.t2i_submissions import T2ISubmission
    from zoo.metrics.collected import CollectedRows

    split = _split(options)
    data, gold = _open(options.gold, split, options.batch_size)
    distractors = _distractors(options.distractors, gold)
    submission = T2ISubmission(options.predictions, gold)
    if submission.faults:
        submission.check()
    else:
        judges = _judges(options)
        judges.refuse(_reranker(Path(options.predictions)))
        collected = CollectedRows(gold.rows, names=_names(judges))
        batches = submission.pictures(batch_size=options.batch_size)
        for batch in _progress(batches, "Looking", math.ceil(len(gold.texts) / options.batch_size)):
            if not submission.faults:  # else it is read on for the other faults alone
                collected.update(batch["row"], **judges.look(batch["image"].to(judges.device)))
    if submission.faults:
        for fault in submission.faults:
            print(fault, file=sys.stderr)
        print(f"The submission is not valid: {len(submission.faults)} fault(s).", file=sys.stderr)
        return 1
    data.image_size = submission.image_size
    reference = options.reference
    if reference == "auto":
        reference = split if gold.has_pictures else "val"
    rows, values = collected.gathered()
    scores = _score(judges, data, gold, reference, distractors, rows, values)
    protocol = {"predictions": Path(options.predictions).name, **_protocol(judges, data, gold, reference, len(rows))}
    _report({"metrics": scores, "protocol": protocol}, options.output)
    print_scores(scores, title=f"{options.predictions}, descriptions of {split}", protocol=protocol)
    return 0


def score_t2i_controls(options: "Namespace") -> int:
    """Score spoiled pictures; see ``controls_parser`` for the options."""
    from zoo.callbacks.reporting import print_scores

    data, gold = _open(options.gold, options.split, options.batch_size)
    data.image_size = options.image_size
    judges = _judges(options)
    distractors = _distractors(None, gold)
    protocol = _protocol(judges, data, gold, options.split, len(gold.rows))
    results = {}
    for name, (rows, values) in _controls(judges, data, gold).items():
        results[name] = _score(judges, data, gold, options.split, distractors, rows, values)
        print_scores(results[name], title=f"{name}, descriptions of {options.split}", protocol=protocol)
    _report({"controls": results, "protocol": protocol}, options.output)
    return 0


# --- scoring ---------------------------------------------------------------------------------------------------


def _score(
    judges: "Judges",
    data: Any,
    gold: "GenerationGold",
    reference: str,
    distractors: "Tensor",
    rows: "Tensor",
    values: "dict[str, Tensor]",
) -> dict[str, float]:
    """All scores of generated pictures' features, those of rows of ``gold``; the true side is ``reference``."""
    from zoo.judges import true_features
    from zoo.metrics.generation import distribution_scores, memorisation_scores, nearest, r_precision_scores

    values = {name: value.cpu() for name, value in values.items()}
    true = true_features(judges, data, reference)
    scores = distribution_scores(values, true)
    own = reference == gold.split
    if judges.matcher is not None:
        read = judges.read(gold.texts).cpu()
        ceiling = true["clip"] if own else None
        scores |= r_precision_scores(values["clip"], rows.cpu(), gold.texts, read, ceiling, distractors)
    if gold.split != "train":
        name = "clip" if judges.matcher is not None else next(iter(judges.judges))
        training = true_features(judges, data, "train", names=[name])[name]
        scores |= memorisation_scores(nearest(values[name], training)[0], nearest(true[name], training)[0])
    return {key: value for key, value in scores.items() if not math.isnan(value)}


def _controls(judges: "Judges", data: Any, gold: "GenerationGold") -> "dict[str, tuple[Tensor, dict[str, Tensor]]]":
    """Features of the true pictures and of spoiled ones, with the rows whose pictures they stand for."""
    import torch

    from zoo.metrics.collected import CollectedRows
    from zoo.metrics.r_precision import shuffled_rows

    def look(name: str, spoil: "Callable[[Tensor, Tensor], Tensor]") -> "tuple[Tensor, dict[str, Tensor]]":
        collected = CollectedRows(gold.rows, names=_names(judges))
        loader = data.pictures_loader(gold.split)
        for batch in _progress(loader, name, len(loader)):
            pictures = spoil(batch["image"], batch["row"]).to(judges.device)
            collected.update(batch["row"], **judges.look(pictures))
        return collected.gathered()

    rows, values = look("true", lambda pictures, _: pictures)
    tenth = torch.arange(len(rows)) // 10 * 10
    exchanged = torch.tensor(shuffled_rows(gold.texts, rows.tolist()))
    return {
        "true": (rows, values),
        "blurred to a quarter": look("blurred", lambda pictures, _: _blurred(pictures)),
        "noise of 40 levels": look("noised", _noised),
        "each tenth, ten times": (rows, {name: value[tenth] for name, value in values.items()}),
        "exchanged": (exchanged, values),
    }


def _blurred(pictures: "Tensor") -> "Tensor":
    from zoo.images import resize_batch

    size = pictures.shape[-1]
    return resize_batch(resize_batch(pictures, size // 4), size)


def _noised(pictures: "Tensor", rows: "Tensor") -> "Tensor":
    import torch

    noised = []
    for picture, row in zip(pictures, rows.tolist(), strict=True):
        noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(row))
        noised.append((picture + 40 * noise).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(noised)


def _names(judges: "Judges") -> list[str]:
    return [*judges.judges, *(["logits"] if "inception" in judges.judges else [])]


def _protocol(judges: "Judges", data: Any, gold: "GenerationGold", reference: str, generated: int) -> dict[str, Any]:
    true = data.gold(reference)
    return {
        "data": gold.source,
        "split": gold.split,
        "generated": generated,
        "reference": f"{reference} of {true.source}",
        "true": len(true.texts),
        "image_size": data.image_size,
        "judges": judges.protocol,
        "r_precision": "1 true and 99 mismatched descriptions drawn by seed 0, ties are misses, 10 folds",
    }


# --- what the options name -------------------------------------------------------------------------------------


def _split(options: "Namespace") -> str:
    if options.split != "auto":
        return options.split
    named = [split for split in ("train", "val", "test") if split in Path(options.predictions).stem]
    if len(named) != 1:
        raise UserError(f"--split: {options.predictions} does not tell whose descriptions it is of: train, val or test")
    return named[0]


def _open(root: str, split: str, batch_size: int) -> "tuple[Any, GenerationGold]":
    import torch

    from zoo.data.text_to_image import TextToImageDataModule

    data = TextToImageDataModule(
        root, image_size=1, eval_batch_size=batch_size, num_workers=min(2, torch.get_num_threads())
    )
    return data, data.gold(split)


def _judges(options: "Namespace") -> "Judges":
    import torch

    from zoo.judges import Judges

    device = "cuda" if torch.cuda.is_available() else "cpu"
    judges = Judges(inception=options.inception, matcher=options.matcher, features=options.features, device=device)
    if judges.lacking:
        print(f"No FID, KID and IS: {judges.lacking}", file=sys.stderr)
    return judges


def _reranker(predictions: Path) -> str | None:
    """The hash of the model that chose the pictures, as ``predict`` writes it beside them."""
    beside = predictions.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        return json.loads(beside.read_text(encoding="utf-8"))["sampling"]["reranker"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{beside}: it does not say how the pictures were drawn; mend it, or take it away") from None


def _distractors(path: str | None, gold: "GenerationGold") -> "Tensor":
    """The mismatched descriptions of each row: drawn, or those of a file."""
    import torch

    from zoo.data.formats import read_json_lines
    from zoo.metrics.r_precision import draw_distractors

    if path is None:
        return draw_distractors(gold.texts)
    place_of = {image_id: place for place, image_id in enumerate(gold.image_ids)}
    listed: dict[str, list[int]] = {}
    for number, record in read_json_lines(Path(path)):
        ids = [record.get("image_id"), *(record.get("distractors") or [])]
        unknown = [image_id for image_id in ids if image_id not in place_of]
        if unknown:
            raise UserError(f"{path}:{number}: {unknown[0]!r} is no id of the {gold.split} split")
        listed[ids[0]] = [place_of[image_id] for image_id in ids[1:]]
    lengths = {len(places) for places in listed.values()}
    if len(listed) != len(place_of) or len(lengths) != 1:
        raise UserError(
            f"{path}: it lists {len(listed)} ids with {', '.join(map(str, sorted(lengths)))} distractors: each of the"
            f" {len(place_of)} ids of the {gold.split} split needs the same number"
        )
    return torch.tensor([listed[image_id] for image_id in gold.image_ids])


def _progress(batches: "Iterable[Any]", what: str, total: int) -> "Iterator[Any]":
    from rich.console import Console
    from rich.progress import track

    return iter(track(batches, description=what, total=total, console=Console(stderr=True)))


def _report(result: dict[str, Any], output: str | None) -> None:
    if output is not None:
        write_output(output, json.dumps(result, indent=2, ensure_ascii=False))
