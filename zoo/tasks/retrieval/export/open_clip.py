"""A folder that open_clip loads: an image tower of timm's, and a text encoder of transformers'."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import load_file
from torch import Tensor

from zoo.core.checkpoint import EXPORTED
from zoo.core.export import Agreement, require_library, write_weights
from zoo.errors import UserError
from zoo.io import read_json, write_text
from zoo.models.hub import SMALL_FILES
from zoo.models.open_clip import (
    CONFIGURATION,
    OpenClipImageTower,
    OpenClipTextTower,
    local_copy,
)
from zoo.models.open_clip import WEIGHTS as WEIGHT_FILES
from zoo.tasks.retrieval.export.agreement import agreements
from zoo.tasks.retrieval.export.towers import check_halves, check_towers

HERE = "."  # open_clip looks for the text encoder's config.json where it is told to when it loads
WEIGHTS = WEIGHT_FILES[0]
FAMILY = "open_clip:"
_OWN_NAMES = {"image_tower.model.": "visual.", "text_tower.model.": "text.", "loss.logit_": "logit_"}  # of its models
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
        require_library("open_clip")
        if _is_own(task):
            check_halves(task)
            return
        check_towers(task)
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
        """Write configuration, weights and tokenizer; a model of open_clip keeps its own files."""
        if _is_own(task):
            _write_own(task, folder)
            return
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
        write_weights(_renamed(task.state_dict(), _NAMES), folder / WEIGHTS)
        text.tokenizer.to_transformers(text.context_length).save_pretrained(folder)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare embeddings by open_clip."""
        import open_clip
        import torch

        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", **_text_options(folder))
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        if not _is_own(task):
            tokenize.clean_fn = str  # it would make full-width punctuation half-width, which zoo's models know
        model.eval()
        return agreements(
            task,
            lambda texts: model.encode_text(tokenize(texts)),
            lambda images: model.encode_image(torch.stack([preprocess(image) for image in images])),
            data,
        )

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Read the weights back."""
        own = str(read_json(folder / EXPORTED)["hyper_parameters"].get("image_tower")).startswith(FAMILY)
        names = {there: here for here, there in (_OWN_NAMES if own else _NAMES).items()}
        return _renamed(load_file(folder / WEIGHTS), names)

    def options(self, given: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Give the hyper-parameters of the task that the folder holds: halves of a model are built from itself."""
        if not str(given["image_tower"]).startswith(FAMILY):
            return given
        return given | {f"{side}_tower": f"{FAMILY}{folder}" for side in ("image", "text")}

    def usage(self, task: Any, name: str) -> str:
        """Python of open_clip."""
        imports, text, options, cleaning = "", "", "", ""
        if not _is_own(task):
            cleaning = "tokenize.clean_fn = str  # or it changes full-width punctuation, which the model knows\n"
        if not _is_own(task) or _text_options(local_copy(task.image_tower.published)):
            imports = "import json\n\n"
            text = f'text = json.load(open("{name}/{CONFIGURATION}"))["model_cfg"]["text_cfg"]'
            text += f' | {{"hf_model_name": "{name}", "hf_model_pretrained": False}}\n'
            options = ", text_cfg=text"
        return f'''{imports}import open_clip
import torch
from PIL import Image

{text}model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{name}"{options})
model.eval()  # open_clip gives it in training mode
tokenize = open_clip.get_tokenizer("local-dir:{name}")
{cleaning}with torch.no_grad():
    texts = model.encode_text(tokenize(["红色连衣裙"]), normalize=True)
    image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
    images = model.encode_image(preprocess(image)[None], normalize=True)
print(texts @ images.T)'''


def _is_own(task: Any) -> bool:
    """Whether the towers are halves of a model of open_clip."""
    return isinstance(task.image_tower, OpenClipImageTower) and isinstance(task.text_tower, OpenClipTextTower)


def _write_own(task: Any, folder: Path) -> None:
    """Write a model of open_clip with its own configuration and tokenizer, and the task's weights."""
    published = local_copy(task.image_tower.published)
    for file in sorted(file for pattern in SMALL_FILES for file in published.glob(pattern)):
        if file.name not in (EXPORTED,):
            shutil.copyfile(file, folder / file.name)
    configuration = read_json(folder / CONFIGURATION)
    configuration["model_cfg"]["custom_text"] = True  # the names of weights are those of such a model
    write_text(folder / CONFIGURATION, json.dumps(configuration, indent=2) + "\n")
    write_weights(_renamed(task.state_dict(), _OWN_NAMES), folder / WEIGHTS)


def _text_options(folder: Path) -> dict[str, Any]:
    """What tells open_clip that a text encoder's configuration lies in the folder, where it does."""
    text = read_json(folder / CONFIGURATION)["model_cfg"]["text_cfg"]
    here = {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return {"text_cfg": text | here} if text.get("hf_model_name") == HERE else {}


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Give weights their names in another library, by how those begin."""
    found = {}
    for name, value in state.items():
        old, new = next(((old, new) for old, new in names.items() if name.startswith(old)), ("", ""))
        found[new + name.removeprefix(old)] = value
    return found


def _architecture(task: Any) -> str:
    return task.image_tower.model.pretrained_cfg["architecture"]
