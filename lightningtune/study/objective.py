"""Metric, mode, direction and score: read from what the user gives, and checked against each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

from lightningtune.config.values import is_storable
from lightningtune.contract import Mode, NonFinitePolicy, Objective, ScorePolicy
from lightningtune.errors import MetricError, did_you_mean
from lightningtune.wording import counted

_MODES: dict[str, Mode] = {"minimize": "min", "maximize": "max"}


def make_objective(
    monitor: str | Sequence[str],
    mode: Mode | Sequence[Mode] | None,
    directions: Sequence[str] | None,
    score: ScorePolicy = "best",
    non_finite: NonFinitePolicy = "prune",
) -> Objective:
    """Make an `Objective` of what the user gives; a mode that is None is taken from the study's directions.

    Example:
        >>> make_objective("val_acc", None, ["maximize"]).mode
        ('max',)
    """
    names = tuple(monitor) if isinstance(monitor, Sequence) and not isinstance(monitor, str) else (monitor,)
    if not names or not all(isinstance(name, str) and name for name in names) or len({*names}) < len(names):
        raise MetricError(f"A metric is given by its name, several by different ones, but got {monitor!r}.")
    if not all(map(is_storable, names)):
        raise MetricError(f"A metric's name must be text that can be stored, but got {monitor!r}.")
    _check_choice("score", score, ("best", "last"), callable_too=True)
    _check_choice("non_finite", non_finite, get_args(NonFinitePolicy))
    return Objective(names, _read_modes(names, mode, directions), score, non_finite)


def read_directions(direction: str | Sequence[str], metric: str | Sequence[str]) -> list[str]:
    """Return the direction of each metric, or raise a MetricError."""
    directions = [direction] if isinstance(direction, str) or not isinstance(direction, Sequence) else [*direction]
    for name in directions:
        _check_choice("direction", name, tuple(_MODES))
    count = len(metric) if isinstance(metric, Sequence) and not isinstance(metric, str) else 1
    if len(directions) != count:
        raise MetricError(
            f"metric names {counted(count, 'metric')} ({metric}), but direction {len(directions)} ({direction})."
        )
    return directions


def looks_reversed(objective: Objective) -> str | None:
    """Ask about a metric that is tuned against what its name suggests; None where there is none."""
    signs: dict[Mode, str] = {"min": r"acc|f1|auc|auroc|precision|recall|dice|iou|r2", "max": r"loss|err|mse|mae|rmse"}
    for name, mode in zip(objective.monitor, objective.mode, strict=True):
        if re.search(rf"(^|[_/ ])({signs[mode]})", name.lower()):
            return f"'{name}' is {'minimized' if mode == 'min' else 'maximized'}: is that meant? See direction=."
    return None


def _read_modes(names: tuple[str, ...], mode: Any, directions: Sequence[str] | None) -> tuple[Mode, ...]:
    wanted = [_MODES[direction] for direction in directions] if directions is not None else None
    if wanted is not None and len(wanted) == 1 < len(names):
        raise MetricError(f"The study has one objective, but monitor names {len(names)}: {', '.join(names)}.")
    if mode is None:
        if wanted is None:
            raise MetricError("This trial has no study to take the mode from; pass mode='min' or mode='max'.")
        if len(wanted) != len(names):
            if len({*wanted}) > 1:
                raise MetricError(
                    f"The study has {len(wanted)} objectives and monitor names {len(names)}; pass mode='min' or 'max'."
                )
            wanted = wanted[:1] * len(names)
        return tuple(wanted)
    given: list[Any] = [mode] * len(names) if isinstance(mode, str) else list(mode)
    for one in given:
        _check_choice("mode", one, get_args(Mode))
    if len(given) != len(names):
        raise MetricError(f"monitor names {len(names)} metrics, but mode {len(given)}: {given!r}.")
    if wanted is not None and len(wanted) == len(given) and given != wanted:
        raise MetricError(f"mode={mode!r} contradicts the study's direction, which asks for {wanted!r} of {names!r}.")
    return tuple(given)


def _check_choice(what: str, value: Any, allowed: tuple[str, ...], callable_too: bool = False) -> None:
    if (isinstance(value, str) and value in allowed) or (callable_too and callable(value)):
        return
    hint = did_you_mean(str(value), allowed)
    options = ", ".join(map(repr, allowed)) + (" or a function of all values" if callable_too else "")
    raise MetricError(f"{what} must be one of {options}, but got {value!r}.{hint}")
