"""``python -m zoo results``: scored runs → ``experiments/results/*.json`` → the README's table."""

import csv
import json
import re
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from zoo.bench.harness import spell
from zoo.core.runs import take_option
from zoo.errors import UserError

MARKERS = ("<!-- results: python -m zoo results -->", "<!-- /results -->")
GENERATION_MARKERS = ("<!-- generation: python -m zoo results -->", "<!-- /generation -->")
TOKENIZER_MARKERS = ("<!-- tokenizers: python -m zoo results -->", "<!-- /tokenizers -->")
CAPTION_MARKERS = ("<!-- captions: python -m zoo results -->", "<!-- /captions -->")
SPEED_MARKERS = ("<!-- speed: python -m zoo results -->", "<!-- /speed -->")
CONTROLS_MARKERS = ("<!-- controls: python -m zoo results -->", "<!-- /controls -->")
COLUMNS = ("recall@1", "recall@5", "recall@10", "mean_recall", "mean_recall/name")


def main(argv: list[str]) -> int:
    """Collect runs, and write the tables.

    Args:
        argv: The words after ``python -m zoo results``.

    Returns:
        0, or 1 when ``--check`` finds a README's table out of date.
    """
    from zoo.cli.parser import CommandParser

    parser = CommandParser(
        prog="python -m zoo results",
        description="Write the tables of the READMEs from experiments/results/*.json.",
    )
    parser.add_argument(
        "--add",
        nargs="+",
        metavar="RUN",
        default=[],
        help="Folders of one experiment's runs, each scored by `test`: store them and their mean first.",
    )
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 when the table is out of date.")
    parser.add_argument("--results", type=str, default="experiments/results", help="Folder of the JSON files.")
    parser.add_argument(
        "--readme",
        nargs="+",
        default=[name for name in ("README.md", "README.zh.md") if name == "README.md" or Path(name).is_file()],
        help="Files that hold the tables.",
    )
    options = parser.parse_args(argv)
    folder = Path(options.results)
    if options.add:
        add_runs([Path(run) for run in options.add], folder)
    tables = make_tables(folder)
    outdated = [readme for readme in options.readme if not up_to_date(readme, tables, write=not options.check)]
    if options.check and outdated:
        print(f"{', '.join(outdated)}: the tables are out of date: run `python -m zoo results`", file=sys.stderr)
        return 1
    print(
        *(table for markers, table in tables.items() if markers not in (SPEED_MARKERS, CONTROLS_MARKERS)),
        sep="\n\n",
    )
    return 0


def make_tables(folder: Path) -> dict[tuple[str, str], str]:
    """The tables of all that lies in a folder of results, by the markers between which they go."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    tables = {}
    for markers, keys, build in (
        (MARKERS, {"test/mean_recall"}, table),
        (GENERATION_MARKERS, {"test/r_precision", "test/loss"}, generation_table),
        (TOKENIZER_MARKERS, {"test/psnr"}, tokenizer_table),
        (CAPTION_MARKERS, {"test/cider"}, caption_table),
    ):
        of_the_task = [result for result in results if keys <= result["mean"].keys()]
        if of_the_task or build is table:
            tables[markers] = build(of_the_task)
    benches = sorted((folder / "bench").glob("*.json"))
    if benches:
        tables[SPEED_MARKERS] = speed_table(benches)
    files = sorted((folder / "controls").glob("*.json"))
    if files:
        tables[CONTROLS_MARKERS] = controls_table([json.loads(path.read_text(encoding="utf-8")) for path in files])
    return tables


def up_to_date(readme: str, tables: dict[tuple[str, str], str], *, write: bool) -> bool:
    """Whether a file holds these tables; otherwise put them in, where ``write`` says so.

    Raises:
        UserError: There is no such file, or it has no place for one of them.
    """
    from zoo.io import write_text

    if not Path(readme).is_file():
        raise UserError(f"--readme {readme}: there is no such file; run this at the top of the repository")
    text = updated = Path(readme).read_text(encoding="utf-8")
    for markers, contents in tables.items():
        updated = replace_table(updated, contents, markers, readme)
    if write and updated != text:
        write_text(readme, updated)
    return updated == text


def add_runs(runs: list[Path], folder: Path) -> Path:
    """Store the runs of one experiment, and the mean and spread of their numbers, as its result.

    Raises:
        UserError: A run was not scored, is of another experiment, repeats a seed, or started from random weights where
            its experiment wanted pretrained ones.
    """
    entries = [read_run(run) for run in runs]
    names = sorted({entry["experiment"] for entry in entries})
    if len(names) != 1:
        raise UserError(f"--add: runs of one experiment at a time; these are of {', '.join(names)}")
    seeds = [entry["seed"] for entry in entries]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--add: each run must have a seed of its own; these have {seeds}")
    metrics = entries[0]["metrics"]
    result = {
        "experiment": names[0],
        "mean": {key: statistics.fmean(entry["metrics"][key] for entry in entries) for key in metrics},
        "standard_deviation": {
            key: statistics.stdev(entry["metrics"][key] for entry in entries) if len(entries) > 1 else None
            for key in metrics
        },
        "runs": entries,
    }
    from zoo.io import write_text

    path = folder / f"{names[0]}.json"
    write_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return path


def read_run(run: Path) -> dict[str, Any]:
    """One run's seed, numbers, protocol, hardware and command.

    Raises:
        UserError: It was not scored, or is not the experiment as it stands: other options, continued, random weights.
    """
    import yaml

    missing = [name for name in ("config.yaml", "fit.json", "test.json") if not (run / name).is_file()]
    if missing:
        raise UserError(
            f"--add {run}: no {missing[0]}: train with `fit`, score with `test --ckpt_path {run}`, then add it"
        )
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    fit = json.loads((run / "fit.json").read_text(encoding="utf-8"))
    test = json.loads((run / "test.json").read_text(encoding="utf-8"))
    experiment, seed = fit.pop("experiment"), config["seed_everything"]
    configs, words = take_option(shlex.split(fit["command"])[4:], ("--config", "-c"))
    others = take_option(words, ("--seed_everything", "--runs", "--trainer.enable_progress_bar"))[1]
    if others or len(configs) != 1 or fit["resumed"]:
        how = "it was continued" if fit["resumed"] else f"its command has more: {' '.join([*configs[1:], *others])}"
        raise UserError(f"--add {run}: a result is the experiment as it stands and one seed; {how}")
    for part, source in test["protocol"]["weights"].items():
        if source.startswith("random ("):
            raise UserError(f"--add {run}: {part} started from {source}: not a result of this experiment")
    fit["command"] = f"python -m zoo fit --config experiments/{experiment}.yaml --seed_everything {seed}"
    protocol = {key: value for key, value in test["protocol"].items() if key != "checkpoint"}
    entry = {"experiment": experiment, "seed": seed, "metrics": test["metrics"], "protocol": protocol, "fit": fit}
    if {"test/r_precision", "test/loss"} <= test["metrics"].keys():
        entry["untrained"] = read_first_evaluation(run / "metrics.csv")
    return entry


def read_first_evaluation(metrics: Path) -> dict[str, float]:
    """What a run logged of its evaluation before the first step.

    Raises:
        UserError: It logged none.
    """
    with metrics.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == "0"]  # one for each split
    first = {key: float(value) for row in rows for key, value in row.items() if value and key.startswith("val")}
    if not first:
        raise UserError(f"--add {metrics.parent}: it was not evaluated before its first step")
    return first


def table(results: list[dict[str, Any]]) -> str:
    """The results of retrieval as a Markdown table: means over seeds, in percent, on the test split."""
    lines = [
        "| experiment | test data: queries / pictures | R@1 | R@5 | R@10 | MeanRecall "
        "| MeanRecall, exact names | seeds | training | on |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        protocol = result["runs"][0]["protocol"]
        scores = [number(result, f"test/{column}") for column in COLUMNS]
        data = f"{protocol['data'].partition(',')[0]}: {protocol['queries']:,} / {protocol['pictures']:,}"
        lines.append(f"| `{result['experiment']}` | {' | '.join([data, *scores, *how_trained(result)])} |")
    return "\n".join(lines)


def generation_table(results: list[dict[str, Any]]) -> str:
    """The results of text to image as a Markdown table: each number beside what it is to be held against."""
    lines = [
        "| experiment | parameters | descriptions | R-precision | first stage | true pictures | shuffled | fd_clip "
        "| first stage | before training | a picture | seeds | training | on |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        protocol = result["runs"][0]["protocol"]
        for split, what in (("test", f"test, {protocol['generated']:,}"), ("test_train", "training")):
            if f"{split}/r_precision" not in result["mean"]:
                continue
            names = ("r_precision", "r_precision_first_stage", "r_precision_true", "r_precision_shuffled")
            cells = [f"{protocol['parameters'] / 1e6:.0f} M", what]
            cells += [number(result, f"{split}/{name}") for name in names]
            cells += [number(result, f"{split}/{name}", digits=3) for name in ("fd_clip", "fd_clip_first_stage")]
            before = [run["untrained"][f"{split.replace('test', 'val')}/fd_clip"] for run in result["runs"]]
            seconds = statistics.fmean(run["protocol"]["seconds_per_picture"] for run in result["runs"])
            cells += [f"{statistics.fmean(before):.3f}", f"{seconds:.2g} s"]
            lines.append(f"| `{result['experiment']}` | {' | '.join([*cells, *how_trained(result)])} |")
    return "\n".join(lines)


def tokenizer_table(results: list[dict[str, Any]]) -> str:
    """The results of image tokenizers as a Markdown table: what is left of the test split's pictures."""
    lines = [
        "| experiment | parameters | test pictures | codes a picture, of | PSNR, dB | SSIM, % | fd_clip | R-precision "
        "| true pictures | codes used, % | seeds | training | on |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        protocol = result["runs"][0]["protocol"]
        cells = [f"{protocol['parameters'] / 1e6:.0f} M", f"{protocol['generated']:,}"]
        cells.append(f"{protocol['codes_per_picture']:,}, {protocol['codebook']:,}")
        cells += [number(result, f"test/{name}") for name in ("psnr", "ssim")]
        cells.append(number(result, "test/fd_clip", digits=3))
        cells += [number(result, f"test/{name}") for name in ("r_precision", "r_precision_true", "codebook_usage")]
        lines.append(f"| `{result['experiment']}` | {' | '.join([*cells, *how_trained(result)])} |")
    return "\n".join(lines)


def caption_table(results: list[dict[str, Any]]) -> str:
    """The results of captioning as a Markdown table: CIDEr-D beside its controls, on the test split."""
    lines = [
        "| experiment | test pictures, references | captions | CIDEr-D | BLEU-4 | ROUGE-L | different captions, % "
        "| seeds | training | on |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        protocol = result["runs"][0]["protocol"]
        size = f"{protocol['pictures']:,}, {protocol['references']:,}"
        for captions, suffix in (
            ("the model's", ""),
            ("nearest copied", "_nearest"),
            ("of other pictures", "_shuffled"),
        ):
            if f"test/cider{suffix}" in result["mean"]:
                cells = [number(result, f"test/{name}{suffix}") for name in ("cider", "bleu4", "rouge_l", "different")]
                row = [f"`{result['experiment']}`", size, captions, *cells, *how_trained(result)]
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def how_trained(result: dict[str, Any]) -> list[str]:
    """The last cells of a row: seeds, minutes, hardware."""
    seconds = statistics.fmean(run["fit"]["seconds"] for run in result["runs"])
    seeds = ", ".join(str(run["seed"]) for run in result["runs"])
    return [seeds, f"{seconds / 60:.1f} min", result["runs"][0]["fit"]["hardware"]]


def number(result: dict[str, Any], key: str, *, digits: int = 1) -> str:
    """One cell: the mean, and the standard deviation over seeds where there are several."""
    if key not in result["mean"]:
        return "–"
    spread = result["standard_deviation"][key]
    return f"{result['mean'][key]:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")


def speed_table(benches: list[Path]) -> str:
    """What ``python -m zoo bench … --output`` wrote, as a Markdown table: medians of blocks and their ratios."""
    lines = ["| bench | what | ours | beside it | ratio |", "|---|---|---|---|---|"]
    for path in benches:
        result = json.loads(path.read_text(encoding="utf-8"))
        for row in result["rows"]:
            ours = f"{row['ours_is']}: " if row["ours_is"] not in ("ours", row["name"]) else ""
            cells = [
                f"`{result['bench']}`",
                row["name"],
                f"{ours}{spell(row['ours'], row['unit'])}",
                f"{row['peer_is']}: {spell(row['peer'])}" if row["peer"] else "–",
                f"{row['ratio']:.2f}" if row["peer"] else "–",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def controls_table(results: list[dict[str, Any]]) -> str:
    """What ``python -m zoo score t2i-controls --output`` wrote, as a Markdown table: R-precision with its spread."""
    keys = {key for result in results for scores in result["controls"].values() for key in scores}
    columns = {
        "FID": "fid",
        "KID": "kid",
        "IS": "is",
        **{key: key for key in sorted(keys) if key.startswith(("fd_", "precision_", "recall_"))},
        "R-precision": "r_precision",
    }
    columns = {title: key for title, key in columns.items() if key in keys}
    lines = [f"| split | pictures | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for result in results:
        protocol = result["protocol"]
        for name, scores in result["controls"].items():
            cells = [f"{round(scores[key], 9):.3g}" if key in scores else "–" for key in columns.values()]
            if "r_precision_std" in scores:
                cells[-1] = f"{scores['r_precision']:.1f} ± {scores['r_precision_std']:.1f}"
            lines.append(f"| {protocol['split']}, {protocol['generated']:,} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def replace_table(text: str, new: str, markers: tuple[str, str], name: str) -> str:
    """Put a table between two markers of a text."""
    pattern = re.compile(f"{re.escape(markers[0])}.*?{re.escape(markers[1])}", re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"--readme {name}: it has no place for a table: add the lines {markers[0]} and {markers[1]}")
    return pattern.sub(lambda _: f"{markers[0]}\n{new}\n{markers[1]}", text)
