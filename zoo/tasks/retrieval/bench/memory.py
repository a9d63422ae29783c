"""``bench memory``: the peak memory of a contrastive step, in chunks and with the whole batch kept."""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from zoo.core.bench.harness import Row, in_a_new_process, peak_memory, protocol, report, run_bench
from zoo.core.bench.samples import queries
from zoo.errors import UserError

SIZE = 64


def main(argv: list[str]) -> int:
    """Run ``bench memory``."""
    return run_bench("memory", measure, argv)


def measure(
    *,
    batch_sizes: Sequence[int] = (64, 256, 1024, 4096),
    chunk_size: int = 64,
    kept: int = 1024,
    blocks: int = 1,
    output: str | None = None,
) -> None:
    """Measure the peak memory of a contrastive step of ViT-S/16 at 64 px and RBT3, as pairs a gigabyte.

    Its towers encode some pairs at a time (model.chunk_size), against the whole batch kept. About seven minutes on two
    cores.

    Args:
        batch_sizes: Pairs of a step, as [64, 256]; each size in processes of its own.
        chunk_size: Pairs that the towers encode at a time.
        kept: The largest batch that is also trained whole.
        blocks: Processes of each.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: A batch is below 1, or this is not Linux.
    """
    if min(batch_sizes) < 1:
        raise UserError(f"--batch_sizes: {min(batch_sizes)} came; give 1 or more")
    if not Path("/proc/self/status").exists():
        raise UserError("bench memory reads /proc/self/status, which Linux alone has: run it there")
    rows = []
    for size in batch_sizes:
        contenders = {f"chunks of {chunk_size}": chunk_size} | ({"whole": None} if size <= kept else {})
        peaks: dict[str, list[int]] = {name: [] for name in contenders}
        for _ in range(blocks):
            for name, chunk in contenders.items():
                print(f"bench memory: {size} pairs, {name}", file=sys.stderr, flush=True)
                peaks[name].append(in_a_new_process(peak_of_a_step, size, chunk))
        spelled = ", ".join(f"{max(own) / 1e6:,.0f} MB" for own in peaks.values())
        rates = {name: [size / (peak / 1e9) for peak in own] for name, own in peaks.items()}
        peer = "whole" if size <= kept else None
        rows.append(Row(f"a step of {size:,} pairs ({spelled})", "pairs/GB", rates, f"chunks of {chunk_size}", peer))
    metadata = protocol(
        packages=("timm", "transformers"),
        model=f"ViT-S/16 at {SIZE} px and RBT3, random weights, fp32",
        step="forward, softmax loss, backward, AdamW",
        memory_is="the peak of a process of its own, libraries, weights and images included; 10^6 bytes",
        blocks=blocks,
    )
    report("memory", rows, metadata, output=output)


def peak_of_a_step(batch_size: int, chunk_size: int | None) -> int:
    """Take one step in this process.

    Returns:
        The most bytes that it has held so far.
    """
    import torch
    from lightning import Trainer
    from torch.utils.data import DataLoader

    from zoo.tasks import RetrievalTask

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    task = RetrievalTask(
        "vit_small_patch16_224",
        "rbt3",
        image_tower_options={"image_size": SIZE},
        image_pretrained=False,
        text_pretrained=False,
        chunk_size=chunk_size,
    )
    rows = torch.arange(batch_size)
    batch = {
        "image": torch.randint(256, (batch_size, 3, SIZE, SIZE), dtype=torch.uint8),
        "text": queries(batch_size),
        "image_id": rows,
        "query_id": rows,
    }
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(cast(Any, [batch]), batch_size=None))
    return peak_memory()
