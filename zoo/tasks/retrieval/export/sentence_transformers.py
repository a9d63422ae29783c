"""A folder that sentence-transformers loads: a route for texts and one for images, whatever the towers."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from zoo.core.export import SAFETENSORS, Agreement, require_library
from zoo.tasks.retrieval.export.agreement import agreements
from zoo.tasks.retrieval.export.towers import check_towers

# Folders within, how names begin there, and in the task.
_PARTS = (
    ("text_0_Transformer", "", "text_tower.encoder."),
    ("text_2_Dense", "linear.", "text_projection."),
    ("image_0_Transformer", "timm_model.", "image_tower.model."),
    ("image_1_Dense", "linear.", "image_projection."),
)


class SentenceTransformersFolder:
    """``SentenceTransformer(FOLDER)`` reads it: ``encode`` takes texts, and PIL images."""

    library = "sentence-transformers"

    def check(self, task: Any) -> None:
        """See that the towers are timm's and transformers'."""
        check_towers(task)
        require_library("sentence_transformers")

    def write(self, task: Any, folder: Path) -> None:
        """Write both towers as transformers' own models, and what is behind them."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Normalize, Router, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        with TemporaryDirectory(dir=folder) as place:
            _write_text_tower(task, Path(place) / "text")
            _write_image_tower(task, Path(place) / "image")
            text = Transformer(f"{place}/text", max_seq_length=task.text_tower.context_length)
            image = Transformer(
                f"{place}/image",
                modality_config={"image": {"method": "forward", "method_output_name": "pooler_output"}},
                module_output_name="sentence_embedding",
            )
            pooling = Pooling(task.text_tower.width, pooling_mode="cls" if task.text_tower.pool_first else "mean")
            routes = {
                "text": [text, pooling, _dense(task.text_projection)],
                "image": [image, _dense(task.image_projection)],
            }
            model = SentenceTransformer(modules=[Router(routes, default_route="text"), Normalize()], device="cpu")
            model.save(str(folder), create_model_card=False)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare embeddings by ``SentenceTransformer``."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

        def embed(inputs: list[Any]) -> Any:
            return model.encode(inputs, convert_to_tensor=True, show_progress_bar=False)

        return agreements(task, embed, embed, data)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Read the weights back."""
        state: dict[str, Tensor] = {}
        for place, there, here in _PARTS:
            weights = load_file(folder / place / SAFETENSORS)
            own = {name.removeprefix(there): value for name, value in weights.items() if name.startswith(there)}
            state |= {f"{here}{name}": value for name, value in own.items() if not name.startswith("pooler.")}
        return state

    def usage(self, task: Any, name: str) -> str:
        """Python of sentence-transformers."""
        return f'''from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
texts = model.encode(["红色连衣裙"])
image = Image.open("dress.jpg").convert("RGB")  # lay a transparent one over white first
images = model.encode([image])
print(texts @ images.T)'''


def _write_text_tower(task: Any, folder: Path) -> None:
    """Write it with BERT's pooler, of zeros and not used, which transformers would miss aloud."""
    from transformers import AutoModel

    whole = AutoModel.from_config(task.text_tower.encoder.config)
    missing, unexpected = whole.load_state_dict(task.text_tower.encoder.state_dict(), strict=False)
    if unexpected or any(not name.startswith("pooler.") for name in missing):  # half of an encoder and decoder
        whole = task.text_tower.encoder
    for name in missing if whole is not task.text_tower.encoder else ():
        whole.get_parameter(name).zero_()
    whole.save_pretrained(folder)
    task.text_tower.tokenizer.to_transformers(task.text_tower.context_length).save_pretrained(folder)


def _write_image_tower(task: Any, folder: Path) -> None:
    from transformers import TimmWrapperConfig, TimmWrapperModel

    mean, std = task.image_tower.mean_and_std
    model = task.image_tower.model
    kind: Any = TimmWrapperConfig
    configuration = kind(
        architecture=model.pretrained_cfg["architecture"],
        num_classes=0,
        model_args=task.image_tower.options or None,
        pretrained_cfg={
            **{"input_size": [3, task.image_size, task.image_size], "mean": mean, "std": std},
            **{"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"},
        },
    )
    wrapper = TimmWrapperModel(configuration)
    wrapper.timm_model.load_state_dict(model.state_dict())
    wrapper.save_pretrained(folder)


def _dense(projection: nn.Linear) -> Any:
    from sentence_transformers.base.modules import Dense

    return Dense(
        projection.in_features,
        projection.out_features,
        bias=projection.bias is not None,
        activation_function=nn.Identity(),
        init_weight=projection.weight.detach().clone(),
        init_bias=None if projection.bias is None else projection.bias.detach().clone(),
    )
