"""A vision-language model as a whole folder of transformers, adapters added to its weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from zoo.core.export import Agreement
from zoo.tasks.captioning.export.agreement import agreements, decoding_of, language_of, no_scores, usage_lines

WEIGHTS = "captioner.language.model."  # of the task


class TransformersFolder:
    """``AutoModelForImageTextToText`` and ``AutoProcessor`` read it."""

    library = "transformers"

    def check(self, task: Any) -> None:
        """See that the captioner is a whole model of transformers."""
        language_of(task)

    def write(self, task: Any, folder: Path) -> None:
        """Write configuration, weights, processor, tokenizer, and how captions are written."""
        language = language_of(task)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(language.model.config)
        model.load_state_dict(language.plain_weights(), assign=True)
        model.generation_config = decoding_of(task)
        model.save_pretrained(folder)
        language.processor.save_pretrained(folder)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Read the weights under the task's names."""
        return {f"{WEIGHTS}{name}": value for name, value in _model(folder).state_dict().items()}

    def options(self, given: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Give the hyper-parameters of the task that the folder holds: built from the folder itself, adapters added."""
        captioner_options = {**given["captioner_options"], "lora_rank": 0} if given["captioner_options"] else None
        return {**given, "captioner": f"vlm:{folder}", "captioner_options": captioner_options}

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare logits and captions by ``AutoModelForImageTextToText`` and ``AutoProcessor``.

        Raises:
            UserError: Data came to score on.
        """
        no_scores(data)
        return agreements(task, _model(folder), AutoProcessor.from_pretrained(folder, local_files_only=True))

    def usage(self, task: Any, name: str) -> str:
        """Python that describes an image."""
        return f'''from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}").eval()
processor = AutoProcessor.from_pretrained("{name}")
{usage_lines(task)}'''


def _model(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
