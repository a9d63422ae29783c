"""``bench gpu``: a training step on a GPU against open_clip's and the card's best; what feeds it."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.core.bench.harness import Device, Row, protocol, report, require, run_bench
from zoo.core.bench.loop import bare_step, chosen_precision
from zoo.core.bench.samples import SIZE, product_jpeg, temporary_folder
from zoo.tasks.retrieval.bench.step import make_batches, matching_loss

if TYPE_CHECKING:
    import torch

    from zoo.tasks import RetrievalTask
    from zoo.tasks.retrieval.contracts import PairBatch

PROTOCOL = {
    "step": "forward, loss, backward, AdamW (fused, of both); ours normalises and tokenises in the step, open_clip's"
    " inputs are ready, and its texts padded to 52 tokens",
    "loop": "Trainer.fit with loader, transfer, logger, learning rate monitor and progress bar",
}


def main(argv: list[str]) -> int:
    """Run ``bench gpu``."""
    return run_bench("gpu", measure, argv)


def measure(
    *,
    batch_sizes: Sequence[int] = (128, 512),
    chunked: int = 2048,
    chunk_size: int = 256,
    workers: Sequence[int] = (4, 8, 16),
    images: int = 512,
    steps: int = 10,
    layers: int = 12,
    compiled: bool = True,
    blocks: int = 3,
    device: Device = "cuda",
    output: str | None = None,
) -> None:
    """Measure the pairs a second of a training step of ViT-B/16 and RoBERTa base at 224 px in bf16 on one GPU.

    Against open_clip's step, with Lightning's loop and with the towers compiled; as a share of the card's measured
    product of matrices; its memory, whole and in chunks; and what the training loader hands over with some numbers of
    workers, AutoAugment included.

    Args:
        batch_sizes: Pairs of a step, as [128, 512].
        chunked: Pairs of the step in chunks.
        chunk_size: Pairs that its towers encode at a time.
        workers: Processes of the loader, as [4, 8, 16].
        images: Images that the loader reads, each with one query.
        steps: Steps of a block.
        layers: Transformer layers of all towers, 1 to 12: fewer for a quick look.
        compiled: Whether a step with compiled towers is measured too.
        blocks: Blocks of each contender.
        device: cuda; cpu tries the bench itself.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: There is no GPU, or open_clip is not installed.
    """
    require({"open_clip": "open-clip-torch"}, bench="bench gpu")
    import torch

    from zoo.core.bench.gpu import about, chosen_device, peak_product
    from zoo.tasks.retrieval.bench.step import open_clip_step, our_task

    place = chosen_device(device)
    peak = peak_product(place)
    torch.manual_seed(0)
    task = our_task(layers).to(place)
    precision = "bf16-mixed" if place.type == "cuda" else chosen_precision("auto")
    ours = bare_step(task, lambda batch: matching_loss(task, batch), precision)
    theirs = open_clip_step(layers, precision, place)
    smallest = batch_sizes[0]
    rows = []
    for size in batch_sizes:
        both = partial(ours, our_batch(place, size)), partial(theirs, *their_batch(place, size))
        rows += step_rows(place, size, *both, max(2, steps * smallest // size), blocks, peak)
    one, rates = partial(ours, our_batch(place, smallest)), rows[0].rates["ours"]
    rows.append(loop_row(task, one, smallest, steps, blocks, precision))
    task.hparams["chunk_size"] = chunk_size
    rows.append(chunk_row(place, partial(ours, our_batch(place, chunked)), chunked, chunk_size, blocks))
    task.hparams["chunk_size"] = None
    for count in workers:
        rows += loader_rows(place, count, images, smallest, statistics.median(rates))
    if compiled:
        rows.append(compiled_row(task, one, smallest, steps, blocks, rates))
    metadata = protocol(
        packages=("lightning", "timm", "transformers", "open-clip-torch"),
        **about(place),
        peak=f"{peak / 1e12:.0f} TFLOP/s: the best of products of random bfloat16 matrices, measured in the same run",
        model=f"ViT-B/16 at {SIZE} px and RoBERTa base, {layers} layers each, random weights, dropout 0.1 in the text",
        precision=f"{precision} for all",
        loader=f"{images} generated JPEGs of {SIZE} px in MUGE's TSV, cropped, flipped, augmented, on the device",
        blocks=f"{blocks} of {steps} steps each, after one that does not count",
        **PROTOCOL,
    )
    report("gpu", rows, metadata, output=output)


def our_batch(place: "torch.device", size: int) -> "PairBatch":
    """Make a batch of ours, on the device."""
    import torch

    (pairs,) = make_batches(size, 1)
    batch: Any = {key: value.to(place) if torch.is_tensor(value) else value for key, value in pairs.items()}
    return batch


def their_batch(place: "torch.device", size: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Make a batch of open_clip's, on the device, normalised and as ids."""
    import torch

    from zoo.tasks.retrieval.bench.data import CONTEXT

    return torch.randn(size, 3, SIZE, SIZE, device=place), torch.randint(1, 21128, (size, CONTEXT), device=place)


def repeated(step: Callable[[], Any], size: int, steps: int) -> Callable[[], float]:
    """Some steps, and the pairs that they saw."""

    def block() -> float:
        for _ in range(steps):
            step()
        return size * steps

    return block


def step_rows(
    place: "torch.device",
    size: int,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    steps: int,
    blocks: int,
    peak: float,
) -> list[Row]:
    """Measure a step of some pairs: against open_clip's, against the card's best, and its memory."""
    from zoo.core.bench.gpu import operations, peak_gpu_memory, rates_of

    ours()
    memory = peak_gpu_memory(ours, place)
    count = operations(ours)
    contenders = {"ours": repeated(ours, size, steps), "open_clip": repeated(theirs, size, steps)}
    rates = rates_of(contenders, place, blocks=blocks, what=f"bench gpu, a step of {size} pairs")
    share = {"ours": [100 * count * rate / size / peak for rate in rates["ours"]]}
    return [
        Row(f"step of {size}", "pairs/s", rates, "ours", "open_clip"),
        Row(f"step of {size}, share of the card's product", "%", share, "ours", None),
        Row(f"step of {size}, memory", "GB", {"ours": [memory]}, "ours", None),
    ]


def loop_row(task: "RetrievalTask", bare: Callable[[], Any], size: int, steps: int, blocks: int, precision: str) -> Row:
    """Measure Lightning's loop against a bare one."""
    from zoo.callbacks.progress import RunProgressBar
    from zoo.core.bench.gpu import lightning_rate, rates_of

    contenders = {"bare loop": repeated(bare, size, steps)}
    rates = rates_of(contenders, task.device, blocks=blocks, what="bench gpu, the loops")
    (batch,) = make_batches(size, 1)
    rates["Lightning's loop"] = [
        lightning_rate(task, batch, precision, steps=2 * steps, callbacks=[RunProgressBar()]) for _ in range(blocks)
    ]
    return Row(f"loop, {size} pairs", "pairs/s", rates, "Lightning's loop", "bare loop")


def chunk_row(place: "torch.device", step: Callable[[], Any], size: int, chunk_size: int, blocks: int) -> Row:
    """Measure a step in chunks, and its memory."""
    from zoo.core.bench.gpu import peak_gpu_memory, rates_of

    memory = peak_gpu_memory(step, place)
    rates = rates_of({"ours": repeated(step, size, 1)}, place, blocks=blocks, what="bench gpu, a step in chunks")
    return Row(f"step of {size} in chunks of {chunk_size}, {memory:.1f} GB", "pairs/s", rates, "ours", None)


def compiled_row(
    task: "RetrievalTask", step: Callable[[], Any], size: int, steps: int, blocks: int, eager: list[float]
) -> Row:
    """Measure compiled towers against others; the task's stay compiled."""
    from zoo.core.bench.gpu import rates_of

    began = time.perf_counter()
    for _, tower in task._towers():
        tower.compile_network()
    step()
    seconds = time.perf_counter() - began
    rates = rates_of({"compiled": repeated(step, size, steps)}, task.device, blocks=blocks, what="bench gpu, compiled")
    rates["eager"] = eager
    return Row(f"step of {size}, compiled in {seconds:.0f} s", "pairs/s", rates, "compiled", "eager")


def loader_rows(place: "torch.device", count: int, images: int, size: int, appetite: float) -> list[Row]:
    """Measure the pairs a second that the training loader hands over, against those that a step takes."""
    from zoo.core.device import wait_for
    from zoo.tasks.retrieval.bench.data import KINDS, write_muge
    from zoo.tasks.retrieval.data import RetrievalDataModule

    rows = []
    with temporary_folder() as folder:
        write_muge(folder, [product_jpeg(seed) for seed in range(images)])
        for where in ("worker", "device"):
            options = KINDS["crop + flip + AutoAugment"] | {"augment_on": where, "num_workers": count}
            batch_size = min(size, images)
            data = RetrievalDataModule(str(folder), image_size=SIZE, batch_size=batch_size, seed=0, **options)
            data.setup("fit")
            loader, rates = data.train_dataloader(), []
            for epoch in range(6):  # in the first the workers begin
                start = time.perf_counter()
                pairs = sum(handed_over(data, batch, place) for batch in loader)
                wait_for(place)
                if epoch:
                    rates.append(pairs / (time.perf_counter() - start))
            name, step = f"{count} workers, AutoAugment on the {where}", f"step of {size}"
            rows.append(Row("loader", "pairs/s", {name: rates, step: [appetite] * len(rates)}, name, step))
    return rows


def handed_over(data: Any, batch: Any, place: "torch.device") -> int:
    """Bring a batch to the device, and do there what the worker left to it; the pairs of it."""
    moved = data.transfer_batch_to_device(batch, place, 0)
    return len(data.on_after_batch_transfer(moved, 0)["text"])
