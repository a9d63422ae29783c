import pytest

from zoo.core.evaluation import build_metric
from zoo.errors import UserError

MEAN = "torchmetrics.MeanMetric"


@pytest.mark.parametrize(
    "given",
    [
        *(
            5,
            None,
            [],
            {},
            {"class_path": 5},
            {"class_path": MEAN, "init_args": 5},
            "",
            "MeanMetric",
            ".MeanMetric",
            "os.path",
        ),
        *({"class_path": MEAN, "init_args": {"nope": 1}}, {"class_path": MEAN, "init_args": {"nan_strategy": "x"}}),
    ],
)
def test_what_is_no_metric_is_refused_by_its_name(given):
    with pytest.raises(UserError, match=r"^evaluation\.metrics\.mine"):
        build_metric("mine", given)


def test_a_metric_may_be_a_path_or_a_class_with_arguments():
    built = [
        build_metric("mine", given) for given in (MEAN, {"class_path": MEAN, "init_args": {"nan_strategy": "warn"}})
    ]
    assert {type(metric).__name__ for metric in built} == {"MeanMetric"}
