"""The softmax loss of CLIP (Radford et al. 2021, arXiv:2103.00020)."""

from torch import Tensor, nn

from zoo.tasks.retrieval.losses.functional import check_share, clip_loss, initial_logit_scale
from zoo.tasks.retrieval.registry import LOSSES


class SoftmaxLoss(nn.Module):
    """CLIP's cross-entropy in both directions; see ``softmax``."""

    sharded = False

    def __init__(self, logit_scale: nn.Parameter, text_to_image_weight: float, label_smoothing: float) -> None:
        super().__init__()
        self.logit_scale = logit_scale
        self.text_to_image_weight = text_to_image_weight
        self.label_smoothing = label_smoothing

    def forward(self, images: Tensor, texts: Tensor, **ids: Tensor) -> Tensor:
        """Compute the loss of pairs ``[B, D]``; see ``clip_loss``."""
        return clip_loss(
            images,
            texts,
            self.logit_scale.exp(),
            text_to_image_weight=self.text_to_image_weight,
            label_smoothing=self.label_smoothing,
            **ids,
        )


@LOSSES.register
def softmax(
    *,
    temperature: float = 0.07,
    learn_temperature: bool = True,
    text_to_image_weight: float = 0.5,
    label_smoothing: float = 0.0,
) -> SoftmaxLoss:
    """Build CLIP's cross-entropy over all pairs of the batch.

    Args:
        temperature: Initial temperature, in [0.01, 1]; the logit scale is ln(1 / temperature), kept in [0, ln 100].
        learn_temperature: Whether training moves it.
        text_to_image_weight: Share of the text-to-image direction, the one that recall measures, in [0, 1].
        label_smoothing: Share of the target that is spread over all images or texts, in [0, 1).

    Raises:
        UserError: A number is out of its range.
    """
    check_share("text_to_image_weight", text_to_image_weight, 0 <= text_to_image_weight <= 1, "from 0 to 1")
    check_share("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "from 0 to below 1")
    scale = initial_logit_scale(temperature, learn_temperature)
    return SoftmaxLoss(scale, text_to_image_weight, label_smoothing)
