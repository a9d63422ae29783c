"""Where runs lie and which configuration a command reads: ``runs/EXPERIMENT/TIME/{config.yaml, checkpoints/, …}``.

Standard library only: all of this is decided before anything heavy is imported.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UserError, nearest

CHECKPOINTS = {"best": "best.ckpt", "last": "last.ckpt"}


@dataclass(frozen=True)
class Plan:
    """What a command line means, before it is parsed.

    Attributes:
        words: The command line with its configuration layers spelled out, lowest first.
        experiment: Name of the experiment.
        folder: The run's folder: a new one, or that of the checkpoint.
        continued: Whether the folder is an earlier run's.
        checkpoint: The checkpoint file that ``--ckpt_path`` means, if any.
    """

    words: list[str]
    experiment: str
    folder: Path
    continued: bool
    checkpoint: Path | None


def make_plan(words: list[str]) -> Plan:
    """Resolve ``--config``, ``--ckpt_path`` and ``--runs`` of a ``fit``, ``validate``, ``test`` or ``predict``.

    ``fit`` reads ``_base.yaml`` beside the first ``--config``, then the experiment, then the other ``--config`` files,
    then the flags. The other verbs, and a ``fit`` that continues a run, read the run's own ``config.yaml`` in place of
    the base and the experiment.

    Raises:
        UserError: No experiment, no such file, or no checkpoint to be found.
    """
    verb, rest = words[0], words[1:]
    configs, rest = take_option(rest, ("--config", "-c"))
    checkpoints, rest = take_option(rest, ("--ckpt_path",))
    runs, _ = take_option(rest, ("--runs",))
    root = Path(runs[-1] if runs else "runs").resolve()  # ModelCheckpoint forgets its best where the path changes
    for config in configs:
        check_config(Path(config))
    asked = checkpoints[-1] if checkpoints else None if verb == "fit" else "best"
    if verb == "fit" and not configs:
        raise UserError("fit needs an experiment: --config experiments/NAME.yaml")
    experiment = experiment_of(Path(configs[0])) if configs else None
    checkpoint = None if asked in (None, "null") else find_checkpoint(asked, root, experiment)
    if checkpoint is None and not configs:
        raise UserError(f"{verb} needs --ckpt_path FILE or --config experiments/NAME.yaml")
    run = run_of(checkpoint) if checkpoint else None
    layers = layer_configs(configs, run)
    if run is None:
        name = experiment or checkpoint.stem  # type: ignore[union-attr]
        started = os.environ.get("ZOO_RUN") if "LOCAL_RANK" in os.environ else None
        run_folder = Path(started or new_folder(root, name))
    else:
        name, run_folder = run.parent.name, run
    os.environ["ZOO_RUN"] = str(run_folder)  # the processes that DDP starts share it
    spelled = [word for layer in layers for word in ("--config", str(layer))]
    if checkpoint:
        spelled += ["--ckpt_path", str(checkpoint), "--weights_only", "true"]
    if verb in ("validate", "test"):
        spelled += ["--verbose", "false"]  # the callbacks print the numbers, once
    return Plan([verb, *spelled, *rest], name, run_folder, run is not None, checkpoint)


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


def check_config(path: Path) -> None:
    """Raise when a configuration file is not there, with the nearest that is."""
    if path.is_file():
        return
    beside = [str(file) for file in path.parent.glob("*.yaml") if not file.name.startswith("_")]
    known = f" There are: {', '.join(sorted(beside))}." if beside else ""
    raise UserError(f"--config {path}: there is no such file.{nearest(str(path), beside) or known}")


def experiment_of(config: Path) -> str:
    """An experiment is called as its file; a run's own ``config.yaml`` as the run's experiment."""
    return config.resolve().parent.parent.name if config.name == "config.yaml" else config.stem


def layer_configs(configs: list[str], run: Path | None) -> list[Path]:
    """The configuration files to read, lowest first."""
    if run is not None and (run / "config.yaml").is_file():
        return [run / "config.yaml", *map(Path, configs[1:])]
    if not configs:
        return []
    first = Path(configs[0])
    if first.name == "config.yaml":  # a run's: it is whole
        return [Path(config) for config in configs]
    base = first.parent / "_base.yaml"
    if not base.is_file():
        raise UserError(f"--config {first}: there is no {base}, which experiments are laid over. Copy it from the zoo's")
    return [base, *map(Path, configs)]


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def find_checkpoint(asked: str, root: Path, experiment: str | None) -> Path:
    """The file that ``--ckpt_path`` means: ``best`` or ``last`` of the newest run that has one, a run, or a file.

    Raises:
        UserError: There is none.
    """
    path = Path(asked)
    if asked not in CHECKPOINTS:
        if path.is_dir() and (path / "checkpoints" / "best.ckpt").is_file():
            return (path / "checkpoints" / "best.ckpt").resolve()
        if path.is_file():
            return path.resolve()
        raise UserError(f"--ckpt_path {asked}: there is no such file. Give a .ckpt file, a run's folder, best or last")
    pattern = f"{experiment or '*'}/*/checkpoints/{CHECKPOINTS[asked]}"
    found = sorted(root.glob(pattern), key=lambda file: (file.parent.parent.name, file.stat().st_mtime))
    if not found:
        whose = f"run of {experiment}" if experiment else "run"
        raise UserError(f"--ckpt_path {asked}: no {whose} under {root}/ has a checkpoint. Train one with fit first")
    return found[-1]


def new_folder(root: Path, experiment: str) -> Path:
    """A new run's folder, named by the time; not made yet."""
    name = time.strftime("%Y%m%d-%H%M%S")
    folder = root / experiment / name
    suffix = 2
    while folder.exists():
        folder = root / experiment / f"{name}-{suffix}"
        suffix += 1
    return folder
