"""The constraints of a trial, read in Optuna 5 and in Optuna 4.

Optuna 5 gives each constraint a name. Optuna 4 keeps the list of numbers that a sampler's ``constraints_func`` returns,
and has no public method that reads it. Both versions keep constraints among the trial's system attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

_KEY = "constraints"


def constraint_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """Return the system attributes that hold a trial's constraints; a copy of the trial needs them."""
    return {name: value for name, value in trial.system_attrs.items() if name.partition(":")[0] == _KEY}


def constraints_of(trial: FrozenTrial) -> Mapping[str, float]:
    """Return the constraints of a trial by name; those without a name have their position."""
    if hasattr(trial, "constraints"):
        return trial.constraints
    return {str(position): value for position, value in enumerate(trial.system_attrs.get(_KEY) or ())}


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial violates no constraint: each is zero or less."""
    return all(value <= 0 for value in constraints_of(trial).values())
