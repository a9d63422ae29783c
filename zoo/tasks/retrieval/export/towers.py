"""Which towers a format can hold."""

from typing import Any

import torch
from torch import nn

from zoo.core.checkpoint import check_computation
from zoo.errors import UserError
from zoo.models.half import Half
from zoo.models.image import TimmImageTower
from zoo.models.text import TransformersTextTower
from zoo.tasks.retrieval import cn_clip
from zoo.tasks.retrieval.task import RetrievalTask


def check_chinese_clip(task: RetrievalTask) -> dict[str, Any]:
    """See that a task's towers are Chinese CLIP's, of whatever depth and image size; give the arguments they have.

    Raises:
        UserError: They are not.
    """
    check_towers(task)
    if not isinstance(task.text_tower, TransformersTextTower) or not task.text_tower.pool_first:
        raise UserError("The text tower is no Chinese BERT whose first token stands for the text")
    if not hasattr(task.loss, "logit_scale"):
        raise UserError("The loss has no logit_scale, which Chinese CLIP's files hold")
    try:
        state = cn_clip.plain(cn_clip.from_zoo(task.state_dict()), "This task")
        arguments = cn_clip.architecture(state, "This task")
        with torch.device("meta"):
            reference = RetrievalTask(**arguments)
        check_computation(task, reference, "This task")
    except UserError as error:
        what = str(error).partition("\n")[0].rstrip(": ")
        raise UserError(f"The towers are not Chinese CLIP's ({what})") from None
    return arguments


def check_towers(task: RetrievalTask) -> None:
    """See that the towers are timm's and transformers'.

    Raises:
        UserError: They are another package's.
    """
    for tower in (task.image_tower, task.text_tower):
        if isinstance(tower, Half):
            raise UserError(f"A tower is of a published model, {tower.published}, which leaves as a whole")
    if not isinstance(task.image_tower, TimmImageTower) or not isinstance(task.text_tower, TransformersTextTower):
        kinds = f"{type(task.image_tower).__name__} and {type(task.text_tower).__name__}"
        raise UserError(f"The towers are {kinds}; this format takes timm's and transformers'")
    if not isinstance(task.image_projection, nn.Linear):
        raise UserError("The model has no projections (embedding_dim: null), which this format holds")


def check_halves(task: RetrievalTask) -> None:
    """See that two towers are of one published model, with nothing behind them.

    Raises:
        UserError: They are not.
    """
    if task.image_tower.published != task.text_tower.published:
        raise UserError("The towers are of two published models")
    if not isinstance(task.image_projection, nn.Identity):
        raise UserError("There is a projection behind the published model (embedding_dim), which it does not hold")
