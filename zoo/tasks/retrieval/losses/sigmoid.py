"""The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv:2303.15343)."""

import torch
from torch import Tensor, nn

from zoo.tasks.retrieval.losses.functional import initial_logit_scale, siglip_loss
from zoo.tasks.retrieval.registry import LOSSES


class SigmoidLoss(nn.Module):
    """SigLIP's yes or no of each pair; see ``sigmoid``."""

    sharded = True

    def __init__(self, logit_scale: nn.Parameter, logit_bias: float) -> None:
        super().__init__()
        self.logit_scale = logit_scale
        self.logit_bias = nn.Parameter(torch.tensor(logit_bias))

    def forward(self, images: Tensor, texts: Tensor, *, first_row: int = 0, **ids: Tensor) -> Tensor:
        """Compute the loss of images ``[B, D]`` with all texts ``[N, D]``; see ``siglip_loss``."""
        return siglip_loss(images, texts, self.logit_scale.exp(), self.logit_bias, first_row=first_row, **ids)


@LOSSES.register
def sigmoid(*, temperature: float = 0.1, learn_temperature: bool = True, logit_bias: float = -10.0) -> SigmoidLoss:
    """Build SigLIP's yes or no of each pair.

    Args:
        temperature: Initial temperature, in [0.01, 1]; the logit scale is ln(1 / temperature), kept in [0, ln 100].
        learn_temperature: Whether training moves it.
        logit_bias: Initial value of what is added to the logits; it is learned.

    Raises:
        UserError: The temperature is out of its range.
    """
    return SigmoidLoss(initial_logit_scale(temperature, learn_temperature), logit_bias)
