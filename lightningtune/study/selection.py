"""Which rows of a table of trials are asked for: by state, by conditions, sorted, so many."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightningtune.errors import ConfigurationError, did_you_mean
from lightningtune.files import load_yaml

PARAMS = "params."
"""Prefix of the name of a parameter's column."""

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Condition:
    """A column's name as the user wrote it, one of ``= == != < <= > >=``, and a value."""

    column: str
    sign: str
    value: Any


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConfigurationError: when it is none.

    Example:
        >>> parse_condition("lr<1e-3")
        Condition(column='lr', sign='<', value=0.001)
        >>> parse_condition("optimizer = sgd")
        Condition(column='optimizer', sign='=', value='sgd')
    """
    found = re.fullmatch(r"\s*([^<>=!]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.+?)\s*", text, re.DOTALL)
    if found is None:
        raise ConfigurationError(f"'{text}' is no condition. One is a column, a sign and a value: 'lr<1e-3'.")
    column, sign, value = found.groups()
    return Condition(column, sign, load_yaml(value, f"The value in '{text}'"))


def list_columns(rows: Iterable[Row]) -> list[str]:
    """Return the names of all columns."""
    return [*dict.fromkeys(name for row in rows for name in row)]


def select(
    rows: Sequence[Row],
    states: Sequence[str] = (),
    conditions: Sequence[Condition] = (),
    sort: str = "number",
    descending: bool = False,
    limit: int | None = None,
) -> list[Row]:
    """Return the rows that have one of the states, where there are any, and meet all conditions.

    A row in which a column is empty meets no condition on it, and comes last where it is sorted by.

    Raises:
        ConfigurationError: when there is no such column, or it cannot be compared with the value.

    Example:
        >>> rows = [{"number": 0, "state": "complete", "val_acc": 0.5}, {"number": 1, "state": "fail", "val_acc": None}]
        >>> select(rows, conditions=[parse_condition("val_acc>0.4")])
        [{'number': 0, 'state': 'complete', 'val_acc': 0.5}]
    """
    if not rows:
        return []
    columns = list_columns(rows)
    chosen = [row for row in rows if not states or row["state"] in states]
    for condition in conditions:
        name = find_column(condition.column, columns)
        chosen = [row for row in chosen if _meets(row[name], name, condition)]
    by = find_column(sort, columns)
    filled = sorted((row for row in chosen if row[by] is not None), key=lambda row: _order(row[by]), reverse=descending)
    return [*filled, *(row for row in chosen if row[by] is None)][:limit]


def find_column(name: str, columns: Sequence[str]) -> str:
    """Return the column that a user means: by its whole name, that of a parameter, or its last part.

    Raises:
        ConfigurationError: when there is none, or several.

    Example:
        >>> find_column("lr", ["number", "params.model.lr"])
        'params.model.lr'
    """
    for same in (name, f"{PARAMS}{name}"):
        if same in columns:
            return same
    found = [column for column in columns if column.startswith(PARAMS) and column.rpartition(".")[2] == name]
    if len(found) == 1:
        return found[0]
    known = [column.removeprefix(PARAMS) for column in columns]
    if found:
        raise ConfigurationError(f"'{name}' may be {' or '.join(column.removeprefix(PARAMS) for column in found)}.")
    raise ConfigurationError(f"There is no column '{name}'.{did_you_mean(name, known)} There: {', '.join(known)}.")


def _meets(found: Any, name: str, condition: Condition) -> bool:
    if found is None:
        return False
    value = str(condition.value) if isinstance(found, str) and condition.sign in {"=", "==", "!="} else condition.value
    try:
        return _OPERATORS[condition.sign](found, value)
    except TypeError:
        raise ConfigurationError(
            f"'{name.removeprefix(PARAMS)}' is not compared with {value!r} by '{condition.sign}': it is {found!r}, say."
        ) from None


def _order(value: Any) -> tuple[bool, Any]:
    """Return a key that sorts numbers before text."""
    is_number = isinstance(value, (int, float))
    return not is_number, value if is_number else str(value)
