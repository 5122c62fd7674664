"""What a report is made from: a study at one moment, read once, whoever made it."""

from __future__ import annotations

import dataclasses
import html
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from lightningtune.study.directory import StudyDirectory
from lightningtune.study.opening import quiet_optuna
from lightningtune.study.progress import metric_names
from lightningtune.study.reporter import REASON, SEED, STUDY_FILE
from lightningtune.study.results import StudyResults, collect_results, get_constraint_attributes


@dataclass(frozen=True)
class Record:
    """A study at one moment.

    Attributes:
        results: what it has found.
        trials: the same trials as Optuna has them, by number.
        is_ours: whether this library ran it; of another study epochs are not known, only how often it reported.
        is_kept: whether that was by ``lightningtune tune``.
    """

    results: StudyResults
    trials: tuple[FrozenTrial, ...]
    is_ours: bool
    is_kept: bool

    @cached_property
    def study(self) -> optuna.Study:
        """The same study in memory, as it is drawn.

        Plotly reads some HTML in the text of a figure, so what users have named is escaped. Attributes are left out,
        for Optuna would show them all where the mouse points at a trial.
        """
        with quiet_optuna(), warnings.catch_warnings():  # nobody has asked for this study
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(directions=[*self.results.directions])  # type: ignore[list-item]
            study.set_metric_names([escaped(metric) for metric in self.results.metrics])
            study.add_trials([_escaped(trial) for trial in self.trials])
        return study


def read_study(study: optuna.Study, directory: StudyDirectory) -> Record:
    """Read a study.

    Args:
        study: any of Optuna's.
        directory: its folder, where it has one.
    """
    results = collect_results(study, metric_names(study, {}), directory)
    trials = tuple(study.get_trials(deepcopy=False)[: len(results.trials)])  # another may have begun meanwhile
    is_ours = SEED in study.user_attrs or any(REASON in trial.user_attrs for trial in trials)
    if not is_ours:
        counted = [
            dataclasses.replace(result, epochs=len(trial.intermediate_values), duration=_seconds(trial))
            for result, trial in zip(results.trials, trials, strict=True)
        ]
        results = dataclasses.replace(results, trials=tuple(counted))
    return Record(results, trials, is_ours, STUDY_FILE in study.user_attrs)


def escaped(text: str) -> str:
    """Return a text that a figure shows as it is.

    Example:
        >>> escaped("<b>")
        '&lt;b&gt;'
    """
    return html.escape(text, quote=False)


def parameters_of(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the names of all parameters, in the order in which they first appeared."""
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration is not None else 0.0


def _escaped(trial: FrozenTrial) -> FrozenTrial:
    copy = optuna.trial.create_trial(
        state=trial.state,
        values=trial.values,
        params={escaped(name): _choice(value) for name, value in trial.params.items()},
        distributions={
            escaped(name): _distribution(kind, trial.params[name]) for name, kind in trial.distributions.items()
        },
        intermediate_values=trial.intermediate_values,
        system_attrs=get_constraint_attributes(trial),
    )
    copy.datetime_start, copy.datetime_complete = trial.datetime_start, trial.datetime_complete
    return copy


def _distribution(kind: BaseDistribution, value: Any) -> BaseDistribution:
    """Return a parameter's distribution, wide enough for its value: an untuned default may lie outside."""
    if isinstance(kind, CategoricalDistribution):
        return CategoricalDistribution([_choice(choice) for choice in kind.choices])
    if isinstance(kind, IntDistribution):
        return IntDistribution(min(kind.low, value), max(kind.high, value), kind.log)
    if isinstance(kind, FloatDistribution):
        return FloatDistribution(min(kind.low, value), max(kind.high, value), kind.log)
    return kind


def _choice(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value
