"""What the image tokenizer tells the rest of zoo."""

from zoo.spec import TaskSpec

SPEC = TaskSpec(
    name="image_tokenizer",
    task="zoo.tasks.image_tokenizer.task:ImageTokenizerTask",
    data="zoo.tasks.image_tokenizer.data:ImageTokenizerDataModule",
    callbacks=("zoo.tasks.image_tokenizer.evaluation:ReconstructionEvaluation",),
    metrics=("zoo.tasks.image_tokenizer.metrics:PSNR", "zoo.tasks.image_tokenizer.metrics:SSIM"),
    monitors={"val/psnr": "max", "val/ssim": "max", "val/fd_clip": "min"},
    results=("zoo.tasks.image_tokenizer.results:RESULTS",),
    published=("zoo.tasks.image_tokenizer.published:read_vqgan",),
)
