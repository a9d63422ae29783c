"""Small vision-language models with random weights, saved by transformers as the published ones are."""

import json

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

WIDTH = 32
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2, 1]}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "spatial_merge_size": 2, "temporal_patch_size": 2}
CLASSES = {  # model_type: how transformers calls its classes, and the side of the images it is tested with
    "qwen2_vl": ("Qwen2VL", 56),
    "qwen2_5_vl": ("Qwen2_5_VL", 56),
    "qwen3_vl": ("Qwen3VL", 64),
    "internvl": ("InternVL", 56),
}
TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_of(family):
    """Byte-level BPE with the special tokens of a family, and no token for the beginning."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["红色方块", "蓝色圆球", "一个漂亮的绿色条纹", "黄色十字"] * 9, trainer)
    if family == "internvl":
        named = {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
    else:
        named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
        named |= {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={**named, "turn_token": "<|im_start|>"},
    )


def configuration_of(family, tokenizer):
    """The configuration of a family with two narrow layers on each side."""
    name = CLASSES[family][0]
    kind = getattr(transformers, f"{name}Config")
    token = tokenizer.convert_tokens_to_ids
    text = {**TEXT, "vocab_size": len(tokenizer) + 8}  # published tables are longer than their tokenizers, too
    if family == "internvl":
        vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        vision |= {"image_size": [56, 56], "patch_size": [14, 14]}
        options = {"image_token_id": token("<IMG_CONTEXT>"), "image_seq_length": 4, "text_config": text}
        return kind(vision_config=vision, **options)
    vision = dict(QWEN_VISION)
    if family == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": WIDTH, "mlp_ratio": 2, "patch_size": 14}
    if family == "qwen2_5_vl":
        vision |= {"out_hidden_size": WIDTH, "intermediate_size": 48, "patch_size": 14, "window_size": 28}
        vision |= {"fullatt_block_indexes": [1]}
    if family == "qwen3_vl":
        vision |= {"out_hidden_size": WIDTH, "intermediate_size": 48, "patch_size": 16, "num_position_embeddings": 16}
        vision |= {"deepstack_visual_indexes": [0]}
        text |= {"head_dim": 8}
    return kind(
        vision_config=vision,
        text_config={**text, "rope_parameters": MROPE},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=family != "qwen3_vl",
    )


def processor_of(family, tokenizer, largest=280):
    """The processor of a family, its chat template included."""
    if family == "internvl":
        return transformers.InternVLProcessor(
            transformers.GotOcr2ImageProcessor(size={"height": 56, "width": 56}),
            tokenizer,
            transformers.InternVLVideoProcessor(),
            image_seq_length=4,
            chat_template=TURNS.replace("IMAGE", "<IMG_CONTEXT>\n"),
        )
    template = TURNS.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    if family == "qwen3_vl":
        images = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        videos = transformers.Qwen3VLVideoProcessor()
    else:
        images, videos = {"patch_size": 14}, transformers.Qwen2VLVideoProcessor()
        template = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + template
    pixels = {"min_pixels": 28 * 28, "max_pixels": largest**2}
    kind = getattr(transformers, f"{CLASSES[family][0]}Processor")
    return kind(transformers.Qwen2VLImageProcessor(**images, **pixels), tokenizer, videos, chat_template=template)


def write_vlm(folder, family, **options):
    """Write a model of a family as it would be published; its folder is given back."""
    tokenizer = tokenizer_of(family)
    model = transformers.AutoModelForImageTextToText.from_config(configuration_of(family, tokenizer))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 1 if any(part in name for part in ("embed_tokens", "lm_head", "merger", "projector")) else 0.4
            parameter.copy_(noise * scale if parameter.ndim > 1 else 1 + 0.2 * noise)
    model.generation_config.update(  # as Qwen's: made for chats
        do_sample=True, temperature=0.1, top_k=1, repetition_penalty=1.5, eos_token_id=[0, 1]
    )
    model.save_pretrained(folder)
    processor_of(family, tokenizer, **options).save_pretrained(folder)
    return folder


def write_embedder(folder, family, **options):
    """Write a model of a family that embeds, as Qwen3-VL-Embedding is published: with sentence-transformers' files."""
    write_vlm(folder, family, **options)
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in paths.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder
