"""What the retrieval task tells the rest of zoo."""

from zoo.spec import Command, TaskSpec

SPEC = TaskSpec(
    name="retrieval",
    task="zoo.tasks.retrieval.task:RetrievalTask",
    data="zoo.tasks.retrieval.data:RetrievalDataModule",
    callbacks=(
        "zoo.tasks.retrieval.evaluation:RetrievalEvaluation",
        "zoo.tasks.retrieval.submission:RetrievalSubmission",
        "zoo.tasks.retrieval.collapse:CollapseAlarm",
        "zoo.tasks.retrieval.hard_negatives:HardNegatives",
        "zoo.tasks.retrieval.zero_shot:ZeroShotGuard",
    ),
    metrics=("zoo.tasks.retrieval.metrics:RetrievalRecall",),
    monitors={name: "max" for name in ("val/mean_recall", "val/recall@1", "val/recall@5", "val/recall@10")},
    results=("zoo.tasks.retrieval.results:RESULTS",),
    scorings={"retrieval": Command("zoo.tasks.retrieval.scoring:main", "Recall@1/5/10 and MeanRecall")},
)
