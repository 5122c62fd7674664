"""Plain values compared and read: 1, 1.0 and True are three values, at every depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any


def same(one: Any, other: Any, *, as_numbers: bool = False) -> bool:
    """Whether two values are equal and of the same types at every depth.

    A member of an Enum is its name, as configs write it, and a tuple is a list.

    Args:
        one: any value.
        other: any value.
        as_numbers: whether an integer and a float may be the same; a boolean never is a number.

    Example:
        >>> same([1], [True]), same([1], [1.0]), same([1], [1.0], as_numbers=True)
        (False, False, True)
    """
    one, other = _written(one), _written(other)
    if as_numbers and {type(one), type(other)} == {int, float}:
        return bool(one == other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k], as_numbers=as_numbers) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(
            same(a, b, as_numbers=as_numbers) for a, b in zip(one, other, strict=True)
        )
    return bool(one == other)


def _written(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    return list(value) if isinstance(value, tuple) else value


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


def unwrapped(value: Any) -> Any:
    """Return a value with NumPy's numbers and arrays, at any depth, as Python's numbers and lists.

    NumPy is not imported for it. What else is no YAML value is left as it is.
    """
    if isinstance(value, (list, tuple)):
        return [unwrapped(item) for item in value]
    if isinstance(value, Mapping):
        return {key: unwrapped(item) for key, item in value.items()}
    is_array = hasattr(value, "shape") and hasattr(value, "tolist") and not isinstance(value, type)
    return value.tolist() if is_array else value
