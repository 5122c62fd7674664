"""What a class, or any callable that builds one, accepts."""

from __future__ import annotations

import contextlib
import functools
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser

REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""


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


def import_class(class_path: str) -> Callable[..., Any] | None:
    """Import ``package.module.Class``, a class within a class too, or return None where it cannot be."""
    try:
        found = pkgutil.resolve_name(class_path)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if callable(found) else None
