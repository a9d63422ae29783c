"""``bench step --task text_to_image``: what Lightning's loop costs a diffusion generator over a bare one."""

from zoo.core.bench.harness import Precision, Row, protocol, report, run_bench
from zoo.core.bench.loop import LOOP_STEPS, WANTED_LOOP, bare_step, chosen_precision, loop_rates
from zoo.core.bench.samples import queries


def main(argv: list[str]) -> int:
    """Run ``bench step``."""
    return run_bench("step", measure, argv)


def measure(*, batch_size: int = 16, precision: Precision = "auto", output: str | None = None) -> None:
    """Measure the samples a second of the diffusion generator of diffusion_demo, in Lightning's loop and in a bare one.

    Args:
        batch_size: Pairs of a step.
        precision: Precision of both; auto: bf16-mixed where the processor computes in bfloat16.
        output: JSON file that rows and protocol are also written to.
    """
    import torch

    from zoo.callbacks.progress import RunProgressBar
    from zoo.tasks.text_to_image.task import TextToImageTask

    chosen = chosen_precision(precision)
    torch.manual_seed(0)
    task = TextToImageTask("unet_tiny", generator_options={"text_tower_options": {"num_layers": 1}}).train()
    side = task.image_size
    batch = {
        "image": torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8),
        "text": queries(batch_size),
        "image_id": [str(row) for row in range(batch_size)],
        "row": torch.arange(batch_size),
    }
    step = bare_step(task, lambda batch: task.generator.loss(batch)["loss"], chosen)
    rates = loop_rates(task, step, batch, chosen, callbacks=[RunProgressBar()])
    metadata = protocol(
        packages=("lightning", "diffusers", "transformers"),
        model=f"unet_tiny at {side} px, random weights",
        batch_size=batch_size,
        precision=f"{chosen} for both",
        threads=torch.get_num_threads(),
        loop="Trainer.fit with logger, learning rate monitor and progress bar; bare: the same task, batches, AdamW and"
        f" schedule; the two take turns, step by step, {LOOP_STEPS} steps each",
    )
    rows = [Row("loop of unet_tiny", "samples/s", rates, "Lightning's loop", "bare loop", WANTED_LOOP)]
    report("step", rows, metadata, output=output)
