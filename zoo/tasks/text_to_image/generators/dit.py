"""Flow transformers: attention between patches and to the text."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from zoo.errors import UserError
from zoo.tasks.text_to_image.generators.diffusion import RectifiedFlow, assemble
from zoo.tasks.text_to_image.registry import GENERATORS


class Transformer(nn.Module):
    """Patches as tokens, self-attention and attention to the text, all modulated by the time: diffusers' PixArt.

    Chen et al., "PixArt-α" (2023), arXiv:2310.00426. Begun as adaLN-Zero (Peebles and Xie, "DiT", 2022,
    arXiv:2212.09748), which diffusers does not: every block is the identity, and what it gives is 0.

    Args:
        channels: Of the states.
        side: Of the states, a multiple of ``patch_size``.
        patch_size: Side of the square that becomes one token.
        num_layers: Blocks.
        num_heads: Attention heads, each 64 wide.
        text_width: Of the text tower's sequence.
    """

    def __init__(
        self, *, channels: int, side: int, patch_size: int, num_layers: int, num_heads: int, text_width: int
    ) -> None:
        super().__init__()
        from diffusers import PixArtTransformer2DModel

        model: Any = PixArtTransformer2DModel(
            num_attention_heads=num_heads,
            attention_head_dim=64,
            in_channels=channels,
            out_channels=channels,
            num_layers=num_layers,
            cross_attention_dim=64 * num_heads,
            caption_channels=text_width,
            sample_size=side,
            patch_size=patch_size,
            use_additional_conditions=False,
        )
        zero = [
            model.adaln_single.linear,
            model.proj_out,
            *(block.attn2.to_out[0] for block in model.transformer_blocks),
        ]
        for layer in zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for part in (model, *model.transformer_blocks):
            nn.init.zeros_(part.scale_shift_table)
        self.model = model

    def forward(self, state: Tensor, time: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """The velocity or image ``[B, C, S, S]`` of states at times ``[B]`` in [0, 1], given texts ``[B, N, W]``."""
        return self.model(
            state,
            timestep=1000 * time,
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]


def dit(
    *,
    num_layers: int,
    num_heads: int,
    image_size: int = 256,
    patch_size: int = 2,
    image_tokenizer: str | None = None,
    text_tower: str = "chinese_roberta_wwm_ext",
    text_tower_options: dict[str, Any] | None = None,
    freeze_text: bool = True,
    time_shift: float = 1.0,
    prediction: str = "velocity",
    sampling: dict[str, Any] | None = None,
) -> RectifiedFlow:
    """Build a flow transformer with attention to a text.

    Args:
        num_layers: Transformer blocks.
        num_heads: Attention heads, each 64 wide.
        image_size: Side of the square images in pixels.
        patch_size: Side of the square, of pixels or latents, that becomes one token.
        image_tokenizer: As ``unet_tiny``'s; so are the other options.
        text_tower: A text tower's name.
        text_tower_options: Options of its builder.
        freeze_text: Whether the text tower stays as it is.
        time_shift: How far the times of training and sampling are moved towards noise; 1: not at all.
        prediction: What the network gives, the ``velocity`` or, for large patches, the ``image`` that it leads to.
        sampling: How images are sampled.

    Raises:
        UserError: An option is out of its range.
    """
    if num_layers < 1 or num_heads < 1:
        raise UserError(f"num_layers is {num_layers} and num_heads {num_heads}: give 1 or more of each")
    return assemble(
        partial(Transformer, patch_size=patch_size, num_layers=num_layers, num_heads=num_heads),
        image_size=image_size,
        multiple=patch_size,
        image_tokenizer=image_tokenizer,
        text_tower=text_tower,
        text_tower_options=text_tower_options,
        freeze_text=freeze_text,
        time_shift=time_shift,
        prediction=prediction,
        sampling=sampling,
    )


GENERATORS.register_variant(
    "dit_tiny",
    "Build a flow transformer of 8 layers of 256, 9 M parameters and its text tower's, for demos and tests.",
    dit,
    num_layers=8,
    num_heads=4,
    image_size=32,
    patch_size=4,
    text_tower="bert_tiny_chinese",
    freeze_text=False,
)
for _name, _size, _layers, _heads in (("dit_small", "S", 12, 6), ("dit_base", "B", 12, 12), ("dit_large", "L", 24, 16)):
    _summary = f"Build a flow transformer of {_layers} layers of {64 * _heads}: DiT-{_size}'s size, with a text."
    GENERATORS.register_variant(_name, _summary, dit, num_layers=_layers, num_heads=_heads)
