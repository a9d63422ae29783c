"""What the benches share: options, interleaved blocks, rows of ratios, the protocol, the table and the JSON."""

import importlib.util
import inspect
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from zoo.core.command import write_output
from zoo.core.results import spell
from zoo.errors import UserError

EXPLANATION = (
    "Each row is a ratio of rates: the contenders take turns, block by block, in one run, and the medians of the blocks"
    " are divided. The peers are installed by pip install -e '.[parity]'."
)
Precision = Literal["auto", "bf16-mixed", "32-true"]
Device = Literal["cuda", "cpu"]
Rates = dict[str, list[float]]
"""For each contender the rate of each block."""


def run_bench(name: str, measure: Callable[..., None], argv: list[str]) -> int:
    """Run a bench whose options are the arguments of a function, and its help the function's docstring.

    Args:
        name: What the bench is called.
        measure: Measures, prints and writes. Its whole numbers are counts, of 1 or more.
        argv: The words after ``python -m zoo bench NAME``.

    Returns:
        0.
    """
    from zoo.core.command import CommandParser

    described = " ".join((inspect.getdoc(measure) or "").partition("\n\nArgs:")[0].split())
    parser = CommandParser(prog=f"python -m zoo bench {name}", description=f"{described} {EXPLANATION}")
    parser.add_function_arguments(measure, as_group=False)
    options = parser.parse_args(argv).as_dict()
    for option, value in options.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            parser.error(f"--{option} is {value}: give 1 or more")
    measure(**options)
    return 0


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: What is done.
        unit: Of the rates; higher is better.
        rates: The rates of each block, by contender.
        ours: The contender that is ours.
        peer: The contender that it is held against; None for a rate that stands alone.
        wanted: The least ratio, or the least rate of ours where there is no peer; None where none is asked for.
    """

    name: str
    unit: str
    rates: Rates = field(repr=False)
    ours: str
    peer: str | None
    wanted: float | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """The row as the JSON has it: medians over the blocks, their ratio, the blocks."""
        ours = statistics.median(self.rates[self.ours])
        peer = statistics.median(self.rates[self.peer]) if self.peer else None
        names = [name for name in (self.ours, self.peer) if name]
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": ours,
            "peer": peer,
            "ratio": ours / peer if peer else None,
            "wanted": self.wanted,
            "ours_is": self.ours,
            "peer_is": self.peer,
            "blocks": {name: self.rates[name] for name in names},
        }


def rate(work: Callable[[], float], wait: Callable[[], None] = lambda: None) -> Callable[[], float]:
    """Time ``work``, which returns how many things it did: things a second.

    Args:
        work: What is timed.
        wait: Called before a clock is read, where something else computes: ends when that has.
    """

    def timed() -> float:
        wait()
        start = time.perf_counter()
        done = work()
        wait()
        return done / (time.perf_counter() - start)

    return timed


def interleave(contenders: dict[str, Callable[[], float]], *, blocks: int, what: str) -> Rates:
    """Measure contenders in turn, block by block, after one block each that does not count.

    Args:
        contenders: Each measures one block of itself and returns its rate.
        blocks: Blocks that count, at least 1.
        what: Said on the error stream with each block.
    """
    rates: Rates = {name: [] for name in contenders}
    for block in range(blocks + 1):
        print(f"{what}: {f'block {block} of {blocks}' if block else 'warming up'}", file=sys.stderr, flush=True)
        for name, measure in contenders.items():
            value = measure()
            if block:
                rates[name].append(value)
    return rates


def in_a_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work`` returns in a process of its own, which has no memory but what it takes there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def peak_memory() -> int:
    """Bytes that this process held at most; on Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def require(modules: dict[str, str], *, bench: str) -> None:
    """See that peers are installed.

    Args:
        modules: Module → the package that brings it.
        bench: The bench that asks.

    Raises:
        UserError: One is not.
    """
    for module, package in modules.items():
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"{bench} measures against {package}, which is not installed: pip install -e '.[parity]' brings it."
            )


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch on so many threads inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def protocol(*, packages: tuple[str, ...], **about: Any) -> dict[str, Any]:
    """How a bench was measured: what it fixes itself, then processor, threads and versions.

    Args:
        packages: Whose versions matter beside Python's and torch's.
        about: What the bench itself fixes: sizes, precision, blocks.
    """
    import torch

    from zoo.core.hardware import bfloat16_units

    seen = {"gpu": "there is one, and this measures the processor: see bench gpu"} if torch.cuda.is_available() else {}
    return {
        **about,
        **({} if "device" in about else seen),
        "processor": ", ".join([processor_name(), f"{os.cpu_count()} cores", *bfloat16_units()]),
        "memory": f"THP_MEM_ALLOC_ENABLE={os.environ.get('THP_MEM_ALLOC_ENABLE', '0')} for all contenders",
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", *packages)},
    }


def processor_name() -> str:
    """The processor's name; on Linux as the kernel has it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(bench: str, rows: list[Row], protocol: dict[str, Any], *, output: str | None) -> None:
    """Print rows and protocol; write the same as JSON where a file is named.

    Raises:
        UserError: The file cannot be written.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (f"bench {bench}", "ours", "peer", "ratio", "blocks' ratios", "wanted"):
        right = title in ("ours", "peer", "ratio", "wanted")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    figures = [row.figures for row in rows]
    for row in figures:
        table.add_row(*_cells(row))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print("\n".join(f"{key}: {value}" for key, value in protocol.items()), highlight=False, soft_wrap=True)
    if output is None:
        return
    contents = {"bench": bench, "rows": figures, "protocol": protocol}
    write_output(output, json.dumps(contents, indent=1, ensure_ascii=False) + "\n")


def _cells(row: dict[str, Any]) -> list[str]:
    ours, peer, wanted = row["ours"], row["peer"], row["wanted"]
    name = f"{row['name']}: {row['ours_is']}" + (f" / {row['peer_is']}" if row["peer_is"] else "")
    if peer is None:
        return [name, spell(ours, row["unit"]), "", "", "", spell(wanted, row["unit"]) if wanted else ""]
    ratios = [mine / theirs for mine, theirs in zip(*row["blocks"].values(), strict=True)]
    spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
    cells = [name, spell(ours, row["unit"]), spell(peer, row["unit"]), f"{row['ratio']:.2f}", spread]
    return [*cells, f"{wanted:.2f}" if wanted else ""]
