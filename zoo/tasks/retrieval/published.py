"""Published whole models of retrieval, as ``zoo.load`` reads them: CN-CLIP's files and transformers' folders."""

from pathlib import Path
from typing import Any

import torch

from zoo.core.checkpoint import Published
from zoo.core.weights import read_torch
from zoo.tasks.retrieval import cn_clip, huggingface
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


def read_chinese_clip(source: str, contents: Any) -> Published | None:
    """Read a ``ChineseCLIPModel`` of transformers, in a folder or on the hub; see ``Published``."""
    if Path(source).is_file():
        return None
    configuration, weights = huggingface.read(source)
    return _published(huggingface.to_cn_clip(weights), source, configuration)


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
        name=Path(source).resolve().name if Path(source).exists() else source,
        reference=reference,
    )
