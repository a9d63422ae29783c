"""Trained tasks in: the zoo's own checkpoints and published ones, checked before a single weight is changed.

Which tasks there are, and which functions read what others published, the tasks' specs say.
"""

import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.core.hubs import MODELSCOPE, NoHubError
from zoo.core.runs import CHECKPOINTS, checkpoint_of_run, newest_of_experiment, newest_run, run_of
from zoo.core.weights import check_fit, load_strictly, read_torch
from zoo.errors import UserError
from zoo.io import expanded
from zoo.spec import find_specs, load_object

if TYPE_CHECKING:
    from lightning import LightningModule

EXPORTED = "zoo.json"  # in an exported folder: which task it is of
FORMAT = 2  # of a checkpoint's contents; raised when older ones cannot be read any more
HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
FILE_ENDINGS = {".ckpt", ".pt", ".pth", ".bin", ".safetensors"}  # of paths that are no hub names


@dataclass(frozen=True)
class Published:
    """Published weights of a whole task, under the names of this zoo.

    A function that a spec names in ``published`` gives them. It is called with a source, the path of a file or folder
    or a hub name; and with what the file holds, or None where it is no file or holds more than weights and plain data.
    It returns None where the source is not its own, and raises a ``UserError`` where it is and cannot be read.

    Attributes:
        task: Class of the task.
        hyper_parameters: Its arguments.
        state_dict: All of its weights.
        name: The hub name or the name of the file, for people.
        reference: The task on the meta device, where shapes do not tell all that it computes: a task that starts from
            the weights must have its activations, numbers of heads and epsilons.
    """

    task: type[nn.Module]
    hyper_parameters: dict[str, Any]
    state_dict: dict[str, Tensor]
    name: str
    reference: nn.Module | None = None

    @property
    def checkpoint(self) -> dict[str, Any]:
        """A checkpoint of this zoo of them."""
        return {
            **task_keys(self.task),
            "hyper_parameters": self.hyper_parameters,
            "state_dict": self.state_dict,
            "weights": {"init_from": self.name},
            "global_step": 0,
        }


def load(path: str | Path, *, device: str | torch.device = "cpu") -> "LightningModule":
    """Load a trained task, ready to use: ``zoo.load("clip_cn_vit-b-16.pt").encode_text(["红裙"])``.

    Args:
        path: A checkpoint file of this zoo, a run's folder (its best checkpoint) or an experiment's
            (``runs/clip_demo``: its newest run); a ``.pt`` of CN-CLIP; a ``.ckpt`` of taming-transformers' VQGAN; a
            dual encoder of transformers (Chinese CLIP, SigLIP, MetaCLIP 2, AltCLIP, CLIP) or an embedder
            (Qwen3-VL-Embedding), in a folder or by its name on the Hugging Face hub
            (``"OFA-Sys/chinese-clip-vit-base-patch16"``); a folder that ``export`` wrote. The architecture of
            published weights follows from them.
        device: Where the task goes.

    Returns:
        The task, in evaluation mode, without gradients; with the averaged weights where the run kept some (``EMA``).

    Raises:
        UserError: There is no such file, it is damaged or holds code, or its weights are of no task of this zoo.
    """
    checkpoint, _ = _read(path)
    if "task" not in checkpoint:
        raise UserError(f"{path}: it does not say which task it is of: not a checkpoint of this zoo")
    kind = task_class(checkpoint, str(path))
    checkpoint = _plain(kind, checkpoint)
    try:
        task = _build(kind, checkpoint["hyper_parameters"], path)
    except UserError as error:
        missing = [module for module in checkpoint.get("imports", ()) if module not in sys.modules]
        if not missing:
            raise
        fix = f"It needs the module {missing[0]!r}: import it first; on the command line: --imports {missing[0]}"
        raise UserError(f"{str(error).rstrip('.')}. {fix}") from None
    load_strictly(task, checkpoint["state_dict"], str(path))
    task.on_load_checkpoint(checkpoint)
    return task.to(device).eval().requires_grad_(False)


def _build(kind: Any, options: dict[str, Any], path: str | Path) -> "LightningModule":
    """Build a task of the options that a checkpoint keeps."""
    parameters = inspect.signature(kind).parameters.values()
    lacking = [p.name for p in parameters if p.default is p.empty and p.name not in options]
    if lacking:  # a checkpoint keeps names, never modules
        raise UserError(
            f"{path}: its {lacking[0]} was a module built in Python, which a checkpoint does not hold. Load it with"
            f" zoo.{kind.__name__}.load_from_checkpoint(path, {lacking[0]}=module)"
        )
    return kind(**options)


def load_initial_weights(task: nn.Module, path: str | Path) -> str:
    """Start a task from trained weights: all of them, or an error and none.

    Parts of the task fit them to themselves where they know how (``adapt_state``: another image size, adapters).

    Args:
        task: A task of the same shape.
        path: As of ``load``; ``auto:`` before a hub name makes do without where it cannot be had.

    Returns:
        Where the weights came from: experiment, run and file, without the folders above; the published name; or
        ``random (…)`` with the reason.

    Raises:
        UserError: There is no such file, or its weights do not fit.
    """
    name = str(path).removeprefix("auto:")
    try:
        checkpoint, published = _read(name)
        state = _adapted(_plain(task, checkpoint)["state_dict"], task)
        try:
            check_fit(task, state, name)
            if published is not None and published.reference is not None:
                check_computation(task, published.reference, name)
        except UserError as error:
            if published is None:
                raise
            what, _, table = str(error).partition("\n")
            fix = f"They are of {_spell(published.hyper_parameters)}"  # what to type, before the long table
            raise UserError(f"{what.rstrip(':.')}. {fix}\n{table}".rstrip()) from None
    except UserError as error:
        if isinstance(error, NoHubError) and name != str(path):
            return f"random (published weights not available: {error.reason})"
        raise UserError(f"model.init_from {error}") from None
    task.load_state_dict(state)
    return published.name if published else _run_words(name)


def load_part(module: Any, path: str | Path, name: str) -> str:
    """Load the weights of one part of a trained task into a module: all of them, or none.

    Args:
        module: An ``nn.Module`` of the part's shape; weights are fitted to it where it knows how (``adapt_state``).
        path: As of ``load``.
        name: Name of the part in the task that was trained, whichever that is: of the whole, or of a part of it.

    Returns:
        Where the weights came from, as of ``load_initial_weights``.

    Raises:
        UserError: There is no such file, its task has no such part, or the weights do not fit.
    """
    checkpoint, published = _read(path)
    weights = _plain(_known_task(checkpoint.get("task")), checkpoint)["state_dict"]
    place = re.compile(rf"(?:\w+\.)?{name}\.(.*)")
    found = {place.fullmatch(key): value for key, value in weights.items()}
    state = {match[1]: value for match, value in found.items() if match}
    if not state:
        parts = ", ".join(sorted({key.partition(".")[0] for key in weights}))
        raise UserError(
            f"{path}: it is of {checkpoint.get('task', 'an unnamed task')}, which has no {name}, but {parts}. Give a"
            " checkpoint of a task that has one"
        )
    load_strictly(module, _adapted(state, module), str(path))
    return published.name if published else _run_words(path)


def part_of_run(module: Any, pretrained: bool | str, name: str) -> str | None:
    """Load the weights of one part of a task that this zoo trained, where ``pretrained`` is one; see ``load_part``.

    Args:
        module: As of ``load_part``.
        pretrained: A run's or an experiment's folder, a ``.ckpt`` of a task; or what ``load_pretrained`` takes.
        name: As of ``load_part``.

    Returns:
        As ``load_part``; None where it is no such folder or file, and nothing was loaded.

    Raises:
        UserError: As ``load_part``.
    """
    try:
        path = _trained_task(Path(expanded(str(pretrained))))
        return None if path is None else load_part(module, path, name)
    except UserError as error:
        raise UserError(f"pretrained {error}") from None


def _trained_task(place: Path) -> Path | None:
    """The checkpoint of a task or the run that a path means; None: it is something else.

    Raises:
        UserError: It looks like an experiment's folder, and is not there.
    """
    if place.is_dir():
        run = newest_of_experiment(place) or place
        return run if (run / "checkpoints").is_dir() else None
    if not place.is_file():
        newest_run(place)
    elif place.suffix == ".ckpt":
        contents = read_torch(place)
        return place if isinstance(contents, dict) and "task" in contents else None
    return None


def task_keys(task: nn.Module | type[nn.Module]) -> dict[str, Any]:
    """What a task writes into its checkpoints, by which ``load`` finds it: format, name and package."""
    kind = task if isinstance(task, type) else type(task)
    package = kind.__module__.partition(".")[0]
    return {"zoo_format": FORMAT, "task": f"zoo.tasks.{kind.__name__}", "task_package": package}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's contents; nothing in it is executed.

    Raises:
        UserError: There is no such file, it is damaged, holds more than weights and plain data, or is of another
            format.
    """
    return _checked(read_torch(path), path)


def _checked(contents: Any, path: str | Path) -> dict[str, Any]:
    """A checkpoint's contents, unless they are of something else or written by another zoo."""
    if not isinstance(contents, dict) or not isinstance(contents.get("state_dict"), dict):
        raise UserError(
            f"{path}: it has no 'state_dict': neither a checkpoint of this zoo nor published weights that it reads"
        )
    found = contents.get("zoo_format", 1)
    if "task" in contents and found != FORMAT:
        age = "a later" if isinstance(found, int) and found > FORMAT else "an earlier"
        raise UserError(
            f"{path}: it was written by {age} zoo, in format {found}, and this one reads format {FORMAT}. Load it with"
            " the zoo that wrote it, or train it again"
        )
    return contents


def _run_words(path: str | Path) -> str:
    """Experiment, run and file of a checkpoint, without the folders above."""
    file = _own_file(Path(newest_run(path))).resolve()
    run = run_of(file)
    return str(file.relative_to(run.parent.parent)) if run else "/".join(file.parts[-4:])


def checkpoint_file(path: str | Path) -> Path | None:
    """The file of a run, an experiment or a checkpoint of this zoo; None: it is something else."""
    file = _own_file(Path(newest_run(path)))
    return file if file.is_file() else None


def _own_file(path: Path) -> Path:
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def _read(path: str | Path) -> tuple[dict[str, Any], Published | None]:
    """Whatever ``load`` takes, as a checkpoint of this zoo; and what it was before, if others published it."""
    if not str(path):
        raise UserError("'' came for a checkpoint: give a .ckpt, a run's folder, or published weights")
    path = newest_run(path)
    place = Path(path)
    if not place.exists() and not _is_hub_name(str(path)):
        raise UserError(f"{path}: there is no such checkpoint. Give a .ckpt, a run's folder, or published weights")
    if place.is_file() and place.suffix in (".json", ".safetensors"):
        raise UserError(f"{path}: this is no checkpoint. Give a .ckpt or .pt file, or the folder that it lies in")
    if (place / "checkpoints").is_dir():
        return _averaged(read_checkpoint(checkpoint_of_run(place, CHECKPOINTS["best"], str(path)))), None
    if (place / EXPORTED).is_file():
        from zoo.core.export import read_exported

        return _checked(read_exported(place), place), None
    contents, fault = None, None
    if place.is_file():
        try:
            contents = read_torch(place)
        except UserError as error:
            fault = error
    if not isinstance(contents, dict) or "task" not in contents:
        published = _read_published(str(path), contents)
        if published is not None:
            return published.checkpoint, published
    if fault is not None:
        raise fault
    return _averaged(_checked(contents, path)), None


def _read_published(source: str, contents: Any) -> Published | None:
    """What the first of the tasks' readers makes of a source.

    Raises:
        UserError: None can read it; the first that finds fault with it says why.
    """
    errors: list[UserError] = []
    for place in (place for spec in find_specs() for place in spec.published):
        try:
            published = load_object(place)(source, contents)
        except UserError as error:
            errors.append(error)
        else:
            if published is not None:
                return published
    if errors:
        raise errors[0]
    return None


def _averaged(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with the averaged weights in place of the raw ones, where the ``EMA`` callback kept some."""
    kept = checkpoint.get("callbacks", {}).get("EMA", {})
    raw = checkpoint["state_dict"]
    averages = {name: value.to(raw[name].dtype) for name, value in kept.get("averages", {}).items()}
    return {**checkpoint, "state_dict": {**raw, **averages}}


def _plain(task: Any, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as its task wants it read: with adapters added to the weights that they adapt, say."""
    return task.plain_checkpoint(checkpoint) if hasattr(task, "plain_checkpoint") else checkpoint


def _is_hub_name(path: str) -> bool:
    name = path.removeprefix(MODELSCOPE)
    return bool(HUB_NAME.fullmatch(name)) and Path(path).suffix not in FILE_ENDINGS and not Path(path).exists()


def task_class(checkpoint: dict[str, Any], source: str) -> Any:
    """Find the task of a checkpoint by its name, among those that specs tell of; nothing that it names is imported.

    Raises:
        UserError: There is none of that name.
    """
    name = checkpoint["task"]
    known = _known_task(name)
    if known is not None:
        return known
    package = checkpoint.get("task_package", "zoo")
    where = "" if package == "zoo" else f": it is defined in {package!r}, which is not installed or registers no task"
    raise UserError(f"{source}: it is of the task {name!r}, which this zoo does not have{where}")


def _known_task(name: Any) -> Any:
    places = [spec.task for spec in find_specs() if name == f"zoo.tasks.{spec.task.rpartition(':')[2]}"]
    return load_object(places[0]) if places else None


def _spell(arguments: dict[str, Any]) -> str:
    words = {f"--model.{name}": value for name, value in arguments.items() if name != "init_from"}
    for name, value in list(words.items()):
        if isinstance(value, dict):
            words |= {f"{name}.{option}": setting for option, setting in words.pop(name).items()}
    return " ".join(f"{name} {str(value).lower()}" for name, value in words.items())


def check_computation(task: nn.Module, reference: nn.Module, source: str) -> None:
    """See that a task computes what published weights were trained for, where shapes do not tell it.

    Raises:
        UserError: An activation, a number of heads or an epsilon differs.
    """
    own, wanted = _computation(task), _computation(reference)
    differing = [place for place in own if place in wanted and own[place] != wanted[place]]
    if differing:
        place = differing[0]
        raise UserError(
            f"{source}: these weights fit this model by their shapes alone; nothing was loaded: {place} is {own[place]}"
            f" here and {wanted[place]} where they come from."
        )


def _computation(task: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in task.named_modules():
        if "act" in name.rpartition(".")[2]:
            found[name] = type(part).__name__
        for number in ("num_heads", "num_attention_heads", "eps"):
            if hasattr(part, number):
                found[f"{name}.{number}"] = getattr(part, number)
    return found


def _adapted(state: dict[str, Tensor], task: nn.Module) -> dict[str, Tensor]:
    """A state dict whose parts are fitted to those of a task that know how (``adapt_state``)."""
    for name, part in task.named_modules():
        adapt: Any = getattr(part, "adapt_state", None)
        if adapt is not None:
            prefix = f"{name}." if name else ""
            inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            rest = {key: value for key, value in state.items() if not key.startswith(prefix)}
            state = rest | {f"{prefix}{key}": value for key, value in adapt(inner).items()}
    return state
