"""Which trial goes on from which: one that was cut short is given out again under a new number, and counts once.

A finished trial cannot be changed in an Optuna storage, so it is the successor that names the trial it goes on from.
Several hosts may queue a successor of the same trial at the same moment, and no lock is common to all storages. A
trial's number is: whoever sees a trial sees all with a lower number too. So of several successors the one with the
lowest number is right, everyone agrees which it is, and the others are withdrawn, or refused when they begin.
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
"""Which attempt this trial is to get further than all before it; of a training's first there is no such attribute."""
WANTED = "lightningtune:wanted:"
"""Begins the name under which a process says that it is about to hold the trial."""

ATTEMPTS = 3
"""How many attempts in a row may be cut short without getting further."""

_OF_ONE_ATTEMPT = {REASON, DETAIL, FACTS, PLACEMENT, PROVENANCE, WORKER}
# by these a GridSampler knows that a point of its grid is taken
_OF_THE_SAMPLER = {"grid_id", "search_space"}


def successors(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Return the trials that another stands for, with the other's number; none of them counts.

    These are the trials from which another goes on, and those that were queued to go on where another does already.

    Args:
        trials: all trials of a study, by number.
    """
    found: dict[int, int] = {}
    for trial in trials:
        before = trial.user_attrs.get(CONTINUES)
        if before in found:
            found[trial.number] = found[before]
        elif before is not None:
            found[before] = trial.number
    return found


def line_of(trials: list[FrozenTrial], number: int) -> list[FrozenTrial]:
    """Return a trial and those it goes on from, the first first.

    Args:
        trials: all trials of a study, by number.
        number: of the last.
    """
    line = [trials[number]]
    while CONTINUES in line[0].user_attrs:
        line.insert(0, trials[line[0].user_attrs[CONTINUES]])
    return line


def place_of(trials: list[FrozenTrial], number: int) -> int:
    """Return which training of a study a trial is, from 0: one that goes on from another is the same training.

    Where none does, it is the trial's number.

    Args:
        trials: all trials of a study, by number.
        number: the trial's.
    """
    origin = trials[number].user_attrs.get(ORIGIN, number)
    return sum(CONTINUES not in trial.user_attrs for trial in trials[:origin])


def next_attempt(line: Sequence[FrozenTrial]) -> int:
    """Return which attempt to get further the next one is, from 1.

    One that got further than all before it starts the count afresh: it was not the training that ended it, or the next
    will be ended elsewhere. So the count comes to an end, as the training does. An attempt that the user has
    interrupted is not counted. In a study with several objectives no step is reported, and every other attempt counts.

    Args:
        line: the attempts so far, the first first.
    """
    *before, last = (max(trial.intermediate_values, default=-1) for trial in line)
    if last > max(before, default=-1):
        return 1
    is_interrupted = line[-1].user_attrs.get(REASON) == StopReason.INTERRUPTED.value
    attempt: int = line[-1].user_attrs.get(ATTEMPT, 1)
    return attempt + (not is_interrupted)


def requeue(study: optuna.Study, number: int, attempts: int = ATTEMPTS) -> int | None:
    """Queue a failed trial again, with its parameters and its attributes; once, however many processes do so.

    Args:
        study: the study.
        number: the trial's.
        attempts: how many attempts in a row may be cut short without getting further.

    Returns:
        The number of the trial that goes on; None when the trial has not failed, or the last attempt is used up.
    """
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    if trial.state is not TrialState.FAIL:
        return None
    if number not in successors(trials):
        attempt = next_attempt(line_of(trials, number))
        if attempt > attempts:
            return None
        study.add_trial(_again(trial, attempt))
    return _settle(study, number)


def withdraw(storage: BaseStorage, trial_id: int, heir: int) -> None:
    """End a trial that was to go on where another does: as refused, so that it does not count.

    Should a host be handed it at this moment, it will see that it has ended, or that it is not the heir.

    Args:
        storage: the study's.
        trial_id: the trial's id there.
        heir: the number of the trial that goes on.
    """
    with contextlib.suppress(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial_id, REASON, StopReason.REFUSED.value)
        storage.set_trial_user_attr(trial_id, DETAIL, f"trial {heir} goes on in its place already")
        storage.set_trial_state_values(trial_id, TrialState.FAIL)


def _is_of_one_attempt(name: str) -> bool:
    return name in _OF_ONE_ATTEMPT or name.startswith(WANTED)


def _again(trial: FrozenTrial, attempt: int) -> FrozenTrial:
    attrs = {name: value for name, value in trial.user_attrs.items() if not _is_of_one_attempt(name)}
    origin = attrs.get(ORIGIN, trial.number)
    # a trial that was queued itself may have ended before it asked for all that was fixed
    fixed: dict[str, Any] = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    system = {name: value for name, value in trial.system_attrs.items() if name in _OF_THE_SAMPLER}
    return optuna.trial.create_trial(
        state=TrialState.WAITING,
        user_attrs={**attrs, CONTINUES: trial.number, ORIGIN: origin, ATTEMPT: attempt},
        system_attrs={**system, "fixed_params": fixed},
    )


def _settle(study: optuna.Study, number: int) -> int:
    """Return which trial goes on from one, and withdraw all others that wait to do so."""
    trials = study.get_trials(deepcopy=False)
    heir = successors(trials)[number]
    for trial in trials:
        waits = trial.state is TrialState.WAITING and trial.user_attrs.get(CONTINUES) == number
        if waits and trial.number != heir:
            withdraw(get_storage(study), get_id(trial), heir)
    return heir
