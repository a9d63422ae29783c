"""``fit``, ``validate``, ``test`` and ``predict``: Lightning's trainer behind layered configurations and run folders."""

import os
import difflib
import inspect
import json
import logging
import re
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
import yaml
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import zoo.data.retrieval
import zoo.tasks  # noqa: F401  # class paths resolve only when imported
from zoo.errors import UserError, nearest
from zoo.loggers import make_loggers
from zoo.runs import Plan, make_plan

# In a run's config.yaml these belong to the command that made it, not to the run.
NOT_OF_THE_RUN = ("config", "ckpt_path", "runs", "weights_only", "verbose", "return_predictions")


def main(words: Sequence[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        words: The command line, the verb first.

    Returns:
        The exit code.
    """
    if {"-h", "--help"} & set(words) or any("help" in word for word in words if word.startswith("--")):
        ZooCLI(Plan(list(words), "", Path(), continued=False, checkpoint=None))
        return 0
    quiet_libraries()
    try:
        ZooCLI(make_plan(list(words)))
    except UserError as error:
        print(f"zoo {words[0]}: error: {last_line(error)}", file=sys.stderr)
        return 1
    return 0


def last_line(error: Exception) -> str:
    """An error's own words, without the traceback that a loader's worker puts before them."""
    text = str(error)
    return text.rsplit(f"{UserError.__name__}: ", 1)[-1].strip() if "Original Traceback" in text else text


def quiet_libraries() -> None:
    """Leave out the libraries' chatter that says nothing to a user."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    warnings.filterwarnings("ignore", message=".*is not supported by the model summary.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*custom batch sampler.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "💡" not in record.getMessage() and "litlogger" not in record.getMessage()
    )


def best_precision() -> str:
    """``bf16-mixed`` where the processor computes in bfloat16 (2–4× faster there), else ``32-true``."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def describe_hardware(trainer: L.Trainer) -> str:
    """What a run ran on, in a few words."""
    if trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    features = "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else "no AVX512-BF16"
    return f"{torch.get_num_threads()} CPU cores ({features})"


class ShortErrorParser(LightningArgumentParser):
    """A parser whose errors are one line: what came, what is valid or nearest, where the options are listed."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and leave with exit code 2."""
        short = re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", shorten(message, self.known_options()))
        print(f"zoo: error: {short}", file=sys.stderr)
        print("The options: python -m zoo fit --help", file=sys.stderr)
        sys.exit(2)

    def known_options(self) -> list[str]:
        """Every dotted option of this parser and of the zoo's tasks and data modules."""
        parsers = [self, *(self._subcommands_action.choices.values() if self._subcommands_action else ())]
        options = {
            word.lstrip("-") for parser in parsers for word in parser._option_string_actions if word.startswith("--")
        }
        for prefix, module in (("model", zoo.tasks), ("data", zoo.data.retrieval)):
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, (L.LightningModule, L.LightningDataModule)):
                    options |= {f"{prefix}.{name}" for name in inspect.signature(value).parameters}
        return sorted(options)


def shorten(message: str, options: list[str]) -> str:
    """The telling part of a parser's error, with the options nearest to what was mistyped.

    Args:
        message: jsonargparse's message: the key, the types it tried, and why each one refused the value.
        options: The dotted names of the options that exist.
    """
    unknown = re.search(r"arguments: --([\w.+]+)|Option '([\w.+]+)' is not|not accept option '([\w.+]+)'", message)
    if unknown:
        name = next(filter(None, unknown.groups())).replace("init_args.", "").rstrip("+")
        by_last_part = {option.rpartition(".")[2]: option for option in sorted(options, key=lambda option: "." in option)}
        close = difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=3, cutoff=0.6)
        near = f" Did you mean {', '.join(by_last_part[part] for part in close)}?" if close else nearest(name, options)
        return f"there is no option {name!r}.{near}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    key = re.search(r'[Kk]ey "([\w.+]+)"', message)
    value = re.search(r"^\s*Given value: (.*)", message, re.MULTILINE)
    reasons = [line.removeprefix("- ") for line in lines if line.startswith("- ") and "NoneType" not in line]
    problems = [f"{line.rstrip(':')}: {following}" for line, following in pairwise(lines) if "given class_path" in line]
    if key and (problems or reasons):
        came = "" if problems or value is None else f" {value[1]!r} came."
        return f"{key[1]}:{came} {'; '.join(problems[-1:] or reasons)}".replace("- Problem", "Problem")
    return " ".join(lines)


class ZooCLI(LightningCLI):
    """LightningCLI with run folders, layered experiments, and loggers that fit the machine.

    Args:
        plan: What the command line means.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.fault: Exception | None = None
        super().__init__(
            args=plan.words,
            parser_class=ShortErrorParser,
            parser_kwargs={"allow_abbrev": False, "prog": "python -m zoo"},
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            trainer_defaults={"precision": best_precision()},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the zoo's own options."""
        parser.add_argument("--runs", default="runs", help="Folder that runs are kept in.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the plan's words; the process's own stay as they are, for DDP starts its processes by them."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leave the command line as it is: Lightning would let a checkpoint's hyper-parameters win over it."""

    def before_instantiate_classes(self) -> None:
        """Remember what a constructor raises: jsonargparse would bury it in a message about types."""
        for kind in (L.LightningModule, L.LightningDataModule, L.Callback):
            self.parser.add_instantiator(self._instantiate, kind)

    def _instantiate(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return class_type(*args, **kwargs)
        except Exception as error:
            self.fault = error
            raise

    def instantiate_classes(self) -> None:
        """Build task, data and trainer; the run's folder is theirs."""
        try:
            super().instantiate_classes()
        except ValueError:
            raise self.fault or sys.exception() from None  # type: ignore[misc]
        if self.subcommand == "fit" and self.trainer.is_global_zero:
            text = yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)
            write_text(self.plan.folder / "config.yaml", text)

    def before_fit(self) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def after_fit(self) -> None:
        """Write what the run was, ``fit.json``, for the results table."""
        if not self.trainer.is_global_zero:
            return
        facts = {
            "experiment": self.plan.experiment,
            "command": f"python -m zoo {shlex.join(sys.argv[1:])}",
            "seconds": round(time.perf_counter() - self.started, 1),
            "resumed": self.plan.continued,
            "steps": self.trainer.global_step,
            "processes": self.trainer.world_size,
            "hardware": describe_hardware(self.trainer),
            "versions": {name: version(name) for name in ("lightning", "torch", "timm", "transformers", "muge-zoo")},
        }
        write_text(self.plan.folder / "fit.json", json.dumps(facts, indent=2) + "\n")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer that writes into the run's folder."""
        wanted = self._get(self.config_init, "trainer").get("logger")
        logger: Any = wanted
        if wanted in (None, True) and not self._get(self.config_init, "trainer").get("fast_dev_run"):
            logger = make_loggers(self.plan, str(self.subcommand), self.resolved())
        if self.subcommand == "fit" and self.plan.checkpoint:
            kwargs["num_sanity_val_steps"] = 0  # step 0 is long past
        return super().instantiate_trainer(logger=logger, default_root_dir=str(self.plan.folder), **kwargs)

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain data, without what belongs to this command alone."""
        self._dump_config()
        return {key: value for key, value in self.config_dump.items() if key not in NOT_OF_THE_RUN}


def write_text(path: Path, text: str) -> None:
    """Write a file of the run, atomically."""
    from zoo.data.formats import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
