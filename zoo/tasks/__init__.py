"""The tasks: LightningModules, each read top to bottom."""

from zoo.tasks.retrieval import RetrievalTask

__all__ = ["RetrievalTask"]
