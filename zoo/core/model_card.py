"""The model card of an exported folder: ``README.md``, as the Hugging Face hub reads it."""

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo.core.checkpoint import checkpoint_file
from zoo.core.configs import read_config
from zoo.core.runs import run_of
from zoo.spec import spec_of

if TYPE_CHECKING:
    from zoo.core.export import Agreement, Exporter

PROTOCOL = ("split", "queries", "images", "prompts", "captions", "image_size", "step", "resize", "precision")


def model_card(
    task: Any,
    source: str | Path,
    name: str,
    kind: str,
    exporter: "Exporter",
    found: list["Agreement"],
    licence: str | None,
) -> str:
    """Write what a stranger needs to know of an exported model.

    Args:
        task: The task.
        source: Where it was loaded from, as of ``zoo.load``.
        name: The folder's name.
        kind: The format.
        exporter: Its exporter.
        found: How far what was read back is from the task.
        licence: The licence of the weights; None: nobody said.
    """
    run = _run(source)
    pipeline = spec_of(type(task)).hub_task
    head: dict[str, Any] = {"language": "zh", "library_name": exporter.library, "tags": ["muge", "e-commerce"]}
    head |= {"pipeline_tag": pipeline} if pipeline else {}
    head |= {"license": licence} if licence else {}
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        _what(task, run, kind),
        f"## Use\n\n```python\n{exporter.usage(task, name)}\n```",
        f"## Scores\n\n{_scores(run)}",
        f"## Training\n\n{_training(task, run)}",
        f"## Agreement with the model that was trained\n\n{_agreement(found)}",
        f"## Licence\n\n{_licence(task, licence)}",
        "## Intended use and limits\n\nResearch on, and work with, Chinese product texts and images. The model knows"
        " what its training data show and nothing else; on other products, languages and photographs measure it first."
        " It carries over the biases of its data and of the weights that it began with.",
    ]
    return "\n\n".join(parts) + "\n"


def _run(source: str | Path) -> Path | None:
    """The run's folder that a task was loaded from, if it was one."""
    file = checkpoint_file(source)
    return None if file is None else run_of(file.resolve())


def _what(task: Any, run: Path | None, kind: str) -> str:
    options = dict(task.hparams)
    parts = {name: value for name, value in options.items() if isinstance(value, str) and f"{name}_options" in options}
    made = ", ".join(f"{name.replace('_', ' ')} `{_shown(value)}`" for name, value in parts.items())
    count = sum(parameter.numel() for parameter in task.parameters())
    where = f" by the experiment `{run.parent.name}`, run `{run.name}`" if run else ""
    steps = f" in {task.trained_steps:,} steps" if task.trained_steps else ""
    trained = f" It was trained{where}{steps}." if where or steps else ""
    return (
        f"A `{type(task).__name__}` of {count / 1e6:.1f} million parameters: {made}.{trained} Written as `{kind}` by"
        f" muge-zoo {version('muge-zoo')}."
    )


def _shown(name: str) -> str:
    """A part's name without the exporter's own folders."""
    prefix, _, place = name.partition(":")
    return f"{prefix}:{Path(place).name}" if place and Path(place).is_dir() else name


def _scores(run: Path | None) -> str:
    file = run / "test.json" if run else None
    if file is None or not file.is_file():
        return "Not measured on a test split."
    test = json.loads(file.read_text(encoding="utf-8"))
    rows = [f"| `{key}` | {value:.4g} |" for key, value in test["metrics"].items() if key.count("/") == 1]
    protocol = ", ".join(f"{key}: {test['protocol'][key]}" for key in PROTOCOL if key in test["protocol"])
    return "\n".join(["| test split | |", "|---|---|", *rows, "", f"Protocol: {protocol}."])


def _training(task: Any, run: Path | None) -> str:
    lines = []
    if run:
        data = read_config(run / "config.yaml").get("data", {}).get("init_args", {})
        root = str(data.get("root", ""))
        embedded = root.partition("/")[0] == "auto"
        lines.append(f"Data: {'the embedded catalogue of muge-zoo, drawn by rule' if embedded else Path(root).name}.")
        fit = run / "fit.json"
        if fit.is_file():
            record = json.loads(fit.read_text(encoding="utf-8"))
            lines.append(f"Time: {record['seconds'] / 60:.1f} minutes on {record['hardware']}.")
    begun = "; ".join(f"{name}: {where}" for name, where in task.weights.items())
    return "\n".join([*lines, f"Initial weights: {begun or 'not recorded'}."])


def _agreement(found: list["Agreement"]) -> str:
    judged = [each for each in found if math.isfinite(each.allowed)]
    told = [f"{each.what}." for each in found if each not in judged]
    rows = [f"| {each.what} | {each.difference:.1e} | {each.allowed:.0e} |" for each in judged]
    table = ["| compared | largest difference | allowed |", "|---|---|---|", *rows]
    return "\n".join([*table, "", *told]).rstrip()


def _licence(task: Any, licence: str | None) -> str:
    began = sorted({where for where in task.weights.values() if not where.startswith("random")})
    others = f" They began with {', '.join(began)}, whose licence applies too." if began else ""
    said = f"The weights are under `{licence}`." if licence else "Whoever exported this model has named no licence."
    return said + others
