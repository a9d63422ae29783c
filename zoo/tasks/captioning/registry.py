"""Captioners by name."""

from zoo.registry import Registry

CAPTIONERS = Registry("captioner", "zoo.tasks.captioning.captioners")
