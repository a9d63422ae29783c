"""``python -m zoo env``: what this machine is and can do, as a Markdown table to paste into an issue."""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread

from zoo.errors import UserError
from zoo.io import cache_folder

PACKAGES = {
    "zoo": "muge-zoo",
    **{name: name for name in ("torch", "lightning", "transformers", "timm", "torchmetrics", "diffusers", "wandb")},
}
BAD = {  # releases that must not be imported, and why
    ("lightning", "2.6.2"): "a malicious release",
    ("lightning", "2.6.3"): "a malicious release",
}
PATIENCE = 3.0  # seconds for hub and mirror together
HUB = "https://huggingface.co"


def main(argv: list[str]) -> int:
    """Print the table.

    Args:
        argv: The words after ``python -m zoo env``.

    Returns:
        0, or 1 where a package known to be bad is installed: nothing is imported then.
    """
    from zoo.core.command import CommandParser

    CommandParser(
        prog="python -m zoo env",
        description="What this machine is and can do, as a Markdown table to paste into an issue: versions, processor"
        " and GPUs, memory, disks, hub, data, loggers. It shows no key, and the home folder as ~.",
    ).parse_args(argv)
    bad = installed_bad()
    rows = {**BEFORE_IMPORTS, **({} if bad else IMPORTING)}
    print("| zoo env | |\n|---|---|")
    for title, ask in rows.items():
        print(f"| {title} | {as_cell(answer(ask))} |", flush=True)
    if bad:
        print(
            f"zoo env: {', '.join(bad)}; nothing was imported. Run pip install -e . again, which takes another release,"
            " and renew the keys and tokens of this machine",
            file=sys.stderr,
        )
    return 1 if bad else 0


def answer(ask: Callable[[], str]) -> str:
    """Give a row's words, or why it has none: a broken installation is what is asked about."""
    try:
        return ask()
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"unknown: {type(error).__name__}: {error}"


def as_cell(text: str) -> str:
    """Put words into one cell of a Markdown table, without names, keys and passwords."""
    text = " ".join(text.split()).replace("|", "\\|")
    text = re.sub(r"://[^/@\s]+@", "://", text)  # user and password of a mirror or proxy
    home = str(Path.home())
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text


# --- what needs no import --------------------------------------------------------------------------------------


def installed(package: str) -> str:
    """Give a package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def installed_bad() -> list[str]:
    """Name the installed packages that are known to be bad, and say why."""
    return [f"{name} {number} is {why}" for (name, number), why in BAD.items() if installed(name) == number]


def processor() -> str:
    """Name the processor and its cores."""
    from zoo.core.bench.harness import processor_name

    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name()}, {count} of {os.cpu_count()} cores for this process"


def disk(folder: Path) -> str:
    """Say what is free where a folder is, or would be made."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    usage = shutil.disk_usage(there)
    return f"{folder.absolute()}: {gigabytes(usage.free)} free of {gigabytes(usage.total)}"


def cache() -> str:
    """Say where zoo's cache is, and how large."""
    folder = cache_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{disk(folder)}; it holds {gigabytes(size)}"


def driver() -> str:
    """Ask NVIDIA's tool for the driver's version."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if shutil.which(words[0]) is None:
        return "none (there is no nvidia-smi)"
    asked = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    return ", ".join(dict.fromkeys(asked.stdout.splitlines()))  # one for each GPU, or what is wrong


def gigabytes(count: int) -> str:
    """Write a number of bytes."""
    return f"{count / 1e9:,.1f} GB"


# --- what zoo and its libraries say ----------------------------------------------------------------------------


def bfloat16() -> str:
    """Say what the processor computes in bfloat16 with."""
    from zoo.core.hardware import bfloat16_units

    return ", ".join(bfloat16_units()) or "nothing"


def gpus() -> str:
    """List the GPUs that torch sees, and their memory."""
    import torch

    from zoo.core.hardware import gpu_name

    found = []
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        free, total = torch.cuda.mem_get_info(device)
        found.append(f"{gpu_name(device)}, {gigabytes(free)} free of {gigabytes(total)}")
    return "; ".join(found) or "none that torch sees"


def cuda() -> str:
    """Say which CUDA torch was built for."""
    import torch

    return torch.version.cuda or "torch is built without CUDA"


def memory() -> str:
    """Say how much memory this process may take."""
    from zoo.core.hardware import available_memory

    free, total = available_memory(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{'unknown' if free is None else gigabytes(free)} free for this process; the machine has {gigabytes(total)}"


def precision() -> str:
    """Say what ``fit`` computes in."""
    from zoo.core.hardware import best_precision

    return best_precision()


def hub() -> str:
    """Say whether the Hugging Face hub, and the mirror of ``HF_ENDPOINT``, answer in time."""
    import huggingface_hub
    from huggingface_hub import constants

    if huggingface_hub.is_offline_mode():
        return "not asked: HF_HUB_OFFLINE is set"
    places = {constants.ENDPOINT: "HF_ENDPOINT", HUB: "the hub"}  # where they are one, the hub
    answers: dict[str, str] = {}
    threads = [Thread(target=_ask, args=(place, answers), daemon=True) for place in places]  # a name may take minutes
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = f"no answer in {PATIENCE:g} s"
    return "; ".join(f"{name} {place}: {answers.get(place, silent)}" for place, name in places.items())


def _ask(place: str, answers: dict[str, str]) -> None:
    from huggingface_hub import get_session

    try:
        answer = get_session().head(place, timeout=PATIENCE)
        answers[place] = "reachable" if answer.status_code < 400 else f"answers {answer.status_code}"
    except Exception as error:
        answers[place] = f"not reachable: {error}"


def font() -> str:
    """Name the font of image grids."""
    from zoo.core.grids import NOTE_SIZE
    from zoo.core.grids import font as grid_font

    return str(grid_font(NOTE_SIZE, 400).getname()[0])


def loggers() -> str:
    """Say where the numbers of a run go."""
    from zoo.cli.loggers import has_wandb_key, why_no_wandb

    mode = os.environ.get("WANDB_MODE", "online")
    return f"metrics.csv; {why_no_wandb() or f'W&B {mode}'}, {'a' if has_wandb_key() else 'no'} key was found"


def data() -> str:
    """Say which of MUGE's folders ``data.root: auto`` finds."""
    from zoo.core.loaders import muge_root
    from zoo.data.layouts import find_layouts, find_task_folder

    root, found = muge_root(), []
    for layout in find_layouts().values():
        try:
            found.append(find_task_folder(root, layout).name)
        except UserError:
            continue
    there = ", ".join(found) or ("none of MUGE's folders" if root.is_dir() else "no such folder")
    return f"{f'MUGE_ROOT {root}' if os.environ.get('MUGE_ROOT') else root}: {there}"


BEFORE_IMPORTS: dict[str, Callable[[], str]] = {
    "Python": platform.python_version,
    **{title: lambda package=package: installed(package) for title, package in PACKAGES.items()},  # type: ignore[misc]
    "Packages known to be bad": lambda: ", ".join(installed_bad()) or "none",
    "Operating system": platform.platform,
    "Processor": processor,
    "GPU driver": driver,
    "Zoo's cache": cache,
    "Disk of the runs": lambda: disk(Path("runs")),
}
IMPORTING: dict[str, Callable[[], str]] = {
    "Computes bfloat16 by": bfloat16,
    "GPUs": gpus,
    "CUDA of torch": cuda,
    "Memory": memory,
    "Precision of fit": precision,
    "Hugging Face": hub,
    "Data": data,
    "Font of image grids": font,
    "Loggers": loggers,
}
