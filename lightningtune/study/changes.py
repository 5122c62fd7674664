"""What is written down of a study, and what has changed between two runs of it, as far as that tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import optuna

from lightningtune.config.overrides import Schema
from lightningtune.contract import Objective
from lightningtune.search.spaces import SearchSpace, SimpleSearchSpace
from lightningtune.study.provenance import name_of, names_of, script, versions
from lightningtune.study.reporter import SEED

_BUILDERS = ("cli", "model_class", "datamodule_class")
_COMPARED = (*_BUILDERS, "search_space", "base_config", "score", "sampler", "pruner", "versions")
"""The other parts of a definition may not change, or change nothing of a trial."""
_SHOWN = 8


def define(
    study: optuna.Study,
    objective: Objective,
    n_trials: int,
    schema: Schema,
    space: SearchSpace,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what was asked for, as it is written to ``study.yaml``.

    Args:
        study: with its sampler and its pruner.
        objective: what is tuned.
        n_trials: in all.
        schema: what builds the model and the data.
        space: what is sampled.
        config: the base config.
    """
    file = script()
    return {
        "study_name": study.study_name,
        "metric": list(objective.monitor),
        "direction": [direction.name.lower() for direction in study.directions],
        "score": objective.score if isinstance(objective.score, str) else name_of(objective.score),
        "n_trials": n_trials,
        "seed": study.user_attrs[SEED],
        "sampler": type(study.sampler).__name__,
        "pruner": type(study.pruner).__name__,
        **names_of(schema),
        "script": None if file is None else str(file),
        "search_space": space.to_dict() if isinstance(space, SimpleSearchSpace) else repr(space),
        "base_config": config,
        "versions": versions(),
    }


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say in a sentence what differs between two definitions of a study; None where nothing does.

    Args:
        before: as it was read from ``study.yaml``.
        now: as it will be written there.

    Example:
        >>> print(describe_changes({"base_config": {"trainer": {"max_epochs": 5}}}, {
        ...     "base_config": {"trainer": {"max_epochs": 9}, "model": {"width": 4}}}))
        Changed since the last run, for the trials that follow: base_config.model.width added: 4; \
base_config.trainer.max_epochs 5 → 9.
    """
    old, new = (dict(leaves({name: part.get(name) for name in _COMPARED})) for part in (before, now))
    found = []
    for path in sorted({*old, *new}):
        if path not in old:
            found.append(f"{path} added: {new[path]}")
        elif path not in new:
            found.append(f"{path} removed, which was {old[path]}")
        elif old[path] != new[path]:
            found.append(f"{path} {old[path]} → {new[path]}")
    if not found:
        return None
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return f"Changed since the last run, for the trials that follow: {'; '.join([*found[:_SHOWN], *more])}."


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is no mapping, by its dotted path; an empty mapping and None are nothing.

    Args:
        value: a mapping, or what stands in one.
        path: where it stands.

    Example:
        >>> list(leaves({"trainer": {"max_epochs": 5}, "seed": None}))
        [('trainer.max_epochs', 5)]
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else str(name))
    elif value is not None:
        yield path, value
