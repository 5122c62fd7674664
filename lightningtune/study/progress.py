"""How far a study is: what runs, how fast trials end, and when the last one may."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightningtune.study.directory import StudyDirectory
from lightningtune.study.identity import WORKER, is_dead, read_worker
from lightningtune.study.reporter import BASELINE
from lightningtune.study.results import (
    StudyResults,
    collect_results,
    count_epochs,
    read_max_epochs,
    read_trainer_section,
)
from lightningtune.study.tally import count_finished

LATEST = 20
"""Latest trials whose mean duration predicts the next."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs, or whose process died unnoticed.

    Attributes:
        validations: how many it has reported.
        epoch: how many epochs these are; None where validations are not at the end of epochs.
        seconds: since it began.
        where: the process that holds it; None where it is none of this library's.
        is_dead: whether that process has ended; None where that cannot be known from here.
    """

    number: int
    params: Mapping[str, Any]
    validations: int
    epoch: int | None
    max_epochs: int | None
    value: float | None
    best: float | None
    seconds: float
    where: str | None
    is_dead: bool | None
    is_baseline: bool


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is.

    Attributes:
        done: trials that need not be run again.
        total: trials that were asked for; None where that is not known.
        trial_seconds: how long one of the latest trials took, on average; None where none has ended.
    """

    results: StudyResults
    done: int
    total: int | None
    running: tuple[RunningTrial, ...]
    trial_seconds: float | None

    @property
    def rate(self) -> float | None:
        """Trials per hour at the current pace; None where nothing runs or none has ended."""
        alive = self._alive
        return 3600 * len(alive) / self.trial_seconds if alive and self.trial_seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last trial ends, at the current pace; None where unknown."""
        alive = self._alive
        if not alive or self.trial_seconds is None or self.total is None:
            return None
        return time_left(self.total - self.done, self.trial_seconds, [trial.seconds for trial in alive], len(alive))

    @property
    def is_over(self) -> bool:
        """Whether all trials are done and none runs."""
        return self.total is not None and self.done >= self.total and not self.running

    def as_dict(self) -> dict[str, Any]:
        """Return what ``lightningtune status --json`` prints."""
        results = self.results
        return {
            "study_name": results.study_name,
            "metrics": results.metrics,
            "directions": results.directions,
            "done": self.done,
            "total": self.total,
            "counts": results.counts,
            "best": [{"number": trial.number, "values": trial.values} for trial in results.best_trials],
            "improvement": results.improvement,
            "refits": results.refits,
            "trials_per_hour": self.rate,
            "seconds_left": self.seconds_left,
            "running": self.running,
        }

    @property
    def _alive(self) -> tuple[RunningTrial, ...]:
        return tuple(trial for trial in self.running if not trial.is_dead)


def time_left(trials_left: int, seconds_each: float, running_seconds: Sequence[float], at_a_time: float) -> float:
    """Return the seconds until the last trial ends, at the current pace.

    Example:
        >>> time_left(4, 10.0, [5.0, 5.0], 2)
        15.0
    """
    left = max(trials_left, len(running_seconds))
    trained = sum(min(seconds, seconds_each) for seconds in running_seconds)
    return max(left * seconds_each - trained, 0.0) / max(min(at_a_time, left), 1)


def metric_names(study: optuna.Study, definition: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a study's metrics; ``value``, or ``value_0`` and so on, without names."""
    names = study.metric_names or definition.get("metric")
    count = len(study.directions)
    if isinstance(names, list) and len(names) == count:
        return tuple(map(str, names))
    return ("value",) if count == 1 else tuple(f"value_{place}" for place in range(count))


def progress_of(study: optuna.Study, directory: StudyDirectory, now: datetime | None = None) -> StudyProgress:
    """Look at a study."""
    asked_for = directory.read_definition()
    trials = study.get_trials(deepcopy=False)
    now = datetime.now() if now is None else now
    total = asked_for.get("n_trials")
    sign = 1 if study.directions[0].name == "MINIMIZE" else -1
    return StudyProgress(
        results=collect_results(study, metric_names(study, asked_for), directory),
        done=count_finished(study),
        total=total if isinstance(total, int) else None,
        running=tuple(_running(trial, directory, sign, now) for trial in trials if trial.state is TrialState.RUNNING),
        trial_seconds=_mean_seconds(trials),
    )


def _running(trial: FrozenTrial, directory: StudyDirectory, sign: int, now: datetime) -> RunningTrial:
    values = trial.intermediate_values
    passed = max(values, default=-1) + 1  # some validations may not log the metric
    worker = read_worker(trial.user_attrs.get(WORKER))
    trainer = read_trainer_section(directory, trial.number)
    return RunningTrial(
        number=trial.number,
        params=dict(trial.params),
        validations=passed,
        epoch=count_epochs(passed, trainer),
        max_epochs=read_max_epochs(trainer),
        value=values[max(values)] if values else None,
        best=min(values.values(), key=lambda value: sign * value) if values else None,
        seconds=max((now - trial.datetime_start).total_seconds(), 0.0) if trial.datetime_start else 0.0,
        where=None if worker is None else str(worker),
        is_dead=None if worker is None else is_dead(worker),
        is_baseline=bool(trial.user_attrs.get(BASELINE)),
    )


def _mean_seconds(trials: Sequence[FrozenTrial]) -> float | None:
    ended = [
        (trial.datetime_complete, (trial.datetime_complete - trial.datetime_start).total_seconds())
        for trial in trials
        if trial.state.is_finished() and trial.datetime_start is not None and trial.datetime_complete is not None
    ]
    latest = sorted(ended)[-LATEST:]
    return statistics.fmean(seconds for _, seconds in latest) if latest else None
