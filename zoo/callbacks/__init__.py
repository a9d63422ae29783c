"""Callbacks for the training of any task, and those of each task: ``zoo.callbacks.EMA``."""

from zoo.spec import find_specs, offer

OWN = (
    "zoo.callbacks.ema:EMA",
    "zoo.callbacks.memory:FitBatchToMemory",
    "zoo.callbacks.progress:RunProgressBar",
)

__getattr__, __dir__ = offer(__name__, lambda: (*OWN, *(place for spec in find_specs() for place in spec.callbacks)))
