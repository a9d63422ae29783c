"""Trained tasks in: the zoo's own checkpoints and published ones, checked before a single weight is changed."""

import importlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.core.runs import CHECKPOINTS, newest_checkpoint
from zoo.core.weights import NoHubError, check_fit, load_strictly, read_torch
from zoo.errors import UserError
from zoo.models.lora import merged
from zoo.tasks.image_tokenizer import published as taming
from zoo.tasks.retrieval import cn_clip, huggingface

if TYPE_CHECKING:
    from lightning import LightningModule

PUBLISHED_TASK = "zoo.tasks.RetrievalTask"
TOKENIZER_TASK = "zoo.tasks.ImageTokenizerTask"
HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
FILE_ENDINGS = {".ckpt", ".pt", ".pth", ".bin", ".safetensors"}  # of paths that are no hub names


@dataclass(frozen=True)
class _Source:
    """A checkpoint of this zoo, or published weights in its form."""

    checkpoint: dict[str, Any]
    published: str | None = None  # the name of published weights, for people
    reference: Any = None  # the task that published weights are of, on the meta device


def load(path: str | Path, *, device: str | torch.device = "cpu") -> "LightningModule":
    """Load a trained task, ready to use: ``zoo.load("clip_cn_vit-b-16.pt").encode_text(["红裙"])``.

    Args:
        path: A checkpoint file of this zoo, a run's folder (its best checkpoint) or an experiment's
            (``runs/clip_demo``: its newest run); a ``.pt`` of CN-CLIP; a ``.ckpt`` of taming-transformers' VQGAN; a
            ``ChineseCLIPModel``, in a folder or by its name on the Hugging Face hub
            (``"OFA-Sys/chinese-clip-vit-base-patch16"``). The architecture of published weights follows from them.
        device: Where the task goes.

    Returns:
        The task, in evaluation mode, without gradients; with the averaged weights where the run kept some (``EMA``).

    Raises:
        UserError: There is no such file, it is damaged or holds code, or its weights are of no task of this zoo.
    """
    checkpoint = _read(path).checkpoint
    if "task" not in checkpoint:
        raise UserError(f"{path}: it does not say which task it is of: not a checkpoint of this zoo")
    kind, options = task_class(checkpoint["task"], str(path)), checkpoint["hyper_parameters"]
    parameters = inspect.signature(kind).parameters.values()
    lacking = [p.name for p in parameters if p.default is p.empty and p.name not in options]
    if lacking:  # a checkpoint keeps names, never modules
        raise UserError(
            f"{path}: its {lacking[0]} was a module built in Python, which a checkpoint does not hold. Load it with"
            f" zoo.{kind.__name__}.load_from_checkpoint(path, {lacking[0]}=module)"
        )
    task = kind(**options)
    load_strictly(task, checkpoint["state_dict"], str(path))
    task.on_load_checkpoint(checkpoint)
    return task.to(device).eval().requires_grad_(False)


def load_initial_weights(task: nn.Module, path: str | Path) -> str:
    """Start a task from trained weights: all of them, or an error and none.

    Position embeddings of a vision transformer of another size are resized as CN-CLIP does.

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
        source = _read(name)
        state = _adapted(source.checkpoint["state_dict"], task)
        try:
            check_fit(task, state, name)
            if source.reference is not None:
                _check_computation(task, source.reference, name)
        except UserError as error:
            if not source.published:
                raise
            what, _, table = str(error).partition("\n")
            fix = f"They are of {_spell(source.checkpoint['hyper_parameters'])}"  # what to type, before the long table
            raise UserError(f"{what.rstrip(':.')}. {fix}\n{table}".rstrip()) from None
    except UserError as error:
        if isinstance(error, NoHubError) and name != str(path):
            return f"random (published weights not available: {error.reason})"
        raise UserError(f"model.init_from {error}") from None
    task.load_state_dict(state)
    return source.published or _run_words(name)


def load_first_stage(stage: Any, path: str | Path) -> str:
    """Load the weights of a trained image tokenizer into a generator's first stage: all of them, or none.

    Args:
        stage: A ``VQGAN``.
        path: As of ``load``.

    Returns:
        Where the weights came from, as of ``load_initial_weights``.

    Raises:
        UserError: There is no such file, it is of another task, or its weights do not fit.
    """
    source = _read(path)
    checkpoint = source.checkpoint
    if checkpoint.get("task") != TOKENIZER_TASK:
        raise UserError(f"{path}: it is of {checkpoint.get('task')}, and a first stage comes of {TOKENIZER_TASK}")
    prefix = "first_stage."
    state = {name.removeprefix(prefix): x for name, x in checkpoint["state_dict"].items() if name.startswith(prefix)}
    load_strictly(stage, state, str(path))
    return source.published or _run_words(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's contents; nothing in it is executed.

    Raises:
        UserError: There is no such file, it is damaged, or it holds more than weights and plain data.
    """
    checkpoint = read_torch(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path}: it has no 'state_dict': not a checkpoint of this zoo, nor of CN-CLIP")
    return checkpoint


def newest_run(source: str | Path) -> str | Path:
    """The newest run of an experiment's folder that has a best checkpoint; anything else as it is.

    Raises:
        UserError: It looks like an experiment's folder and no run is there.
    """
    folder = Path(source)
    best = newest_checkpoint(folder.parent, folder.name, CHECKPOINTS["best"]) if folder.is_dir() else None
    if best is not None:
        return best.parent.parent
    if folder.parent.name == "runs" and not (folder / "checkpoints").is_dir():
        raise UserError(
            f"{source}: no run is there. Train it first: python -m zoo fit --config experiments/{folder.name}.yaml"
        )
    return source


def _run_words(path: str | Path) -> str:
    """Experiment, run and file of a checkpoint, without the folders above."""
    return "/".join(_own_file(Path(newest_run(path))).resolve().parts[-4:])


def _own_file(path: Path) -> Path:
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def _read(path: str | Path) -> _Source:
    """Whatever ``load`` takes, as a checkpoint of this zoo."""
    if not str(path):
        raise UserError("'' came for a checkpoint: give a .ckpt, a run's folder, or published weights")
    path = newest_run(path)
    place = Path(path)
    if (place.is_dir() and not (place / "checkpoints").is_dir()) or _is_hub_name(str(path)):
        configuration, weights = huggingface.read(str(path))
        return _published(huggingface.to_cn_clip(weights), str(path), configuration)
    if not place.exists():
        raise UserError(f"{path}: there is no such checkpoint. Give a .ckpt, a run's folder, or published weights")
    if place.is_file() and place.suffix in (".json", ".safetensors"):
        raise UserError(f"{path}: this is no checkpoint. Give a .ckpt or .pt file, or the folder of a ChineseCLIPModel")
    codes = taming.read_taming(place) if place.is_file() else None
    if codes is not None:
        return _published_vqgan(codes, place)
    checkpoint = read_checkpoint(_own_file(place))
    if cn_clip.is_cn_clip(checkpoint["state_dict"]):
        return _published(checkpoint["state_dict"], str(path))
    return _Source(_plain(_averaged(checkpoint)))


def _averaged(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with the averaged weights in place of the raw ones, where the ``EMA`` callback kept some."""
    kept = checkpoint.get("callbacks", {}).get("EMA", {})
    raw = checkpoint["state_dict"]
    averages = {name: value.to(raw[name].dtype) for name, value in kept.get("averages", {}).items()}
    return {**checkpoint, "state_dict": {**raw, **averages}}


def _plain(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with its adapters added to the weights that they adapt, where it was trained with some."""
    options = checkpoint.get("hyper_parameters", {})
    if not options.get("lora_rank"):
        return checkpoint
    state = merged(checkpoint["state_dict"], rank=options["lora_rank"], alpha=options["lora_alpha"])
    return {**checkpoint, "state_dict": state, "hyper_parameters": {**options, "lora_rank": 0}}


def _is_hub_name(path: str) -> bool:
    return bool(HUB_NAME.fullmatch(path)) and Path(path).suffix not in FILE_ENDINGS and not Path(path).exists()


def _published(weights: dict[str, Any], source: str, configuration: Any = None) -> _Source:
    """Weights under CN-CLIP's names as a checkpoint of this zoo."""
    state = cn_clip.plain(weights, source)
    arguments = cn_clip.architecture(state, source)
    with torch.device("meta"):
        reference = task_class(PUBLISHED_TASK, source)(**arguments)
    if configuration is not None:
        huggingface.check_computation(configuration, reference, source)
    name = source if _is_hub_name(source) else Path(source).resolve().name
    checkpoint = {
        "task": PUBLISHED_TASK,
        "hyper_parameters": {**arguments, "init_from": source},  # where somebody trains the task on, too
        "state_dict": cn_clip.to_zoo(state, reference.image_tower.model),
        "weights": {"init_from": name},
        "global_step": 0,
    }
    return _Source(checkpoint, published=name, reference=reference)


def _published_vqgan(state: dict[str, Any], path: Path) -> _Source:
    """Weights of taming-transformers as a checkpoint of this zoo; what the file lacks of a discriminator is random."""
    arguments = taming.architecture(state, str(path))
    task = task_class(TOKENIZER_TASK, str(path))(**arguments)
    task.first_stage.to(device="meta")
    weights = {f"first_stage.{name}": value for name, value in taming.to_zoo(state).items()}
    weights |= {f"discriminator.{name}": value for name, value in taming.discriminator(state).items()}
    weights = {name: value for name, value in task.state_dict().items() if not value.is_meta} | weights
    checkpoint = {
        "task": TOKENIZER_TASK,
        "hyper_parameters": {**arguments, "init_from": str(path)},
        "state_dict": weights,
        "weights": {"init_from": path.name},
        "global_step": 0,
    }
    return _Source(checkpoint, published=path.name)


def task_class(path: Any, source: str) -> Any:
    """The task of a checkpoint, by its path: only the zoo's own, for whatever it names is called.

    Raises:
        UserError: It is none of them.
    """
    module, _, name = str(path).rpartition(".")
    task_class = getattr(importlib.import_module("zoo.tasks"), name, None) if module == "zoo.tasks" else None
    if not isinstance(task_class, type):
        raise UserError(f"{source}: it is of the task {path!r}, which this zoo does not have")
    return task_class


def _spell(arguments: dict[str, Any]) -> str:
    words = {f"--model.{name}": value for name, value in arguments.items() if name != "init_from"}
    for name, value in list(words.items()):
        if isinstance(value, dict):
            words |= {f"{name}.{option}": setting for option, setting in words.pop(name).items()}
    return " ".join(f"{name} {str(value).lower()}" for name, value in words.items())


def _check_computation(task: nn.Module, reference: nn.Module, source: str) -> None:
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
