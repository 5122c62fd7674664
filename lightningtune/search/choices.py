"""The choices of a categorical parameter: any YAML values, and what Optuna stores for each."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightningtune.errors import SearchSpaceError
from lightningtune.files import plain
from lightningtune.search.values import same, unwrapped


def read_choices(name: str, choices: Any) -> tuple[Any, ...]:
    """Return the choices of a parameter as plain values.

    Raises:
        SearchSpaceError: naming the parameter and the choice that cannot be one.
    """
    choices = unwrapped(choices)
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise SearchSpaceError(f"'{name}': choices must come as one list, but got {choices!r}.")
    if not choices:
        raise SearchSpaceError(f"'{name}': choices must not be empty.")
    values = tuple(_choice(name, choice) for choice in choices)
    for i, value in enumerate(values):
        if any(same(value, other) for other in values[:i]):
            raise SearchSpaceError(f"'{name}': the choice {value!r} is given twice.")
    return values


def _choice(name: str, value: Any) -> Any:
    try:
        choice = plain(value)
    except TypeError as error:
        raise SearchSpaceError(f"'{name}': a choice must be a YAML value. {error}. {_remedy(value)}") from error
    if isinstance(choice, float) and math.isnan(choice):
        raise SearchSpaceError(f"'{name}': NaN cannot be a choice, since it does not equal itself.")
    return choice


def _remedy(value: Any) -> str:
    for part in _parts(value):
        if isinstance(part, datetime.date):
            return f"An unquoted date is read as one; as text it is quoted: '{part}'."
        if isinstance(part, Mapping):
            for key in part:
                if not isinstance(key, str):
                    return f"The keys of a mapping are text, but {key!r} is not; quote it: '{key}'."
    return "A class is written as {'class_path': 'package.Class', 'init_args': {...}}."


def _parts(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [value, *(part for item in inner for part in _parts(item))]


def storable(values: Sequence[Any]) -> list[Any]:
    """Return, for each choice, itself where Optuna can store it and tell it apart, a readable label otherwise.

    Example:
        >>> storable(["relu", [1, 2], True, 1])
        ['relu', '[1, 2]', True, '1']
    """
    stored: list[Any] = []
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
        arguments = ", ".join(f"{k}={label(v)}" for k, v in (value.get("init_args") or {}).items())
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return json.dumps(value)
