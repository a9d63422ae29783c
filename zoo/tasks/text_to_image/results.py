"""The tables of text to image: experiments, and what the scores say of images that are known."""

import statistics
from collections.abc import Iterator

from zoo.core.results import Result, ResultsTable, by_experiment, markdown, number

TITLES = (
    *("parameters", "prompts", "R-precision", "image tokenizer", "real images", "shuffled", "fd_clip"),
    *("image tokenizer", "before training", "attributes", "real images", "an image"),
)


def rows(result: Result) -> Iterator[list[str]]:
    """A line for each split: each number beside what it is to be held against."""
    protocol = result["runs"][0]["protocol"]
    for split, what in (("test", f"test, {protocol['generated']:,}"), ("test_train", "training")):
        if f"{split}/r_precision" not in result["mean"]:
            continue
        names = ("r_precision", "r_precision_first_stage", "r_precision_true", "r_precision_shuffled")
        cells = [f"{protocol['parameters'] / 1e6:.0f} M", what]
        cells += [number(result, f"{split}/{name}") for name in names]
        cells += [number(result, f"{split}/{name}", digits=3) for name in ("fd_clip", "fd_clip_first_stage")]
        before = [run["untrained"][f"{split.replace('test', 'val')}/fd_clip"] for run in result["runs"]]
        seconds = statistics.fmean(run["protocol"]["seconds_per_image"] for run in result["runs"])
        attributes = [number(result, f"{split}/attribute_accuracy{which}") for which in ("", "_true")]
        yield [*cells, f"{statistics.fmean(before):.3f}", *attributes, f"{seconds:.2g} s"]


def controls_table(results: list[Result]) -> str:
    """What ``python -m zoo score text_to_image-controls --output`` wrote: R-precision with its spread."""
    keys = {key for result in results for scores in result["controls"].values() for key in scores}
    columns = {
        "FID": "fid",
        "KID": "kid",
        "IS": "is",
        **{key: key for key in sorted(keys) if key.startswith(("fd_", "precision_", "recall_"))},
        "attributes": "attribute_accuracy",
        "R-precision": "r_precision",
    }
    columns = {title: key for title, key in columns.items() if key in keys}
    lines = []
    for result in results:
        protocol = result["protocol"]
        for name, scores in result["controls"].items():
            cells = [f"{round(scores[key], 9):.3g}" if key in scores else "–" for key in columns.values()]
            if "r_precision_std" in scores:
                cells[-1] = f"{scores['r_precision']:.1f} ± {scores['r_precision_std']:.1f}"
            lines.append([f"{protocol['split']}, {protocol['generated']:,}", name, *cells])
    return markdown(["split", "images", *columns], lines)


RESULTS = ResultsTable(
    "generation",
    by_experiment(TITLES, rows),
    metrics=frozenset({"test/r_precision", "test/loss"}),
    untrained=True,
)
CONTROLS = ResultsTable("controls", controls_table, folder="controls", page="docs/pages/evaluation.md")
