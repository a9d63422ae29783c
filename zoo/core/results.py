"""How results become the tables of the documentation: what ``python -m zoo results`` and the tasks share."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]  # the contents of one JSON file


@dataclass(frozen=True)
class ResultsTable:
    """A table of the documentation, between ``<!-- NAME: python -m zoo results -->`` and ``<!-- /NAME -->``.

    Attributes:
        name: Its name in the markers.
        build: Gives the Markdown of the results that are in it, in the order of their files' names.
        metrics: The keys that a result must have to be in it; none: all are.
        folder: The folder of its files, below that of all results.
        untrained: Whether a run's entry also keeps what was measured before its first step.
        page: The Markdown file that it stands in, from the top of the repository.
    """

    name: str
    build: Callable[[list[Result]], str]
    metrics: frozenset[str] = frozenset()
    folder: str = "."
    untrained: bool = False
    page: str = "docs/pages/results.md"

    @property
    def markers(self) -> tuple[str, str]:
        """The lines before and behind it."""
        return f"<!-- {self.name}: python -m zoo results -->", f"<!-- /{self.name} -->"


def markdown(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, in one string without a last line break."""
    titles = list(titles)
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def by_experiment(
    titles: Iterable[str], rows: Callable[[Result], Iterable[list[str]]]
) -> Callable[[list[Result]], str]:
    """How to build a table of experiments: a line or more of each, with how it was trained behind.

    Args:
        titles: The columns between the experiment's name and how it was trained.
        rows: Gives the cells of an experiment's lines in those columns.
    """

    def build(results: list[Result]) -> str:
        lines = (
            [f"`{result['experiment']}`", *cells, *how_trained(result)] for result in results for cells in rows(result)
        )
        return markdown(["experiment", *titles, "seeds", "training", "on"], lines)

    return build


def how_trained(result: Result) -> list[str]:
    """The last cells of a line: seeds, minutes, hardware."""
    seconds = statistics.fmean(run["fit"]["seconds"] for run in result["runs"])
    seeds = ", ".join(str(run["seed"]) for run in result["runs"])
    return [seeds, f"{seconds / 60:.1f} min", result["runs"][0]["fit"]["hardware"]]


def number(result: Result, key: str, *, digits: int = 1) -> str:
    """One cell: the mean, and the standard deviation over seeds where there are several."""
    if key not in result["mean"]:
        return "–"
    spread = result["standard_deviation"][key]
    return f"{result['mean'][key]:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")


def spell(value: float, unit: str = "") -> str:
    """A rate, whole or in three digits, with its unit."""
    return f"{value:,.0f} {unit}".rstrip() if value >= 100 else f"{value:.3g} {unit}".rstrip()
