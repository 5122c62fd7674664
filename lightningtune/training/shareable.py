"""Refuses data that processes cannot share: it holds a position in a file, a lock or a connection."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import itertools
import logging
import mmap
import random
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from lightningtune.errors import ConfigurationError

_ITEMS = 10_000
"""Items of one container that are looked at."""
_OBJECTS = 500_000
"""Objects that are looked at in all."""
_SAFE = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, range, np.generic),
    *(torch.Tensor, torch.Generator, random.Random, np.random.Generator, np.random.RandomState),
    *(type, types.ModuleType, types.BuiltinFunctionType, logging.Logger, weakref.ReferenceType),
)
"""What trials can share, and is not looked into."""
_ADVICE = (
    "Open or make it where it is used: in train_dataloader and val_dataloader, or in the dataset when its first item "
    "is read. Or leave share_data out."
)


def refuse_unshareable(values: Mapping[str, Any]) -> None:
    """Refuse data that all trials cannot share.

    Containers are followed to their first 10,000 items, objects into their attributes, functions into what they close
    over.

    Args:
        values: attributes of a datamodule.

    Raises:
        ConfigurationError: naming the attribute that holds what cannot be shared, and what to do.
    """
    for path, value in held(values):
        what = _why_not(value)
        if what is not None:
            raise ConfigurationError(f"share_data shares what the datamodule loads, but {path} is {what}. {_ADVICE}")


def held(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every object that attributes of a datamodule hold, with its path, the nearest first, each once.

    Example:
        >>> [path for path, value in held({"rows": [{"a": 1}]})]
        ['datamodule.rows', 'datamodule.rows[0]', "datamodule.rows[0]['a']"]
    """
    waiting = deque((f"datamodule.{name}", value) for name, value in values.items())
    seen: dict[int, Any] = {}  # which keeps them alive, for no other object to get the number of one
    while waiting and len(seen) < _OBJECTS:
        path, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        yield path, value
        if not isinstance(value, _SAFE):
            waiting.extend(itertools.islice(_inside(path, value), _ITEMS))


def _inside(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, np.memmap) or (isinstance(value, io.IOBase) and _descriptor(value) is not None):
        return  # it says itself what it is
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            yield from ((f"{path}.flat[{i}]", item) for i, item in enumerate(value.flat))
        if value.base is not None:
            yield f"{path}.base", value.base
        return
    if isinstance(value, memoryview):
        yield f"{path}.obj", value.obj
        return
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((f"'{name}' in {path}", cell.cell_contents) for name, cell in cells if _is_filled(cell))
        yield from ((f"a default of {path}", default) for default in value.__defaults__ or ())
        return
    if isinstance(value, types.MethodType):
        yield f"{path}.__self__", value.__self__
        return
    yield from ((f"{path}.{name}", item) for name, item in _attributes(value))
    if isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"{path}[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, Set):
        yield from ((f"an item of {path}", item) for item in value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):  # a slot, or what C code shows of itself
                with contextlib.suppress(AttributeError):  # it has not been set
                    yield name, member.__get__(value)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _why_not(value: Any) -> str | None:
    """Say what an object is that trials cannot share; None where they can."""
    if isinstance(value, _SAFE):
        return None
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, io.IOBase):
        number = _descriptor(value)
        given = getattr(value, "name", None)
        where = f" of '{given}'" if isinstance(given, str) else ""
        shares = "all trials would move one position in it"
        is_standard = value in (sys.stdin, sys.stdout, sys.stderr)
        return None if number is None or is_standard else f"an open file{where}: {shares}"
    if isinstance(value, np.memmap):
        is_private = value.mode in ("r", "c")
        return None if is_private else f"a memory map with mode='{value.mode}': trials would write to one file, use 'r'"
    if isinstance(value, mmap.mmap):
        return None if _is_read_only(value) else "a memory map that can be written to: use mmap.ACCESS_READ"
    has_attributes = hasattr(value, "__dict__")
    if isinstance(value, Iterator) and not has_attributes:
        return f"an iterator ({name}): what one trial takes from it, another does not get"
    if isinstance(value, Trainer):
        return "a Trainer, and each trial has its own"
    if has_attributes or isinstance(value, _FOLLOWED) or type(value) in copyreg.dispatch_table:
        return None
    try:
        value.__reduce_ex__(4)
    except Exception:  # what cannot be pickled says so in any way it likes
        return f"a {name}, which cannot be pickled and so belongs to one process, as locks and connections do"
    return None


_FOLLOWED: tuple[type, ...] = (
    *(dict, list, tuple, set, frozenset, deque, np.ndarray, memoryview, functools.partial, slice),
    *(types.FunctionType, types.MethodType, types.MappingProxyType, types.CodeType, type({}.keys()), type({}.values())),
)
"""Besides objects with attributes: what needs no pickling to tell whether it can be shared."""


def _descriptor(file: io.IOBase) -> int | None:
    """Return the number of an open file; None where it is closed, or in memory."""
    try:
        return None if file.closed else file.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _is_read_only(mapped: mmap.mmap) -> bool:
    try:
        with memoryview(mapped) as view:
            return view.readonly
    except ValueError:  # it is closed
        return True
