"""Published whole generators, as ``zoo.load`` reads them: pipelines of diffusers."""

from pathlib import Path
from typing import Any

import torch

from zoo.core.checkpoint import Published
from zoo.core.hubs import UnavailableError, hub_file
from zoo.errors import UserError
from zoo.models.pipelines import INDEX
from zoo.tasks.text_to_image.task import TextToImageTask


def read_diffusers(source: str, contents: Any) -> Published | None:
    """Read a pipeline of diffusers, in a folder or on the hub; see ``Published``."""
    place = Path(source)
    if place.is_file():
        return None
    try:
        index = place / INDEX if place.is_dir() else hub_file(source, [INDEX])
    except UnavailableError:
        return None
    if not index.is_file():
        return None
    arguments = {"generator": f"diffusers:{source}"}
    with torch.device("meta"):
        task = TextToImageTask(**arguments)  # type: ignore[arg-type]
    try:
        weights = task.generator.read_published(source)
    except UnavailableError as error:
        raise UserError(f"{source}: its weights cannot be had ({error})") from None
    return Published(
        task=TextToImageTask,
        hyper_parameters=arguments,
        state_dict={f"generator.{name}": value for name, value in weights.items()},
        name=place.resolve().name if place.is_dir() else source,
    )
