"""``bench sample``: images a second of diffusion, against diffusers' own pipeline; codes a second of a DALL·E."""

from typing import TYPE_CHECKING, Any

from zoo.core.bench.harness import Precision, Row, interleave, protocol, rate, report, run_bench
from zoo.core.bench.loop import chosen_precision
from zoo.core.bench.samples import queries

if TYPE_CHECKING:
    from zoo.tasks.text_to_image.generators.dalle import DALLE
    from zoo.tasks.text_to_image.generators.diffusion import RectifiedFlow

WANTED = 1.0
WANTED_CODES = 0.65  # of the bare matrix products
GUIDANCE = 4.0
SIZE = 32
CODE_PICTURES = 8
VAE_FACTOR = 8  # what the pipeline takes pixels of a latent for where it has no autoencoder


def main(argv: list[str]) -> int:
    """Run ``bench sample``."""
    return run_bench("sample", measure, argv)


def measure(
    *, images: int = 32, steps: int = 20, precision: Precision = "auto", blocks: int = 5, output: str | None = None
) -> None:
    """Measure the images a second of a diffusion generator, text tower, noise and rounding included.

    Against diffusers' own pipeline around the same network, at equal steps and guidance. Then the codes a second of an
    autoregressive generator, against the bare products with its weight matrices. About two minutes on two cores.

    Args:
        images: Images of a block, sampled together.
        steps: Steps of the solver.
        precision: Precision of both; auto: bf16-mixed where the processor computes in bfloat16.
        blocks: Blocks of each contender.
        output: JSON file that rows and protocol are also written to.
    """
    import torch

    from zoo.registry import create

    chosen = chosen_precision(precision)
    torch.manual_seed(0)
    sampling = {"solver": "euler", "steps": steps, "guidance": GUIDANCE, "guidance_until": 1.0}
    generator = create("dit_tiny", image_size=SIZE, sampling=sampling).eval().requires_grad_(False)
    texts = queries(images)
    contenders = {"ours": rate(ours(generator, texts, chosen)), "diffusers": rate(peer(generator, texts, chosen))}
    rates = interleave(contenders, blocks=blocks, what="bench sample")
    writer = create("dalle_tiny", width=512, num_layers=8, num_heads=8).eval().requires_grad_(False)
    code_rates = interleave(
        {
            "ours": rate(codes(writer, texts[:CODE_PICTURES])),
            "matrix products": rate(matrix_products(writer, 2 * CODE_PICTURES)),
        },
        blocks=blocks,
        what="bench sample, codes",
    )
    metadata = protocol(
        packages=("diffusers", "transformers"),
        network=f"dit_tiny: PixArtTransformer2DModel, 8 layers of 256, {SIZE} px in patches of 4, random weights",
        peer="PixArtAlphaPipeline around the same network, its solver EulerDiscreteScheduler; its output left as"
        " floats",
        ours="generate(): noise drawn by each image's seed, pixels rounded",
        texts="read by the same text tower in each block of both",
        sampling=f"{steps} steps of Euler, guidance {GUIDANCE} in all of them",
        images=f"{images} at a time",
        precision=f"{chosen} for both; of codes 32-true, in which `zoo generate` draws",
        threads=torch.get_num_threads(),
        blocks=f"{blocks} of {images} images each",
        codes=f"dalle_tiny with 8 layers of 512, random weights: 64 codes each of {CODE_PICTURES} images at a time,"
        " with guidance, texts included; against the products with its weight matrices alone, for as many rows and"
        " codes",
    )
    rows = [
        Row("sample", "images/s", rates, "ours", "diffusers", WANTED),
        Row("sample, autoregressive", "codes/s", code_rates, "ours", "matrix products", WANTED_CODES),
    ]
    report("sample", rows, metadata, output=output)


def ours(generator: "RectifiedFlow", texts: list[str], precision: str) -> Any:
    """Generates one image of each text."""
    from zoo.core.precision import autocast

    def sample() -> float:
        with autocast(precision, generator.no_text.device):
            generator.generate(texts, seeds=list(range(len(texts))))
        return len(texts)

    return sample


def peer(generator: "RectifiedFlow", texts: list[str], precision: str) -> Any:
    """Generates as many by diffusers' pipeline; the same text tower reads the texts for it."""
    import torch
    from diffusers import EulerDiscreteScheduler, PixArtAlphaPipeline

    from zoo.core.precision import autocast

    network: Any = generator.network
    pipeline: Any = PixArtAlphaPipeline(None, None, None, network.model, EulerDiscreteScheduler())
    pipeline.set_progress_bar_config(disable=True)
    steps = generator.options.steps
    everything = torch.ones(len(texts), dtype=torch.bool)

    def sample() -> float:
        with torch.no_grad(), autocast(precision, generator.no_text.device):
            text, mask = generator.text_tower.sequence(texts)
            no_text, no_mask = generator._without_text(text, mask, everything)
            pipeline(
                prompt=None,
                negative_prompt=None,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                height=SIZE * VAE_FACTOR,
                width=SIZE * VAE_FACTOR,
                prompt_embeds=text,
                prompt_attention_mask=mask.long(),
                negative_prompt_embeds=no_text,
                negative_prompt_attention_mask=no_mask.long(),
                use_resolution_binning=False,
                output_type="latent",
            )
        return len(texts)

    return sample


def codes(generator: "DALLE", texts: list[str]) -> Any:
    """Writes the codes of one image of each text; as many codes."""

    def write() -> float:
        return generator.write(texts, seeds=list(range(len(texts)))).numel()

    return write


def matrix_products(generator: "DALLE", rows: int) -> Any:
    """Multiplies ``rows`` vectors by every weight matrix of the transformer, once for each code of an image."""
    import torch
    from torch.nn.functional import linear

    layers = [part for part in generator.trunk.modules() if isinstance(part, torch.nn.Linear)]
    weights = [part.weight for part in [*layers, generator.head]]
    inputs = {width: torch.randn(rows, width) for width in {weight.shape[1] for weight in weights}}

    def multiply() -> float:
        for _ in range(generator.side**2):
            for weight in weights:
                linear(inputs[weight.shape[1]], weight)
        return rows / 2 * generator.side**2

    return multiply
