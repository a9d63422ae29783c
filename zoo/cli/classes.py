"""The classes that a configuration may name, and the options that they take."""

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser

import zoo.callbacks
from zoo.core.options import parameters_of
from zoo.spec import find_specs, load_object


def task_classes() -> dict[str, type]:
    """The tasks, by name."""
    classes = [load_object(spec.task) for spec in find_specs()]
    return {kind.__name__: kind for kind in classes}


def data_classes() -> dict[str, type]:
    """The data modules, by name."""
    classes = [load_object(spec.data) for spec in find_specs() if spec.data]
    return {kind.__name__: kind for kind in classes}


def import_classes() -> None:
    """Import what a configuration may name without its path: jsonargparse finds only what is imported."""
    task_classes()
    data_classes()
    for name in zoo.callbacks.__all__:
        getattr(zoo.callbacks, name)


def known_classes() -> dict[str, type]:
    """The classes that a configuration may name and that are imported, by name; the trainer too."""
    known: dict[str, type] = {"trainer": L.Trainer}
    waiting: list[type] = [L.LightningModule, L.LightningDataModule, L.Callback]
    while waiting:
        subclasses: list[type] = type.__subclasses__(waiting.pop())
        known |= {kind.__name__: kind for kind in subclasses}
        waiting += subclasses
    return known


def known_options(parser: LightningArgumentParser) -> list[str]:
    """Every dotted option: the parser's, and those of the tasks and data modules."""
    options = [word[2:] for word in parser._option_string_actions if word.startswith("--")]
    for prefix, classes in (("model", task_classes()), ("data", data_classes())):
        options += [f"{prefix}.{name}" for kind in classes.values() for name in parameters_of(kind)]
    return [option for option in dict.fromkeys(options) if not option.endswith((".help", "+"))]
