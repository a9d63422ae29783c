"""Where a run's numbers go, unless ``trainer.logger`` says: ``metrics.csv`` in its folder, W&B where there is a key."""

import csv
import netrc
import os
import sys
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from zoo.core.runs import Plan
from zoo.errors import UserError, nearest
from zoo.io import atomic_write
from zoo.spec import find_specs

WANDB_MODES = ("online", "offline", "disabled", "shared")


class RunCSVWriter(ExperimentWriter):
    """Goes on with the ``metrics.csv`` that is there, from a step on; Lightning's deletes it."""

    def __init__(self, log_dir: str, done_steps: int) -> None:
        super().__init__(log_dir)
        file = Path(self.metrics_file_path)
        if file.is_file():
            whole_lines = file.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()  # a kill may cut the last
            reader = csv.DictReader(whole_lines)
            rows = [row for row in reader if int(row["step"]) < done_steps or of_first_evaluation(row)]
            self.metrics_keys = list(reader.fieldnames or ())
            with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as lines:
                writer = csv.DictWriter(lines, self.metrics_keys)
                writer.writeheader()
                writer.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        pass


def of_first_evaluation(row: dict[str, str]) -> bool:
    """Whether a row of ``metrics.csv`` is of the evaluation before training, which no run that resumes repeats."""
    values = [name for name, value in row.items() if value and name != "step"]
    return int(row["step"]) == 0 and "epoch" not in values and not any(name.startswith("lr-") for name in values)


class RunCSVLogger(CSVLogger):
    """A CSV logger that goes on with the ``metrics.csv`` of a continued run.

    Args:
        folder: The run's.
        done_steps: Steps of the checkpoint that the run goes on from: later rows are trained again, and dropped.
    """

    def __init__(self, folder: Path, done_steps: int = 0) -> None:
        super().__init__(folder.parent.parent, name=folder.parent.name, version=folder.name)
        self.done_steps = done_steps

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, which knows the columns that are there already."""
        if self._experiment is None:
            self._experiment = RunCSVWriter(self.log_dir, self.done_steps)
        return self._experiment


def make_loggers(plan: Plan, command: str, config: dict[str, Any], done_steps: int = 0) -> tuple[list[Logger], str]:
    """CSV for training, and W&B where a key or ``WANDB_MODE=offline`` allows it.

    Args:
        plan: The run. Its experiment and folder name are the W&B run's name and id, so that a continued run continues.
        command: ``fit``, ``validate``, ``test`` or ``predict``: W&B's job type.
        config: The whole nested configuration.
        done_steps: Steps of the checkpoint that a run goes on from.

    Returns:
        The loggers, and a line that says where the numbers go.

    Raises:
        UserError: ``WANDB_MODE`` is none of W&B's.
    """
    folder = plan.folder
    loggers: list[Logger] = []
    if command == "fit":
        loggers.append(RunCSVLogger(folder, done_steps))
    why_not = why_no_wandb()
    wandb = None if why_not else wandb_logger(plan, command, config)
    if wandb is None:
        return loggers, f"Logging to {folder}/metrics.csv ({why_not or 'W&B does not answer'})"
    return [*loggers, wandb], f"Logging to {folder}/metrics.csv and W&B"


def why_no_wandb() -> str | None:
    """Why this run is not logged to W&B, or None when it is."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in WANDB_MODES:
        raise UserError(f"WANDB_MODE is {mode!r}: give {', '.join(WANDB_MODES)}.{nearest(mode, WANDB_MODES)}")
    if mode == "disabled":
        return "WANDB_MODE is disabled"
    if mode == "offline" or has_wandb_key():
        return None
    return "W&B has no key: `wandb login` or WANDB_MODE=offline"


def wandb_logger(plan: Plan, command: str, config: dict[str, Any]) -> WandbLogger | None:
    """A W&B run of this command, or None when W&B does not answer."""
    import wandb

    folder = plan.folder
    name = f"{plan.experiment}-{folder.name}" + ("" if command == "fit" else f"-{command}")
    run = None
    if getattr(rank_zero_only, "rank", 0) == 0:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_DATA_DIR"] = str(folder)  # or images in tables are kept in the home folder
        model, data = config["model"], config["data"]
        tags = [plan.experiment, *towers(model["init_args"]), f"data:{Path(data['init_args']['root']).name}"]
        try:
            run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "zoo"),
                name=name,
                id=name,
                resume="allow",
                dir=folder,
                group=model["class_path"].rpartition(".")[2].removesuffix("Task").lower(),
                job_type=command,
                tags=[tag[:64] for tag in dict.fromkeys(tags)],  # W&B takes no longer ones
                config=config,
                settings=wandb.Settings(init_timeout=30),
            )
        except wandb.Error as error:
            print(f"W&B: {str(error).partition(chr(10))[0]}", file=sys.stderr)
            return None
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        for metric, summary in monitors().items():
            run.define_metric(metric, summary=summary, step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(name=name, id=name, project="zoo", save_dir=str(folder), experiment=run)


def monitors() -> dict[str, str]:
    """By which of its values a metric sums up a run when runs are compared: ``max`` or ``min``."""
    return {"val/loss": "min", **{name: best for spec in find_specs() for name, best in spec.monitors.items()}}


def towers(arguments: dict[str, Any]) -> list[str]:
    """The names of the backbones among a task's arguments."""
    return [value for key, value in arguments.items() if key.endswith("_tower") and isinstance(value, str)]


def has_wandb_key() -> bool:
    """Whether there is a W&B key: in ``WANDB_API_KEY``, or in the file that ``wandb login`` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rpartition("//")[2].rstrip("/")
    try:
        return file.is_file() and netrc.netrc(file).authenticators(host) is not None
    except netrc.NetrcParseError:
        return False
