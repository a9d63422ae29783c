"""``bench gpu_sample``: images and codes a second on a GPU."""

from functools import partial
from typing import Any
from unittest.mock import patch

from zoo.core.bench.harness import Device, Rates, Row, protocol, report, run_bench
from zoo.core.bench.samples import queries

SINGLY = "bf16-mixed, kernel by kernel"
GENERATORS: dict[str, dict[str, Any]] = {  # name → options of its builder
    "dalle_base": {},
    "dit_small": {"image_size": 64, "patch_size": 4},
    "unet_tiny": {},
}


def main(argv: list[str]) -> int:
    """Run ``bench gpu_sample``."""
    return run_bench("gpu_sample", measure, argv)


def measure(*, images: int = 64, blocks: int = 3, device: Device = "cuda", output: str | None = None) -> None:
    """Measure the images a second that generators sample on one GPU, in bf16 and in fp32.

    Of DALL·E's base size the codes a second, 256 an image; of diffusion 64 px by a transformer, 32 px by a UNet, 25
    steps each. About a minute on an H200.

    Args:
        images: Images of a block, sampled together.
        blocks: Blocks of each.
        device: cuda; cpu tries the bench itself, with tiny generators.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: There is no GPU.
    """
    from zoo.core.bench.gpu import about, chosen_device

    place = chosen_device(device)
    models = GENERATORS if device == "cuda" else {"dalle_tiny": {}, "unet_tiny": {}}
    rows = []
    for name, options in models.items():
        rates, unit = sampling_rates(name, options, place, images, blocks)
        rows.append(Row(name, unit, rates, "bf16-mixed", "32-true"))
        if SINGLY in rates:
            rows.append(Row(f"{name}, its codes by one CUDA graph", unit, rates, "bf16-mixed", SINGLY))
    metadata = protocol(
        packages=("diffusers", "transformers"),
        **about(place),
        models="random weights; text towers, guidance and the image tokenizer's decoder included",
        images=f"{images} at a time",
        blocks=f"{blocks} of {images} images each, after one that does not count",
    )
    report("gpu_sample", rows, metadata, output=output)


def sampling_rates(name: str, options: dict[str, Any], place: Any, images: int, blocks: int) -> tuple[Rates, str]:
    """Measure one generator in both precisions; the rates, and of what they are."""
    import torch

    from zoo.core.bench.gpu import rates_of
    from zoo.core.precision import autocast
    from zoo.registry import create

    torch.manual_seed(0)
    generator: Any = create(name, **options).to(place).eval().requires_grad_(False)
    codes = generator.side**2 if hasattr(generator, "side") else 1
    texts, seeds = queries(images), list(range(images))

    def sample(precision: str) -> float:
        with autocast(precision, place):
            generator.generate(texts, seeds=seeds)
        return images * codes

    def sample_singly() -> float:
        with patch(
            "zoo.tasks.text_to_image.generators.dalle.repeat_on_gpu", lambda step, times: [step() for _ in range(times)]
        ):
            return sample("bf16-mixed")

    contenders: dict[str, Any] = {precision: partial(sample, precision) for precision in ("bf16-mixed", "32-true")}
    if codes > 1 and place.type == "cuda":
        contenders[SINGLY] = sample_singly
    rates = rates_of(contenders, place, blocks=blocks, what=f"bench gpu_sample, {name}")
    return rates, "codes/s" if codes > 1 else "images/s"
