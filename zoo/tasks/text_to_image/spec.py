"""What the text-to-image task tells the rest of zoo."""

from zoo.spec import Command, TaskSpec

SPEC = TaskSpec(
    name="text_to_image",
    task="zoo.tasks.text_to_image.task:TextToImageTask",
    data="zoo.tasks.text_to_image.data:TextToImageDataModule",
    callbacks=(
        "zoo.tasks.text_to_image.evaluation:GenerationEvaluation",
        "zoo.tasks.text_to_image.submission:TextToImageSubmission",
    ),
    benches={
        "sample": Command("zoo.tasks.text_to_image.bench.sample:main", "sampling images and diffusers' own pipeline"),
        "score": Command(
            "zoo.tasks.text_to_image.bench.score:main", "scores of images and torch-fidelity's; reading images"
        ),
        "step": Command(
            "zoo.tasks.text_to_image.bench.step:main", "Lightning's loop around a diffusion generator and a bare one"
        ),
    },
)
