"""What the benches of a GPU share: clocks that wait for it, the best that it multiplies, its memory, Lightning."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
import torch

from zoo.core.bench.harness import Device, Rates, interleave, rate
from zoo.core.bench.loop import fit_quietly
from zoo.core.device import wait_for
from zoo.core.hardware import gpu_name
from zoo.errors import UserError

SIDE = 8192  # of the matrices whose product is the measured peak


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


def rates_of(contenders: Mapping[str, Callable[[], float]], device: torch.device, *, blocks: int, what: str) -> Rates:
    """Measure contenders in turn as ``interleave`` does, the device waited for; say the medians at once.

    Args:
        contenders: Each does one block and returns how many things it did.
        device: What computes.
        blocks: Blocks that count, at least 1.
        what: Said on the error stream with each block.
    """
    timed = {name: rate(work, partial(wait_for, device)) for name, work in contenders.items()}
    rates = interleave(timed, blocks=blocks, what=what)
    medians = ", ".join(f"{name} {statistics.median(values):.4g} a second" for name, values in rates.items())
    print(f"{what}: {medians}", file=sys.stderr, flush=True)  # a bench that is cut short has told that much
    return rates


def peak_product(device: torch.device) -> float:
    """Measure the operations a second of a product of two bfloat16 matrices of random numbers, the card's best."""
    side = SIDE if device.type == "cuda" else 256
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> float:
        for _ in range(10):
            left @ right
        return 10 * 2 * side**3

    return max(rates_of({"operations": multiply}, device, blocks=5, what="bench gpu, a product")["operations"])


def operations(work: Callable[[], Any]) -> int:
    """Count the floating-point operations of the matrix products, convolutions and attentions inside."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_gpu_memory(work: Callable[[], Any], device: torch.device) -> float:
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
    clock = _Clock(warm=max(2, steps // 4))
    fit_quietly(task, batch, precision, steps=clock.warm + steps, callbacks=[clock, *callbacks])
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
