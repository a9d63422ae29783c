"""From a name to a built module. A builder function is the name: greppable, importable, checked.

    @IMAGE_TOWERS.register
    def vit_base_patch16_clip_quickgelu_224(*, patch_dropout: float = 0.0) -> TimmImageTower: ...

The first look-up imports every module of the registry's package, so a new file needs no list to be edited.
"""

import fnmatch
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, TypeVar, get_args

from zoo.errors import WORDS, UserError, nearest
from zoo.io import expanded
from zoo.spec import find_specs, load_object

Builder = TypeVar("Builder", bound=Callable[..., Any])


class Registry:
    """Named builders of one kind, found in one package.

    Args:
        kind: What the builders build, in words, for messages (``"image tower"``).
        package: The package whose modules register builders (``"zoo.models"``).
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._builders: dict[str, Callable[..., Any]] = {}
        self._prefixes: dict[str, tuple[Callable[..., Any], Callable[[], Iterable[str]]]] = {}
        self._scanned = False

    def register(self, builder: Builder) -> Builder:
        """Register a function of keyword-only options under its own name; returns it unchanged.

        Raises:
            UserError: The name is taken.
        """
        self._builders[self._free(builder.__name__, builder)] = builder
        return builder

    def register_variant(
        self, name: str, summary: str, builder: Callable[..., Any], *given: Any, **defaults: Any
    ) -> None:
        """Register a builder under a name of its own, with its first arguments given.

        Args:
            name: The variant's.
            summary: Takes the place of the first line of the builder's docstring.
            builder: A function of positional arguments, which are given, and of keyword-only options.
            *given: Those arguments.
            **defaults: Defaults of some of the options.

        Raises:
            UserError: The name is taken.
        """

        def variant(**options: Any) -> Any:
            return builder(*given, **{**defaults, **options})

        variant.__name__, variant.__module__ = name, builder.__module__
        variant.__doc__ = "\n".join([summary, *(inspect.getdoc(builder) or "").splitlines()[1:]])
        bound = inspect.signature(functools.partial(builder, *given, **defaults))
        variant.__signature__ = bound  # type: ignore[attr-defined]
        self.register(variant)

    def register_prefix(
        self, prefix: str, *, names: Callable[[], Iterable[str]] = tuple
    ) -> Callable[[Builder], Builder]:
        """Register a builder of a family: ``build("timm:resnet18")`` calls it with ``"resnet18"`` and the options.

        Args:
            prefix: How the family's names begin, with its colon.
            names: Lists the family's names without the prefix, where that is possible.
        """

        def decorate(builder: Builder) -> Builder:
            self._prefixes[self._free(prefix, builder)] = (builder, names)
            return builder

        return decorate

    def build(self, name: str, /, **options: Any) -> Any:
        """Build what ``name`` stands for.

        Args:
            name: A registered name, or a prefix and a name of its family.
            **options: Keyword options of that builder.

        Raises:
            UserError: The name or an option is unknown, or an option is missing; names the nearest valid ones. Or a
                value is of another kind.
        """
        builder = self.builder(name)
        valid = self.options(name)
        for option in options:
            if option not in valid:
                known = f"Its options are {', '.join(valid)}." if valid else "It has no options."
                raise UserError(f"{self.kind} {name!r} has no option {option!r}.{nearest(option, valid)} {known}")
        kinds = {key: parameter.annotation for key, parameter in inspect.signature(builder).parameters.items()}
        for option, value in options.items():
            if not _fits(value, kinds[option]):
                raise UserError(f"{self.kind} {name!r}: {option} is {value!r}: give {_in_words(kinds[option])}")
        for option, default in valid.items():
            if default is inspect.Parameter.empty and option not in options:
                raise UserError(f"{self.kind} {name!r} needs the option {option!r}. Set it in its options.")
        return builder(**options)

    def builder(self, name: str) -> Callable[..., Any]:
        """The function behind a name, of keyword options only.

        Raises:
            UserError: The name is unknown; names the nearest ones.
        """
        self._scan()
        if name in self._builders:
            return self._builders[name]
        for prefix, (builder, _) in self._prefixes.items():
            if name.startswith(prefix) and name != prefix:
                return functools.partial(builder, expanded(name.removeprefix(prefix)))
        families = "".join(f", or {prefix}NAME" for prefix in self._prefixes)
        raise UserError(
            f"There is no {self.kind} {name!r}.{nearest(name, self._builders)}"
            f" Valid are {', '.join(sorted(self._builders)) or 'none yet'}{families}."
        )

    def build_or_take(self, argument: str, given: Any, options: dict[str, Any] | None) -> Any:
        """What a task's argument stands for: the module of that name, or the built module that it is.

        Args:
            argument: The task's argument, such as ``image_tower``; its options are called ``image_tower_options``.
            given: A name, or a built module.
            options: Keyword options of that name's builder.

        Raises:
            UserError: It cannot be built so, or a built module came with options.
        """
        if isinstance(given, str):
            try:
                return self.build(given, **{str(name): value for name, value in (options or {}).items()})
            except UserError as error:
                drop = f" To drop options that were set for another: --model.{argument}_options null" if options else ""
                raise UserError(f"{str(error).rstrip('.')}.{drop}" if drop else str(error)) from None
        if options:
            raise UserError(
                f"{argument} is a built module: {argument}_options {options} cannot change it; leave them out"
            )
        return given

    def names(self, pattern: str | None = None) -> list[str]:
        """The registered names, sorted; those of a family only where the pattern begins with its prefix.

        Args:
            pattern: A shell-style pattern (``"vit_*"``, ``"timm:*vit*"``) or, without ``*``, ``?`` and ``[``, a part
                of the name. None gives all registered names.
        """
        self._scan()
        names = sorted(self._builders)
        if pattern is None:
            return names
        for prefix, (_, family) in self._prefixes.items():
            if pattern.startswith(prefix):
                names = [prefix + name for name in family()]
        glob = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
        return [name for name in names if fnmatch.fnmatchcase(name, glob)]

    @property
    def prefixes(self) -> list[str]:
        """How the names of the registered families begin."""
        self._scan()
        return sorted(self._prefixes)

    def options(self, name: str) -> dict[str, Any]:
        """The options of a name and their defaults."""
        parameters = inspect.signature(self.builder(name)).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}

    def describe(self, name: str) -> str:
        """The first line of a builder's docstring."""
        builder = self.builder(name)
        return (inspect.getdoc(getattr(builder, "func", builder)) or "").partition("\n")[0]

    def _free(self, name: str, builder: Callable[..., Any]) -> str:
        taken = self._builders.get(name) or next((b for p, (b, _) in self._prefixes.items() if p == name), None)
        rerun_cell = taken is not None and taken.__module__ == builder.__module__ == "__main__"
        if taken is not None and not rerun_cell:
            raise UserError(
                f"The {self.kind} {name!r} of {builder.__module__} is already registered by {taken.__module__}."
                " Give one of them another name."
            )
        return name

    def _scan(self) -> None:
        if self._scanned:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._scanned = True


_WORDS = WORDS | {tuple[int, ...]: "whole numbers, as [1, 2]", dict[str, Any]: "a mapping, `name: value`"}


def _in_words(kind: Any) -> str:
    """What an option takes, of kinds listed above."""
    return " or ".join(_WORDS[part] for part in (get_args(kind) if isinstance(kind, UnionType) else (kind,)))


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind that an option is annotated with; of kinds not listed above, all are."""
    if isinstance(kind, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if kind == dict[str, Any]:
        return isinstance(value, Mapping)
    if kind == tuple[int, ...]:
        return isinstance(value, list | tuple) and all(_fits(each, int) for each in value)
    if kind is float:
        return _fits(value, int) or isinstance(value, float)
    return kind not in _WORDS or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))


IMAGE_TOWERS = Registry("image tower", "zoo.models")
TEXT_TOWERS = Registry("text tower", "zoo.models")
IMAGE_TOKENIZERS = Registry("image tokenizer", "zoo.models")


def find_registries() -> list[Registry]:
    """Find the registries of what an experiment names directly: those that tasks share, and each task's own."""
    own = [load_object(place) for spec in find_specs() for place in spec.registries]
    return [IMAGE_TOWERS, TEXT_TOWERS, IMAGE_TOKENIZERS, *own]


def create(name: str, **options: Any) -> Any:
    """Build a tower, or whatever else a registry has, by its name: ``zoo.create("resnet50", image_size=128)``.

    Args:
        name: A registered name, or a prefix and a name of its family (``"timm:convnext_atto"``).
        **options: Keyword options of that builder.

    Raises:
        UserError: The name or an option is unknown; names the nearest valid ones.
    """
    for registry in find_registries():
        if name in registry.names() or any(name.startswith(prefix) for prefix in registry.prefixes):
            return registry.build(name, **options)
    names = list_models()
    raise UserError(f"There is no model {name!r}.{nearest(name, names)} Valid are {', '.join(names)}.")


def list_models(pattern: str | None = None) -> list[str]:
    """List the names in all registries that fit a pattern: ``zoo.list_models("vit_*")``."""
    return [name for registry in find_registries() for name in registry.names(pattern)]
