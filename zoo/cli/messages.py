"""What the command line says: its help, and the parser's errors, a page each, as one line."""

import difflib
import inspect
import logging
import re
import shutil
import textwrap
import types
import warnings
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from lightning import Trainer

from zoo.core.options import Parameter, parameters_of
from zoo.core.runs import take_option
from zoo.errors import nearest

# Warnings and news of the libraries that are not about anything a user did.
NOISE = (
    "does not have many workers",
    "LeafSpec",
    "isinstance.treespec",
    "is not supported by the model summary",
    "exists and is not empty",
    "smaller than the logging interval",
    "The dirpath has changed",  # of a checkpoint apart from its run
    "You're resuming from a checkpoint that ended before",  # the training sampler finds its place
    "custom batch sampler",  # the data modules own both samplers
    "It is recommended to use .*sync_dist=True",  # the metrics are equal on all processes
    "torch.distributed.nn.functional.all_gather is deprecated",  # Lightning's
    "FSDP2-wrapped module .* returned a view tensor",  # nobody changes it in place
    r"module\(s\) in eval mode at the start of training",  # what is frozen keeps still on purpose
)
CHATTER = (
    "Seed set to",
    "TPU available",
    "Loading `train_dataloader`",
    "Restoring states from",
    "Initializing distributed",
    "All distributed processes registered",
    "`weights_only` was not set",
    "💡",
    "litlogger",
)

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
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


def explain(message: str, words: list[str], options: list[str], classes: dict[str, type]) -> str:
    """The telling part of a parser's error.

    Args:
        message: jsonargparse's: the keys, outermost first, and why each type that it tried refused the value.
        words: The command line, to find the file and line of what is wrong.
        options: The dotted names of the options that exist.
        classes: The classes that are known, by name; ``trainer`` is the trainer's.
    """
    keys = re.findall(r'[Pp]arser key "([\w.+]+)"', message)
    paths = re.findall(r"Problem with given class_path '([^']+)':", message)
    key = ".".join(keys)
    if flag := re.search(r"argument --([\w.]+): expected one argument", message):
        return f"{flag_without_value(flag[1], words)} needs a value"
    if extra := re.search(r"unrecognized arguments: ([^\s=]+)", message):
        if not extra[1].startswith("--"):
            return f"{extra[1]!r} is no option: options begin with --"
        return no_option(".".join([*keys, extra[1][2:]]), options)
    if unknown := re.search(
        r"ption '([\w.+]+)' is not accepted|(?:Group '([\w.]+)' does )?not accept option '([\w.+]+)'", message
    ):
        name = ".".join(filter(None, unknown.groups()))
        if not paths:
            return where(name, "", words) + no_option(name, options)
        valid = parameters_of(load_class(paths[-1]))
        if key not in ("model", "data"):
            return (
                f"{where(name, '', words)}{paths[-1].rpartition('.')[2]} has no option {name!r}.{nearest(name, valid)}"
            )
        return where(name, "", words) + no_option(f"{key}.{name}", [f"{key}.{option}" for option in valid])
    missing = re.search(r"dot import path string: (\S+)|import path format: (\S+)", message)
    if missing or (paths and re.search(r"has no attribute|No module named", message)):
        path = next(filter(None, missing.groups())) if missing else paths[-1]
        return where(path, "", words) + no_class(key, path, words, classes)
    value = re.search(r"(?:Given value|Got value): (.*)", message)
    if keys and value:
        owner = load_class(paths[-1]) if paths else classes["trainer"]
        last = keys[-1].rpartition(".")[2]
        parameters = parameters_of(owner)
        parameter = parameters.get(keys[-1]) or parameters.get(last)  # an option of a dataclass, or of the class itself
        wanted = parameter.annotation if parameter else int if key == "save_every" else bool | int  # seed_everything
        near = nearest(value[1], map(str, choices(wanted)))
        return f"{where(last, value[1], words)}{key} is {value[1]!r}: give {in_words(wanted)}.{near}"
    if required := re.search(r"arguments are required: \w+\.(model|data)", message):
        return f"no configuration names the {required[1]}: it needs `{required[1]}: {{class_path: …}}`"
    return " ".join(message.split())


def no_option(name: str, options: Iterable[str]) -> str:
    """There is no such option; the nearest that are, by their last part too."""
    name = name.replace("init_args.", "").rstrip("+")
    by_last_part: dict[str, list[str]] = {}
    for option in options:
        by_last_part.setdefault(option.rpartition(".")[2], []).append(option)
    last = name.rpartition(".")[2]
    close = [part for part in by_last_part if part.startswith(f"{last}_")]
    close += [part for part in difflib.get_close_matches(last, by_last_part, n=3, cutoff=0.7) if part not in close]
    found = [option for part in close for option in by_last_part[part]][:3]
    if found:
        return f"there is no option {name!r}. Did you mean {', '.join(found)}?"
    return f"there is no option {name!r}: they begin with model, data or trainer"


def no_class(key: str, path: str, words: list[str], classes: dict[str, type]) -> str:
    """There is no such class, or no such file; the nearest that is."""
    if path.endswith((".yaml", ".yml")):
        folders = {Path(file).parent for file in take_option(words, ("--config",))[0]}
        files = sorted({str(file.relative_to(folder)) for folder in folders for file in folder.rglob("*.yaml")})
        return f"{key}: there is no file {path!r} beside the configuration.{nearest(path, files)}"
    close = difflib.get_close_matches(path.rpartition(".")[2], classes, n=3, cutoff=0.75)
    near = f" Did you mean {', '.join(close)}?" if close else ""
    return f"{key}: there is no class {path!r}.{near}"


def load_class(path: str) -> Any:
    """The class behind a path of the form ``package.module.Name``."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def flag_without_value(key: str, words: list[str]) -> str:
    """The flag that ends the command line, or is followed by another one."""
    followers = [*words[1:], "--"]
    pairs = zip(words, followers, strict=True)
    flags = [word for word, following in pairs if word.startswith(f"--{key}") and following.startswith("--")]
    return next((flag for flag in flags if "=" not in flag), f"--{key}")


def where(name: str, value: str, words: list[str]) -> str:
    """``FILE:LINE: `` of the configuration that a name (and its value) stand in, or nothing when it is a flag."""
    files, flags = take_option(words, ("--config",))
    if any(name in flag for flag in flags):
        return ""
    last = name.rpartition(".")[2] if not value else name
    pattern = re.compile(rf"(?<!\w){re.escape(last)}(?!\w).*{re.escape(value)}")
    for file in reversed(files):
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), start=1):
            if pattern.search(line.partition("#")[0]):
                return f"{file}:{number}: "
    return ""


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


def quiet_libraries() -> None:
    """Leave out the libraries' chatter that says nothing to a user."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=f".*{message}")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(is_telling)


def is_telling(record: logging.LogRecord) -> bool:
    """Whether a record of Lightning's says something to a user."""
    return not any(words in record.getMessage() for words in CHATTER)
