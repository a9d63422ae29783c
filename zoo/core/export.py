"""Trained tasks out: a folder in another library's format, compared with the task at once, with a model card."""

import importlib.util
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.core.checkpoint import EXPORTED, load, task_keys
from zoo.core.model_card import model_card
from zoo.core.options import plain
from zoo.data.convert.folders import refuse_filled
from zoo.errors import UserError, nearest
from zoo.io import atomic_folder, expanded, read_json, write_text
from zoo.spec import COMMON_EXPORTS, find_specs, load_object, spec_of

CARD = "README.md"
SAFETENSORS = "model.safetensors"


class Agreement(NamedTuple):
    """How far what was read back is from the task.

    Attributes:
        what: What was compared, for people.
        difference: The largest difference of any number.
        allowed: How large it may be; infinite where it is told and not judged.
    """

    what: str
    difference: float
    allowed: float


class MissingLibraryError(UserError):
    """A library that a format needs is not installed."""


class Exporter(Protocol):
    """One format that tasks leave in; a task's spec names its exporters by their formats.

    Attributes:
        library: Who reads it, as the Hugging Face hub calls libraries: ``transformers``.
    """

    library: str

    def check(self, task: Any) -> None:
        """See that the format can hold a task.

        Raises:
            UserError: It cannot, and why.
        """

    def write(self, task: Any, folder: Path) -> None:
        """Write the files into an empty folder."""

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Read the folder by the library that it is for, and compare what it computes with the task.

        Args:
            task: The task.
            folder: The folder.
            data: A folder of the task's data to compare scores on; None: scores are not compared.
        """

    def usage(self, task: Any, name: str) -> str:
        """Python that uses the folder of this name."""


@runtime_checkable
class ReadsBack(Protocol):
    """An exporter whose folders ``zoo.load`` reads by it; without, a reader of published weights may know them."""

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Read the task's weights under its own names, but for single numbers, which lie beside them.

        Raises:
            UserError: The format holds no weights to go on with.
        """


@runtime_checkable
class NamesItself(Protocol):
    """An exporter whose folders are read back as a task of other hyper-parameters than the one that was written."""

    def options(self, given: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Give the hyper-parameters of what the folder holds, from those of the task that was written."""


class Safetensors:
    """All weights of any task, ``model.safetensors``, under their own names: ``zoo.load`` reads them."""

    library = "muge-zoo"

    def check(self, task: Any) -> None:
        """Any task will do."""

    def write(self, task: Any, folder: Path) -> None:
        """Write them."""
        write_weights(task.state_dict(), folder / SAFETENSORS)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Read them."""
        return load_file(folder / SAFETENSORS)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare each weight of the task that is read back."""
        read = load(folder).state_dict()
        difference = max((float((read[name] - value).abs().max()) for name, value in _floats(task)), default=0.0)
        return [Agreement("weights", difference, 0.0)]

    def usage(self, task: Any, name: str) -> str:
        """Python that loads it and uses it once."""
        lines = ["import zoo", "", f'task = zoo.load("{name}")', spec_of(type(task)).example or ""]
        lines[2:2] = [f"# It asks {folder} for configuration and tokenizer." for folder in folders_of(task)]
        return "\n".join(lines).rstrip()


def folders_of(task: Any) -> list[str]:
    """Name the folders outside that a task is built from: ``dual:FOLDER``, ``transformers:FOLDER``."""
    names = [value.partition(":")[2] for value in dict(task.hparams).values() if isinstance(value, str)]
    return sorted({name for name in names if name and Path(name).is_dir()})


def find_exporter(kind: str, task: str | None = None) -> Exporter:
    """Make the exporter of a format.

    Args:
        kind: The format.
        task: The task's name, as checkpoints have it (``zoo.tasks.CaptioningTask``); None: whichever has the format.

    Raises:
        UserError: There is no such format.
    """
    specs = [spec for spec in find_specs() if task in (None, f"zoo.tasks.{spec.task.rpartition(':')[2]}")]
    known = {name: place for spec in specs for name, place in spec.exports.items()} | COMMON_EXPORTS
    if kind not in known:
        raise UserError(
            f"--format {kind!r}: there is no such format.{nearest(kind.lower(), known)} There are {', '.join(known)}",
            argument="--format",
            value=kind,
            valid=tuple(known),
        )
    return load_object(known[kind])()


def export(
    source: str | Path, folder: str | Path, *, kind: str, data: str | None = None, licence: str | None = None
) -> list[Agreement]:
    """Write a trained task in another library's format, whole or not at all, and compare what is read back.

    Args:
        source: As of ``zoo.load``.
        folder: The folder to write: new, or empty.
        kind: The format: ``transformers``, ``onnx``, ``safetensors``, …; which there are depends on the task.
        data: A folder of the task's data: its scores on the validation split are compared too.
        licence: The licence of the weights, as the Hugging Face hub names them: ``apache-2.0``.

    Returns:
        How far what was read back is from the task.

    Raises:
        UserError: The source cannot be loaded, the task or the library does not know the format, there is something in
            the folder, or what was read back computes something else.
    """
    place = _free_place(folder)
    find_exporter(kind)
    if data is not None and data != "auto" and not Path(expanded(data, "--data")).is_dir():
        raise UserError(f"--data {data}: there is no such folder", argument="--data", value=data)
    if data is not None and kind in COMMON_EXPORTS:
        raise UserError(f"--data: with --format {kind} weights are compared, and no scores. Leave it out")
    task = load(source)
    _check_able(task, kind)
    exporter = find_exporter(kind, task_keys(task)["task"])
    with _writing(place), atomic_folder(place) as unfinished, torch.no_grad():
        exporter.write(task, unfinished)
        if isinstance(exporter, ReadsBack):
            write_text(unfinished / EXPORTED, _record(task, kind))
        for file in unfinished.rglob("*.safetensors"):  # safetensors gives them to their owner alone
            file.chmod(file.parent.stat().st_mode & 0o666)
        with redirect_stdout(io.StringIO()):  # some libraries print what they load
            found = exporter.compare(task, unfinished, data)
        worse = [each for each in found if not each.difference <= each.allowed]
        if worse:
            raise UserError(
                f"--format {kind}: read back, {worse[0].what} differ by {worse[0].difference:.1e}, and may by"
                f" {worse[0].allowed:.0e}. Nothing was written. Please report this, with `python -m zoo env`"
            )
        write_text(unfinished / CARD, model_card(task, source, place.name, kind, exporter, found, licence))
    return found


def read_exported(folder: Path) -> dict[str, Any]:
    """Read a folder that ``export`` wrote, as a checkpoint.

    Raises:
        UserError: It is damaged, or of a format that holds no weights to go on with.
    """
    file = folder / EXPORTED
    try:
        content = read_json(file)
        lacking = sorted({"task", "hyper_parameters", "weights", "global_step", "format", "scalars"} - content.keys())
        if lacking:
            raise UserError(f"{file}: {lacking[0]!r} is missing. Export it again")
        scalars = {name: torch.tensor(value) for name, value in content["scalars"].items()}
        reader: Any = find_exporter(content["format"], content["task"])
        given = content["hyper_parameters"]
        options = reader.options(given, folder) if isinstance(reader, NamesItself) else given
        return {**content, "hyper_parameters": options, "state_dict": scalars | reader.read(folder)}
    except UserError as error:
        raise UserError(f"{file}: {error}") if error.argument == "--format" else error from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: it is damaged ({type(error).__name__}: {error}). Export it again") from None


def _check_able(task: Any, kind: str) -> None:
    """See that a format can hold a task.

    Raises:
        UserError: It cannot; names those that can.
    """
    own = {**spec_of(type(task)).exports, **COMMON_EXPORTS}

    def error_of(name: str) -> UserError | None:
        try:
            load_object(own[name])().check(task)
        except UserError as error:
            return error
        return None

    error = error_of(kind) if kind in own else UserError(f"{type(task).__name__} has no such format")
    if error is None:
        return
    if isinstance(error, MissingLibraryError):
        raise UserError(f"--format {kind}: {error}", argument="--format", value=kind)
    able = tuple(name for name in own if name != kind and isinstance(error_of(name), MissingLibraryError | None))
    message = f"--format {kind}: {error}. Formats that can hold it: {', '.join(able)}"
    raise UserError(message, argument="--format", value=kind, valid=able)


def _record(task: Any, kind: str) -> str:
    """What ``zoo.load`` needs beside the weights, as JSON.

    Raises:
        UserError: An option of the task is no plain value.
    """
    record = {
        "format": kind,
        **task_keys(task),
        "hyper_parameters": plain(dict(task.hparams)),
        "scalars": {name: float(value) for name, value in _floats(task) if value.ndim == 0},  # of the loss
        "weights": task.weights,
        "global_step": task.trained_steps,
    }
    try:
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise UserError(f"An option of this task cannot be written ({error}). Give names and numbers") from None


def _free_place(folder: str | Path) -> Path:
    """See that a folder can be written: new, or empty.

    Raises:
        UserError: It cannot.
    """
    if not str(folder):
        raise UserError("OUT is empty: give a new folder", argument="OUT")
    place = Path(expanded(folder, "OUT")).resolve()
    refuse_filled(place)
    above = next(parent for parent in place.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"OUT {folder}: nothing can be written in {above}. Give a folder elsewhere", argument="OUT")
    return place


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Say in one line why a folder cannot be written; a library's own errors stay as they are."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        why = "something has been written there meanwhile" if place.exists() else error.strerror
        raise UserError(f"OUT {place}: {why}. Give another folder", argument="OUT") from error


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors as safetensors."""
    save_file(contiguous(state), path, metadata={"format": "pt"})


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights on the CPU, row after row, none sharing memory with another, as safetensors takes them."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def sample_images(size: int, count: int = 6) -> list[Image.Image]:
    """Draw products of the embedded catalogue, ``size`` pixels a side."""
    from zoo.data.catalogue.categories import render
    from zoo.data.catalogue.products import draw_products

    return [Image.fromarray(render(product.item, product.seed, size)) for product in draw_products("test", count, 0)]


def compare(what: str, found: Tensor, wanted: Tensor, allowed: float) -> Agreement:
    """Compare two tensors of one shape.

    Raises:
        UserError: Their shapes differ.
    """
    if found.shape != wanted.shape:
        raise UserError(f"{what}: {list(found.shape)} was read back, and the task gives {list(wanted.shape)}")
    return Agreement(what, float((found.detach().float().cpu() - wanted.detach().float().cpu()).abs().max()), allowed)


def require_library(name: str) -> None:
    """See that a library that writes or reads a format is there.

    Raises:
        MissingLibraryError: It is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise MissingLibraryError(f"{name} is not installed, which this format needs: pip install 'muge-zoo[export]'")


def _floats(task: nn.Module) -> Sequence[tuple[str, Tensor]]:
    return [(name, value) for name, value in task.state_dict().items() if value.is_floating_point()]
