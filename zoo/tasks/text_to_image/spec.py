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
    metrics=(
        "zoo.tasks.text_to_image.metrics.frechet:FrechetDistance",
        "zoo.tasks.text_to_image.metrics.kernel_distance:KernelDistance",
        "zoo.tasks.text_to_image.metrics.inception_score:InceptionScore",
        "zoo.tasks.text_to_image.metrics.precision_recall:PrecisionRecall",
        "zoo.tasks.text_to_image.metrics.scores:RPrecision",
        "zoo.tasks.text_to_image.metrics.attribute_accuracy:AttributeAccuracy",
    ),
    registries=("zoo.tasks.text_to_image.registry:GENERATORS",),
    monitors={"val/fd_clip": "min", "val/r_precision": "max", "val/attribute_accuracy": "max"},
    results=("zoo.tasks.text_to_image.results:RESULTS", "zoo.tasks.text_to_image.results:CONTROLS"),
    commands={
        "generate": Command(
            "zoo.tasks.text_to_image.generate:main", "generate images of prompts: generate runs/diffusion_demo 苹果"
        ),
    },
    data_commands={
        "encode": Command("zoo.tasks.text_to_image.encode:main", "write the latents of the training images"),
    },
    scorings={
        "text_to_image": Command(
            "zoo.tasks.text_to_image.scoring:main", "FID, KID, IS, Fréchet distances, R-precision"
        ),
        "text_to_image-controls": Command(
            "zoo.tasks.text_to_image.controls:main", "the same of true images that were corrupted"
        ),
    },
    benches={
        "gpu_sample": Command("zoo.tasks.text_to_image.bench.gpu_sample:main", "images and codes a second on a GPU"),
        "sample": Command("zoo.tasks.text_to_image.bench.sample:main", "sampling images and diffusers' own pipeline"),
        "score": Command(
            "zoo.tasks.text_to_image.bench.score:main", "scores of images and torch-fidelity's; reading images"
        ),
        "step": Command(
            "zoo.tasks.text_to_image.bench.step:main", "Lightning's loop around a diffusion generator and a bare one"
        ),
    },
    exports={
        "diffusers": "zoo.tasks.text_to_image.export.diffusers:DiffusersFolder",
        "diffusers_lora": "zoo.tasks.text_to_image.export.diffusers:DiffusersLora",
    },
    published=("zoo.tasks.text_to_image.published:read_diffusers",),
    hub_task="text-to-image",
    example='images = task.generator.generate(["红色连衣裙"], seeds=[0])',
)
