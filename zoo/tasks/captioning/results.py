"""The table of results in captioning."""

from zoo.core.results import Result, ResultsTable, by_experiment, number

# The captions of a line, and how their metrics' names end.
CAPTIONS = {"the model's": "", "nearest copied": "_nearest", "of other images": "_shuffled"}
COLUMNS = {
    "CIDEr-D": "cider",
    "BLEU-4": "bleu4",
    "ROUGE-L": "rouge_l",
    "different captions, %": "different",
    "attributes: precision": "attributes_precision",
    "recall": "attributes_recall",
    "contradiction": "attributes_contradiction",
}


def rows(result: Result) -> list[list[str]]:
    """Table CIDEr-D beside its controls, on the test split."""
    protocol = result["runs"][0]["protocol"]
    size = f"{protocol['images']:,}, {protocol['references']:,}"
    return [
        [size, captions, *(number(result, f"test/{name}{suffix}") for name in COLUMNS.values())]
        for captions, suffix in CAPTIONS.items()
        if f"test/cider{suffix}" in result["mean"]
    ]


RESULTS = ResultsTable(
    "captions",
    by_experiment(["test images, references", "captions", *COLUMNS], rows),
    metrics=frozenset({"test/cider"}),
)
