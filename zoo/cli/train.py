"""``fit``, ``validate``, ``test`` and ``predict``: Lightning's trainer behind layers of YAML and run folders."""

import argparse
import errno
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from zoo.callbacks.last_checkpoint import TERMINATED, AtomicCheckpointIO, LastCheckpoint
from zoo.callbacks.run import (
    CommandLineWins,
    EndTogether,
    IdleRates,
    Monitors,
    RandomWeightsBanner,
    SayIdleOptions,
    SayTextLosses,
    WriteConfig,
)
from zoo.cli.checks import check_options
from zoo.cli.classes import data_classes, import_classes, known_classes, known_options, task_classes
from zoo.cli.errors import explain, load_class
from zoo.cli.help import help_text
from zoo.cli.loggers import make_loggers
from zoo.cli.refusals import cannot_be_built, in_one_line, out_of_memory, refused_by_lightning, user_error_behind
from zoo.cli.restore import begin_again, check_restorable, read_divergences, restore
from zoo.cli.silence import quiet_libraries
from zoo.core.checkpoint import read_checkpoint, task_class
from zoo.core.command import typed
from zoo.core.configs import read_config
from zoo.core.divergence import DivergedError, diverged
from zoo.core.hardware import best_precision, describe_hardware
from zoo.core.moved import change_texts, rebased, refuse_other_paths
from zoo.core.runs import (
    CHECKPOINTS,
    Plan,
    deep_set,
    import_modules,
    make_plan,
    spell_nulls,
    take_deep_options,
    take_option,
)
from zoo.core.weights import load_strictly
from zoo.errors import UserError, invalid, last_line, nearest
from zoo.io import expanded, write_text

# In a run's config.yaml these belong to the command that made it, not to the run.
NOT_OF_THE_RUN = ("config", "ckpt_path", "runs", "weights_only", "verbose", "return_predictions")

# What the system says of a folder or disk that takes no file.
CANNOT_WRITE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
)

# Where a logger writes that needs a folder and was given none: the run's, which config.yaml does not name: it may move.
RUN_FOLDER = ("--trainer.logger.save_dir", "")

# Which callbacks go when an option of the trainer is false.
SWITCHED_OFF_BY = {
    "logger": LearningRateMonitor,
    "enable_progress_bar": ProgressBar,
    "enable_checkpointing": Checkpoint,
}


def main(verb: str, options: Sequence[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        verb: Which of them.
        options: The words behind it.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the command line or a configuration was wrong.
    """
    words = [verb, *options]
    if {"-h", "--help"} & set(words):
        print(help_text(verb, {"model": task_classes(), "data": data_classes()}))
        return 0
    if any(word.startswith("--") and word.partition("=")[0].endswith(".help") for word in words):
        ZooCLI(Plan(words, "", Path(), continued=False, checkpoint=None))
    quiet_libraries()
    environment = dict(os.environ)
    code, plan, again = 1, None, None
    try:
        plan = make_plan(words)
        import_modules(plan.imports)
        ZooCLI(plan)
        code = 0
    except argparse.ArgumentError as error:
        print(f"zoo {verb}: error: {error.message}\nThe options: python -m zoo {verb} --help", file=sys.stderr)
        code = 2
    except DivergedError as error:
        assert plan is not None
        again, said = restore(plan.folder, options, error)
        print(f"zoo {verb}: {said}", file=sys.stderr)
    except (UserError, MisconfigurationException) as error:
        said = last_line(error) if isinstance(error, UserError) else in_one_line(error)
        print(f"zoo {verb}: error: {said}", file=sys.stderr)
    except OSError as error:
        under = plan is not None and error.filename is not None and str(plan.folder).startswith(str(error.filename))
        if error.errno not in CANNOT_WRITE and not under:
            raise
        print(f"zoo {verb}: error: {error.filename or plan and plan.folder}: {error.strerror}", file=sys.stderr)
    except SIGTERMException:  # of validate, test and predict; Lightning would leave with 0
        code = TERMINATED
    except Exception as error:
        gone = any(words in str(error) for words in ("gloo/transport", "Connection closed by peer"))
        if gone or isinstance(error, torch.distributed.DistBackendError):
            said = "another process of this run has stopped"
        elif refused_by_lightning(error):
            said = in_one_line(error)
        else:
            raise
        print(f"zoo {verb}: error: {said}", file=sys.stderr)
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish(code)
        if plan and code:
            with suppress(OSError):
                plan.folder.rmdir()  # when nothing came of it
    if again:
        begin_again(again, environment)
    return code


fit, validate, test, predict = (partial(main, verb) for verb in ("fit", "validate", "test", "predict"))


def closing_words(trainer: L.Trainer, folder: Path) -> str:
    """Where a training left what, its best, and what to type next: nothing where it left no checkpoint."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    lines, candidates = [f"The run: {folder} ({', '.join(names)})"], []
    for checkpoint in trainer.checkpoint_callbacks:
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor and checkpoint.best_model_score is not None:
            path = Path(os.path.relpath(checkpoint.best_model_path))
            below = path.is_relative_to(folder)
            place = path.relative_to(folder) if below else path
            lines.append(f"The best: {checkpoint.monitor} {checkpoint.best_model_score:.2f} ({place})")
            candidates += [path] if below else []
    best, last = (folder / "checkpoints" / name for name in CHECKPOINTS.values())
    found = [folder] if best.is_file() else [path for path in (*candidates, last) if path.is_file()]
    lines += [f"Next: {typed('test', '--ckpt_path', path)}" for path in found[:1]]
    return "\n".join(lines)


class ZooCLI(LightningCLI):
    """LightningCLI with run folders, layered experiments, and loggers that fit the machine.

    Args:
        plan: What the command line means.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.fault: Exception | None = None
        checkpoint = read_checkpoint(plan.checkpoint) if plan.checkpoint else None
        self.trained = checkpoint["state_dict"] if checkpoint else None
        self.moved_from = checkpoint.get("run") if checkpoint and plan.continued else None
        self.started_in = checkpoint.get("started_in") if checkpoint and plan.continued else None
        self.done_steps: int = checkpoint.get("global_step", 0) if checkpoint else 0
        words = plan.words
        # A file apart from its run tells its own task.
        if checkpoint and "task" in checkpoint and not plan.continued and words[0] != "fit":
            configs, flags = take_option(words[1:], ("--config",))
            task_class(checkpoint, f"--ckpt_path {plan.checkpoint}")
            model = {"class_path": checkpoint["task"], "init_args": checkpoint["hyper_parameters"]}
            layers = [word for file in configs for word in ("--config", file)]
            words = [words[0], *layers, "--model", json.dumps(model), *flags]
        import_classes()
        super().__init__(
            args=words,
            parser_kwargs={"allow_abbrev": False, "exit_on_error": False, "prog": "python -m zoo"},
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
        parser.add_argument("--imports", type=list[str], default=[], help="Modules to import first.")
        parser.add_argument(
            "--save_every",
            type=int,
            default=500,
            help="Steps between writings of checkpoints/last.ckpt, which is also written after every epoch.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the plan's words; the process's own stay as they are, for DDP starts its processes by them."""
        words, deep = take_deep_options(list(args or ()))
        words = spell_nulls(words)
        try:
            try:
                self.config = parser.parse_args(words)
            except argparse.ArgumentError as error:
                if "are required: save_dir" not in error.message:
                    raise
                self.config = parser.parse_args([*words, *RUN_FOLDER])
        except argparse.ArgumentError as error:
            options = known_options(self._subcommand_parsers[self.plan.words[0]])
            message = explain(error.message, self.plan.words[1:], options, known_classes())
            raise argparse.ArgumentError(None, message) from None
        arguments = self.config[self.plan.words[0]].model.init_args
        for name, path, value in deep:
            if name not in arguments:
                raise UserError(f"--model.{name}: this task has no such options.{nearest(name, arguments.keys())}")
            with suppress(yaml.YAMLError):
                value = yaml.safe_load(value)
            arguments[name] = deep_set(arguments[name], path, value)
        check_options(self.config[self.plan.words[0]], self.plan.words[1:])

    def _parse_ckpt_path(self) -> None:
        """Leave the command line as it is: Lightning would let a checkpoint's hyper-parameters win over it."""

    def before_instantiate_classes(self) -> None:
        """Remember what a constructor raises: jsonargparse would bury it in a message about types.

        An overlay that is given again to a run that goes on, whose configuration holds it already, adds no callback.
        What the trainer's options name in the run's folder is looked for where the folder is now.

        Raises:
            UserError: ``save_every`` is below 1.
        """
        save_every = self._get(self.config, "save_every")
        if save_every is None or save_every < 1:
            raise invalid("save_every", save_every, "give 1 or more steps")
        options = self._get(self.config, "trainer")
        callbacks = as_list(options.get("callbacks"))
        options["callbacks"] = [given for place, given in enumerate(callbacks) if given not in callbacks[:place]]
        # A GPU without bfloat16 has float16, whose losses are scaled: not every task can be trained so.
        path = self._get(self.config, "model").class_path
        if options.precision == best_precision() == "16-mixed" and not getattr(load_class(path), "scaled_losses", True):
            options.precision = "32-true"
        old = self.moved_from or self.plan.folder
        change_texts(self.config, lambda text: rebased(text, old, self.plan.folder))
        self._check_root()
        if self.started_in is not None:
            refuse_other_paths({part: self.resolved()[part] for part in ("model", "data", "trainer")}, self.started_in)
        self._dump_config()  # the run's config.yaml keeps paths as they were given
        change_texts(options, lambda text: expanded(text) if text.startswith(("~", "$")) else text)
        self.parser.add_instantiator(self._instantiate, object)

    def _check_root(self) -> None:
        """See that a run which goes on, or is scored, finds its data: they may be told from another folder."""
        root = self._get(self.config, "data").init_args.get("root", "auto")
        if not self.plan.continued or root.split("/")[0] == "auto" or Path(expanded(root)).is_dir():
            return
        file = self.plan.folder / "config.yaml"
        if read_config(file)["data"]["init_args"].get("root") == root:
            place = "" if Path(expanded(root)).is_absolute() else f" in {Path.cwd()}, from where it is looked for"
            raise UserError(
                f"data.root is {root} in the run's {file}: there is no such folder{place}. Give --data.root DIR"
                f"{', or type this where the run was started' if place else ''}",
                argument="data.root",
                value=root,
            )

    def _instantiate(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        if issubclass(class_type, Logger) and kwargs.get("save_dir") == RUN_FOLDER[1]:
            kwargs["save_dir"] = str(self.plan.folder)
        try:
            return class_type(*args, **kwargs)
        except Exception as error:
            self.fault = cannot_be_built(class_type, error) if refused_by_lightning(error) else error
            raise

    def instantiate_classes(self) -> None:
        """Build task, data and trainer, and see that the checkpoint is this task's."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise self.fault or user_error_behind(error) or error from None
        if self.trained is not None:
            load_strictly(self.model, self.trained, f"--ckpt_path {self.plan.checkpoint}")
            self.trained = None
        elif self.plan.words[0] != "fit" and self.plan.checkpoint is None:  # --ckpt_path null: as training would begin
            self.model.read_weights()
            begun = "; ".join(f"{name}: {where}" for name, where in self.model.weights.items())
            print(f"Scoring initial weights: {begun or 'random'}", file=sys.stderr)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(
                error, {**self.model.hparams, "batch_size": getattr(self.datamodule, "batch_size", None)}
            ) from None
        except Exception as error:
            with suppress(RuntimeError):  # a GPU that has failed tells nothing
                if (step := self.model.find_bad_step()) is not None and not isinstance(error, UserError):
                    raise diverged(self.model, step) from error
            raise

    def before_fit(self) -> None:
        """See that the training can be restored where it is to be; start the clock."""
        check_restorable(self.trainer, self.model.hparams["optimizer"].on_divergence)
        self.started = time.perf_counter()

    def after_fit(self) -> None:
        """Write what the run was, ``fit.json``, for the results table."""
        if not self.trainer.is_global_zero:
            return
        record = {
            "experiment": self.plan.experiment,
            "command": typed(*sys.argv[1:]),
            "seconds": round(time.perf_counter() - self.started, 1),
            "resumed": self.plan.continued,
            "divergences": read_divergences(self.plan.folder),
            "steps": self.trainer.global_step,
            "processes": self.trainer.world_size,
            "hardware": describe_hardware(self.trainer),
            "versions": {name: version(name) for name in ("lightning", "torch", "timm", "transformers", "muge-zoo")},
        }
        write_text(self.plan.folder / "fit.json", json.dumps(record, indent=2) + "\n")
        print(closing_words(self.trainer, Path(os.path.relpath(self.plan.folder))))

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer that writes into the run's folder."""
        options = self._get(self.config_init, "trainer")
        folder, checkpoints = self.plan.folder, self.plan.folder / "checkpoints"
        logger, note = options.get("logger"), f"The run: {folder}"
        if options.get("fast_dev_run"):
            logger = CSVLogger(folder)  # Lightning takes its dummy instead
        elif logger in (None, True):
            logger, note = make_loggers(self.plan, str(self.subcommand), self.resolved(), self.done_steps)
        if self.subcommand == "fit" and self.plan.checkpoint:
            kwargs["num_sanity_val_steps"] = 0  # step 0 is long past
        always: list[L.Callback] = [CommandLineWins(), IdleRates(), RandomWeightsBanner(), EndTogether()]
        always += [SayIdleOptions(self.resolved()), SayTextLosses()]
        always.append(WriteConfig(folder / "config.yaml", self.resolved(), note))
        always.append(LastCheckpoint(checkpoints, self._get(self.config_init, "save_every")))
        unwanted = tuple(kind for option, kind in SWITCHED_OFF_BY.items() if options.get(option) is False)
        unwanted += (Checkpoint,) if options.get("fast_dev_run") else ()
        self.trainer_defaults["callbacks"] = [callback for callback in always if not isinstance(callback, unwanted)]
        given = as_list(options.get("callbacks"))
        kwargs["callbacks"] = [Monitors(), *(callback for callback in given if not isinstance(callback, unwanted))]
        kwargs["plugins"] = [AtomicCheckpointIO(), *as_list(options.get("plugins"))]
        try:
            trainer = super().instantiate_trainer(logger=logger, default_root_dir=str(folder), **kwargs)
        except (ValueError, TypeError) as error:  # Lightning's own checks of accelerator, strategy, devices, …
            wrong = re.search(r"(accelerator|strategy)='(\w+)'", str(error))
            valid = [*StrategyRegistry.available_strategies(), *AcceleratorRegistry.available_accelerators()]
            near = nearest(wrong[2], valid) if wrong else ""
            raise UserError(f"trainer: {str(error).partition('. ')[0].rstrip('.')}.{near}") from None
        except RuntimeError as error:
            twice = re.search(r"more than one stateful callback of type `(\w+)`", str(error))
            if twice is None:
                raise
            raise invalid(
                "trainer.callbacks",
                f"two {twice[1]}",
                "they keep one state in a checkpoint. Leave yours out and change the experiment's own"
                " (--trainer.callbacks.OPTION VALUE, of the last one), or monitor different numbers",
            ) from None
        for checkpoint in trainer.checkpoint_callbacks:  # also where the user's own logger lies elsewhere
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.dirpath is None:
                checkpoint.dirpath = str(checkpoints)
        return trainer

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain data, without what belongs to this command alone."""
        self._dump_config()
        return {key: value for key, value in self.config_dump.items() if key not in NOT_OF_THE_RUN}


def as_list(value: Any) -> list[Any]:
    """None, one thing or several, as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]
