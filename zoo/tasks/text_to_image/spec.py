"""What the text-to-image task tells the rest of zoo."""

from zoo.spec import TaskSpec

SPEC = TaskSpec(
    name="text_to_image",
    task="zoo.tasks.text_to_image.task:TextToImageTask",
    data="zoo.tasks.text_to_image.data:TextToImageDataModule",
    callbacks=(
        "zoo.tasks.text_to_image.evaluation:GenerationEvaluation",
        "zoo.tasks.text_to_image.submission:TextToImageSubmission",
    ),
)
