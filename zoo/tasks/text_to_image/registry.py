"""Generators by name."""

from zoo.registry import Registry

GENERATORS = Registry("generator", "zoo.tasks.text_to_image.generators")
