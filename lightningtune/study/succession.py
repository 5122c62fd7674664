"""Which trial goes on from which: one that was cut short is queued again under a new number.

A finished trial cannot be changed in an Optuna storage, so it is the successor that names the trial it goes on from.
Several hosts may queue a successor of the same trial at the same moment, and no lock is common to all storages. But
the order of trials is: who sees a trial sees all with lower numbers too. So of several successors the one with the
lowest number is right. All hosts agree on it; the others are withdrawn, or refused when they begin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lightningtune.contract import StopReason
from lightningtune.study.identity import WORKER
from lightningtune.study.reporter import DETAIL, FACTS, PLACEMENT, PROVENANCE, REASON
from lightningtune.study.storage import get_id, get_storage

CONTINUES = "lightningtune:continues"
"""The number of the trial that this one goes on from."""
ORIGIN = "lightningtune:origin"
"""The number of the first trial of the line: its seed and its config are this trial's too."""
ATTEMPT = "lightningtune:attempt"
"""Which attempt this trial is to get further than all before it; the first has no such attribute."""
WANTED = "lightningtune:wanted:"
"""Prefix of the attribute by which a host says that it wants to hold the trial."""

ATTEMPTS = 3
"""Consecutive attempts that may be cut short without getting further."""

_OF_ONE_ATTEMPT = {REASON, DETAIL, FACTS, PLACEMENT, PROVENANCE, WORKER}
# by these a GridSampler knows that a point of its grid is taken
_OF_THE_SAMPLER = {"grid_id", "search_space"}


def find_successors(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Return the trials that another stands for, with the other's number; none of them counts.

    These are the trials that another goes on from, and those that were queued to go on where another already does.
    """
    found: dict[int, int] = {}
    for trial in trials:
        before = trial.user_attrs.get(CONTINUES)
        if before in found:
            found[trial.number] = found[before]
        elif before is not None:
            found[before] = trial.number
    return found


def get_lineage(trials: list[FrozenTrial], number: int) -> list[FrozenTrial]:
    """Return a trial and those that it goes on from, the first one first."""
    line = [trials[number]]
    while CONTINUES in line[0].user_attrs:
        line.insert(0, trials[line[0].user_attrs[CONTINUES]])
    return line


def next_attempt(line: Sequence[FrozenTrial]) -> int:
    """Return which attempt to get further the next one is, from 1.

    An attempt that got further than all before it starts the count afresh: then it is not the training that kills its
    process each time at the same place. An attempt that the user interrupted does not count. In a study with several
    objectives no step is reported, and every other attempt counts.
    """
    *before, last = (max(trial.intermediate_values, default=-1) for trial in line)
    if last > max(before, default=-1):
        return 1
    is_interrupted = line[-1].user_attrs.get(REASON) == StopReason.INTERRUPTED.value
    attempt: int = line[-1].user_attrs.get(ATTEMPT, 1)
    return attempt + (not is_interrupted)


def requeue(study: optuna.Study, number: int, attempts: int = ATTEMPTS) -> int | None:
    """Queue a failed trial again, with its parameters and attributes; once, however many processes do so.

    Return the successor's number; None when the trial has not failed, or the last attempt is used up.
    """
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    if trial.state is not TrialState.FAIL:
        return None
    if number not in find_successors(trials):
        attempt = next_attempt(get_lineage(trials, number))
        if attempt > attempts:
            return None
        study.add_trial(_make_successor(trial, attempt))
    # other hosts may have done the same at this moment: of all that wait to go on, only the first stays
    trials = study.get_trials(deepcopy=False)
    successor = find_successors(trials)[number]
    for other in trials:
        is_waiting = other.state is TrialState.WAITING and other.user_attrs.get(CONTINUES) == number
        if is_waiting and other.number != successor:
            withdraw(get_storage(study), get_id(other), successor)
    return successor


def withdraw(storage: BaseStorage, trial_id: int, successor: int) -> None:
    """Fail a trial that was to go on where another already does, as refused, so that it does not count.

    A host that is handed it at this moment will see that it has ended, or that it is not the successor.
    """
    with contextlib.suppress(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial_id, REASON, StopReason.REFUSED.value)
        storage.set_trial_user_attr(trial_id, DETAIL, f"trial {successor} goes on in its place already")
        storage.set_trial_state_values(trial_id, TrialState.FAIL)


def _make_successor(trial: FrozenTrial, attempt: int) -> FrozenTrial:
    attrs = {
        name: value
        for name, value in trial.user_attrs.items()
        if name not in _OF_ONE_ATTEMPT and not name.startswith(WANTED)
    }
    origin = attrs.get(ORIGIN, trial.number)
    # a trial that was queued may have ended before it asked for all that was fixed
    fixed: dict[str, Any] = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    system = {name: value for name, value in trial.system_attrs.items() if name in _OF_THE_SAMPLER}
    return optuna.trial.create_trial(
        state=TrialState.WAITING,
        user_attrs={**attrs, CONTINUES: trial.number, ORIGIN: origin, ATTEMPT: attempt},
        system_attrs={**system, "fixed_params": fixed},
    )
