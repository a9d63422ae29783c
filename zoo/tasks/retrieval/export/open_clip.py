"""A folder that open_clip loads: an image tower of timm's, and a text encoder of transformers'."""

import json
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import load_file
from torch import Tensor

from zoo.core.export import Agreement, require_library, write_weights
from zoo.errors import UserError
from zoo.io import write_text
from zoo.tasks.retrieval.export.agreement import agreements
from zoo.tasks.retrieval.export.towers import check_towers

CONFIGURATION = "open_clip_config.json"
HERE = "."  # open_clip looks for the text encoder's config.json where it is told to when it loads
WEIGHTS = "open_clip_model.safetensors"
_NAMES = {  # beginnings of names here and there; open_clip builds timm's models and transformers' as the zoo does
    "image_tower.model.": "visual.trunk.",
    "image_projection.": "visual.head.proj.",
    "text_tower.encoder.": "text.transformer.",
    "text_projection.": "text.proj.",
    "loss.logit_": "logit_",
}


class OpenClipFolder:
    """``open_clip.create_model_and_transforms("local-dir:FOLDER")`` reads it."""

    library = "open_clip"

    def check(self, task: Any) -> None:
        """See that open_clip builds such towers: timm's whole, at their own size where that is fixed."""
        check_towers(task)
        require_library("open_clip")
        from open_clip.hf_model import arch_dict

        kind = task.text_tower.encoder.config.model_type
        if kind not in arch_dict:
            raise UserError(f"open_clip has no text encoder {kind}, but {', '.join(arch_dict)}")
        model = timm.create_model(_architecture(task), num_classes=0)
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        if shapes != {name: value.shape for name, value in task.image_tower.model.state_dict().items()}:
            raise UserError(
                "open_clip builds timm's models of all their layers and at their own image size, and these"
                " are others here"
            )

    def write(self, task: Any, folder: Path) -> None:
        """Write configuration, weights and tokenizer."""
        mean, std = task.image_tower.mean_and_std
        text = task.text_tower
        configuration = {
            "model_cfg": {
                "embed_dim": task.image_projection.out_features,
                "vision_cfg": {
                    "image_size": task.image_size,
                    "timm_model_name": _architecture(task),
                    "timm_model_pretrained": False,
                    "timm_pool": "",
                    "timm_proj": "linear",
                    "timm_proj_bias": task.image_projection.bias is not None,
                },
                "text_cfg": {
                    "hf_model_name": HERE,
                    "hf_model_pretrained": False,
                    "hf_tokenizer_name": HERE,
                    "hf_pooler_type": "cls_last_hidden_state_pooler" if text.pool_first else "mean_pooler",
                    "hf_proj_type": "linear",
                    "context_length": text.context_length,
                },
                "custom_text": True,
                **{f"init_{name}": float(value) for name, value in task.loss.named_parameters() if "logit_" in name},
            },
            "preprocess_cfg": {
                "size": [task.image_size, task.image_size],
                "mode": "RGB",
                "mean": mean,
                "std": std,
                "interpolation": "bicubic",
                "resize_mode": "squash",
            },
        }
        write_text(folder / CONFIGURATION, json.dumps(configuration, indent=2) + "\n")
        text.encoder.config.save_pretrained(folder)
        write_weights({renamed(name): value for name, value in task.state_dict().items()}, folder / WEIGHTS)
        text.tokenizer.to_transformers(text.context_length).save_pretrained(folder)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare embeddings by open_clip."""
        import open_clip
        import torch

        text = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
        text["hf_model_name"] = str(folder)
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", text_cfg=text)
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        tokenize.clean_fn = str  # it would make full-width punctuation half-width, which the model was not trained on
        model.eval()
        return agreements(
            task,
            lambda texts: model.encode_text(tokenize(texts)),
            lambda images: model.encode_image(torch.stack([preprocess(image) for image in images])),
            data,
        )

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Read the weights back."""
        return {renamed(name, back=True): value for name, value in load_file(folder / WEIGHTS).items()}

    def usage(self, task: Any, name: str) -> str:
        """Python of open_clip."""
        return f'''import json

import open_clip
import torch
from PIL import Image

text = json.load(open("{name}/{CONFIGURATION}"))["model_cfg"]["text_cfg"] | {{"hf_model_name": "{name}"}}
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{name}", text_cfg=text)
model.eval()  # open_clip gives it in training mode
tokenize = open_clip.get_tokenizer("local-dir:{name}")
tokenize.clean_fn = str  # or it changes full-width punctuation, which the model knows
with torch.no_grad():
    texts = model.encode_text(tokenize(["红色连衣裙"]), normalize=True)
    image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
    images = model.encode_image(preprocess(image)[None], normalize=True)
print(texts @ images.T)'''


def renamed(name: str, *, back: bool = False) -> str:
    """Give open_clip's name of a task's weight, or ``back`` the task's."""
    pairs = [(there, here) for here, there in _NAMES.items()] if back else list(_NAMES.items())
    old, new = next(((old, new) for old, new in pairs if name.startswith(old)), ("", ""))
    return new + name.removeprefix(old)


def _architecture(task: Any) -> str:
    return task.image_tower.model.pretrained_cfg["architecture"]
