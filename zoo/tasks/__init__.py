"""The tasks: LightningModules, each read top to bottom."""

from zoo.tasks.captioning import CaptioningTask
from zoo.tasks.image_tokenizer import ImageTokenizerTask
from zoo.tasks.retrieval import RetrievalTask
from zoo.tasks.text_to_image import TextToImageTask

__all__ = ["CaptioningTask", "ImageTokenizerTask", "RetrievalTask", "TextToImageTask"]
