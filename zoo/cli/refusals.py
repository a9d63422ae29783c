"""What Lightning, its classes and a GPU refuse, as one line each with what to type instead."""

import linecache
import re
import traceback
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from zoo.errors import UserError

# Which option of the trainer takes what is built of a class; one of its plugins takes all else.
TAKEN_BY = {L.Callback: "callbacks", Logger: "logger", Profiler: "profiler", Strategy: "strategy"}


def refused_by_lightning(error: Exception) -> bool:
    """Whether Lightning raised an error by itself, to say what it cannot do; not what went wrong below it."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    raised = linecache.getline(frame.f_code.co_filename, line).lstrip().startswith("raise ")
    return raised and frame.f_globals["__name__"].startswith("lightning.")


def in_one_line(error: Exception) -> str:
    """An error's words; also those of a KeyError, which shows them in quotes."""
    return " ".join(str(error.args[0] if error.args else error).split())


def out_of_memory(error: torch.OutOfMemoryError, options: dict[str, Any]) -> UserError:
    """What to type where a GPU's memory does not hold a step; of a task and its data that have these options."""
    found = re.search(r"capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", str(error))
    free = f" ({found[2]} of {found[1]} were free)" if found else ""
    fixes = [f"a smaller data.batch_size than {options['batch_size']}"]
    if "chunk_size" in options:
        fixes.append(
            f"a smaller model.chunk_size than {options['chunk_size']}"
            if options["chunk_size"]
            else "model.chunk_size 64, which changes no gradient"
        )
    if options.get("gradient_checkpointing") is False:
        fixes.append("model.gradient_checkpointing true, which takes a third more time")
    return UserError(
        f"the GPU's memory is full{free}: give {', or '.join(fixes)}",
        argument="data.batch_size",
        value=options["batch_size"],
    )


def cannot_be_built(kind: type, error: Exception) -> UserError:
    """What a constructor of Lightning's refuses, under the option that asks for it; or the package that it needs."""
    option = f"trainer.{next((name for base, name in TAKEN_BY.items() if issubclass(kind, base)), 'plugins')}"
    said = in_one_line(error)
    packages = [a or b for a, b in re.findall(r"pip install (?:-U )?'?([\w-]+)|`(\w+)`", said)]
    if isinstance(error, ImportError) and packages:
        package = next((package for package in packages if package != kind.__name__), packages[0])
        said = f"{kind.__name__} needs {package}: pip install {package}"
    return UserError(f"{option}: {said}", argument=option, value=kind.__name__)


def user_error_behind(error: BaseException | None) -> UserError | None:
    """Give the mistake that an error of jsonargparse buries: one that a dataclass of options raised."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
