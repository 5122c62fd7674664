"""Turns the values that users give into those that a config file holds, and compares values in that form."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import inspect
import os
from collections.abc import Mapping, MutableSequence, Sequence, Set
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin

_MOST_BITS = 10_000
"""Bits of an integer: Python may refuse to write a longer one as text."""
_MOST_CHARACTERS = 100
"""Characters of a value in an error."""


def plain(value: Any, path: str = "") -> Any:
    """Return a value as a config's file holds it, in the words that LightningCLI reads back.

    - A member of an Enum is its name; a path, a date, a time, a ``torch.dtype`` and a ``torch.device`` are text.
    - A tuple, a ``ListConfig`` and every other list is a list.
    - A dataclass, a ``Namespace``, a ``DictConfig`` and every other mapping is a mapping.
    - A number of NumPy's or torch's is Python's.

    Neither NumPy, torch nor OmegaConf is imported.

    Example:
        >>> plain({"widths": (1, 2), "start": datetime.date(2024, 3, 1)})
        {'widths': [1, 2], 'start': '2024-03-01'}
    """
    try:
        return _plain(value, path)
    except RecursionError:
        raise _unfit(path, "It is nested too deeply for a config, or holds itself") from None


def _plain(value: Any, path: str) -> Any:
    if value is None or type(value) in (bool, float):
        return value
    if isinstance(value, Enum):
        if isinstance(value.name, str):
            return value.name
    elif isinstance(value, str):
        return _text(value, path)
    elif isinstance(value, float):
        return float(value)
    elif isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            bits = value.bit_length()
            raise _unfit(path, f"An integer of {bits} bits is too long for a config. Write it as a float, or as text")
        return int(value)
    elif isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    elif isinstance(value, datetime.timedelta) or _is_torch_type(value):
        return str(value)
    elif isinstance(value, os.PathLike) and isinstance(value.__fspath__(), str):
        return _text(value.__fspath__(), path)
    elif _is_list(value):
        return [_plain(item, f"{path}.{i}") for i, item in enumerate(_read(value, list, path))]
    elif isinstance(value, Mapping):
        return {_key(key, path): _plain(item, f"{path}.{key}") for key, item in _read(value, dict, path).items()}
    elif isinstance(value, argparse.Namespace):
        return _plain(vars(value), path)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return _plain({name: getattr(value, name) for name in fields}, path)
    elif _is_array(value) and value.shape == ():
        return _plain(value.tolist(), path)
    allowed = "a YAML value (string, number, boolean, null, list or mapping)"
    raise _unfit(path, f"{briefly(value)} is not {allowed}. {_advice(value)}")


def _unfit(path: str, problem: str) -> TypeError:
    where = path.removeprefix(".")
    return TypeError(f"{where}: {problem}" if where else problem)


def as_python(value: Any) -> Any:
    """Return a value with arrays, numbers and containers of other packages as Python's; all else as it is."""
    if _is_array(value):
        return value.tolist()
    if type(value) is tuple:
        return tuple(map(as_python, value))
    if _is_list(value) and not isinstance(value, tuple):
        return [as_python(item) for item in _read(value, list)]
    if isinstance(value, Mapping):
        return {key: as_python(item) for key, item in _read(value, dict).items()}
    return value


def _is_array(value: Any) -> bool:
    """Whether a value is a number or an array of NumPy's or torch's; neither is imported for it."""
    return hasattr(value, "shape") and hasattr(value, "tolist") and not isinstance(value, type)


def _is_list(value: Any) -> bool:
    return isinstance(value, (tuple, MutableSequence)) and not isinstance(value, bytearray)


def _is_torch_type(value: Any) -> bool:
    """Whether a value is one of torch's that jsonargparse reads from text."""
    return type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device")


def is_storable(text: str) -> bool:
    """Whether every storage and every file can hold a text: NUL and half a surrogate pair are in none."""
    return "\0" not in text and not _has_half_pair(text)


def _has_half_pair(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _text(value: str, path: str) -> str:
    text = str.__str__(value)
    if _has_half_pair(text):
        problem = "holds half a surrogate pair, which no file can hold. Write the whole character"
        raise _unfit(path, f"{briefly(text)} {problem}")
    return text


def _key(key: Any, path: str) -> Any:
    if isinstance(key, (str, Enum)) or type(key) is int:
        return _plain(key, path)
    problem = f"The keys of a mapping are text or integers, but {briefly(key)} is not; quote it: '{key}'"
    raise _unfit(path, problem)


def _read(value: Any, kind: type, path: str = "") -> Any:
    """Return a list or a mapping as Python's own; one of another package's may raise as its items are read."""
    if type(value) in (list, tuple, dict):
        return value
    try:
        return kind(value)
    except Exception as error:  # a DictConfig raises where a value is missing or refers to nothing
        raise _unfit(path, f"{type(value).__name__} cannot be read: {' '.join(str(error).split())}") from error


def briefly(value: Any) -> str:
    """Return a value as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # the repr of a user's object may raise
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _advice(value: Any) -> str:
    if isinstance(value, (Set, range)):
        return "Write it as a list; the annotation set[...] makes a set of it"
    if isinstance(value, (bytes, bytearray, complex)) or type(value).__module__ in ("decimal", "uuid", "fractions"):
        return "Write it as text, or as a number"
    if _is_array(value):
        return "Write it as a list, by its tolist()"
    what = "A class" if inspect.isclass(value) else "An object"
    return f"{what} is written as {{'class_path': 'package.Class', 'init_args': {{...}}}}"


def same(one: Any, other: Any, *, as_numbers: bool = False) -> bool:
    """Whether a config holds the same for two values, of the same types at every depth: 1, 1.0 and True are three.

    Example:
        >>> same([1], [True]), same([1], (1,)), same([1], [1.0], as_numbers=True)
        (False, True, True)
    """
    try:
        return _is_same(plain(one), plain(other), as_numbers)
    except TypeError:  # a function of the trial may return what no config holds
        return type(one) is type(other) and bool(one == other)


def _is_same(one: Any, other: Any, as_numbers: bool) -> bool:
    if as_numbers and {type(one), type(other)} == {int, float}:
        return bool(one == other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[k], other[k], as_numbers) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(_is_same(*pair, as_numbers) for pair in zip(one, other, strict=True))
    return bool(one == other)


def index_of(values: Sequence[Any], value: Any) -> int | None:
    """Return where a value stands among others, or else the number that equals it; None where there is neither.

    Example:
        >>> index_of([True, 1.0], 1), index_of([True], 1)
        (1, None)
    """
    for as_numbers in (False, True):
        for i, other in enumerate(values):
            if same(value, other, as_numbers=as_numbers):
                return i
    return None


def is_kept(given: Any, got: Any, hint: Any) -> bool:
    """Whether a class gets what a user gave, or what its annotation says of that; a file holds text and lists only.

    Example:
        >>> is_kept((1, 2), [1, 2], list[int]), is_kept((1, 2), [1, 2], Any)
        (True, False)
    """
    if isinstance(given, Enum):
        return bool(got == given)
    is_open = hint in (Any, object)
    if isinstance(given, (list, tuple)) and isinstance(got, (list, tuple)):
        became_list = isinstance(given, tuple) and isinstance(got, list) and is_open
        inner = _item_hint(hint)
        return not became_list and all(is_kept(*pair, inner) for pair in zip(given, got, strict=False))
    if isinstance(given, Mapping) and isinstance(got, Mapping) and "class_path" not in given:
        inner = _item_hint(hint)
        return all(is_kept(item, got.get(key), inner) for key, item in given.items())
    written_as_text = (os.PathLike, datetime.date, datetime.time, datetime.timedelta)
    kind: type = next((kind for kind in written_as_text if isinstance(given, kind)), object)
    kind = type(given) if _is_torch_type(given) else kind
    return isinstance(got, kind) or (isinstance(got, str) and not is_open)  # 00:30 might be read as a number


def _item_hint(hint: Any) -> Any:
    """Return the annotation of the items of a list or a mapping; None where the annotation is of neither."""
    members = [hint]
    if get_origin(hint) in (Union, UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
    if len(members) != 1:
        return None
    if members[0] in (Any, object):
        return Any
    args, kind = get_args(members[0]), get_origin(members[0]) or members[0]
    if not isinstance(kind, type) or not issubclass(kind, (Sequence, Set, Mapping)):
        return None
    return (args[-1] if issubclass(kind, Mapping) else args[0]) if args else Any
