"""zoo: a Lightning model zoo for MUGE, the Chinese multimodal e-commerce benchmark.

    import zoo
    zoo.list_models("vit_*")
    task = zoo.load("runs/clip_demo/20260102-030405")  # or "clip_cn_vit-b-16.pt", or a hub name of Chinese CLIP
    task.encode_text(["红色连衣裙"])
    task.encode_image([picture])

Everything is imported when it is first used.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "RetrievalTask": "zoo.tasks",
    "TextToImageTask": "zoo.tasks",
    "CaptioningTask": "zoo.tasks",
    "ImageTokenizerTask": "zoo.tasks",
    "RetrievalDataModule": "zoo.tasks.retrieval.data",
    "TextToImageDataModule": "zoo.tasks.text_to_image.data",
    "CaptioningDataModule": "zoo.tasks.captioning.data",
    "IMAGE_TOWERS": "zoo.registry",
    "TEXT_TOWERS": "zoo.registry",
    "GENERATORS": "zoo.registry",
    "FIRST_STAGES": "zoo.registry",
    "CAPTIONERS": "zoo.registry",
    "create": "zoo.registry",
    "list_models": "zoo.registry",
    "load": "zoo.core.checkpoint",
}
__all__ = list(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
