"""Published whole models of retrieval, as ``zoo.load`` reads them: CN-CLIP's files and transformers' folders."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, ChineseCLIPConfig

from zoo.core.checkpoint import Published
from zoo.core.hubs import UnavailableError
from zoo.core.weights import check_fit, read_torch
from zoo.errors import UserError
from zoo.models.dual import dual_configuration
from zoo.models.hub import read_model
from zoo.models.open_clip import CONFIGURATION as OPEN_CLIP
from zoo.models.open_clip import local_copy, read_whole
from zoo.models.vlm import QWEN, family_of, is_embedder, published_json
from zoo.tasks.retrieval import cn_clip, huggingface
from zoo.tasks.retrieval.registry import LOSSES
from zoo.tasks.retrieval.task import RetrievalTask


def read_cn_clip(source: str, contents: Any) -> Published | None:
    """Read a checkpoint of CN-CLIP, or a folder with an exported one; see ``Published``."""
    exported = Path(source) / cn_clip.EXPORTED
    if exported.is_file():
        contents = read_torch(exported)
    state = contents.get("state_dict") if isinstance(contents, dict) else None
    if not isinstance(state, dict) or not cn_clip.is_cn_clip(state):
        return None
    return _published(state, source)


def read_transformers(source: str, contents: Any) -> Published | None:
    """Read a dual encoder of transformers, in a folder or on the hub; see ``Published``."""
    folder = Path(source)
    if folder.is_file() or (folder / OPEN_CLIP).is_file() and not (folder / huggingface.CONFIGURATION).is_file():
        return None
    configuration, weights = huggingface.read(source)
    if configuration["model_type"] == "chinese_clip":
        return _published(huggingface.to_cn_clip(weights), source, ChineseCLIPConfig.from_dict(configuration))
    config = dual_configuration(source)[0]
    with torch.device("meta"):
        whole = AutoModel.from_config(config)
    try:
        _, weights, _ = read_model(AutoModel, whole, source)
    except UnavailableError as error:
        raise UserError(f"{source}: its weights cannot be had ({error})") from None
    check_fit(whole, weights, source)
    return _two_halves("dual", source, dict(_dual_weight(name, value) for name, value in weights.items()))


def read_embedder(source: str, contents: Any) -> Published | None:
    """Read an embedder that is a vision-language model of transformers, in a folder or on the hub; see ``Published``.

    It is one where sentence-transformers' ``modules.json`` lies beside it, whose prompts are the instructions.
    """
    if family_of(source) not in QWEN or not is_embedder(source):
        return None
    arguments: dict[str, Any] = {f"{side}_tower": f"vlm:{source}" for side in ("image", "text")}
    prompts = published_json(source, "config_sentence_transformers.json", dict).get("prompts")
    for side, name in (("image", "document"), ("text", "query")):
        if isinstance(prompts, dict) and prompts.get(name):
            arguments[f"{side}_tower_options"] = {"instruction": prompts[name]}
    arguments |= {"embedding_dim": None}
    with torch.device("meta"):
        reference = RetrievalTask(**arguments)
    network = reference.image_tower.model
    try:
        _, weights, _ = read_model(AutoModel, network, source)
    except UnavailableError as error:
        raise UserError(f"{source}: its weights cannot be had ({error})") from None
    check_fit(network, weights, source)
    scale = getattr(network.config, "logit_scale_init_value", LOSSES.build("softmax").logit_scale)  # ours has it
    state = {f"image_tower.model.{name}": value for name, value in weights.items()}
    return Published(
        task=RetrievalTask,
        hyper_parameters={**arguments, "init_from": source},
        state_dict=state | {"loss.logit_scale": torch.as_tensor(scale, dtype=torch.float32).detach()},
        name=_name(source),
        reference=reference,
    )


def read_open_clip(source: str, contents: Any) -> Published | None:
    """Read a dual encoder of open_clip, in a folder or on the hub; see ``Published``."""
    if Path(source).is_file():
        return None
    try:
        local_copy(source)
    except UnavailableError:
        return None
    try:
        weights = read_whole(source).state_dict()
    except UnavailableError as error:
        raise UserError(f"{source}: its weights cannot be had ({error})") from None
    return _two_halves("open_clip", source, dict(_open_clip_weight(name, value) for name, value in weights.items()))


def _two_halves(family: str, source: str, state: dict[str, Tensor]) -> Published:
    """A dual encoder whose halves are towers, with weights under a task's names."""
    arguments: dict[str, Any] = {f"{side}_tower": f"{family}:{source}" for side in ("image", "text")}
    arguments |= {"embedding_dim": None, "loss": "sigmoid" if "loss.logit_bias" in state else "softmax"}
    with torch.device("meta"):
        reference = RetrievalTask(**arguments)
    return Published(
        task=RetrievalTask,
        hyper_parameters={**arguments, "init_from": source},
        state_dict=state,
        name=_name(source),
        reference=reference,
    )


def _open_clip_weight(name: str, value: Tensor) -> tuple[str, Tensor]:
    """A weight of open_clip's as a task has it."""
    if name.startswith("logit_"):
        return f"loss.{name}", value.float().reshape(())
    side, _, rest = name.partition(".")
    return f"{'image' if side == 'visual' else 'text'}_tower.model.{rest}", value


def _dual_weight(name: str, value: Tensor) -> tuple[str, Tensor]:
    """A weight of a dual encoder as a task has it."""
    if name in ("logit_scale", "logit_bias"):
        return f"loss.{name}", value.float().reshape(())
    side = "image" if name.startswith(("vision_model.", "visual_projection.")) else "text"
    return f"{side}_tower.model.{name}", value.float()


def _name(source: str) -> str:
    """What published weights are called in a run."""
    return Path(source).resolve().name if Path(source).exists() else source


def _published(weights: dict[str, Any], source: str, configuration: Any = None) -> Published:
    """Weights under CN-CLIP's names, with the configuration that they came with, if they did."""
    state = cn_clip.plain(weights, source)
    arguments = cn_clip.architecture(state, source)
    with torch.device("meta"):
        reference = RetrievalTask(**arguments)
    if configuration is not None:
        huggingface.check_computation(configuration, reference, source)
    return Published(
        task=RetrievalTask,
        hyper_parameters={**arguments, "init_from": source},  # where somebody trains the task on, too
        state_dict=cn_clip.to_zoo(state, reference.image_tower.model),
        name=_name(source),
        reference=reference,
    )
