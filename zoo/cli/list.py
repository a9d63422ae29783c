"""``python -m zoo list [PATTERN]``: the models that an experiment can name, by registry."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError, nearest

if TYPE_CHECKING:
    from rich.table import Table

MEASURED = ("image tower", "text tower")
MOST_BUILT = 24  # towers of a family measured in one listing: each takes up to a quarter of a second


@dataclass(frozen=True)
class Row:
    """What the table says of one tower."""

    name: str
    parameters: int
    input_size: int  # pixels of a side, or tokens
    width: int
    published: str | None  # where its weights are published
    cached: bool


def main(argv: list[str]) -> int:
    """Print what matches, by kind.

    Args:
        argv: The words after ``python -m zoo list``.

    Returns:
        0.

    Raises:
        UserError: No name matches.
    """
    from jsonargparse import ArgumentParser
    from rich.console import Console

    parser = ArgumentParser(
        prog="python -m zoo list",
        description="The models that an experiment can name, by their kind, and where towers' weights are.",
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        type=str,
        help="Part of a name, or a shell-style pattern: 'vit*', 'timm:*convnext*'. Left out: all registered names.",
    )
    pattern = parser.parse_args(argv).pattern

    from zoo.registry import find_registries

    found = [(registry, registry.names(pattern)) for registry in find_registries()]
    if not any(names for _, names in found):
        known = [name for registry, _ in found for name in registry.names()]
        families = ", ".join(dict.fromkeys(f"{prefix}NAME" for registry, _ in found for prefix in registry.prefixes))
        raise UserError(
            f"no model matches {pattern!r}.{nearest(pattern or '', known)} `python -m zoo list` shows all"
            f" registered names; {families} name the rest."
        )
    console = Console()
    for registry, names in found:
        if names:
            console.print(_table(registry, names) if registry.kind in MEASURED else _described(registry, names), "")
    _print_notes(console, found)
    return 0


def measure(registry: Any, name: str) -> Row:
    """Build a tower without memory for its weights, and read off what the table says."""
    import torch

    from zoo.core.weights import is_cached

    with torch.device("meta"):
        tower = registry.build(name)
    published = getattr(tower, "published", None)
    return Row(
        name=name,
        parameters=sum(parameter.numel() for parameter in tower.parameters()),
        input_size=getattr(tower, "image_size", None) or tower.context_length,
        width=tower.width,
        published=published,
        cached=published is not None and is_cached(published),
    )


def _table(registry: Any, names: list[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(registry.kind, no_wrap=True)
    for title in ("params", "size", "width"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for name in names:
        if _too_many(registry, names):
            table.add_row(name)
            continue
        row = measure(registry, name)
        weights = _short(row.published) + (" cached" if row.cached else "")
        table.add_row(name, f"{row.parameters / 1e6:.1f}M", str(row.input_size), str(row.width), weights)
    return table


def _described(registry: Any, names: list[str]) -> "Table":
    """Names and what they build: to measure more than towers would take seconds."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(registry.kind, no_wrap=True)
    table.add_column("")
    for name in names:
        table.add_row(name, registry.describe(name).removeprefix("Build ").rstrip("."))
    return table


def _too_many(registry: Any, names: list[str]) -> bool:
    return len(names) > max(MOST_BUILT, len(registry.names()))


def _short(published: str | None) -> str:
    """``timm/resnet50.a1_in1k`` as its tag ``a1_in1k``: the rest is the tower's own name."""
    if published is None:
        return "none"
    return published.partition(".")[2] if published.startswith("timm/") else published


def _print_notes(console: Any, found: list[tuple[Any, list[str]]]) -> None:
    matches = [(registry, name) for registry, names in found for name in names]
    if len(matches) == 1:
        registry, name = matches[0]
        options = ", ".join(f"{option}={default}" for option, default in registry.options(name).items())
        notes = [registry.describe(name), f"Options: {options or 'none'}"]
        row = measure(registry, name) if registry.kind in MEASURED else None
        if row is not None and row.published:
            place = "in the cache" if row.cached else "fetched from the hub when first wanted"
            notes.append(f"Weights: {row.published}, {place}")
    else:
        notes = ["Size: pixels of a side, or tokens. Weights: timm's tag, or the hub name."]
        if any(_too_many(registry, names) for registry, names in found):
            notes.append(f"All columns are shown for up to {MOST_BUILT} names: narrow the pattern.")
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
