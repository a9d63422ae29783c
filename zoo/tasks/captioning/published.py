"""Published whole captioners, as ``zoo.load`` reads them: vision-language models of transformers."""

import json
from pathlib import Path
from typing import Any

import torch

from zoo.core.checkpoint import Published
from zoo.core.hubs import UnavailableError, hub_file
from zoo.errors import UserError
from zoo.models.hub import read_model
from zoo.tasks.captioning.captioners.vlm import FAMILIES
from zoo.tasks.captioning.task import CaptioningTask

CONFIGURATION = "config.json"


def read_vlm(source: str, contents: Any) -> Published | None:
    """Read a vision-language model of transformers, in a folder or on the hub; see ``Published``."""
    place = Path(source)
    try:
        file = place / CONFIGURATION if place.exists() else hub_file(source, [CONFIGURATION])
        family = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (UnavailableError, OSError, ValueError, AttributeError):  # it is none, or another reader says what is wrong
        return None
    if family not in FAMILIES:
        return None
    arguments = {"captioner": f"vlm:{source}"}
    with torch.device("meta"):
        language: Any = CaptioningTask(**arguments).captioner.language  # type: ignore[arg-type]
    try:
        _, weights, _ = read_model(type(language.model), language.model, source)
    except UnavailableError as error:
        raise UserError(f"{source}: its weights cannot be had ({error})") from None
    return Published(
        task=CaptioningTask,
        hyper_parameters=arguments,
        state_dict={f"captioner.language.model.{name}": value for name, value in weights.items()},
        name=place.resolve().name if place.exists() else source,
    )
