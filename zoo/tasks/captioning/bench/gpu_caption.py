"""``bench gpu_caption``: captions a second on a GPU."""

from functools import partial

from zoo.core.bench.harness import Device, Row, protocol, report, run_bench


def main(argv: list[str]) -> int:
    """Run ``bench gpu_caption``."""
    return run_bench("gpu_caption", measure, argv)


def measure(*, images: int = 32, blocks: int = 3, device: Device = "cuda", output: str | None = None) -> None:
    """Measure the captions a second that ViT-B/16 and a decoder of 12 layers write on one GPU, in bf16 and in fp32.

    By five beams, of 40 tokens at most. About half a minute on an H200.

    Args:
        images: Images of a block, described together.
        blocks: Blocks of each precision.
        device: cuda; cpu tries the bench itself, with a tiny captioner.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: There is no GPU.
    """
    import torch

    from zoo.core.bench.gpu import about, chosen_device, rates_of
    from zoo.core.precision import autocast
    from zoo.registry import create

    place = chosen_device(device)
    name = "encoder_decoder_base" if device == "cuda" else "encoder_decoder_tiny"
    torch.manual_seed(0)
    captioner = create(name).to(place).eval().requires_grad_(False)
    size = captioner.image_size
    pixels = torch.randint(256, (images, 3, size, size), dtype=torch.uint8).to(place)

    def write(precision: str) -> float:
        with autocast(precision, place):
            return len(captioner.caption(pixels))

    contenders = {precision: partial(write, precision) for precision in ("bf16-mixed", "32-true")}
    rates = rates_of(contenders, place, blocks=blocks, what="bench gpu_caption")
    metadata = protocol(
        packages=("timm", "transformers"),
        **about(place),
        model=f"{name}, random weights; {captioner.decoding}",
        images=f"{images} of {size} px at a time, decoded and resized before",
        blocks=f"{blocks} of {images} captions each, after one that does not count",
    )
    report("gpu_caption", [Row("captions", "captions/s", rates, "bf16-mixed", "32-true")], metadata, output=output)
