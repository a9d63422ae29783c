"""What a task tells the rest of zoo, in strings: nothing heavy is imported until it is used.

Every ``zoo/tasks/NAME/spec.py`` defines ``SPEC``. A task in another package names its own under the entry-point group
``zoo.tasks``::

    [project.entry-points."zoo.tasks"]
    classification = "my_package.spec:SPEC"
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from zoo.errors import UserError, nearest

GROUP = "zoo.tasks"


@dataclass(frozen=True)
class Command:
    """A command that a task adds.

    Attributes:
        where: ``module:function``, called with the words behind the command; gives the exit code.
        summary: One line of help.
    """

    where: str
    summary: str


@dataclass(frozen=True)
class TaskSpec:
    """A task, as the command line, the registries and ``zoo.load`` see it. Places are strings ``module:name``.

    Attributes:
        name: What users type, in lower case: ``retrieval``.
        task: Its LightningModule, a ``zoo.core.task.Task``.
        data: Its LightningDataModule, a ``zoo.core.datamodule.MugeDataModule``; None where it is another task's.
        callbacks: Callbacks of its own, offered as ``zoo.callbacks.NAME``.
        metrics: Metrics of its own, offered as ``zoo.metrics.NAME``.
        registries: Registries of what it alone has, looked into by ``zoo.create`` and ``zoo list``.
        files: What ``data check``, ``import`` and ``export`` know of its data files; None: they are another task's.
        published: Readers of weights that others published in whole models.
        monitors: What is better of each logged metric, ``max`` or ``min``, for loggers.
        results: How its results are tabled: a ``zoo.core.results.ResultsTable``.
        commands: Commands of its own, by name: ``caption``.
        data_commands: Commands under ``data``.
        scorings: Commands under ``score``, by what is scored.
        benches: Commands under ``bench``.
    """

    name: str
    task: str
    data: str | None = None
    callbacks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    files: str | None = None
    published: tuple[str, ...] = ()
    monitors: Mapping[str, str] = field(default_factory=dict)
    results: str | None = None
    commands: Mapping[str, Command] = field(default_factory=dict)
    data_commands: Mapping[str, Command] = field(default_factory=dict)
    scorings: Mapping[str, Command] = field(default_factory=dict)
    benches: Mapping[str, Command] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The last part of the package that the task lies in."""
        return self.task.partition(":")[0].split(".")[-2]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its task and data module."""
        return tuple(place.rpartition(":")[2] for place in (self.task, self.data) if place)


@functools.cache
def find_specs() -> tuple[TaskSpec, ...]:
    """Find the specs of all tasks: the zoo's own, then those of other packages, each by name."""
    import zoo.tasks

    own = [
        importlib.import_module(f"zoo.tasks.{module.name}.spec").SPEC
        for module in sorted(pkgutil.iter_modules(zoo.tasks.__path__), key=lambda module: module.name)
        if module.ispkg
    ]
    others = [entry.load() for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)]
    return (*own, *others)


def find_spec(name: str) -> TaskSpec:
    """Find a task by its name.

    Raises:
        UserError: There is no such task; names the nearest ones.
    """
    specs = {spec.name: spec for spec in find_specs()}
    if name not in specs:
        raise UserError(f"There is no task {name!r}.{nearest(name, specs)} There are {', '.join(specs)}.")
    return specs[name]


def load_object(place: str) -> Any:
    """Import what ``module:name`` stands for."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
