"""The choices of a categorical parameter: any YAML values, and what Optuna stores for each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from lightningtune.config.values import as_python, plain, same
from lightningtune.errors import SearchSpaceError


def read_choices(name: str, choices: Any) -> tuple[Any, ...]:
    """Return the choices of a parameter: any values that a config can hold.

    Members of an Enum, paths and tuples stay what they are; arrays and containers of other packages become Python's.

    Raises:
        SearchSpaceError: naming the parameter and the choice that cannot be one.
    """
    choices = as_python(choices)
    is_enum = isinstance(choices, type) and issubclass(choices, Enum)
    if not is_enum and (not isinstance(choices, Sequence) or isinstance(choices, (str, bytes))):
        raise SearchSpaceError(f"'{name}': choices must come as one list, but got {choices!r}.")
    values = tuple(_choice(name, choice) for choice in choices)
    if not values:
        raise SearchSpaceError(f"'{name}': choices must not be empty.")
    for i, value in enumerate(values):
        if any(same(value, other) for other in values[:i]):
            raise SearchSpaceError(f"'{name}': the choice {value!r} is given twice.")
    return values


def _choice(name: str, value: Any) -> Any:
    try:
        choice = plain(value)
    except TypeError as error:
        raise SearchSpaceError(f"'{name}': a choice must be a YAML value. {error}.") from error
    if isinstance(choice, float) and math.isnan(choice):
        raise SearchSpaceError(f"'{name}': NaN cannot be a choice, since it does not equal itself.")
    return value


def storable(choices: Sequence[Any]) -> list[Any]:
    """Return, for each choice, itself where Optuna can store it and tell it apart, a readable label otherwise.

    Example:
        >>> storable(["relu", [1, 2], True, 1])
        ['relu', '[1, 2]', True, '1']
    """
    stored: list[Any] = []
    values = [plain(choice) for choice in choices]
    for value in values:
        stored.append(_stored(value, [*stored, *(text for text in values if isinstance(text, str) and text != value)]))
    return stored


def _stored(value: Any, taken: Sequence[Any]) -> Any:
    if (value is None or isinstance(value, (bool, int, float, str))) and value not in taken:
        return value
    labels = [label(value), json.dumps(value)]
    labels += [f"{labels[0]} #{n}" for n in range(2, len(taken) + 3)]
    return next(text for text in labels if text not in taken)


def label(value: Any) -> str:
    """Name a choice that Optuna cannot store as it is.

    Example:
        >>> label({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}})
        'SGD(lr=0.1)'
        >>> label([64, 64])
        '[64, 64]'
    """
    if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        given = value.get("init_args")
        arguments = ", ".join(f"{k}={label(v)}" for k, v in given.items()) if isinstance(given, Mapping) else ""
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return json.dumps(value)
