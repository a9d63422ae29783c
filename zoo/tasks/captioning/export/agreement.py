"""What an exported vision-language model is compared on with its captioner: drawn products and a caption of them."""

import json
import math
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from zoo.core.export import Agreement, compare, sample_images
from zoo.errors import UserError
from zoo.tasks.captioning.captioners.vlm import VisionLanguageModel

ALLOWED = 1e-3  # in any logit; adapters that were added to the weights round otherwise than beside them
CAPTION = "新款红色连衣裙，显瘦百搭"


def language_of(task: Any) -> VisionLanguageModel:
    """Give the vision-language model of a captioning task.

    Raises:
        UserError: Its captioner is another one.
    """
    if not isinstance(task.captioner.language, VisionLanguageModel):
        raise UserError("Only vision-language models (vlm:NAME) are whole models of transformers")
    return task.captioner.language


def no_scores(data: str | None) -> None:
    """Refuse data to score on.

    Raises:
        UserError: Some came.
    """
    if data is not None:
        raise UserError("--data: of captioners logits and captions are compared, and no scores. Leave it out")


def decoding_of(task: Any) -> GenerationConfig:
    """Give a captioner's way of writing as transformers' ``generate`` takes it."""
    return task.captioner.decoding.search(task.captioner.vocabulary)


def agreements(task: Any, model: Any, processor: Any, count: int = 3) -> list[Agreement]:
    """Compare what transformers computes with what a task does: logits of a caption, and captions.

    Args:
        task: The ``CaptioningTask``.
        model: What transformers read, with its own ``generation_config``.
        processor: The processor that it read.
        count: How many products are drawn.
    """
    captioner, images = task.captioner, sample_images(task.image_size, count)
    content = [{"type": "image"}, {"type": "text", "text": captioner.language.instruction}]
    turns = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    inputs = processor(text=[text] * count, images=images, return_tensors="pt")
    captions = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(captions, skip_special_tokens=True)

    encoded = captioner.encode(captioner.vision.preprocess(images).to(captioner.device))
    ids, mask = captioner.tokenize([CAPTION] * count)
    places = mask[:, 1:].flatten().nonzero()[:, 0]
    own = captioner.language.logits(encoded, ids[:, :-1].to(captioner.device), places.to(captioner.device))
    logits = model(**followed(inputs, ids[:, 1:-1])).logits[:, -ids.shape[1] + 1 :]  # [count, T - 1, V]
    equal = sum(its.strip() == caption for its, caption in zip(texts, captioner.write(encoded), strict=True))
    return [
        compare("logits", logits.flatten(0, 1)[places], own, ALLOWED),
        Agreement(f"{equal} of {count} captions of drawn products are equal", count - equal, math.inf),
    ]


def followed(inputs: Any, ids: Tensor) -> dict[str, Tensor]:
    """Put the tokens ``[B, T]`` of answers behind the prompts that a processor made."""
    longer = dict(inputs)
    for name, value in (("input_ids", ids), ("attention_mask", ids > -1), ("mm_token_type_ids", ids < 0)):
        if name in longer:
            longer[name] = torch.cat([longer[name], value.to(longer[name].dtype)], dim=1)
    return longer


def usage_lines(task: Any) -> str:
    """Python that asks a ``model`` and its ``processor`` for a caption."""
    size = task.image_size
    return f"""image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
image = image.resize(({size}, {size}), Image.Resampling.BICUBIC)
question = {{"type": "text", "text": {json.dumps(language_of(task).instruction, ensure_ascii=False)}}}
turns = [{{"role": "user", "content": [{{"type": "image", "image": image}}, question]}}]
inputs = processor.apply_chat_template(
    turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
ids = model.generate(**inputs)
caption = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(caption)"""
