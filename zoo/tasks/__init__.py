"""The tasks, a folder each: a LightningModule beside its LightningDataModule; other packages' are offered too."""

from zoo.spec import find_specs, offer

__getattr__, __dir__ = offer(__name__, lambda: (spec.task for spec in find_specs()))
