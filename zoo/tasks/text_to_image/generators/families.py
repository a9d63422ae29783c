"""The families of published pipelines that generators are made of: their parts, their texts, their networks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zoo.models.pipelines import Classes

Embedded = tuple[Tensor, ...]  # what a network is told of one text


class Family(Protocol):
    """What differs between the pipelines of diffusers.

    Attributes:
        classes: The parts, and the classes that each may have.
        denoiser: The part that is trained.
        defaults: How images are sampled where nothing is said: ``steps`` and ``guidance``.
        no_guidance: The pipeline's ``guidance_scale`` without guidance.
        call_options: What else the pipeline is called with.
        flows: Whether it learns the velocity of straight paths, times 0 to 1; else DDPM's target, times counted.
    """

    classes: Classes
    denoiser: str
    defaults: Mapping[str, Any]
    no_guidance: float
    call_options: Mapping[str, Any]
    flows: bool

    def sizes(self, denoiser: nn.Module, factor: int) -> tuple[int, int]:
        """Give the side of its own images in pixels, and what a side must be a multiple of, for a VAE's factor."""

    def embed(self, pipeline: Any, text: str) -> Embedded:
        """Give what the network is told of one text, as the pipeline itself makes it, batch dimension left out."""

    def foretell(self, denoiser: Any, states: Tensor, times: Tensor, texts: Sequence[Embedded]) -> Tensor:
        """Give what the network foretells of states ``[B, C, h, w]`` at times ``[B]``: noise or velocity, as it does.

        Times are whole numbers of DDPM's; of a flow they are in [0, 1], 1 noise, and the velocity is noise minus data.
        """


VAE = ("AutoencoderKL",)
DDPM = (  # what samples by a network that learnt noise; all can take each other's configuration
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)


class StableDiffusion:
    """A UNet that attends to a CLIP's or BERT's reading of the text (Rombach et al., 2022, arXiv:2112.10752)."""

    classes: Classes = {
        "unet": ("UNet2DConditionModel",),
        "vae": VAE,
        "text_encoder": ("CLIPTextModel", "BertModel"),
        "tokenizer": ("CLIPTokenizer", "BertTokenizer"),
        "scheduler": DDPM,
    }
    denoiser = "unet"
    defaults: Mapping[str, Any] = {"steps": 50, "guidance": 7.5}
    no_guidance = 1.0
    call_options: Mapping[str, Any] = {}
    flows = False

    def sizes(self, denoiser: Any, factor: int) -> tuple[int, int]:
        """See ``Family``."""
        return denoiser.config.sample_size * factor, factor

    def embed(self, pipeline: Any, text: str) -> Embedded:
        """See ``Family``."""
        return (pipeline.encode_prompt([text], pipeline.device, 1, do_classifier_free_guidance=False)[0][0],)

    def foretell(self, denoiser: Any, states: Tensor, times: Tensor, texts: Sequence[Embedded]) -> Tensor:
        """See ``Family``."""
        sequences = torch.stack([text[0] for text in texts])
        return denoiser(states, times, encoder_hidden_states=sequences, return_dict=False)[0]


class HunyuanDiT:
    """A transformer that attends to a Chinese CLIP's and mT5's readings of the text (Li et al., 2024, 2405.08748)."""

    classes: Classes = {
        "transformer": ("HunyuanDiT2DModel",),
        "vae": VAE,
        "text_encoder": ("BertModel", "CLIPTextModel"),
        "tokenizer": ("BertTokenizer", "CLIPTokenizer"),
        "text_encoder_2": ("T5EncoderModel", "MT5EncoderModel"),
        "tokenizer_2": ("T5Tokenizer", "MT5Tokenizer"),
        "scheduler": DDPM,
    }
    denoiser = "transformer"
    defaults: Mapping[str, Any] = {"steps": 50, "guidance": 5.0}
    no_guidance = 1.0
    call_options: Mapping[str, Any] = {"use_resolution_binning": False}  # it would round the size to one of its own
    flows = False

    def sizes(self, denoiser: Any, factor: int) -> tuple[int, int]:
        """See ``Family``."""
        return denoiser.config.sample_size * factor, factor * denoiser.config.patch_size

    def embed(self, pipeline: Any, text: str) -> Embedded:
        """See ``Family``: two sequences and their masks."""
        options = {"do_classifier_free_guidance": False}
        first, _, first_mask, _ = pipeline.encode_prompt([text], text_encoder_index=0, **options)
        second, _, second_mask, _ = pipeline.encode_prompt([text], text_encoder_index=1, **options)
        return first[0], first_mask[0], second[0], second_mask[0]

    def foretell(self, denoiser: Any, states: Tensor, times: Tensor, texts: Sequence[Embedded]) -> Tensor:
        """See ``Family``: its size and style are those that the pipeline tells it where none are given."""
        from diffusers.models.embeddings import get_2d_rotary_pos_embed
        from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

        first, first_mask, second, second_mask = (torch.stack(each) for each in zip(*texts, strict=True))
        pixels, patch, side = 8, denoiser.config.patch_size, states.shape[-1]  # its VAE's factor is 8 always
        grid = (side // patch, side // patch)
        region = get_resize_crop_region_for_grid(grid, 512 // pixels // patch)
        width = denoiser.inner_dim // denoiser.num_heads
        rotary = get_2d_rotary_pos_embed(width, region, grid, device=states.device, output_type="pt")
        size = states.new_tensor([1024, 1024, side * pixels, side * pixels, 0, 0])  # original, own, and no crop
        foretold = denoiser(
            states,
            times.to(states.dtype),
            encoder_hidden_states=first,
            text_embedding_mask=first_mask,
            encoder_hidden_states_t5=second,
            text_embedding_mask_t5=second_mask,
            image_meta_size=size.repeat(len(states), 1),
            style=torch.zeros(len(states), dtype=torch.long, device=states.device),
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        return foretold[:, : states.shape[1]]  # the other half is of the variance, which nobody samples by


class ZImage:
    """A transformer of one stream of text and image, told what Qwen3 reads (Z-Image Team, 2025, arXiv:2511.22699)."""

    classes: Classes = {
        "transformer": ("ZImageTransformer2DModel",),
        "vae": VAE,
        "text_encoder": ("Qwen3Model",),
        "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    }
    denoiser = "transformer"
    defaults: Mapping[str, Any] = {"steps": 8, "guidance": 1.0}  # of Z-Image-Turbo
    no_guidance = 0.0
    call_options: Mapping[str, Any] = {}
    flows = True

    def sizes(self, denoiser: Any, factor: int) -> tuple[int, int]:
        """See ``Family``."""
        return 1024, factor * 2

    def embed(self, pipeline: Any, text: str) -> Embedded:
        """See ``Family``: a sequence as long as the text."""
        return (pipeline.encode_prompt([text], do_classifier_free_guidance=False)[0][0],)

    def foretell(self, denoiser: Any, states: Tensor, times: Tensor, texts: Sequence[Embedded]) -> Tensor:
        """See ``Family``: its own times begin at noise, and its velocity points to the data."""
        images = list(states.unsqueeze(2).unbind(0))  # B times [C, 1, h, w]
        foretold = denoiser(images, 1 - times, [text[0] for text in texts], return_dict=False)[0]
        return -torch.stack(foretold).squeeze(2)


def time_shift(scheduler: Any, places: int) -> float:
    """Give how far a flow's scheduler moves times towards noise, as ``draw_times`` takes it.

    Args:
        scheduler: Its shift is one number, or grows with the image.
        places: Of the image that the network sees, patches counted.
    """
    config = scheduler.config
    if not config.use_dynamic_shifting:
        return config.shift
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    shift = config.base_shift + slope * (places - config.base_image_seq_len)
    return math.exp(shift) if config.time_shift_type == "exponential" else shift


FAMILIES: dict[str, Family] = {  # diffusers' class of the pipeline
    "StableDiffusionPipeline": StableDiffusion(),
    "HunyuanDiTPipeline": HunyuanDiT(),
    "ZImagePipeline": ZImage(),
}
