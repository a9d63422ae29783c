"""What the tests of metrics share: several processes."""

import multiprocessing
from datetime import timedelta

import pytest
import torch
import torch.distributed


@pytest.fixture
def run_processes(tmp_path):
    """``run_processes(world_size, function, *arguments)``: what the function returns on each process, over gloo.

    It is called as ``function(rank, world_size, *arguments)``.
    """

    def run(world_size, function, *arguments):
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=_run_process, args=(rank, world_size, tmp_path, function, arguments))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * world_size
        return [torch.load(tmp_path / f"{rank}.pt") for rank in range(world_size)]

    return run


def _run_process(rank, world_size, folder, function, arguments):
    torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=30), rank=rank, world_size=world_size
    )
    torch.save(function(rank, world_size, *arguments), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
