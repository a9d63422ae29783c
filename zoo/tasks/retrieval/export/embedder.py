"""An embedder made of a vision-language model, as a folder of transformers that sentence-transformers reads too."""

import copy
import json
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModel, AutoProcessor

from zoo.core.export import Agreement, compare, sample_images
from zoo.errors import UserError
from zoo.io import write_text
from zoo.models.vlm import IMAGE, squares
from zoo.models.vlm_embedder import EmbedderTextTower, EmbedderTower, turns
from zoo.tasks.retrieval.export.agreement import SINGLE, recall_agreement, sample_texts, unit
from zoo.tasks.retrieval.export.towers import check_halves

_HIDDEN = {"method": "forward", "method_output_name": "last_hidden_state"}
# Of sentence-transformers: the model, its last token, unit length.
_MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
_TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "modality_config": {
        "text": _HIDDEN,
        "image": _HIDDEN,
        "message": _HIDDEN | {"format": "structured"},
    },
    "module_output_name": "token_embeddings",
    "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
}


def is_embedder(task: Any) -> bool:
    """Whether one vision-language model reads both sides."""
    return isinstance(task.image_tower, EmbedderTower) and isinstance(task.text_tower, EmbedderTextTower)


def check(task: Any) -> None:
    """See that there is nothing behind the model, and that both sides end in the same way.

    Raises:
        UserError: There is, or they do not.
    """
    check_halves(task)
    if task.image_tower.processor.chat_template != task.text_tower.processor.chat_template:
        raise UserError("The towers have different suffixes, and a folder has one chat template")


def write(task: Any, folder: Path) -> None:
    """Write configuration, weights, processor, and what sentence-transformers makes of them.

    The processor has one number of pixels alone, so that it leaves squares of the tower's size as they are.
    """
    tower = task.image_tower
    model = tower.model
    if hasattr(task.loss, "logit_scale"):
        model.config.logit_scale_init_value = task.loss.logit_scale.item()  # as dual encoders call it
    model.save_pretrained(folder)
    processor = copy.deepcopy(tower.processor)
    processor.image_processor.size = dict.fromkeys(("shortest_edge", "longest_edge"), tower.image_size**2)
    processor.save_pretrained(folder)
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(_MODULES.items())
    ]
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": _TRANSFORMER,
        "1_Pooling/config.json": {"embedding_dimension": tower.width, "pooling_mode": "lasttoken"},
        "2_Normalize/config.json": {},
        "config_sentence_transformers.json": {
            "prompts": {"query": task.text_tower.instruction, "document": tower.instruction},
            "similarity_fn_name": "cosine",
        },
    }
    for name, contents in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_text(folder / name, json.dumps(contents, indent=2, ensure_ascii=False) + "\n")


def agreements(task: Any, folder: Path, data: str | None) -> list[Agreement]:
    """Compare embeddings by ``AutoModel`` and ``AutoProcessor``; as of ``Exporter.compare``."""
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    processor.tokenizer.padding_side = "left"

    def embed(chats: list[Any], **inputs: Any) -> Tensor:
        formed = processor.apply_chat_template(chats, add_generation_prompt=True)
        return model(**processor(text=formed, **inputs, padding=True, return_tensors="pt")).last_hidden_state[:, -1]

    def embed_text(texts: list[str]) -> Tensor:
        cut = task.text_tower.cut(texts)
        return embed([turns(task.text_tower.instruction, {"type": "text", "text": text}) for text in cut])

    def embed_image(images: list[Any]) -> Tensor:
        given = list(squares(images, task.image_size))
        return embed([turns(task.image_tower.instruction, IMAGE)] * len(given), images=given)

    texts, images = sample_texts(), sample_images(task.image_size)
    return [
        compare("text embeddings", unit(embed_text(texts)), task.encode_text(texts), SINGLE),
        compare("image embeddings", unit(embed_image(images)), task.encode_image(images), SINGLE),
        *recall_agreement(task, embed_text, embed_image, data),
    ]


def usage(task: Any, name: str) -> str:
    """Python of sentence-transformers."""
    size = task.image_size
    return f'''from PIL import Image
from sentence_transformers import SentenceTransformer  # 5.4 or newer

model = SentenceTransformer("{name}")
texts = model.encode_query(["红色连衣裙"])
image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
images = model.encode_document([image.resize(({size}, {size}), Image.Resampling.BICUBIC)])
print(texts @ images.T)'''
