"""What the captioning task tells the rest of zoo."""

from zoo.spec import Command, TaskSpec

SPEC = TaskSpec(
    name="captioning",
    task="zoo.tasks.captioning.task:CaptioningTask",
    data="zoo.tasks.captioning.data:CaptioningDataModule",
    callbacks=(
        "zoo.tasks.captioning.evaluation:CaptionEvaluation",
        "zoo.tasks.captioning.submission:CaptionSubmission",
        "zoo.tasks.captioning.sweep:CaptionSweep",
    ),
    benches={"caption": Command("zoo.tasks.captioning.bench:main", "scores of captions and pycocoevalcap's")},
)
