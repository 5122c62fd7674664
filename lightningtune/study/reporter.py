"""An Optuna trial as the `Reporter` of a fit, and what is kept on a trial: attribute names, writing and reading."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightningtune.contract import Stop, StopReason, TrialFacts, TrialOutcome, Values
from lightningtune.errors import redact
from lightningtune.study.provenance import Provenance
from lightningtune.study.storage import call_at_once

log = logging.getLogger(__name__)

REASON = "lightningtune:reason"
DETAIL = "lightningtune:detail"
SEED = "lightningtune:seed"
FACTS = "lightningtune:facts"
"""What a trial was trained with, and what it took; written at its end."""
PROVENANCE = "lightningtune:provenance"
"""Where a trial comes from: its config, the versions, the user's code; written when it begins."""
BASELINE = "lightningtune:baseline"
PLACEMENT = "lightningtune:placement"
STUDY_FILE = "lightningtune:study_file"
"""Of a study: the study file with which ``lightningtune tune`` runs it."""

PRUNED_BY = (optuna.TrialPruned,)
"""What a trial's own code raises to have the trial pruned; see `TrialSpec.pruned_by`."""


@functools.cache
def _log_once(study_name: str, text: str) -> None:
    log.warning("%s", text)


class OptunaReporter:
    """Reports to an Optuna trial, and asks it whether to prune.

    The pruner is not asked about the baseline, whose score all other trials are compared with. Optuna has no pruning in
    studies with several objectives: there values are not reported, and one notice says so. While a `PatientStorage` is
    away the values wait there, and nothing is pruned. Nor is a ``FixedTrial``, which has no study.
    """

    def __init__(self, trial: optuna.trial.BaseTrial, tell: Callable[[str], None] | None = None) -> None:
        self._trial = trial
        self._is_baseline = BASELINE in trial.user_attrs
        self._study: optuna.Study | None = getattr(trial, "study", None)
        study_name = self._study.study_name if self._study is not None else ""
        self._tell = functools.partial(_log_once, study_name) if tell is None else tell
        self._has_one_objective = self._study is None or len(self._study.directions) == 1
        if not self._has_one_objective:
            self.notice(f"Study '{study_name}' has several objectives, and Optuna prunes none of them.")

    def report(self, values: Values, step: int) -> Stop | None:
        """Report the first value; return the decision to prune, or None."""
        if not self._has_one_objective:
            return None
        # Optuna knows NaN as no value, but would take a last infinity for the value of a pruned trial
        self._trial.report(math.nan if math.isinf(values[0]) else values[0], step)
        if self._study is None or self._is_baseline or not call_at_once(self._study, self._trial.should_prune, False):
            return None
        pruner = type(self._study.pruner).__name__
        return Stop(StopReason.PRUNED, f"pruned by {pruner} with {values[0]:.6g}")

    def notice(self, text: str) -> None:
        """Tell a notice, or log it once for each study."""
        self._tell(text)


def record_placement(trial: optuna.Trial, placement: Mapping[str, Any]) -> None:
    """Keep on a trial where it runs."""
    trial.set_user_attr(PLACEMENT, dict(placement))


def record_config(trial: optuna.Trial, file_sum: str, data_seed: int | None, provenance: Provenance) -> None:
    """Keep on a trial the checksum of its config's file, the seed of its data, and the code that trains it."""
    kept = {"config": file_sum, "data_seed": data_seed, **dataclasses.asdict(provenance)}
    trial.set_user_attr(PROVENANCE, kept)


def read_config_sum(study: optuna.Study, number: int) -> str | None:
    """Return the checksum of a trial's config; None where the trial never had one."""
    kept: str | None = study.get_trials(deepcopy=False)[number].user_attrs.get(PROVENANCE, {}).get("config")
    return kept


def read_data_seed(trial: FrozenTrial) -> int | None:
    """Return the seed of a trial's data; None where its data drew from the trial's own, as in older versions."""
    kept: int | None = trial.user_attrs.get(PROVENANCE, {}).get("data_seed")
    return kept


def read_provenance(trial: FrozenTrial) -> Provenance | None:
    """Return where a trial comes from; None where it never began."""
    kept = _select_fields(Provenance, trial.user_attrs.get(PROVENANCE, {}))
    return Provenance(**kept) if kept else None


def record_outcome(trial: Any, outcome: TrialOutcome) -> None:
    """Keep on a trial why and how it ended."""
    trial.set_user_attr(REASON, outcome.reason.value)
    if outcome.detail:
        trial.set_user_attr(DETAIL, redact(outcome.detail))
    known = {name: value for name, value in dataclasses.asdict(outcome.facts).items() if value is not None}
    # one write: each takes as long as a report
    trial.set_user_attr(FACTS, {"epochs": outcome.epochs, "seconds": round(outcome.duration, 3), **known})


def read_facts(trial: FrozenTrial) -> tuple[int, float, TrialFacts]:
    """Return a trial's epochs, its seconds, and what it was trained with, as far as that is known."""
    kept = trial.user_attrs.get(FACTS, {})
    return kept.get("epochs", 0), kept.get("seconds", 0.0), TrialFacts(**_select_fields(TrialFacts, kept))


def _select_fields(kind: type[Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a dataclass knows of what is kept: another version may have kept more."""
    return {field.name: kept[field.name] for field in dataclasses.fields(kind) if field.name in kept}
