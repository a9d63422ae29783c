"""The help of ``fit``, ``validate``, ``test`` and ``predict``: every option with its kind, default and meaning."""

import inspect
import shutil
import textwrap
import types
from typing import Any, Literal, Union, get_args, get_origin

from lightning import Trainer

from zoo.core.options import Parameter, parameters_of
from zoo.errors import WORDS

ORIGINS = (list, tuple, dict)  # what else a flag can give; modules and classes are for Python
LAYERS = """\
Layers, each over the one before: _base.yaml beside the experiment, the experiment, overlays, flags. validate, test,
predict, and a fit that continues a run, read the run's config.yaml in place of the first two."""


def help_text(verb: str, groups: dict[str, dict[str, type]]) -> str:
    """The options of a verb: its own, those of the tasks and data modules, and the names of the trainer's.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        groups: Classes by name, by the group of options that they take (``model``, ``data``).
    """
    fit = verb == "fit"
    usage = f"usage: python -m zoo {verb} "
    lines = [
        usage + ("--config experiments/NAME.yaml" if fit else "[--ckpt_path best]"),
        " " * len(usage) + "[--config OVERLAY.yaml] [--GROUP.OPTION VALUE]",
        "",
        *wrapped(LAYERS, indent=0),
        "",
        *option("config", "An experiment; further ones are laid over it.", "a file"),
        *option("ckpt_path", "The run to continue." if fit else "The weights.", "best, last, a run's folder or a file"),
        *option("imports", "Imported first; registers models, losses, metrics. Also a list in YAML.", "a module"),
        *option("runs", "Folder that runs are kept in.", "a folder; default runs"),
        *(option("save_every", "Steps between writings of last.ckpt.", "a whole number; default 500") if fit else []),
        *option("seed_everything", "Seed of weights, data order and dropout.", "a whole number; default 0"),
    ]
    for group, classes in groups.items():
        each = {name: parameters_of(kind) for name, kind in classes.items()}
        first, *others = each.values()
        shared = {name for name in first if all(first[name] == other.get(name) for other in others)}
        lines += ["", f"Every {group}:"]
        lines += [line for name in first if name in shared for line in described(group, name, first[name])]
        for name, kind in classes.items():
            lines += ["", *wrapped(f"{name}: {(inspect.getdoc(kind) or '').partition(chr(10))[0]}", indent=0)]
            own = {option: found for option, found in each[name].items() if option not in shared}
            lines += [line for option, found in own.items() for line in described(group, option, found)]
    names = " ".join(f"--trainer.{name}" for name in inspect.signature(Trainer).parameters)
    lines += [
        "",
        *wrapped("Lightning's trainer (https://lightning.ai/docs/pytorch/stable/common/trainer.html):", indent=0),
        *wrapped(names),
    ]
    return "\n".join(lines)


def described(group: str, name: str, parameter: Parameter) -> list[str]:
    """A parameter's lines, as the option that it is."""
    default = "default null" if parameter.default is None else f"default {str(parameter.default).lower()}"
    default = "required" if parameter.default is inspect.Parameter.empty else default
    kinds = f"{in_words(parameter.annotation)}; {default}"
    return option(f"{group}.{name}", parameter.description.replace("``", ""), kinds)


def option(name: str, meaning: str, kinds: str) -> list[str]:
    """An option's lines: its name and what it takes, then what it means."""
    return [*wrapped(f"--{name} ({kinds})", indent=2), *wrapped(meaning, indent=8)]


def wrapped(text: str, indent: int = 2) -> list[str]:
    """Lines as wide as the terminal, at most 100."""
    width = min(shutil.get_terminal_size().columns, 100)
    space = " " * indent
    return textwrap.wrap(text, width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)


def choices(annotation: Any) -> list[Any]:
    """The values that an annotation lists."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return [value for part in get_args(annotation) for value in choices(part)]
    return []


def in_words(annotation: Any) -> str:
    """A type as a person would say it: ``auto or a whole number``."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType, Literal):
        kinds = [] if origin is Literal else [part for part in parts if part in WORDS or get_origin(part) in ORIGINS]
        said = [*map(str, choices(annotation)), *(in_words(kind) for kind in kinds if kind is not type(None))]
        *others, last = dict.fromkeys(said)
        return f"{', '.join(others)} or {last}" if others else last
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}, each {in_words(parts[0])}"
    if origin in (list, tuple) and parts:
        return f"a list, each {in_words(parts[0])}"
    if origin is dict:
        return "{name: value, …}"
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
