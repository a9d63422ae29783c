"""A dual encoder of transformers with its processor: sentence-transformers loads the folder too, both offline."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    ChineseCLIPImageProcessor,
    ChineseCLIPProcessor,
)

from zoo.core.export import SAFETENSORS, Agreement, write_weights
from zoo.core.weights import load_strictly
from zoo.errors import UserError
from zoo.models.dual import DualImageTower, DualTextTower
from zoo.tasks.retrieval import cn_clip, huggingface
from zoo.tasks.retrieval.export import embedder
from zoo.tasks.retrieval.export.agreement import agreements
from zoo.tasks.retrieval.export.towers import check_chinese_clip, check_halves


class TransformersFolder:
    """``AutoModel``, ``AutoProcessor`` and ``SentenceTransformer`` read it."""

    library = "transformers"

    def check(self, task: Any) -> None:
        """See that the towers are of one model, or Chinese CLIP's: its vision transformer, a BERT."""
        if embedder.is_embedder(task):
            embedder.check(task)
        elif _is_dual(task):
            check_halves(task)
        elif check_chinese_clip(task)["image_tower"] == "resnet50_clip":
            raise UserError("transformers' ChineseCLIPModel has vision transformers alone, and this is a ResNet")

    def write(self, task: Any, folder: Path) -> None:
        """Write configuration, weights, tokenizer and image processor."""
        if embedder.is_embedder(task):
            embedder.write(task, folder)
            return
        if _is_dual(task):
            _whole(task).save_pretrained(folder)
            task.image_tower.processor.save_pretrained(folder)
            task.text_tower.tokenizer.to_transformers(task.text_tower.context_length).save_pretrained(folder)
            return
        configuration = huggingface.configuration_of(task)
        configuration.architectures = ["ChineseCLIPModel"]
        configuration.dtype = "float32"
        configuration.save_pretrained(folder)
        write_weights(huggingface.from_cn_clip(cn_clip.from_zoo(task.state_dict())), folder / SAFETENSORS)
        mean, std = task.image_tower.mean_and_std
        size = {"height": task.image_size, "width": task.image_size}
        images = ChineseCLIPImageProcessor(
            size=size, crop_size=size, do_center_crop=False, image_mean=mean, image_std=std
        )
        tokenizer = task.text_tower.tokenizer.to_transformers(task.text_tower.context_length)
        ChineseCLIPProcessor(images, tokenizer).save_pretrained(folder)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare embeddings by ``AutoModel``, ``AutoTokenizer`` and ``AutoImageProcessor``."""
        if embedder.is_embedder(task):
            return embedder.agreements(task, folder, data)
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        images = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        masked = getattr(task.text_tower, "masked", True)

        def embed_text(texts: list[str]) -> Any:
            inputs = tokenizer(texts, padding=True if masked else "max_length", truncation=True, return_tensors="pt")
            mask = {"attention_mask": inputs["attention_mask"]} if masked else {}
            return model.get_text_features(input_ids=inputs["input_ids"], **mask).pooler_output

        def embed_image(given: list[Any]) -> Any:
            return model.get_image_features(**images(images=given, return_tensors="pt")).pooler_output

        return agreements(task, embed_text, embed_image, data)

    def usage(self, task: Any, name: str) -> str:
        """Python of sentence-transformers; of transformers where texts are all of one length, which it cannot know."""
        if embedder.is_embedder(task):
            return embedder.usage(task, name)
        if getattr(task.text_tower, "masked", True):
            return f'''from PIL import Image
from sentence_transformers import SentenceTransformer  # or AutoModel and AutoProcessor of transformers

model = SentenceTransformer("{name}")
texts = model.encode(["红色连衣裙"], normalize_embeddings=True)
image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
images = model.encode([image], normalize_embeddings=True)
print(texts @ images.T)'''
        return f'''import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("{name}").eval()
ids = AutoTokenizer.from_pretrained("{name}")(["红色连衣裙"], padding="max_length", return_tensors="pt")["input_ids"]
image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
pixels = AutoImageProcessor.from_pretrained("{name}")(image, return_tensors="pt")
with torch.no_grad():
    texts = normalize(model.get_text_features(input_ids=ids).pooler_output, dim=-1)
    images = normalize(model.get_image_features(**pixels).pooler_output, dim=-1)
print(texts @ images.T)'''


def _is_dual(task: Any) -> bool:
    return isinstance(task.image_tower, DualImageTower) and isinstance(task.text_tower, DualTextTower)


def _whole(task: Any) -> Any:
    """A dual encoder made of its two halves."""
    whole = AutoModel.from_config(task.image_tower.config)
    scalars = {name: value for name, value in whole.named_parameters() if name.startswith("logit_")}
    learnt = task.loss.state_dict()
    state = {name: learnt[name].reshape(value.shape) for name, value in scalars.items() if name in learnt}
    for half in (task.image_tower, task.text_tower):
        state |= half.model.state_dict()
    load_strictly(whole, scalars | state, "This task")
    return whole
