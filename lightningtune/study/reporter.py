"""An Optuna trial as the `Reporter` of a fit, and the names under which facts are kept on a trial."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightningtune.contract import Stop, StopReason, TrialFacts, TrialOutcome, Values
from lightningtune.errors import redact
from lightningtune.study.provenance import Provenance
from lightningtune.study.storage import PatientStorage

log = logging.getLogger(__name__)

REASON = "lightningtune:reason"
DETAIL = "lightningtune:detail"
SEED = "lightningtune:seed"
FACTS = "lightningtune:facts"
"""What a trial was trained with, and what it took; told at its end."""
PROVENANCE = "lightningtune:provenance"
"""Where a trial comes from: its config, the versions, the user's code; known when it begins."""
BASELINE = "lightningtune:baseline"
PLACEMENT = "lightningtune:placement"

PRUNED_BY = (optuna.TrialPruned,)
"""What a trial's own code raises to have the trial pruned; see `TrialSpec.pruned_by`."""

_NOTICED: set[tuple[str, str]] = set()
"""The notices that were logged, each with its study."""


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
        if not self._single and self._study is not None:
            self.notice(f"Study '{self._study.study_name}' has several objectives, and Optuna prunes none of them.")

    def report(self, values: Values, step: int) -> Stop | None:
        """Report the first value; return the decision to prune, or None."""
        if not self._single:
            return None
        # Optuna knows NaN as no value, but would take a last infinity for the value of a pruned trial
        self._trial.report(math.nan if math.isinf(values[0]) else values[0], step)
        if self._is_baseline or not self._should_prune():
            return None
        pruner = type(self._study.pruner).__name__ if self._study is not None else "the pruner"
        return Stop(StopReason.PRUNED, f"pruned by {pruner} with {values[0]:.6g}")

    def notice(self, text: str) -> None:
        """Log a notice, once for each study."""
        key = (self._study.study_name if self._study is not None else "", text)
        if key not in _NOTICED:
            _NOTICED.add(key)
            log.warning("%s", text)

    def _should_prune(self) -> bool:
        storage = getattr(self._trial, "storage", None)
        if not isinstance(storage, PatientStorage):
            return self._trial.should_prune()
        return storage.call_at_once(self._trial.should_prune, otherwise=False)


def record_placement(trial: optuna.Trial, placement: Mapping[str, Any]) -> None:
    """Keep on a trial where it runs."""
    trial.set_user_attr(PLACEMENT, dict(placement))


def record_config(trial: optuna.Trial, sum_of_file: str, data_seed: int | None, provenance: Provenance) -> None:
    """Record the checksum of a trial's config, the seed of its data, and the code that trains it."""
    kept = {"config": sum_of_file, "data_seed": data_seed, **dataclasses.asdict(provenance)}
    trial.set_user_attr(PROVENANCE, kept)


def config_sum(study: optuna.Study, number: int) -> str | None:
    """Return what is kept of a trial's config; None where the trial never had one."""
    kept: str | None = study.get_trials(deepcopy=False)[number].user_attrs.get(PROVENANCE, {}).get("config")
    return kept


def data_seed_of(trial: FrozenTrial) -> int | None:
    """Return the seed of a trial's data; None where its data drew from the trial's own, as in older versions."""
    kept: int | None = trial.user_attrs.get(PROVENANCE, {}).get("data_seed")
    return kept


def provenance_of(trial: FrozenTrial) -> Provenance | None:
    """Return where a trial comes from; None where it never began."""
    kept = _known(Provenance, trial.user_attrs.get(PROVENANCE, {}))
    return Provenance(**kept) if kept else None


def record_outcome(trial: Any, outcome: TrialOutcome) -> None:
    """Keep on a trial why and how it ended."""
    trial.set_user_attr(REASON, outcome.reason.value)
    if outcome.detail:
        trial.set_user_attr(DETAIL, redact(outcome.detail))
    known = {name: value for name, value in dataclasses.asdict(outcome.facts).items() if value is not None}
    # one write: each takes as long as a report
    trial.set_user_attr(FACTS, {"epochs": outcome.epochs, "seconds": round(outcome.duration, 3), **known})


def facts_of(trial: FrozenTrial) -> tuple[int, float, TrialFacts]:
    """Return a trial's epochs, its seconds, and what it was trained with, as far as that is known."""
    kept = trial.user_attrs.get(FACTS, {})
    return kept.get("epochs", 0), kept.get("seconds", 0.0), TrialFacts(**_known(TrialFacts, kept))


def _known(kind: type[Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a dataclass has of what is kept, for another version may have kept more."""
    return {field.name: kept[field.name] for field in dataclasses.fields(kind) if field.name in kept}
