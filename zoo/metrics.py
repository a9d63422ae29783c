"""Every task's metrics, for anybody's LightningModule: each is a ``torchmetrics.Metric``."""

from zoo.spec import find_specs, offer

__getattr__, __dir__ = offer(__name__, lambda: (place for spec in find_specs() for place in spec.metrics))
