"""What a GPU needs beside a CPU's code: copies that the host does not wait for, clocks that do, sums in one order.

A GPU computes behind the host: one that waits for it leaves it without work until it has been told some again.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device; the host goes on while a GPU takes it from memory that is pinned."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was told, as before a clock is read; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeat_on_gpu(step: Callable[[], None], times: int) -> None:
    """Do a step many times, from the third on as one CUDA graph, which the host starts at once.

    Args:
        step: Always launches the same kernels on the same memory, and asks the GPU nothing: what changes lies there.
        times: How often, at least 0.
    """
    for _ in range(min(2, times)):
        step()
    if times <= 2:
        return
    graph = torch.cuda.CUDAGraph()
    # Weights that autocast has brought to 16 bits belong to it: a graph brings them itself.
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    own = torch.autocast("cuda", dtype, enabled, cache_enabled=False)
    with own, torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads pin batches meanwhile
        step()
    for _ in range(times - 2):
        graph.replay()


def running_sums(rows: Tensor) -> Tensor:
    """Sum ``[B, K]`` of floats along each row, in the same order in whatever batch, also ``trainer.deterministic``.

    PyTorch refuses ``cumsum`` there on a GPU, for it sums one long row in an order that changes; each of several rows
    it sums in order.
    """
    if not rows.is_cuda:
        return rows.cumsum(dim=1)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        return rows.repeat(2, 1).cumsum(dim=1)[:1] if len(rows) == 1 else rows.cumsum(dim=1)
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


class Later:
    """A number of a device, read when it has come: the host waits for what it was told before this, and no more.

    Args:
        value: A scalar.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value.to("cpu", non_blocking=True)
        self.come: torch.cuda.Event | None = None
        if value.is_cuda:
            self.come = torch.cuda.Event()
            self.come.record()

    def item(self) -> float:
        """Wait for it and give it."""
        if self.come is not None:
            self.come.synchronize()
        return self.value.item()
