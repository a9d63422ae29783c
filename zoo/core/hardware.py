"""What this machine computes well, and what to call it."""

from contextlib import suppress
from pathlib import Path

import lightning as L
import torch


def best_precision() -> str:
    """``bf16-mixed`` where the processor computes in bfloat16 (2–4× faster there), else ``32-true``."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if bfloat16_units() else "32-true"


def bfloat16_units() -> list[str]:
    """What PyTorch computes in bfloat16 with on this processor: ``AVX512-BF16``, ``AMX``, both or nothing.

    Nothing where oneDNN is kept from them (``ONEDNN_MAX_CPU_ISA``): bfloat16 is then 40 times slower than float32.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return []
    units = {"AVX512-BF16": torch.cpu._is_avx512_bf16_supported(), "AMX": torch.cpu._is_amx_tile_supported()}
    return [name for name, there in units.items() if there]


def gpu_name(device: torch.device) -> str:
    """Name a GPU, as its driver does: ``NVIDIA H100 80GB HBM3``."""
    return torch.cuda.get_device_name(device)


def describe_hardware(trainer: L.Trainer) -> str:
    """What a run ran on, in a few words."""
    if trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {gpu_name(trainer.strategy.root_device)}"
    features = "AVX512-BF16" if "AVX512-BF16" in bfloat16_units() else "no AVX512-BF16"
    threads = torch.get_num_threads() * trainer.world_size
    return f"{threads} CPU core{'s' if threads > 1 else ''} ({features})"


def available_memory() -> int | None:
    """Bytes that this process may still take: the system's and, in a container, the control group's; None: unknown."""
    free = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # the limit may be "max"
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(free, default=None)
