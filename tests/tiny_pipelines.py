"""Tiny pipelines of diffusers with random weights, as ``save_pretrained`` writes them."""

import string
from pathlib import Path

import torch

VOCABULARY = Path(__file__).parents[1] / "zoo" / "models" / "vocab.txt"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def write(family, folder, **changes):
    """Write a pipeline of ``taiyi``, ``clip``, ``hunyuan`` or ``z_image``; ``changes`` are of its scheduler."""
    torch.manual_seed(0)
    pipeline = globals()[family](**changes)
    generator = torch.Generator().manual_seed(1)
    for name in ("unet", "transformer", "text_encoder", "text_encoder_2", "vae"):
        for parameter in getattr(pipeline, name, torch.nn.Identity()).parameters():  # none is zero or one, none alike
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.7 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.2
            parameter.data = scale * noise + (parameter.ndim == 1) * parameter.data
    pipeline.save_pretrained(folder)
    return folder


def bert(length):
    from transformers import BertConfig, BertModel, BertTokenizer

    tokenizer = BertTokenizer(vocab=str(VOCABULARY), model_max_length=length)
    return BertModel(BertConfig(vocab_size=21128, max_position_embeddings=80, **LAYERS)), tokenizer


def vae(blocks, **options):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8,) * blocks,
        norm_num_groups=4,
        latent_channels=4,
        **options,
    )


def unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def taiyi(**changes):
    """Stable Diffusion told a BERT's reading; pseudo numerical steps, as published."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    options = {key: value for key, value in SCALED.items() if key != "clip_sample"}
    scheduler = PNDMScheduler(**{**options, "skip_prk_steps": True, "steps_offset": 1, **changes})
    encoder, tokenizer = bert(24)
    return stable(StableDiffusionPipeline, encoder, tokenizer, scheduler)


def clip(**changes):
    """Stable Diffusion told a CLIP's reading."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(vocab_size=21128, max_position_embeddings=24, bos_token_id=101, eos_token_id=102, **LAYERS)
    scheduler = DDIMScheduler(**{**SCALED, "steps_offset": 1, **changes})
    tokenizer = BertTokenizer(vocab=str(VOCABULARY), model_max_length=24)
    return stable(StableDiffusionPipeline, CLIPTextModel(config), tokenizer, scheduler)


def stable(kind, encoder, tokenizer, scheduler):
    return kind(
        vae=vae(2),
        unet=unet(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def hunyuan(**changes):
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(character, -3.0) for character in sorted(set(string.printable[:94] + "红色连衣裙黑双肩包蓝圆球方块"))]
    transformer = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=4,
        hidden_size=16,
        num_layers=4,  # the last attends to the first again
        cross_attention_dim=16,
        cross_attention_dim_t5=8,
        pooled_projection_dim=16,
    )
    encoder, tokenizer = bert(77)
    t5 = T5Config(vocab_size=len(pieces), d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return HunyuanDiTPipeline(
        vae=vae(4),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=DDPMScheduler(**{**SCALED, "prediction_type": "v_prediction", "steps_offset": 1, **changes}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=T5Tokenizer(vocab=pieces),
    )


def z_image(**changes):
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

    vocabulary = {character: place for place, character in enumerate(sorted(ByteLevel.alphabet()))}
    for special in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        vocabulary[special] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = TEMPLATE
    config = Qwen3Config(vocab_size=len(vocabulary) + 2, head_dim=8, num_key_value_heads=1, **LAYERS)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 2, 2],
        axes_lens=[640, 16, 16],
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **changes}),
        vae=vae(2, scaling_factor=0.36, shift_factor=0.12),
        text_encoder=Qwen3Model(config),
        tokenizer=tokenizer,
        transformer=transformer,
    )
