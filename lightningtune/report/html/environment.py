"""With what a study was trained: versions, code, machines; and what was asked for."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import optuna

from lightningtune._version import __version__
from lightningtune.report.html.record import Record
from lightningtune.study.results import TrialResult
from lightningtune.wording import listed, size


def environment_of(record: Record, definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and what they were; where trials differ, which had what.

    Args:
        record: the study.
        definition: as it stands in ``study.yaml``; may be empty.
    """
    found: list[tuple[str, str]] = []
    known = {"sampler": "sampler", "pruner": "pruner", "seed": "seed", "score": "score", "n_trials": "trials asked for"}
    found += [(name, str(definition[key])) for key, name in known.items() if definition.get(key) is not None]
    trials = record.results.trials
    begun = [(trial, trial.provenance) for trial in trials if trial.provenance is not None]
    classes = {"model_class": "model", "datamodule_class": "data"}
    for key, name in classes.items():
        found += _differing(name, ((trial, origin.classes.get(key)) for trial, origin in begun))
    found += _differing("commit", ((trial, _commit(origin.commit, origin.is_dirty)) for trial, origin in begun))
    for package in dict.fromkeys(name for _, origin in begun for name in origin.versions):
        found += _differing(package, ((trial, origin.versions.get(package)) for trial, origin in begun))
    found += _differing("device", ((trial, trial.facts.device) for trial in trials))
    found += _differing("threads", ((trial, _text(trial.facts.threads)) for trial in trials))
    peak = max((trial.facts.memory or 0 for trial in trials), default=0)
    on_device = max((trial.facts.device_memory or 0 for trial in trials), default=0)
    found += [("peak memory of a trial", size(peak))] if peak else []
    found += [("peak memory of its accelerator", size(on_device))] if on_device else []
    writer = f"lightningtune {__version__}, optuna {optuna.__version__}, python {platform.python_version()}"
    return [*found, ("report written with", writer)]


def _differing(name: str, values: Iterable[tuple[TrialResult, str | None]]) -> list[tuple[str, str]]:
    """Return one line where all trials have the same, else which trials had which."""
    by_value: defaultdict[str, list[int]] = defaultdict(list)
    for trial, value in values:
        if value is not None:
            by_value[value].append(trial.number)
    if len(by_value) == 1:
        return [(name, next(iter(by_value)))]
    text = "; ".join(f"{value} (trials {listed(numbers, 6)})" for value, numbers in by_value.items())
    return [(name, text)] if text else []


def _commit(commit: str | None, is_dirty: bool | None) -> str | None:
    return None if commit is None else f"{commit[:10]}{' with changes that were not committed' if is_dirty else ''}"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
