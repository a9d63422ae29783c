"""A checkpoint that Chinese-CLIP's own code reads (github.com/OFA-Sys/Chinese-CLIP)."""

from pathlib import Path
from typing import Any

import torch

from zoo.core.checkpoint import load
from zoo.core.export import Agreement, contiguous
from zoo.errors import UserError
from zoo.tasks.retrieval import cn_clip
from zoo.tasks.retrieval.export.agreement import HALF, agreements
from zoo.tasks.retrieval.export.towers import check_chinese_clip

# Its architectures by our image and text tower: name and embedding dimension; each has one depth and image size.
NAMES = {
    ("vit_base_patch16_clip_quickgelu_224", "chinese_roberta_wwm_ext"): ("ViT-B-16", 512),
    ("vit_large_patch14_clip_quickgelu_224", "chinese_roberta_wwm_ext"): ("ViT-L-14", 768),
    ("vit_large_patch14_clip_quickgelu_336", "chinese_roberta_wwm_ext"): ("ViT-L-14-336", 768),
    ("vit_huge_patch14_clip_quickgelu_224", "chinese_roberta_wwm_ext_large"): ("ViT-H-14", 1024),
    ("resnet50_clip", "rbt3"): ("RN50", 1024),
}
TEXT_NAMES = {
    "chinese_roberta_wwm_ext": "RoBERTa-wwm-ext-base-chinese",
    "chinese_roberta_wwm_ext_large": "RoBERTa-wwm-ext-large-chinese",
    "rbt3": "RBT3-chinese",
}


class CnClipFile:
    """``cn_clip.clip.load_from_name`` reads it, and Chinese-CLIP's training goes on from it."""

    library = "cn_clip"

    def check(self, task: Any) -> None:
        """See that the towers are of a shape that Chinese-CLIP has a name for."""
        self._name(task)

    def _name(self, task: Any) -> tuple[str, str]:
        arguments = check_chinese_clip(task)
        towers = arguments["image_tower"], arguments["text_tower"]
        name, dimension = NAMES.get(towers, ("", 0))
        if dimension != arguments["embedding_dim"] or any(key.endswith("_options") for key in arguments):
            known = ", ".join(name for name, _ in NAMES.values())
            raise UserError(
                f"Chinese-CLIP has {known}, each of one depth, image size and embedding dimension; this is none of them"
            )
        return name, TEXT_NAMES[towers[1]]

    def write(self, task: Any, folder: Path) -> None:
        """Write the one file, as its training does."""
        weights = contiguous(cn_clip.from_zoo(task.state_dict()))
        state = {f"module.{name}": value for name, value in weights.items()}
        content = {"epoch": 0, "step": task.trained_steps, "name": "zoo", "state_dict": state}
        torch.save(content, folder / cn_clip.EXPORTED)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare embeddings by its loader where it is installed, else by ours: the same file, read anew."""
        vision, text = self._name(task)
        try:
            from cn_clip.clip import load_from_name, tokenize
        except ImportError:
            read: Any = load(folder / cn_clip.EXPORTED)
            return agreements(task, read.encode_text, read.encode_image, data)
        model, preprocess = load_from_name(
            str(folder / cn_clip.EXPORTED),
            device="cpu",
            vision_model_name=vision,
            text_model_name=text,
            input_resolution=task.image_size,
        )
        model.float().eval()

        def embed_text(texts: list[str]) -> Any:
            straight = [text.replace("“", '"').replace("”", '"') for text in texts]  # as its training does
            return model.encode_text(tokenize(straight, context_length=task.text_tower.context_length))

        def embed_image(images: list[Any]) -> Any:
            return model.encode_image(torch.stack([preprocess(image) for image in images]))

        return agreements(task, embed_text, embed_image, data, HALF)  # its loader rounds weights to fp16

    def usage(self, task: Any, name: str) -> str:
        """Python of cn_clip."""
        vision, text = self._name(task)
        return f'''import torch
from cn_clip.clip import load_from_name, tokenize
from PIL import Image

model, preprocess = load_from_name(
    "{name}/{cn_clip.EXPORTED}",
    device="cpu",
    vision_model_name="{vision}",
    text_model_name="{text}",
    input_resolution={task.image_size},
)
model.eval()  # cn_clip gives it in training mode
queries = [query.replace("“", '"').replace("”", '"') for query in ["红色连衣裙"]]  # as in training
with torch.no_grad():
    texts = model.encode_text(tokenize(queries))
    image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
    images = model.encode_image(preprocess(image)[None])'''
