"""A ``ChineseCLIPModel`` with its processor: transformers and sentence-transformers load the folder offline."""

from pathlib import Path
from typing import Any

from zoo.core.export import SAFETENSORS, Agreement, write_weights
from zoo.errors import UserError
from zoo.tasks.retrieval import cn_clip, huggingface
from zoo.tasks.retrieval.export.agreement import agreements
from zoo.tasks.retrieval.export.towers import check_chinese_clip


class ChineseCLIPFolder:
    """``AutoModel``, ``AutoProcessor`` and ``SentenceTransformer`` read it."""

    library = "transformers"

    def check(self, task: Any) -> None:
        """See that the towers are Chinese CLIP's: its vision transformer, a Chinese BERT."""
        if check_chinese_clip(task)["image_tower"] == "resnet50_clip":
            raise UserError("transformers' ChineseCLIPModel has vision transformers alone, and this is a ResNet")

    def write(self, task: Any, folder: Path) -> None:
        """Write configuration, weights, tokenizer and image processor."""
        from transformers import ChineseCLIPImageProcessor, ChineseCLIPProcessor

        configuration = huggingface.configuration_of(task)
        configuration.architectures = ["ChineseCLIPModel"]
        configuration.dtype = "float32"
        configuration.save_pretrained(folder)
        weights = huggingface.from_cn_clip(cn_clip.from_zoo(task.state_dict()))
        write_weights(weights, folder / SAFETENSORS)
        mean, std = task.image_tower.mean_and_std
        image_processor = ChineseCLIPImageProcessor(
            size={"height": task.image_size, "width": task.image_size},
            crop_size={"height": task.image_size, "width": task.image_size},
            do_center_crop=False,
            image_mean=mean,
            image_std=std,
        )
        tokenizer = task.text_tower.tokenizer.to_transformers(task.text_tower.context_length)
        ChineseCLIPProcessor(image_processor, tokenizer).save_pretrained(folder)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare embeddings by ``AutoModel`` and ``AutoProcessor``."""
        from transformers import AutoModel, AutoProcessor

        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)

        def embed_text(texts: list[str]) -> Any:
            inputs = processor(text=texts, padding=True, truncation=True, return_tensors="pt")
            return model.get_text_features(**inputs).pooler_output

        def embed_image(images: list[Any]) -> Any:
            return model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output

        return agreements(task, embed_text, embed_image, data)

    def usage(self, task: Any, name: str) -> str:
        """Python of both libraries."""
        return f'''from PIL import Image
from sentence_transformers import SentenceTransformer  # or AutoModel and AutoProcessor of transformers

model = SentenceTransformer("{name}")
texts = model.encode(["红色连衣裙"], normalize_embeddings=True)
images = model.encode([Image.open("dress.jpg").convert("RGB")], normalize_embeddings=True)
print(texts @ images.T)'''
