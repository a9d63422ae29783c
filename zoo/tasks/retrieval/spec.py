"""What the retrieval task tells the rest of zoo."""

from zoo.spec import TaskSpec

SPEC = TaskSpec(
    name="retrieval",
    task="zoo.tasks.retrieval.task:RetrievalTask",
    data="zoo.tasks.retrieval.data:RetrievalDataModule",
    files="zoo.data.layouts:MULTIMODAL_RETRIEVAL",
    callbacks=(
        "zoo.tasks.retrieval.evaluation:RetrievalEvaluation",
        "zoo.tasks.retrieval.submission:RetrievalSubmission",
        "zoo.tasks.retrieval.collapse:CollapseAlarm",
        "zoo.tasks.retrieval.hard_negatives:HardNegatives",
        "zoo.tasks.retrieval.zero_shot:ZeroShotGuard",
    ),
)
