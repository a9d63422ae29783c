"""Losses of retrieval by name."""

from zoo.registry import Registry

LOSSES = Registry("retrieval loss", "zoo.tasks.retrieval.losses")
