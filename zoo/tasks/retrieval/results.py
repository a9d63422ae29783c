"""The table of results in retrieval."""

from zoo.core.results import Result, ResultsTable, by_experiment, number

COLUMNS = {
    "R@1": "recall@1",
    "R@5": "recall@5",
    "R@10": "recall@10",
    "MeanRecall": "mean_recall",
    "MeanRecall, new": "mean_recall/new",
    "MeanRecall, seen": "mean_recall/seen",
}


def rows(result: Result) -> list[list[str]]:
    """Return one line: means over seeds, in percent, on the test split."""
    protocol = result["runs"][0]["protocol"]
    data = f"{protocol['data'].partition(',')[0]}: {protocol['queries']:,} / {protocol['images']:,}"
    return [[data, *(number(result, f"test/{name}") for name in COLUMNS.values())]]


RESULTS = ResultsTable(
    "results",
    by_experiment(["test data: queries / images", *COLUMNS], rows),
    metrics=frozenset({"test/mean_recall"}),
)
