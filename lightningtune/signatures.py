"""What a class, or any callable that builds one, accepts."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import inspect
import os
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from jsonargparse import ArgumentParser

REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""
UNKNOWN: Any = object()
"""The default of a parameter of an object that is not built by default, or was built elsewhere."""


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable.

    Attributes:
        defaults: name to default, `REQUIRED` where there is none.
        open: whether ``**kwargs`` swallows any further name.
    """

    defaults: Mapping[str, Any]
    open: bool = False

    def accepts(self, name: str) -> bool:
        """Whether ``name`` may be given."""
        return name in self.defaults or self.open


def signature_of(target: Callable[..., Any]) -> Signature:
    """Return what ``target`` accepts, following a class's ``**kwargs`` to its bases where that can be told.

    Example:
        >>> signature_of(functools.partial(dict.fromkeys, [1])).open
        False
    """
    # a callable that is no class may hold a data set, which a cache would keep
    return _class_signature(target) if isinstance(target, type) else _own_signature(target)


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
    defaults = own.defaults
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(target, fail_untyped=False)
    passed_on = {name: _inherited_default(target, name) for name in vars(parser.get_defaults())}
    return Signature({**passed_on, **defaults}, open=not passed_on.keys() - defaults.keys())


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
            hints |= _resolved(function if inspect.isroutine(function) else type(function).__call__)
    return hints


def _resolved(function: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(function)
    names = getattr(function, "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(Exception):  # whatever the text of one raises, the others are resolved
            hints |= typing.get_type_hints(alone, names)
    hints.pop("return", None)
    return hints


_VALUES = (Enum, os.PathLike, str, bytes, int, float, complex, tuple, list, dict, set, frozenset, datetime.date)
"""Classes whose instances stand in a config as values."""


def inner_class(target: Callable[..., Any], name: str) -> type | None:
    """Return the class of which a parameter takes an instance, where a config can give that its own arguments.

    Args:
        target: has the parameter.
        name: the parameter's.

    Example:
        >>> def build(optimizer: Signature | None = None, lr: float = 0.1): ...
        >>> inner_class(build, "optimizer"), inner_class(build, "lr")
        (<class 'lightningtune.signatures.Signature'>, None)
    """
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
    """Return what a class accepts, with the defaults that a parameter's own default gives.

    Args:
        target: the class.
        default: an instance of it, None, or `REQUIRED`.
    """
    signature = signature_of(target)
    defaults: dict[str, Any] = dict.fromkeys(signature.defaults, UNKNOWN)
    if dataclasses.is_dataclass(target) and (default is REQUIRED or isinstance(default, target)):
        for field in dataclasses.fields(target):
            made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            held = made if default is REQUIRED else getattr(default, field.name)
            defaults[field.name] = REQUIRED if held is dataclasses.MISSING else held
    return Signature(defaults, signature.open)


def class_path_of(target: type) -> str | None:
    """Return the name by which a config names a class; None where it cannot, or where the class is abstract.

    A class of a script goes by its name alone: in the script itself it is ``__main__``'s.

    Example:
        >>> class_path_of(functools.partial), class_path_of(Signature)
        ('partial', 'lightningtune.signatures.Signature')
    """
    if "<locals>" in target.__qualname__ or inspect.isabstract(target):
        return None
    return f"{target.__module__}.{target.__qualname__}" if "." in target.__module__ else target.__qualname__


def named_without_module(*bases: type) -> dict[str, type]:
    """Return the classes that a config may name without their module: those that have been imported.

    Args:
        *bases: the classes from which they derive; these are among them.

    Example:
        >>> named_without_module(Exception)["KeyError"]
        <class 'KeyError'>
    """
    known: dict[str, type] = {}
    left = [*bases]
    while left:
        base = left.pop()
        if "<locals>" not in base.__qualname__:  # jsonargparse does not take those
            known[base.__name__] = base
        left += base.__subclasses__()
    return known


def import_class(class_path: str) -> Callable[..., Any] | None:
    """Import ``package.module.Class``, a class within a class too, or return None where it cannot be."""
    try:
        found = pkgutil.resolve_name(class_path)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if callable(found) else None
