"""Where a run's numbers go: always ``metrics.csv`` in its folder, and W&B where there is a key."""

import netrc
import os
import sys
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from zoo.runs import Plan

# By which of its values a metric sums up a run, when runs are compared.
SUMMARIES = {
    "val/mean_recall": "max",
    "val/recall@1": "max",
    "val/recall@5": "max",
    "val/recall@10": "max",
    "val/loss": "min",
}


class RunCSVLogger(CSVLogger):
    """A CSV logger that goes on with the ``metrics.csv`` of a continued run; Lightning's deletes it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, which knows the columns that are there already."""
        if self._experiment is None:
            file = Path(self.log_dir) / "metrics.csv"
            written = file.read_text(encoding="utf-8") if file.is_file() else ""
            if written:
                file.unlink()
            writer = super().experiment
            if written:
                file.write_text(written, encoding="utf-8")
                writer.metrics_keys = written.splitlines()[0].split(",")
        return self._experiment


def make_loggers(plan: Plan, command: str, config: dict[str, Any]) -> list[Logger]:
    """CSV for training, and W&B where a key or ``WANDB_MODE=offline`` allows it.

    Args:
        plan: The run. Its experiment and folder name are the W&B run's name and id, so that a continued run continues.
        command: ``fit``, ``validate``, ``test`` or ``predict``: W&B's job type.
        config: The whole nested configuration.
    """
    folder = plan.folder
    first_process = os.environ.get("LOCAL_RANK", "0") == "0"
    loggers: list[Logger] = []
    if command == "fit":
        loggers.append(RunCSVLogger(folder.parent.parent, name=folder.parent.name, version=folder.name))
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "disabled" or (mode == "online" and not has_wandb_key()):
        if first_process and command == "fit":
            why = "WANDB_MODE is disabled" if mode == "disabled" else "W&B has no key: `wandb login` or WANDB_MODE=offline"
            print(f"Logging to {folder}/metrics.csv ({why})", file=sys.stderr)
        return loggers
    run = f"{plan.experiment}-{folder.name}" + ("" if command == "fit" else f"-{command}")
    model, data = config["model"], config["data"]
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_DATA_DIR", str(folder))
    wandb = WandbLogger(
        project="zoo",
        name=run,
        id=run,
        resume="allow",
        save_dir=str(folder),
        offline=mode == "offline",
        group=model["class_path"].rpartition(".")[2].removesuffix("Task").lower(),
        job_type=command,
        tags=[plan.experiment, *towers(model["init_args"]), f"data:{Path(data['init_args']['root']).name}"],
        config=config,
    )
    if first_process:
        for metric, summary in SUMMARIES.items():
            wandb.experiment.define_metric(metric, summary=summary, step_metric="trainer/global_step")
    return [*loggers, wandb]


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
