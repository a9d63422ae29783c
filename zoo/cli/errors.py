"""The errors of the command line's parser, a page each, as one line."""

import difflib
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.cli.help import choices, in_words
from zoo.core.options import parameters_of
from zoo.core.runs import take_option
from zoo.errors import nearest


def explain(message: str, words: list[str], options: list[str], classes: dict[str, type]) -> str:
    """The telling part of a parser's error.

    Args:
        message: jsonargparse's: the keys, outermost first, and why each type that it tried refused the value.
        words: The command line, to find the file and line of what is wrong.
        options: The dotted names of the options that exist.
        classes: The classes that are known, by name; ``trainer`` is the trainer's.
    """
    message = re.sub(r"- Problem with given class_path 'lightning\.\w+':\n.*\n", "", message)  # the base, tried in turn
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
    if lacking := re.search(r"class_path '([^']+)':\s+the following arguments are required: (.+)", message):
        options = [f"--{keys[0]}.{name} VALUE" for name in lacking[2].split(", ")]
        return f"{key}: {lacking[1].rpartition('.')[2]} needs {lacking[2]}: {' '.join(options)}"
    value = re.search(r"(?:Given value|Got value): (.*)", message)
    if value and key in ("model", "data"):
        return f"{where(key, '', words)}{key} is {value[1]!r}: give {{class_path: NAME, init_args: {{…}}}}"
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
    """The flag that ends the command line, or is followed by another one, or by what argparse takes for one."""
    followers = [*words[1:], "--"]
    pairs = zip(words, followers, strict=True)
    flags = [word for word, following in pairs if word.startswith(f"--{key}") and following.startswith("-")]
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
