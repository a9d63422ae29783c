"""What the text-to-image task tells the rest of zoo."""

from zoo.spec import Command, TaskSpec

SPEC = TaskSpec(
    name="text_to_image",
    task="zoo.tasks.text_to_image.task:TextToImageTask",
    data="zoo.tasks.text_to_image.data:TextToImageDataModule",
    files="zoo.data.layouts:ECOMMERCE_T2I",
    callbacks=(
        "zoo.tasks.text_to_image.evaluation:GenerationEvaluation",
        "zoo.tasks.text_to_image.submission:TextToImageSubmission",
    ),
    data_commands={
        "encode": Command("zoo.tasks.text_to_image.encode:main", "write the latents of the training images")
    },
)
