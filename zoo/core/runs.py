"""Where runs lie and which configuration a command reads: ``runs/EXPERIMENT/TIME/{config.yaml, checkpoints/, …}``.

All of this is decided before anything heavy is imported.
"""

import importlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.core.command import typed
from zoo.core.configs import check_flags, read_config
from zoo.errors import UserError, nearest
from zoo.io import expanded

CHECKPOINTS = {"best": "best.ckpt", "last": "last.ckpt"}
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
DEEP_OPTION = re.compile(r"--model\.(?:init_args\.)?(\w+_options)((?:\.\w+)+)")

NESTED_OPTION = re.compile(r"(--model\.(?:init_args\.)?(?!init_args\.)\w+)\.(\w+)")


@dataclass(frozen=True)
class Plan:
    """What a command line means, before it is parsed.

    Attributes:
        words: The command line with its configuration layers spelled out, lowest first.
        experiment: Name of the experiment.
        folder: The run's folder: a new one, or that of the checkpoint.
        continued: Whether the folder is an earlier run's.
        checkpoint: The checkpoint file that ``--ckpt_path`` means, if any.
        imports: The modules to import first, and for each where it is named.
    """

    words: list[str]
    experiment: str
    folder: Path
    continued: bool
    checkpoint: Path | None
    imports: dict[str, str] = field(default_factory=dict)


def make_plan(words: list[str]) -> Plan:
    """Resolve ``--config``, ``--ckpt_path``, ``--runs``, ``--imports`` of ``fit``, ``validate``, ``test``, ``predict``.

    ``fit`` reads ``_base.yaml`` beside the first ``--config``, then the experiment, then the other ``--config`` files,
    then the flags. The other verbs, and a ``fit`` that continues a run, read the run's own ``config.yaml`` in place of
    the base and the experiment.

    Raises:
        UserError: No experiment, no such file, or no checkpoint to be found.
    """
    verb, rest = words[0], words[1:]
    configs, rest = take_option(rest, ("--config", "-c"))
    checkpoints, rest = take_option(rest, ("--ckpt_path",))
    runs = take_option(rest, ("--runs",))[0] or ["runs"]
    modules, rest = take_option(rest, ("--imports",))
    root = Path(expanded(runs[-1])).resolve()  # ModelCheckpoint forgets its best where the path changes
    configs = [expanded(config) for config in configs]
    for config in configs:
        check_config(Path(config))
    asked = checkpoints[-1] if checkpoints else None if verb == "fit" else "best"
    if asked in (None, "null") and not configs:
        raise UserError(f"{verb} needs an experiment: --config experiments/NAME.yaml")
    experiment = experiment_of(Path(configs[0])) if configs else None
    of_a_run = "last" if verb == "fit" else "best"
    checkpoint = None if asked in (None, "null") else find_checkpoint(asked, root, experiment, of_a_run)
    run = run_of(checkpoint) if checkpoint else None
    layers = layer_configs(configs, run)
    if not layers:
        raise UserError(
            f"--ckpt_path {asked}: it lies in no run (RUN/config.yaml, RUN/checkpoints/NAME.ckpt): "
            "name its experiment, --config experiments/NAME.yaml"
        )
    name = run.parent.name if run else experiment or ""
    folder = run or new_folder(root, name)
    os.environ["ZOO_RUN"] = str(folder)  # the processes that DDP starts share it
    spelled = [word for layer in layers for word in ("--config", str(layer))]
    imports = read_imports(layers, modules)
    if imports:
        spelled += ["--imports", json.dumps([*imports])]  # all layers', and so those of the run's config.yaml
    check_flags(rest)
    if checkpoint:
        spelled += ["--ckpt_path", str(checkpoint), "--weights_only", "true"]
    if verb in ("validate", "test"):
        spelled += ["--verbose", "false"]  # the callbacks print the numbers, once
    return Plan([verb, *spelled, *rest], name, folder, run is not None, checkpoint, imports)


def read_imports(layers: list[Path], flags: list[str]) -> dict[str, str]:
    """The modules that configurations and flags list under ``imports``, and for each where it is named.

    Raises:
        UserError: A configuration is no mapping in YAML, or what it lists are no modules.
    """
    listed = {str(layer): read_config(layer).get("imports", []) for layer in layers} | {"--imports": flags}
    for place, modules in listed.items():
        if not isinstance(modules, list) or not all(map(_is_module, modules)):
            raise UserError(f"{place}: imports is {modules!r}: list modules as Python names them: [my_package.towers]")
    return {module: place for place, modules in listed.items() for module in modules}


def _is_module(name: Any) -> bool:
    return isinstance(name, str) and MODULE.fullmatch(name) is not None


def import_modules(imports: dict[str, str]) -> None:
    """Import modules that register what a run is made of; those in the current folder too.

    Args:
        imports: The modules, and for each where it is named.

    Raises:
        UserError: One is not there, or needs one that is not.
    """
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    for module, place in imports.items():
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            if f"{module}.".startswith(f"{missing}."):
                what = f"there is no module {missing!r} in the current folder, and none is installed"
            else:
                what = f"it needs the module {missing!r}, which is not installed"
            raise UserError(f"{place}: imports has {module!r}: {what}") from error


def take_option(words: list[str], names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Take an option's values out of a command line: ``(values, the other words)``."""
    values, others = [], []
    iterator = iter(words)
    for word in iterator:
        name, equals, value = word.partition("=")
        if name not in names:
            others.append(word)
        elif equals:
            values.append(value)
        else:
            following = next(iterator, None)
            if following is None:
                raise UserError(f"{name} needs a value")
            values.append(following)
    return values, others


def take_deep_options(words: list[str]) -> tuple[list[str], list[tuple[str, list[str], str]]]:
    """Take ``--model.generator_options.sampling.guidance 6`` out of the words: the others; each argument, path, value.

    jsonargparse would put a text into a dictionary that has lost what else was in it, and ``"None"`` for null. It still
    reads them where it is to print the configuration.
    """
    if any(word.partition("=")[0] == "--print_config" for word in words):
        return words, []
    others, deep = [], []
    iterator = iter(words)
    for word in iterator:
        name, equals, value = word.partition("=")
        found = DEEP_OPTION.fullmatch(name)
        if found is None:
            others.append(word)
            continue
        following = value if equals else next(iterator, None)
        if following is None:
            raise UserError(f"{name} needs a value")
        deep.append((found[1], found[2].split(".")[1:], following))
    return others, deep


def spell_nulls(words: list[str]) -> list[str]:
    """Spell ``--model.distillation.teacher null`` as ``--model.distillation '{"teacher": null}'``.

    jsonargparse would read the text ``None``; what the dictionary does not name stays as it was.
    """
    spelled, at = [], 0
    while at < len(words):
        name, equals, value = words[at].partition("=")
        value = value if equals else words[at + 1] if at + 1 < len(words) else ""
        found = NESTED_OPTION.fullmatch(name)
        if found is None or value != "null":
            spelled.append(words[at])
        else:
            spelled += [found[1], json.dumps({found[2]: None})]
            at += 0 if equals else 1
        at += 1
    return spelled


def deep_set(options: dict[str, Any] | None, path: list[str], value: Any) -> dict[str, Any]:
    """A dictionary of dictionaries with one value changed; the rest of each stays."""
    options = options or {}
    first, *rest = path
    if rest:
        inner = options.get(first)
        value = deep_set(inner if isinstance(inner, dict) else None, rest, value)
    return {**options, first: value}


def check_config(path: Path) -> None:
    """Raise when a configuration file is not there, with the nearest that is."""
    if path.is_file():
        return
    folder = path if path.is_dir() else path.parent
    beside = sorted(str(file) for file in folder.glob("*.yaml") if not file.name.startswith("_"))
    known = f" There are {', '.join(beside)}." if beside else ""
    raise UserError(f"--config {path}: there is no such file.{nearest(str(path), beside, limit=1) or known}")


def experiment_of(config: Path) -> str | None:
    """An experiment is called as its file, a run's own ``config.yaml`` as the run's experiment; overlays are none."""
    if config.resolve().parent.name.startswith("_"):
        return None
    return config.resolve().parent.parent.name if config.name == "config.yaml" else config.stem


def layer_configs(configs: list[str], run: Path | None) -> list[Path]:
    """The configuration files to read, lowest first."""
    if run is not None:  # its config.yaml is whole; what it was made from would undo the flags it was made with
        made_from = bool(configs) and experiment_of(Path(configs[0])) == run.parent.name
        return [run / "config.yaml", *map(Path, configs[made_from:])]
    if not configs or Path(configs[0]).name == "config.yaml":
        return [Path(config) for config in configs]
    first = Path(configs[0])
    base = first.parent / "_base.yaml"
    if not base.is_file():
        raise UserError(
            f"--config {first}: there is no {base}, which experiments are laid over. Copy it from the zoo's"
        )
    return [base, *map(Path, configs)]


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, anywhere below its ``checkpoints/``, if it lies in one."""
    folders = [folder.parent for folder in checkpoint.parents if folder.name == "checkpoints"]
    return next((folder for folder in folders if (folder / "config.yaml").is_file()), None)


def find_checkpoint(asked: str, root: Path, experiment: str | None, of_a_run: str) -> Path:
    """The file that ``--ckpt_path`` means: ``best`` or ``last`` of the newest run that has one, a run, or a file.

    Args:
        asked: What was given.
        root: The folder of all runs.
        experiment: Whose runs; None: any.
        of_a_run: Which checkpoint a run's folder stands for, ``best`` or ``last``.

    Raises:
        UserError: There is none.
    """
    if asked not in CHECKPOINTS:
        path = Path(expanded(asked))
        if path.is_dir():
            path = checkpoint_of_run(path, CHECKPOINTS[of_a_run], f"--ckpt_path {asked}")
        if path.is_file() and path.suffix in (".json", ".safetensors"):
            raise UserError(
                f"--ckpt_path {asked}: this is no checkpoint. Give a .ckpt file, a run's folder, best or last"
            )
        if path.is_file():
            return path.resolve()
        near = nearest(asked, CHECKPOINTS, limit=1) if os.sep not in asked else ""
        what = f"there is no file {path}." if path != Path(asked) else "there is no such file."
        raise UserError(f"--ckpt_path {asked}: {what}{near} Give a .ckpt file, a run's folder, best or last")
    found = newest_checkpoint(root, experiment or "*", CHECKPOINTS[asked])
    if found is None:
        whose = f"run of {experiment}" if experiment else "run"
        there = checkpoints_there(root, f"{experiment or '*'}/*/")
        raise UserError(f"--ckpt_path {asked}: no {whose} under {root}/ has a {CHECKPOINTS[asked]}. {there}")
    return found


def checkpoint_of_run(run: Path, name: str, asked: str) -> Path:
    """The checkpoint of that name in a run's folder.

    Args:
        run: The folder.
        name: ``best.ckpt`` or ``last.ckpt``.
        asked: What was given for it, for the error.

    Raises:
        UserError: The run has none of that name; says which it has.
    """
    path = run / "checkpoints" / name
    if not path.is_file():
        raise UserError(f"{asked}: this run has no checkpoints/{name}. {checkpoints_there(run)}")
    return path


def checkpoints_there(folder: Path, runs: str = "") -> str:
    """What may be given where the checkpoint that was asked for is not there: the newest ones below a folder.

    Args:
        folder: A run's folder, or the one of all runs.
        runs: A pattern of the runs' folders in it.
    """
    files = sorted(folder.glob(f"{runs}checkpoints/**/*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    return f"Give another: {', '.join(map(str, files[:3]))}" if files else "Train one with fit first"


def newest_checkpoint(root: Path, experiment: str, name: str) -> Path | None:
    """The checkpoint of this name in the newest run of an experiment (a shell-style pattern) that has one."""
    files = root.glob(f"{experiment}/*/checkpoints/{name}")
    return max(files, key=lambda file: (file.parent.parent.name, file.stat().st_mtime), default=None)


def newest_of_experiment(folder: Path) -> Path | None:
    """The newest run in an experiment's folder that has a best checkpoint."""
    best = newest_checkpoint(folder.parent, folder.name, CHECKPOINTS["best"]) if folder.name else None
    return None if best is None else best.parent.parent


def newest_run(source: str | Path) -> str | Path:
    """The newest run of an experiment's folder that has a best checkpoint; anything else as it is.

    Raises:
        UserError: It looks like an experiment's folder and no run is there.
    """
    source = expanded(source)
    folder = Path(source)
    newest = newest_of_experiment(folder) if folder.is_dir() else None
    if newest is not None:
        return newest
    if folder.parent.name == "runs" and not folder.is_file() and not (folder / "checkpoints").is_dir():
        other = newest_checkpoint(folder.parent, folder.name, "*.ckpt")
        if other is not None:
            raise UserError(
                f"{source}: no run there has a best checkpoint. There is {other}: give that, if you mean it"
            )
        raise UserError(
            f"{source}: no run is there. Train it first: {typed('fit', '--config', f'experiments/{folder.name}.yaml')}"
        )
    return source


def new_folder(root: Path, experiment: str) -> Path:
    """A new run's folder, named by the time; not made yet.

    Raises:
        UserError: Another program started this process as one of several, and they share no folder.
    """
    if "LOCAL_RANK" in os.environ:
        if "ZOO_RUN" not in os.environ:
            raise UserError("torchrun or the like started this process: name a folder for the run, ZOO_RUN=runs/NAME/1")
        return Path(expanded(os.environ["ZOO_RUN"])).resolve()
    name = time.strftime("%Y%m%d-%H%M%S")
    folder = root / experiment / name
    suffix = 2
    while folder.exists():
        folder = root / experiment / f"{name}-{suffix}"
        suffix += 1
    return folder
