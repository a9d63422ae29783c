"""The tasks, a folder each: a LightningModule beside its LightningDataModule."""

from importlib import import_module
from typing import Any

_WHERE = {
    "CaptioningTask": "zoo.tasks.captioning.task",
    "ImageTokenizerTask": "zoo.tasks.image_tokenizer.task",
    "RetrievalTask": "zoo.tasks.retrieval.task",
    "TextToImageTask": "zoo.tasks.text_to_image.task",
}
__all__ = list(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'zoo.tasks' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
