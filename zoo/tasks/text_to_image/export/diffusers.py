"""Generators that were made of a published pipeline, back in diffusers' own formats: the whole, or the adapters."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.core.export import Agreement, compare, require_library
from zoo.core.hubs import MODELSCOPE
from zoo.errors import UserError
from zoo.models.lora import ADAPTER
from zoo.models.pipelines import quiet_diffusers
from zoo.tasks.text_to_image.generators.published import PublishedPipeline

PROMPTS = ["红色连衣裙", "黑色双肩包"]


class DiffusersFolder:
    """A whole pipeline with its adapters merged: ``DiffusionPipeline.from_pretrained`` reads it."""

    library = "diffusers"

    def check(self, task: Any) -> None:
        """See that the generator is a pipeline of diffusers."""
        if not isinstance(task.generator, PublishedPipeline):
            raise UserError("The generator is none of diffusers' pipelines (diffusers:NAME)")

    def write(self, task: Any, folder: Path) -> None:
        """Write each part of the pipeline into a folder of its own."""
        with quiet_diffusers():
            task.generator.pipeline(task.generator.plain_denoiser()).save_pretrained(folder)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare what is sampled in a few steps of two prompts."""
        from diffusers import DiffusionPipeline

        with quiet_diffusers():
            pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        return _compare(task.generator, pipeline)

    def usage(self, task: Any, name: str) -> str:
        """Python that draws an image."""
        return _usage(task.generator, name)


class DiffusersLora:
    """The adapters alone: ``load_lora_weights`` of the pipeline that they were trained on reads them."""

    library = "diffusers"

    def check(self, task: Any) -> None:
        """See that there are adapters, and that the pipeline can read some."""
        DiffusersFolder().check(task)
        if not task.generator.lora_rank:
            raise UserError("The generator has no adapters (lora_rank)")
        if not hasattr(task.generator.pipeline(), "load_lora_weights"):
            raise UserError(f"diffusers' {task.generator.kind} reads no adapters")
        require_library("peft")

    def write(self, task: Any, folder: Path) -> None:
        """Write the adapters, with their rank and scale."""
        from peft import get_peft_model_state_dict

        generator = task.generator
        weights = get_peft_model_state_dict(generator.denoiser, adapter_name=ADAPTER)
        config = generator.denoiser.peft_config[ADAPTER].to_dict()
        part = generator.family.denoiser
        options = {f"{part}_lora_layers": weights, f"{part}_lora_adapter_metadata": config}
        generator.pipeline().save_lora_weights(folder, **options)

    def compare(self, task: Any, folder: Path, data: str | None = None) -> list[Agreement]:
        """Compare what is sampled in a few steps, with the adapters beside the weights that they were trained on."""
        pipeline = task.generator.pipeline(task.generator.plain_denoiser(with_adapters=False))
        with quiet_diffusers():
            pipeline.load_lora_weights(folder)
        return _compare(task.generator, pipeline)

    def usage(self, task: Any, name: str) -> str:
        """Python that draws an image."""
        return _usage(
            task.generator, task.generator.published.removeprefix(MODELSCOPE), f'\npipeline.load_lora_weights("{name}")'
        )


def _compare(generator: PublishedPipeline, pipeline: Any) -> list[Agreement]:
    pipeline.set_progress_bar_config(disable=True)
    steps, seeds = min(4, generator.options.steps), list(range(len(PROMPTS)))
    wanted = generator.sample_latents(PROMPTS, seeds=seeds, steps=steps)
    found = generator.call(pipeline, PROMPTS, seeds, steps=steps)
    drawn = generator.call(pipeline, PROMPTS, seeds, steps=steps, output_type="np")  # [B, S, S, 3], 0 to 1
    levels = torch.from_numpy(np.rint(255 * drawn)).permute(0, 3, 1, 2)
    own = generator.generate(PROMPTS, seeds=seeds, steps=steps)
    return [compare("latents", found, wanted, 1e-3), compare("images, in grey levels,", levels, own, 1)]


def _usage(generator: PublishedPipeline, name: str, more: str = "") -> str:
    options = generator.call_options(generator.options)
    words = ", ".join(f"{option}={value}" for option, value in options.items())
    return f'''import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{name}"){more}
seed = torch.Generator().manual_seed(0)
image = pipeline("红色连衣裙", {words}, generator=seed).images[0]
image.save("dress.png")'''
