"""What a class or a function accepts, and what its annotations make of a config's plain values."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import functools
import inspect
import os
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lightningtune.errors import InvalidConfigError, did_you_mean

REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""
UNKNOWN: Any = object()
"""The default of a parameter of an object that is not built by default, or was built elsewhere."""


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable."""

    defaults: Mapping[str, Any]  # `REQUIRED` where there is none
    open: bool = False  # whether ``**kwargs`` swallows any further name

    def accepts(self, name: str) -> bool:
        """Whether ``name`` may be given."""
        return name in self.defaults or self.open


def signature_of(target: Callable[..., Any]) -> Signature:
    """Return what ``target`` accepts, following a class's ``**kwargs`` to its bases where that can be told."""
    # a callable that is no class may hold a data set, which a cache would keep
    return _class_signature(target) if isinstance(target, type) else _own_signature(target)


def check_arguments(path: str, target: Callable[..., Any], names: Iterable[str]) -> None:
    """Refuse an argument that a class does not take, naming the nearest of those that it takes."""
    signature = signature_of(target)
    for name in names:
        if not signature.accepts(name):
            near, takes = did_you_mean(name, signature.defaults), ", ".join(signature.defaults) or "nothing"
            owner = getattr(target, "__name__", target)
            raise InvalidConfigError(f"{path}: {owner} has no '{name}'.{near} It takes: {takes}.")


def _own_signature(target: Callable[..., Any]) -> Signature:
    if typing.is_typeddict(target):
        return Signature(dict.fromkeys(typing.get_type_hints(target), REQUIRED))
    own = _parameters(target)
    defaults = {p.name: p.default for p in own.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return Signature(defaults, any(p.kind is p.VAR_KEYWORD for p in own.values()))


@functools.lru_cache(maxsize=64)
def _class_signature(target: type) -> Signature:
    own = _own_signature(target)
    if not own.open:
        return own
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(target, fail_untyped=False)
    passed_on = {name: _inherited_default(target, name) for name in vars(parser.get_defaults())}
    return Signature({**passed_on, **own.defaults}, open=not passed_on.keys() - own.defaults.keys())


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # some callables written in C
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


def _inherited_default(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        parameter = _parameters(base).get(name) if "__init__" in vars(base) else None
        if parameter is not None:
            return parameter.default
    return REQUIRED


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable's parameters, those that can be resolved."""
    while isinstance(target, functools.partial):
        target = target.func
    if typing.is_typeddict(target):
        return typing.get_type_hints(target)
    owners = target.__mro__ if inspect.isclass(target) else (target,)
    hints: dict[str, Any] = {}
    for owner in reversed(owners):
        function = vars(owner).get("__init__") if inspect.isclass(owner) else owner
        if callable(function):
            hints = {name: hint for name, hint in hints.items() if name not in _parameters(function)}
            hints |= _resolved_hints(function if inspect.isroutine(function) else type(function).__call__)
    return hints


def _resolved_hints(function: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(function)
    names = getattr(function, "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(Exception):  # one that cannot be resolved leaves the others
            hints |= typing.get_type_hints(alone, names)
    hints.pop("return", None)
    return hints


_VALUES = (Enum, os.PathLike, str, bytes, int, float, complex, tuple, list, dict, set, frozenset, datetime.date)
"""Classes whose instances stand in a config as values."""


def inner_class(target: Callable[..., Any], name: str) -> type | None:
    """Return the class of which a parameter takes an instance, where a config can give that its own arguments."""
    default = signature_of(target).defaults.get(name)
    hint = type_hints(target).get(name, type(default) if is_structure(type(default)) else None)
    members = [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not types.NoneType]
    found = members[0] if len(members) == 1 and inspect.isclass(members[0]) else None
    if found is None or is_structure(found):
        return found
    is_built = inspect.isfunction(found.__init__) and not issubclass(found, _VALUES)
    return found if is_built and typing.get_origin(hint) is not type else None


def is_structure(target: Any) -> bool:
    """Whether a config gives the fields of a class without a ``class_path``: of a dataclass or a TypedDict."""
    return inspect.isclass(target) and (dataclasses.is_dataclass(target) or typing.is_typeddict(target))


def with_defaults_of(target: Callable[..., Any], default: Any) -> Signature:
    """Return what a class accepts, with the defaults that a parameter's own default, an instance of it, gives."""
    signature = signature_of(target)
    defaults: dict[str, Any] = dict.fromkeys(signature.defaults, UNKNOWN)
    if dataclasses.is_dataclass(target) and (default is REQUIRED or isinstance(default, target)):
        for field in dataclasses.fields(target):
            made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            held = made if default is REQUIRED else getattr(default, field.name)
            defaults[field.name] = REQUIRED if held is dataclasses.MISSING else held
    return Signature(defaults, signature.open)


class Misfit(Exception):  # noqa: N818 - a finding, not an error
    """A value does not fit an annotation."""


def fit(hint: Any, value: Any, build: bool = True) -> Any:
    """Return what an annotation makes of a YAML value, as jsonargparse reads it; the value is left as it is.

    A list becomes a tuple, a name a member of an Enum, and a ``class_path`` block an instance, wherever the annotation
    asks for it. Two things are stricter than jsonargparse: text is never read as a number, null or a list, and None
    fits only where the annotation says so. Blocks are instantiated only with ``build``.

    Example:
        >>> fit(tuple[int, ...], [64, 32])
        (64, 32)
    """
    if type(value) is hint or (hint is Any and not isinstance(value, (list, dict))):
        return value
    parser = ArgumentParser(exit_on_error=False)
    parsed_as = list[hint] if value is None else hint  # at the top, None means "not given" to jsonargparse
    try:
        parser.add_argument("--value", type=parsed_as)
    except ValueError:  # an annotation that jsonargparse does not know, as a TypeVar
        parser.add_argument("--value", type=Any)
    if value is None:
        _parse(parser, [None])
        return None
    parsed = _parse(parser, value)
    if _with_texts(value, parsed.value) != parsed.value:
        _parse(parser, _with_texts(value, parsed.value, mask="some text"))
    return _with_texts(value, instantiate(parser, parsed).value if build else parsed.value)


def _parse(parser: ArgumentParser, value: Any) -> Any:
    try:
        return parser.parse_object({"value": copy.deepcopy(value)})  # the parser writes into it
    except Exception as error:  # jsonargparse raises several kinds
        raise Misfit(str(error)) from error


def _with_texts(value: Any, parsed: Any, mask: str | None = None) -> Any:
    """Return what was parsed, but the text, or the mask for it, where text was read as a number, null or a list.

    Only where the annotation admits any text, the mask can be parsed.
    """
    if isinstance(value, str):
        is_misread = isinstance(parsed, _PLAIN) and not isinstance(parsed, Enum)
        return (mask or value) if is_misread else parsed
    if isinstance(value, list) and type(parsed) in (list, tuple):
        return type(parsed)(_with_texts(v, p, mask) for v, p in zip(value, parsed, strict=True))
    if isinstance(value, dict) and type(parsed) is dict:
        return {key: _with_texts(value.get(key), p, mask) for key, p in parsed.items()}
    return parsed


_PLAIN = (type(None), bool, int, float, list, tuple, set, frozenset, dict)


# Two methods of jsonargparse's parsers have other names, or other parameters, before version 4.53.
_IS_4_49 = hasattr(ArgumentParser, "instantiate")
_IS_4_53 = _IS_4_49 and "instantiators" in inspect.signature(ArgumentParser.instantiate).parameters


def instantiate(parser: ArgumentParser, parsed: Namespace, instantiators: Sequence[tuple[Any, type, bool]] = ()) -> Any:
    """Return a parsed config with an instance in place of each ``class_path``."""
    if _IS_4_53:
        return parser.instantiate(parsed, instantiators=instantiators)
    own = copy.copy(parser)  # to which an instantiator is added; the parser itself stays without
    with warnings.catch_warnings():  # deprecated from 4.49 on, and before 4.53 there is no other way
        warnings.simplefilter("ignore", DeprecationWarning)
        for make, kind, with_subclasses in instantiators:
            own.add_instantiator(make, kind, subclasses=with_subclasses)
        return own.instantiate_classes(parsed)


def dump_all(parser: ArgumentParser, parsed: Namespace) -> str:
    """Return a parsed config as YAML, with every argument that is null or not given."""
    unset = "skip_unset" if _IS_4_49 else "skip_none"
    text: str = parser.dump(parsed, skip_validation=True, **{unset: False})
    return text


@contextlib.contextmanager
def given_hyperparameters(cls: type, values: Mapping[str, Any]) -> Iterator[None]:
    """Have a LightningModule or LightningDataModule that is built here save plain values, and not the objects.

    Objects in a checkpoint keep it from being loaded with weights only; from ``class_path`` blocks,
    ``load_from_checkpoint`` builds them again. LightningCLI does the same, with this function of Lightning's, which is
    private: there is no public way. It is found beside the class's own base, so that nothing imports Lightning here.
    """
    module = next((base.__module__ for base in cls.__mro__ if base.__name__ == "HyperparametersMixin"), None)
    if module is None:
        yield
        return
    context = sys.modules[module]._given_hyperparameters_context
    with context({**values}, instantiator="lightning.pytorch.cli.instantiate_module"):
        yield
