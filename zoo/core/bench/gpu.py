"""What the benches of a GPU share: clocks that wait for it, the best that it multiplies, its memory, Lightning."""

import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from zoo.core.bench.harness import Device, Rates
from zoo.core.device import wait_for
from zoo.core.hardware import gpu_name
from zoo.core.loaders import whole_batch
from zoo.errors import UserError

BEGAN = time.perf_counter()
SIDE = 8192  # of the matrices whose product is the measured peak


def tell(what: str, rates: Rates | None = None) -> None:
    """Say on the error stream what has been measured, and when: a bench that is cut short has told that much."""
    medians = ", ".join(f"{name} {statistics.median(values):.4g} a second" for name, values in (rates or {}).items())
    print(f"bench, {time.perf_counter() - BEGAN:.0f} s: {what} {medians}", file=sys.stderr, flush=True)


def chosen_device(device: Device) -> torch.device:
    """Give the device to measure.

    Raises:
        UserError: There is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("bench gpu: there is no GPU here; --device cpu tries the bench itself, with small sizes")
    return torch.device(device)


def about(device: torch.device) -> dict[str, Any]:
    """Say what was measured on, for the protocol."""
    if device.type == "cpu":
        return {"device": "the processor: a trial of the bench, not a measurement of a GPU"}
    free, total = torch.cuda.mem_get_info(device)
    return {"device": gpu_name(device), "gpu_memory": f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"}


def rates_of(
    contenders: Mapping[str, Callable[[], float]], device: torch.device, *, blocks: int, warm: int = 2
) -> Rates:
    """Measure contenders in turn, after some calls that do not count: things a second, the device waited for.

    Args:
        contenders: Each does one block and returns how many things it did.
        device: What computes.
        blocks: Blocks that count, at least 1.
        warm: Calls of each before them.
    """
    rates: Rates = {name: [] for name in contenders}
    for block in range(-warm, blocks):
        for name, work in contenders.items():
            wait_for(device)
            start = time.perf_counter()
            done = work()
            wait_for(device)
            if block >= 0:
                rates[name].append(done / (time.perf_counter() - start))
    return rates


def peak_product(device: torch.device) -> float:
    """Measure the operations a second of a product of two bfloat16 matrices of random numbers, the card's best."""
    side = SIDE if device.type == "cuda" else 256
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> float:
        for _ in range(10):
            left @ right
        return 10 * 2 * side**3

    return max(rates_of({"product": multiply}, device, blocks=5)["product"])


def operations(work: Callable[[], Any]) -> int:
    """Count the floating-point operations of the matrix products, convolutions and attentions inside."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_memory(work: Callable[[], Any], device: torch.device) -> float:
    """Measure the gigabytes, 10^9 bytes, that are taken at most on a GPU while work is done; of a CPU nothing."""
    if device.type == "cpu":
        work()
        return float("nan")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 1e9


def lightning_rate(task: Any, batch: Any, precision: str, *, steps: int, callbacks: Sequence[Any]) -> float:
    """Measure the samples a second of ``Trainer.fit``, loader, transfer, logger and all, over its last steps."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    task.configure_callbacks = list  # the evaluation that it brings is no part of a step
    clock = _Clock(warm=max(2, steps // 4))
    place, on_gpu = task.device, task.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_steps=clock.warm + steps,
            logger=CSVLogger(folder),
            callbacks=[clock, LearningRateMonitor("step"), *callbacks],
            log_every_n_steps=50,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=bool(callbacks),
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        batches: Any = [batch] * (clock.warm + steps)
        trainer.fit(task, DataLoader(batches, batch_size=None, collate_fn=whole_batch, pin_memory=on_gpu))
    task.to(place)  # Lightning leaves it on the CPU
    return steps * len(batch["text"]) / clock.seconds


class _Clock(L.Callback):
    def __init__(self, warm: int) -> None:
        self.warm = warm
        self.seconds = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warm:
            wait_for(pl_module.device)
            self.seconds -= time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        wait_for(pl_module.device)
        self.seconds += time.perf_counter()
