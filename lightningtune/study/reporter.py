"""An Optuna trial as the `Reporter` of a fit, and the names under which facts are kept on a trial."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import optuna

from lightningtune.contract import Stop, StopReason, TrialOutcome, Values
from lightningtune.study.patience import PatientStorage

log = logging.getLogger(__name__)

REASON = "lightningtune:reason"
DETAIL = "lightningtune:detail"
SEED = "lightningtune:seed"
EPOCHS = "lightningtune:epochs"
DURATION = "lightningtune:seconds"
BASELINE = "lightningtune:baseline"
PLACEMENT = "lightningtune:placement"
CONFIG_SUM = "lightningtune:config_sum"

_NOTICED: set[str] = set()
"""The studies whose several objectives have been told of."""


class OptunaReporter:
    """Reports to an Optuna trial, and asks it whether to prune.

    The pruner is not asked about the baseline, with whose score those of all other trials are compared.
    Optuna has no pruning in studies with several objectives: there, values are not reported, and one notice says so.
    While a `PatientStorage` is away the values wait there, and nothing is pruned.

    Args:
        trial: a running trial, or a ``FixedTrial``, which is never pruned.
    """

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        self._trial = trial
        self._is_baseline = BASELINE in trial.user_attrs
        self._study: optuna.Study | None = getattr(trial, "study", None)
        self._single = self._study is None or len(self._study.directions) == 1
        if not self._single and self._study is not None and self._study.study_name not in _NOTICED:
            _NOTICED.add(self._study.study_name)
            log.warning("Study '%s' has several objectives, and Optuna prunes none of them.", self._study.study_name)

    def report(self, values: Values, step: int) -> Stop | None:
        """Report the first value; return the decision to prune, or None."""
        if not self._single:
            return None
        # Optuna knows NaN as no value, but would take a last infinity for the value of a pruned trial
        self._trial.report(math.nan if math.isinf(values[0]) else values[0], step)
        if self._is_baseline or not self._should_prune():
            return None
        pruner = type(self._study.pruner).__name__ if self._study is not None else "the pruner"
        return Stop(StopReason.PRUNED, f"pruned by {pruner} at validation {step} with {values[0]:.6g}")

    def _should_prune(self) -> bool:
        storage = getattr(self._trial, "storage", None)
        if not isinstance(storage, PatientStorage):
            return self._trial.should_prune()
        return storage.at_once(self._trial.should_prune, otherwise=False)


def record_placement(trial: optuna.Trial, placement: Mapping[str, Any]) -> None:
    """Keep on a trial where it runs."""
    trial.set_user_attr(PLACEMENT, dict(placement))


def record_config(trial: optuna.Trial, sum_of_file: str) -> None:
    """Keep on a trial what its config's file is, so that no other is taken for it."""
    trial.set_user_attr(CONFIG_SUM, sum_of_file)


def config_sum(study: optuna.Study, number: int) -> str | None:
    """Return what is kept of a trial's config; None where the trial never had one."""
    kept: str | None = study.get_trials(deepcopy=False)[number].user_attrs.get(CONFIG_SUM)
    return kept


def record_outcome(trial: Any, outcome: TrialOutcome) -> None:
    """Keep on a trial why and how it ended."""
    trial.set_user_attr(REASON, outcome.reason.value)
    if outcome.detail:
        trial.set_user_attr(DETAIL, outcome.detail)
    trial.set_user_attr(EPOCHS, outcome.epochs)
    trial.set_user_attr(DURATION, round(outcome.duration, 3))
