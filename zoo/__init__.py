"""zoo: a Lightning model zoo for MUGE, the Chinese multimodal e-commerce benchmark.

    import zoo
    zoo.list_models("vit_*")
    task = zoo.load("runs/clip_demo/20260102-030405")  # or "clip_cn_vit-b-16.pt", or a hub name of Chinese CLIP
    task.encode_text(["红色连衣裙"])
    task.encode_image([image])

Everything is imported when it is first used: the tasks, their data modules and registries as their specs name them.
"""

from zoo import callbacks, metrics, tasks  # noqa: F401  each offers names of its own, as lazily
from zoo.spec import find_specs, offer

OWN = (
    "zoo.core.checkpoint:load",
    "zoo.registry:create",
    "zoo.registry:list_models",
    "zoo.registry:IMAGE_TOWERS",
    "zoo.registry:TEXT_TOWERS",
    "zoo.registry:IMAGE_TOKENIZERS",
)

__getattr__, __dir__ = offer(
    __name__,
    lambda: (
        *OWN,
        *(place for spec in find_specs() for place in (spec.task, spec.data, *spec.registries) if place),
    ),
)
