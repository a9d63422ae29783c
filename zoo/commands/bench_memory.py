"""``bench memory``: the peak memory of a contrastive step, in chunks and with the whole batch kept."""

import logging
import multiprocessing
import resource
import sys
import warnings
from typing import Any, cast

from zoo.commands.bench_report import Row, protocol, report
from zoo.errors import UserError

SIZE = 64
TEXT = "夏季新款碎花连衣裙"


def run(*, batch_sizes: list[int], chunk_size: int, kept: int, blocks: int, output: str | None) -> None:
    """Measure, print, write.

    Args:
        batch_sizes: Pairs of a step, each size in processes of its own.
        chunk_size: Pairs that the towers encode at a time.
        kept: The largest batch that is also trained whole.
        blocks: Processes of each.
        output: Where the JSON goes.

    Raises:
        UserError: A number is below 1.
    """
    for name, value in (("batch_sizes", min(batch_sizes)), ("chunk_size", chunk_size)):
        if value < 1:
            raise UserError(f"--{name}: {value} came; give 1 or more")
    rows = []
    for size in batch_sizes:
        contenders = {f"chunks of {chunk_size}": chunk_size} | ({"whole": None} if size <= kept else {})
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        peaks = dict.fromkeys(contenders, 0)
        for _ in range(blocks):
            for name, chunk in contenders.items():
                print(f"bench memory: {size} pairs, {name}", file=sys.stderr, flush=True)
                peaks[name] = max(peaks[name], _in_a_process(size, chunk))
                rates[name].append(size / (peaks[name] / 1e9))
        spelled = ", ".join(f"{peak / 1e6:,.0f} MB" for peak in peaks.values())
        peer = "whole" if size <= kept else None
        rows.append(Row(f"a step of {size:,} pairs ({spelled})", "pairs/GB", rates, f"chunks of {chunk_size}", peer))
    facts = protocol(
        packages=("timm", "transformers"),
        model=f"ViT-S/16 at {SIZE} px and RBT3, random weights, fp32",
        step="forward, softmax loss, backward, AdamW",
        memory_is="the peak of a process of its own, libraries, weights and pictures included; 10^6 bytes",
        blocks=blocks,
    )
    report("memory", rows, facts, output=output)


def _in_a_process(batch_size: int, chunk_size: int | None) -> int:
    """Bytes at the peak of a process that takes one step."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (batch_size, chunk_size))


def peak(batch_size: int, chunk_size: int | None) -> int:
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
        "text": [TEXT[: 2 + place % 8] for place in range(batch_size)],
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
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
