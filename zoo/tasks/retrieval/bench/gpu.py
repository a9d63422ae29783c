"""``bench gpu``: a training step on a GPU against open_clip's and the card's best; what feeds it."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zoo.core.bench.harness import Device, Row, protocol, report, require, run_bench
from zoo.core.bench.samples import SIZE, product_jpeg, temporary_folder

if TYPE_CHECKING:
    import torch

    from zoo.tasks import RetrievalTask

PRECISION = "bf16-mixed"


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
    workers, AutoAugment included. About three minutes on an H100.

    Args:
        batch_sizes: Pairs of a step, as [128, 512].
        chunked: Pairs of the step in chunks.
        chunk_size: Pairs that its towers encode at a time.
        workers: Processes of the loader, as [4, 8, 16].
        images: Images that the loader reads, each with one query.
        steps: Steps of a block.
        layers: Transformer layers of all towers, 1 to 12: fewer for a quick look.
        compiled: Whether the towers are also compiled, which takes a minute.
        blocks: Blocks of each contender.
        device: cuda; cpu tries the bench itself.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: There is no GPU, or open_clip is not installed.
    """
    require({"open_clip": "open-clip-torch"}, bench="bench gpu")
    from zoo.core.bench.gpu import about, chosen_device, peak_product

    place = chosen_device(device)
    peak = peak_product(place)
    rows = []
    for size in batch_sizes:
        rows += step_rows(place, size, steps, layers, blocks, peak)
    rows += loop_rows(place, batch_sizes[0], steps, layers, blocks, compiled)
    rows.append(chunk_row(place, chunked, chunk_size, layers, blocks))
    appetite = statistics.median(rows[0].rates["ours"])
    for count in workers:
        rows += loader_rows(place, count, images, batch_sizes[0], appetite)
    metadata = protocol(
        packages=("lightning", "timm", "transformers", "open-clip-torch"),
        **about(place),
        peak=f"{peak / 1e12:.0f} TFLOP/s: the best of products of random bfloat16 matrices, measured in the same run",
        model=f"ViT-B/16 at {SIZE} px and RoBERTa base, {layers} layers each, random weights, dropout 0.1 in the text",
        step="forward, loss, backward, AdamW (fused, of both); ours normalises and tokenises in the step, open_clip's"
        " inputs are ready, and its texts padded to 52 tokens",
        precision=f"{PRECISION} for all",
        loop="Trainer.fit with loader, transfer, logger, learning rate monitor and progress bar",
        loader=f"{images} generated JPEGs of {SIZE} px in MUGE's TSV; brought to the device; crop, flip and AutoAugment",
        blocks=f"{blocks} of {steps} steps each, after two that do not count",
    )
    report("gpu", rows, metadata, output=output)


def step_rows(place: "torch.device", size: int, steps: int, layers: int, blocks: int, peak: float) -> list[Row]:
    """Measure a step of some pairs: against open_clip's, against the card's best, and its memory."""
    from zoo.core.bench.gpu import operations, peak_memory, rates_of

    print(f"bench gpu: a step of {size} pairs", file=sys.stderr, flush=True)
    task, ours = our_step(place, size, layers)
    memory = peak_memory(ours, place)
    count = operations(ours)
    peer = peer_step_of(place, size, layers)
    contenders = {"ours": repeated(ours, size, steps), "open_clip": repeated(peer, size, steps)}
    rates = rates_of(contenders, place, blocks=blocks)
    share = {"ours": [100 * count * rate / size / peak for rate in rates["ours"]]}
    del task
    return [
        Row(f"step of {size}", "pairs/s", rates, "ours", "open_clip"),
        Row(f"step of {size}, share of the card's product", "%", share, "ours", None),
        Row(f"step of {size}, memory", "GB", {"ours": [memory]}, "ours", None),
    ]


def our_step(
    place: "torch.device", size: int, layers: int, **options: Any
) -> "tuple[RetrievalTask, Callable[[], None]]":
    """Build a task, and its step on a batch that lies on the device."""
    import torch

    from zoo.core.bench.loop import bare_step
    from zoo.tasks.retrieval.bench.step import make_batches, matching_loss, our_task

    torch.manual_seed(0)
    task = our_task(layers, **options).to(place)
    (pairs,) = make_batches(size, 1)
    batch: Any = {key: value.to(place) if torch.is_tensor(value) else value for key, value in pairs.items()}
    step = bare_step(task, lambda batch: matching_loss(task, batch), PRECISION)
    return task, lambda: step(batch)


def peer_step_of(place: "torch.device", size: int, layers: int) -> Callable[[], None]:
    """Build open_clip's step on a batch that lies on the device, normalised and as ids."""
    import torch

    from zoo.tasks.retrieval.bench.data import CONTEXT
    from zoo.tasks.retrieval.bench.step import open_clip_step

    step = open_clip_step(layers, PRECISION, place)
    pixels = torch.randn(size, 3, SIZE, SIZE, device=place)
    ids = torch.randint(1, 21128, (size, CONTEXT), device=place)
    return lambda: step(pixels, ids)


def repeated(step: Callable[[], None], size: int, steps: int) -> Callable[[], float]:
    """Some steps, and the pairs that they saw."""

    def block() -> float:
        for _ in range(steps):
            step()
        return size * steps

    return block


def loop_rows(place: "torch.device", size: int, steps: int, layers: int, blocks: int, compiled: bool) -> list[Row]:
    """Measure Lightning's loop against a bare one, and compiled towers against others."""
    from zoo.callbacks.progress import RunProgressBar
    from zoo.core.bench.gpu import lightning_rate, rates_of
    from zoo.tasks.retrieval.bench.step import make_batches

    print("bench gpu: Lightning's loop", file=sys.stderr, flush=True)
    task, bare = our_step(place, size, layers)
    rates = rates_of({"bare loop": repeated(bare, size, steps)}, place, blocks=blocks)
    (batch,) = make_batches(size, 1)
    callbacks = [RunProgressBar()]
    rates["Lightning's loop"] = [
        lightning_rate(task, batch, PRECISION, steps=3 * steps, callbacks=callbacks) for _ in range(blocks)
    ]
    rows = [Row(f"loop, {size} pairs", "pairs/s", rates, "Lightning's loop", "bare loop")]
    if compiled:
        print("bench gpu: compiling", file=sys.stderr, flush=True)
        task, step = our_step(place, size, layers)
        began = time.perf_counter()
        for _, tower in task._towers():
            tower.compile_network()
        step()
        seconds = time.perf_counter() - began
        rates |= rates_of({"compiled": repeated(step, size, steps)}, place, blocks=blocks)
        name = f"step of {size}, compiled in {seconds:.0f} s"
        rows.append(Row(name, "pairs/s", rates, "compiled", "bare loop"))
    return rows


def chunk_row(place: "torch.device", size: int, chunk_size: int, layers: int, blocks: int) -> Row:
    """Measure a step in chunks, and its memory."""
    from zoo.core.bench.gpu import peak_memory, rates_of

    print(f"bench gpu: a step of {size} pairs in chunks of {chunk_size}", file=sys.stderr, flush=True)
    _, step = our_step(place, size, layers, chunk_size=chunk_size)
    memory = peak_memory(step, place)
    rates = rates_of({"ours": repeated(step, size, 1)}, place, blocks=blocks, warm=1)
    return Row(f"step of {size} in chunks of {chunk_size}, {memory:.1f} GB", "pairs/s", rates, "ours", None)


def loader_rows(place: "torch.device", count: int, images: int, size: int, appetite: float) -> list[Row]:
    """Measure the pairs a second that the training loader hands over, against those that a step takes."""
    from zoo.core.device import wait_for
    from zoo.tasks.retrieval.bench.data import KINDS, write_muge
    from zoo.tasks.retrieval.data import RetrievalDataModule

    rows = []
    with temporary_folder() as folder:
        write_muge(folder, [product_jpeg(seed) for seed in range(images)])
        for where in ("worker", "device"):
            print(
                f"bench gpu: the loader with {count} workers, AutoAugment on the {where}", file=sys.stderr, flush=True
            )
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
