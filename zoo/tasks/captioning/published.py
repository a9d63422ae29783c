"""Published whole captioners, as ``zoo.load`` reads them: vision-language models of transformers."""

from pathlib import Path
from typing import Any

import torch

from zoo.core.checkpoint import Published
from zoo.core.hubs import UnavailableError
from zoo.errors import UserError
from zoo.models.hub import read_model
from zoo.models.vlm import family_of, is_embedder
from zoo.tasks.captioning.captioners.vlm import FAMILIES
from zoo.tasks.captioning.task import CaptioningTask


def read_vlm(source: str, contents: Any) -> Published | None:
    """Read a vision-language model of transformers, in a folder or on the hub; see ``Published``."""
    if family_of(source) not in FAMILIES or is_embedder(source):
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
        name=Path(source).resolve().name if Path(source).exists() else source,
    )
