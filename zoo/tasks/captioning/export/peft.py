"""The adapters of a vision-language model alone, in peft's own format."""

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from zoo.core.export import Agreement, require_library, write_weights
from zoo.core.hubs import MODELSCOPE, WEIGHTS, UnavailableError, first_line, local_name
from zoo.errors import UserError
from zoo.models.lora import ADAPTER
from zoo.tasks.captioning.export.agreement import agreements, decoding_of, language_of, no_scores, usage_lines


class PeftFolder:
    """``PeftModel`` reads it beside the published model, which it does not hold."""

    library = "peft"

    def check(self, task: Any) -> None:
        """See that there are adapters."""
        if language_of(task).lora is None:
            raise UserError("It was trained without adapters (captioner_options.lora_rank)")
        require_library("peft")

    def write(self, task: Any, folder: Path) -> None:
        """Write the adapters, their configuration, the processor, and how captions are written."""
        from peft import LoraConfig

        language = language_of(task)
        weights = {name: value for name, value in language.model.state_dict().items() if ".lora_" in name}
        write_weights(
            {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": value for name, value in weights.items()},
            folder / "adapter_model.safetensors",
        )
        lora: Any = language.lora
        LoraConfig(
            base_model_name_or_path=language.published.removeprefix(MODELSCOPE),
            task_type="CAUSAL_LM",
            r=lora["rank"],
            lora_alpha=lora["alpha"],
            lora_dropout=lora["dropout"],
            target_modules=sorted({name.partition(".lora_")[0] for name in weights}),
            inference_mode=True,
        ).save_pretrained(str(folder))
        language.processor.save_pretrained(folder)
        decoding_of(task).save_pretrained(folder)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Refuse: there are adapters alone.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{folder}: it holds adapters alone, for peft. Load the checkpoint that they came from")

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Put the adapters beside the published model by ``PeftModel``, and compare logits and captions.

        Raises:
            UserError: The published model cannot be had, the adapters were trained beside another, or data came.
        """
        from peft import PeftModel

        no_scores(data)
        published = language_of(task).published
        try:
            base: Any = AutoModelForImageTextToText.from_pretrained(
                local_name(published, *WEIGHTS), local_files_only=True, dtype="float32"
            )
        except (OSError, ValueError, UnavailableError) as error:
            raise UserError(
                f"--format peft: {published}, which the adapters stand beside: {first_line(error)}"
            ) from None
        base.generation_config = GenerationConfig.from_pretrained(folder)
        model = PeftModel.from_pretrained(base, str(folder)).eval()
        found = agreements(task, model, AutoProcessor.from_pretrained(folder, local_files_only=True))
        if not found[0].difference <= found[0].allowed:
            raise UserError(
                f"--format peft: beside {published} the adapters compute something else: they were trained beside other"
                " weights. Take --format transformers, which holds both"
            )
        return found

    def usage(self, task: Any, name: str) -> str:
        """Python that describes an image."""
        return f'''from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

base = AutoModelForImageTextToText.from_pretrained("{language_of(task).published.removeprefix(MODELSCOPE)}")
base.generation_config = GenerationConfig.from_pretrained("{name}")  # its own is for chats
model = PeftModel.from_pretrained(base, "{name}").eval()
processor = AutoProcessor.from_pretrained("{name}")
{usage_lines(task)}'''
