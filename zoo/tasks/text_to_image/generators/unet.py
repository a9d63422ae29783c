"""Flow UNets: convolutions at falling and rising sizes, with attention to the text."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from zoo.errors import invalid
from zoo.tasks.text_to_image.generators.diffusion import RectifiedFlow, assemble
from zoo.tasks.text_to_image.registry import GENERATORS


class UNet(nn.Module):
    """Convolutions at falling and rising sizes: diffusers' conditional UNet.

    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2021), arXiv:2112.10752. The mean of
    the text's sequence is told to every block beside the time; the blocks of the smallest size attend to the sequence
    itself. A convolution is told the same at every place, and learns slowly what belongs where: maps that are a linear
    function of the text's mean, beside the states, tell it that from the first step. What it gives begins as 0.

    Args:
        channels: Of the states.
        side: Of the states.
        widths: Channels at each size, multiples of 32; each size is half the one before.
        text_width: Of the text tower's sequence.
        patch_size: Side of the squares of states that are one place for it (Shi et al., 2016, arXiv:1609.05158).
        text_maps: How many maps of the text stand beside the states.
    """

    def __init__(
        self,
        *,
        channels: int,
        side: int,
        widths: Sequence[int],
        text_width: int,
        patch_size: int = 1,
        text_maps: int = 0,
    ) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.patch_size = patch_size
        channels, side = channels * patch_size**2, side // patch_size
        self.map_text = None
        if text_maps:
            self.map_text = nn.Sequential(
                nn.Linear(text_width, text_maps * side**2), nn.Unflatten(1, (text_maps, side, side))
            )

        attends = [*[False] * (len(widths) - 1), True]
        model: Any = UNet2DConditionModel(
            sample_size=side,
            in_channels=channels + text_maps,
            out_channels=channels,
            block_out_channels=tuple(widths),
            layers_per_block=1,
            down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
            cross_attention_dim=text_width,
            attention_head_dim=tuple(max(1, width // 64) for width in widths),  # diffusers' name for their number
            norm_num_groups=16,
            class_embed_type="projection",  # beside the time, the mean over the text's tokens
            projection_class_embeddings_input_dim=text_width,
        )
        self.model = model.to(memory_format=torch.channels_last)
        nn.init.zeros_(self.model.conv_out.weight)
        nn.init.zeros_(self.model.conv_out.bias)

    def forward(self, state: Tensor, time: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """The velocity or image ``[B, C, S, S]`` of states at times ``[B]`` in [0, 1], given texts ``[B, N, W]``."""
        weights = mask.unsqueeze(-1).to(text.dtype)  # [B, N, 1]
        mean = (text * weights).sum(dim=1) / weights.sum(dim=1)
        state = pixel_unshuffle(state, self.patch_size)
        if self.map_text is not None:
            state = torch.cat([state, self.map_text(mean).to(state.dtype)], dim=1)
        foretold = self.model(
            state.contiguous(memory_format=torch.channels_last),
            timestep=1000 * time,
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            class_labels=mean,  # diffusers' name
            return_dict=False,
        )[0]
        return pixel_shuffle(foretold, self.patch_size)


@GENERATORS.register
def unet_tiny(
    *,
    image_size: int = 32,
    widths: tuple[int, ...] = (64, 128, 192),
    patch_size: int = 1,
    text_maps: int = 0,
    image_tokenizer: str | None = None,
    text_tower: str = "bert_tiny_chinese",
    text_tower_options: dict[str, Any] | None = None,
    freeze_text: bool = False,
    time_shift: float = 1.0,
    prediction: str = "velocity",
    sampling: dict[str, Any] | None = None,
) -> RectifiedFlow:
    """Build a flow UNet of 10 M parameters and its text tower's: in few steps it learns more than a transformer.

    Args:
        image_size: Side of the square images in pixels. States halve for each width but the first.
        widths: Channels at each size, multiples of 32.
        patch_size: Side of the squares of pixels, or latents, that are one place at the first size, at least 1.
        text_maps: How many maps of the text, linear functions of its mean, stand beside the states, at least 0: they
            cost little and tell where things belong, which convolutions are slow to learn.
        image_tokenizer: One of latents, ``diffusers:FOLDER``, which the network learns; None: it learns pixels.
        text_tower: A text tower's name; the network attends to its sequence.
        text_tower_options: Options of its builder.
        freeze_text: Whether the text tower stays as it is.
        time_shift: How far the times of training and sampling are moved towards noise; 1: not at all.
        prediction: What the network gives, the ``velocity`` or, for large patches, the ``image`` that it leads to.
        sampling: How images are sampled: ``solver``, ``steps``, ``guidance``, ``guidance_until``.

    Raises:
        UserError: An option is out of its range.
    """
    if not widths or any(width < 32 or width % 32 for width in widths):
        raise invalid("widths", list(widths), "give multiples of 32, one for each size")
    if text_maps < 0:
        raise invalid("text_maps", text_maps, "give 0 (none) or more, such as 16")
    return assemble(
        partial(UNet, widths=widths, patch_size=patch_size, text_maps=text_maps),
        image_size=image_size,
        multiple=patch_size * 2 ** (len(widths) - 1),
        image_tokenizer=image_tokenizer,
        text_tower=text_tower,
        text_tower_options=text_tower_options,
        freeze_text=freeze_text,
        time_shift=time_shift,
        prediction=prediction,
        sampling=sampling,
    )
