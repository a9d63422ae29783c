"""What the captioning task tells the rest of zoo."""

from zoo.spec import Command, TaskSpec

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
    metrics=(
        "zoo.tasks.captioning.metrics.captions:CiderD",
        "zoo.tasks.captioning.metrics.captions:Bleu",
        "zoo.tasks.captioning.metrics.captions:RougeL",
        "zoo.tasks.captioning.metrics.scores:CaptionScores",
        "zoo.tasks.captioning.metrics.attributes:CaptionAttributes",
    ),
    registries=("zoo.tasks.captioning.registry:CAPTIONERS",),
    monitors={"val/cider": "max", "val/bleu4": "max", "val/rouge_l": "max"},
    results=("zoo.tasks.captioning.results:RESULTS",),
    commands={
        "caption": Command("zoo.tasks.captioning.caption:main", "describe images: caption runs/caption_demo image.jpg"),
    },
    scorings={
        "captioning": Command("zoo.tasks.captioning.scoring:main", "CIDEr-D, BLEU, ROUGE-L, their ceiling and control"),
    },
    benches={
        "caption": Command("zoo.tasks.captioning.bench.caption:main", "scores of captions and pycocoevalcap's"),
        "gpu_caption": Command("zoo.tasks.captioning.bench.gpu_caption:main", "captions a second on a GPU"),
    },
    exports={
        "transformers": "zoo.tasks.captioning.export.transformers:TransformersFolder",
        "peft": "zoo.tasks.captioning.export.peft:PeftFolder",
    },
    published=("zoo.tasks.captioning.published:read_vlm",),
    hub_task="image-to-text",
    example='captions = task.captioner.caption(["dress.jpg"])',
)
