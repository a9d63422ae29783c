"""``python -m zoo results``: scored runs → ``experiments/results/*.json`` → the tables of the documentation."""

import csv
import json
import re
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from zoo.core.configs import read_config
from zoo.core.results import Result, ResultsTable, markdown, spell
from zoo.core.runs import take_option
from zoo.errors import UserError
from zoo.spec import find_specs, load_object


def main(argv: list[str]) -> int:
    """Collect runs, and write the tables.

    Args:
        argv: The words after ``python -m zoo results``.

    Returns:
        0, or 1 when ``--check`` finds a table out of date.
    """
    from zoo.core.command import CommandParser, GivenPath

    parser = CommandParser(
        prog="python -m zoo results",
        description="Write the tables of docs/pages from experiments/results/*.json.",
    )
    parser.add_argument(
        "--add",
        nargs="+",
        type=GivenPath,
        metavar="RUN",
        default=[],
        help="Folders of one experiment's runs, each scored by `test`: store them and their mean first.",
    )
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 when a table is out of date.")
    parser.add_argument("--results", type=GivenPath, default="experiments/results", help="Folder of the JSON files.")
    options = parser.parse_args(argv)
    folder = Path(options.results)
    if options.add:
        add_runs([Path(run) for run in options.add], folder)
    tables = make_tables(folder)
    pages = sorted({table.page for table in tables})
    outdated = [page for page in pages if not up_to_date(page, tables, write=not options.check)]
    if options.check and outdated:
        print(f"{', '.join(outdated)}: the tables are out of date: run `python -m zoo results`", file=sys.stderr)
        return 1
    print(*(contents for table, contents in tables.items() if table.folder == "."), sep="\n\n")  # the others are long
    return 0


def find_tables() -> list[ResultsTable]:
    """Find the tables of all tasks; the last are of what ``python -m zoo bench`` measured."""
    of_tasks = [load_object(place) for spec in find_specs() for place in spec.results]
    speed = ResultsTable("speed", speed_table, folder="bench", page="docs/pages/speed.md")
    return [*of_tasks, speed, ResultsTable("gpu", speed_table, folder="bench/gpu", page="docs/pages/gpu.md")]


def make_tables(folder: Path) -> dict[ResultsTable, str]:
    """Build those tables that a folder of results has something for."""
    contents = {}
    for table in find_tables():
        files = sorted((folder / table.folder).glob("*.json"))
        results = [json.loads(path.read_text(encoding="utf-8")) for path in files]
        results = [result for result in results if table.metrics <= result.get("mean", {}).keys()]
        if results:
            contents[table] = table.build(results)
    return contents


def up_to_date(page: str, tables: dict[ResultsTable, str], *, write: bool) -> bool:
    """Whether a page holds its tables; otherwise put them in, where ``write`` says so.

    Raises:
        UserError: There is no such page, or it has no place for one of them.
    """
    from zoo.io import write_text

    if not Path(page).is_file():
        raise UserError(f"{page}: there is no such page; run this at the top of the repository")
    text = updated = Path(page).read_text(encoding="utf-8")
    for table, contents in tables.items():
        if table.page == page:
            updated = replace_table(updated, contents, table.markers, page)
    if write and updated != text:
        write_text(page, updated)
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
    missing = [name for name in ("config.yaml", "fit.json", "test.json") if not (run / name).is_file()]
    if missing:
        raise UserError(
            f"--add {run}: no {missing[0]}: train with `fit`, score with `test --ckpt_path {run}`, then add it"
        )
    config = read_config(run / "config.yaml")
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
    if any(table.untrained and table.metrics <= test["metrics"].keys() for table in find_tables()):
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


def speed_table(results: list[Result]) -> str:
    """What ``python -m zoo bench … --output`` wrote: medians of blocks and their ratios."""
    lines = []
    for result in results:
        for row in result["rows"]:
            ours = f"{row['ours_is']}: " if row["ours_is"] not in ("ours", row["name"]) else ""
            lines.append(
                [
                    f"`{result['bench']}`",
                    row["name"],
                    f"{ours}{spell(row['ours'], row['unit'])}",
                    f"{row['peer_is']}: {spell(row['peer'])}" if row["peer"] else "–",
                    f"{row['ratio']:.2f}" if row["peer"] else "–",
                ]
            )
    return markdown(["bench", "what", "ours", "beside it", "ratio"], lines)


def replace_table(text: str, new: str, markers: tuple[str, str], page: str) -> str:
    """Put a table between two markers of a page's text."""
    pattern = re.compile(f"{re.escape(markers[0])}.*?{re.escape(markers[1])}", re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"{page}: it has no place for a table: add the lines {markers[0]} and {markers[1]}")
    return pattern.sub(lambda _: f"{markers[0]}\n{new}\n{markers[1]}", text)
