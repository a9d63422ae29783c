"""``python -m zoo score text_to_image-controls``: what the scores say of true images that were corrupted."""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.core.command import CommandParser, check_output, write_output
from zoo.errors import invalid
from zoo.tasks.text_to_image.scoring import (
    add_extractor_options,
    load_extractors,
    open_targets,
    probes_of,
    progress,
    protocol_of,
    read_distractors,
    score_features,
)

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.tasks.text_to_image.contracts import GenerationTargets
    from zoo.tasks.text_to_image.corruptions import Corrupt
    from zoo.tasks.text_to_image.feature_extractors import FeatureExtractors

    Seen = tuple[Tensor, dict[str, Tensor]]  # rows [n], features by name [n, width]

LEAST_SIZE = 8


def controls_parser() -> CommandParser:
    """The options of ``score text_to_image-controls``."""
    parser = CommandParser(
        prog="python -m zoo score text_to_image-controls",
        description="What the scores of text to image say of images that are known: the true ones, which are the"
        " matcher's ceiling; the same blurred, noised, repeated, exchanged; noise alone; and as many training images,"
        " whose Fréchet distance is the least that images of other things can have. Prints the README's table.",
    )
    add_extractor_options(parser)
    parser.add_argument("--split", choices=["train", "valid", "test"], default="valid", help="Whose images.")
    parser.add_argument("--image_size", type=int, default=64, help="Side in pixels that the images are brought to.")
    return parser


def main(argv: list[str]) -> int:
    """Score corrupted images; see ``controls_parser`` for the options."""
    from zoo.tasks.text_to_image.results import controls_table

    options = controls_parser().parse_args(argv)
    if options.image_size < LEAST_SIZE:
        raise invalid("--image_size", options.image_size, f"give {LEAST_SIZE} or more pixels")
    data, targets = open_targets(options, options.split)
    data.open(options.split).need_images()
    data.image_size = options.image_size
    check_output(options.output, [options.matcher, options.inception, *data.folder.iterdir()])
    extractors = load_extractors(options)
    distractors, probes = read_distractors(None, targets), probes_of(extractors, data, targets)
    controls = {
        name: score_features(extractors, data, targets, options.split, distractors, probes, rows, values)
        for name, (rows, values) in control_features(extractors, data, targets).items()
    }
    protocol = protocol_of(extractors, data, targets, options.split, len(targets.rows), None, distractors)
    result = {"controls": controls, "protocol": protocol}
    print(controls_table([result]))
    print("\n".join(f"{name}: {value}" for name, value in protocol.items()))
    if options.output is not None:
        write_output(options.output, json.dumps(result, indent=2, ensure_ascii=False))
    return 0


def control_features(extractors: "FeatureExtractors", data: Any, targets: "GenerationTargets") -> "dict[str, Seen]":
    """Features of the true images and of corrupted ones, with the rows whose images they stand for."""
    import torch

    from zoo.tasks.text_to_image.corruptions import blurred, noise_alone, noised
    from zoo.tasks.text_to_image.metrics.r_precision import shuffled_rows

    features_of = partial(corrupted_features, extractors, data, targets)
    rows, values = features_of(targets.split, targets.rows, lambda images, _: images)
    tenth = torch.arange(len(rows)) // 10 * 10
    controls = {
        "true": (rows, values),
        "blurred to a quarter": features_of(targets.split, targets.rows, blurred),
        "noise of 40 levels": features_of(targets.split, targets.rows, noised),
        "noise alone": features_of(targets.split, targets.rows, noise_alone),
        "each tenth, ten times": (rows, {name: value[tenth] for name, value in values.items()}),
        "exchanged": (torch.tensor(shuffled_rows(targets.texts, rows.tolist())), values),
    }
    if targets.split != "train":
        training = len(data.targets("train").texts)
        chosen = torch.linspace(0, training - 1, min(training, len(rows))).round().long().tolist()
        _, seen = features_of("train", chosen, lambda images, _: images)
        controls["training images"] = (rows[: len(chosen)], seen)
    return controls


def corrupted_features(
    extractors: "FeatureExtractors",
    data: Any,
    targets: "GenerationTargets",
    split: str,
    rows: list[int],
    corrupt: "Corrupt",
) -> "Seen":
    """The features that scores of ``targets`` need, of some of a split's images, corrupted."""
    import torch

    from zoo.core.collected import CollectedRows

    wanted = torch.tensor(rows)
    collected = CollectedRows(rows, names=extractors.keys_for(targets))
    loader = data.images_loader(split)
    for batch in progress(loader, f"{split} images", len(loader)):
        chosen = torch.isin(batch["row"], wanted)
        if chosen.any():
            own = batch["row"][chosen]
            images = corrupt(batch["image"][chosen], own).to(extractors.device)
            collected.update(own, **extractors.extract_features(images, extractors.names_for(targets)))
    return collected.gathered()
