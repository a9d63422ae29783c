"""What the captioning task tells the rest of zoo."""

from zoo.spec import TaskSpec

SPEC = TaskSpec(
    name="captioning",
    task="zoo.tasks.captioning.task:CaptioningTask",
    data="zoo.tasks.captioning.data:CaptioningDataModule",
    files="zoo.data.layouts:ECOMMERCE_IC",
    callbacks=(
        "zoo.tasks.captioning.evaluation:CaptionEvaluation",
        "zoo.tasks.captioning.submission:CaptionSubmission",
        "zoo.tasks.captioning.sweep:CaptionSweep",
    ),
)
