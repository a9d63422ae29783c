"""What a task tells the rest of zoo, in strings: nothing heavy is imported until it is used.

Every ``zoo/tasks/NAME/spec.py`` defines ``SPEC``. A task in another package names its own under the entry-point group
``zoo.tasks``::

    [project.entry-points."zoo.tasks"]
    classification = "my_package.spec:SPEC"
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import UserError, nearest

GROUP = "zoo.tasks"
COMMON_EXPORTS = {"safetensors": "zoo.core.export:Safetensors"}  # formats of every task


@dataclass(frozen=True)
class Command:
    """A command of the command line, or of one of its tables: ``score``, ``data``.

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
        exports: The formats that it can be exported in, each a ``zoo.core.export.Exporter``.
        hub_task: What the Hugging Face hub calls such a task, for model cards: ``text-to-image``.
        example: A line of Python that uses ``task``, a trained one, for model cards.
        monitors: What is better of each logged metric, ``max`` or ``min``, for loggers.
        results: How its results are tabled: each a ``zoo.core.results.ResultsTable``.
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
    exports: Mapping[str, str] = field(default_factory=dict)
    hub_task: str | None = None
    example: str | None = None
    monitors: Mapping[str, str] = field(default_factory=dict)
    results: tuple[str, ...] = ()
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
    """Find the specs of all tasks: the zoo's own, then those of other packages, each by name.

    Raises:
        UserError: An entry point names what cannot be imported, or a task of a name that is taken.
    """
    from importlib.metadata import entry_points  # half of what `import zoo` would take

    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("tasks/*/spec.py"))
    own = [importlib.import_module(f"zoo.tasks.{folder}.spec").SPEC for folder in folders]
    specs = {spec.name: spec for spec in own}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        spec = _load_entry(entry)
        if spec.name in specs:
            raise UserError(f"{entry.value} (entry point {GROUP}): there is a task {spec.name!r} already: rename one")
        specs[spec.name] = spec
    return tuple(specs.values())


def _load_entry(entry: Any) -> TaskSpec:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        package = entry.dist.name if entry.dist else "a package"
        raise UserError(
            f"{package} names the task {entry.name} ({entry.value}, entry point {GROUP}), which cannot be imported:"
            f" {error}. Install {package} anew, or remove it"
        ) from error


def find_spec(name: str) -> TaskSpec:
    """Find a task by its name.

    Raises:
        UserError: There is no such task; names the nearest ones.
    """
    specs = {spec.name: spec for spec in find_specs()}
    if name not in specs:
        raise UserError(f"There is no task {name!r}.{nearest(name, specs)} There are {', '.join(specs)}.")
    return specs[name]


def spec_of(kind: type) -> TaskSpec:
    """Find the spec of a task's class; a class that no spec names has an empty one."""
    places = {spec.task.rpartition(":")[2]: spec for spec in find_specs()}
    return places.get(kind.__name__) or TaskSpec(name=kind.__name__, task=f"{kind.__module__}:{kind.__name__}")


def load_object(place: str) -> Any:
    """Import what ``module:name`` stands for."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def offer(module: str, places: Callable[[], Iterable[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a module's ``__getattr__`` and ``__dir__``, by which it offers what is imported when it is first used.

    Args:
        module: The module's name.
        places: Gives what it offers, as ``module:name`` each; called when somebody asks.
    """

    def by_name() -> dict[str, str]:
        return {place.rpartition(":")[2]: place for place in places()}

    def get(name: str) -> Any:
        if name == "__all__":
            return list(by_name())
        place = None if name.startswith("_") else by_name().get(name)
        if place is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return load_object(place)

    return get, lambda: sorted({*vars(sys.modules[module]), *by_name()})


def run_command(commands: Mapping[str, Command], argv: Sequence[str], *, prog: str, description: str) -> int:
    """Run one of a table of commands, or print the table.

    Args:
        commands: The table.
        argv: The words behind ``prog``: the command, then its options.
        prog: The words before it, as they are typed.
        description: A line for the table's head.

    Returns:
        The command's exit code; 0 after ``--help``; 2 where no command is named, or none that exists.
    """
    width = max(map(len, commands)) + 2
    table = "\n".join(
        [
            f"usage: {prog} COMMAND [OPTION ...]\n\n{description}\n",
            *(f"  {name:<{width}}{command.summary}" for name, command in commands.items()),
            f"\n{prog} COMMAND --help lists a command's options.",
        ]
    )
    if not argv or argv[0] in {"-h", "--help"}:
        print(table)
        return 0 if argv else 2
    if argv[0] not in commands:
        print(f"{prog}: there is no command {argv[0]!r}.{nearest(argv[0], commands)}\n\n{table}", file=sys.stderr)
        return 2
    return load_object(commands[argv[0]].where)(list(argv[1:]))
