"""Which trials count: one that was cut short is queued again under a new number, and counts once.

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
from lightningtune.errors import ConfigurationError, SharedWeightsError
from lightningtune.study.identity import WORKER
from lightningtune.study.outage import is_away
from lightningtune.study.reporter import BASELINE, DETAIL, FACTS, PLACEMENT, PROVENANCE, REASON
from lightningtune.study.storage import get_id, get_storage
from lightningtune.wording import mask_numbers

CONTINUES = "lightningtune:continues"
"""The number of the trial that this one goes on from."""
ORIGIN = "lightningtune:origin"
"""The number of the first trial of the line: its seed and its config are this trial's too."""
ATTEMPT = "lightningtune:attempt"
"""Which attempt this trial is to get further than all before it; the first has no such attribute."""
WANTED = "lightningtune:wanted:"
"""Prefix of the attribute by which a host says that it wants to hold the trial."""
VOID = "lightningtune:void"
"""How many trials at the beginning of a study do not count."""

ATTEMPTS = 3
"""Consecutive attempts that may be cut short without getting further."""
ONCE_ONE_WORKED = 10
"""How many times ``max_failures`` trials in a row may fail alike once a trial has worked."""
SAY_WHAT_IS_IMPOSSIBLE = (
    "If some points of the space are impossible, say so in the space: a function of the trial can raise "
    "optuna.TrialPruned or call trial.set_constraint, and one parameter can have the allowed combinations as its "
    "choices. max_failures= sets how many failures end a study."
)
"""What to do where trials fail alike."""

_OF_ONE_ATTEMPT = {REASON, DETAIL, FACTS, PLACEMENT, PROVENANCE, WORKER}
# by these a GridSampler knows that a point of its grid is taken
_OF_THE_SAMPLER = {"grid_id", "search_space"}


def successors(trials: Iterable[FrozenTrial]) -> dict[int, int]:
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


def line_of(trials: list[FrozenTrial], number: int) -> list[FrozenTrial]:
    """Return a trial and those that it goes on from, the first one first."""
    line = [trials[number]]
    while CONTINUES in line[0].user_attrs:
        line.insert(0, trials[line[0].user_attrs[CONTINUES]])
    return line


def place_of(trials: list[FrozenTrial], number: int) -> int:
    """Return which training of a study a trial is, from 0: one that goes on from another is the same training."""
    origin = trials[number].user_attrs.get(ORIGIN, number)
    return sum(CONTINUES not in trial.user_attrs for trial in trials[:origin])


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
        study.add_trial(_make_successor(trial, attempt))
    # other hosts may have done the same at this moment: of all that wait to go on, only the first stays
    trials = study.get_trials(deepcopy=False)
    successor = successors(trials)[number]
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


def has_value(study: optuna.Study) -> bool:
    """Whether any trial has reported anything: the metric is logged, and the config can be trained."""
    return any(map(_has_reported, study.get_trials(deepcopy=False)))


def start_over(study: optuna.Study) -> None:
    """Let no trial count where each so far has failed without a value: the user has corrected something."""
    if _has_only_failed(study):
        study.set_user_attr(VOID, len(study.get_trials(deepcopy=False)))


def is_over(study: optuna.Study, n_trials: int) -> bool:
    """Whether a study has its trials, and they do not start over when it is run again."""
    return not _has_only_failed(study) and count_finished(study) >= n_trials


def _has_only_failed(study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False)
    return bool(trials) and not has_value(study) and all(map(_has_failed, trials))


def is_new(study: optuna.Study) -> bool:
    """Whether no trial counts yet, and none waits that this library has queued."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return not _select_counted(study) and not any({BASELINE, CONTINUES} & {*trial.user_attrs} for trial in waiting)


def count_finished(study: optuna.Study) -> int:
    """Count the trials that need not be run again."""
    return sum(trial.state.is_finished() for trial in _select_counted(study))


def describe_progress(study: optuna.Study, n_trials: int) -> str:
    """Say how many of a study's trials are done, or that its storage is away and nobody knows."""
    try:
        return f"{count_finished(study)} of {n_trials} trials are done"
    except Exception as error:
        if not is_away(error):
            raise
        return "The study's storage is away"


def _select_counted(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    replaced = successors(trials)
    return [t for t in trials[study.user_attrs.get(VOID, 0) :] if _counts(t) and t.number not in replaced]


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts: not one that waits, that was interrupted, or that a user's mistake has ended."""
    runs_again = {StopReason.INTERRUPTED.value, StopReason.REFUSED.value}
    if _has_failed(trial) and trial.user_attrs.get(REASON) in runs_again:
        return False
    return trial.state is not TrialState.WAITING


def mistake_in(study: optuna.Study, error: BaseException | None) -> ConfigurationError | None:
    """Return what a trial raised if no other trial can succeed either; None if others may."""
    if not isinstance(error, ConfigurationError) or (has_value(study) and not isinstance(error, SharedWeightsError)):
        return None
    return error


def failing_alike(study: optuna.Study, max_failures: int) -> tuple[int, str] | None:
    """Return how many trials in a row failed the same way, and how, once they are enough to end the study.

    ``max_failures`` are enough while no trial has worked: it completed, or was pruned after it reported a value. Once
    one has, the training works and some points of the space are impossible: then `ONCE_ONE_WORKED` times as many are.
    A trial that was pruned without a value says nothing, nor does one that another goes on from.
    """
    trials = study.get_trials(deepcopy=False)
    replaced = successors(trials)
    ended = [
        trial
        for trial in trials
        if trial.state.is_finished() and trial.number not in replaced and (_has_failed(trial) or _has_reported(trial))
    ]
    alike: list[FrozenTrial] = []
    for trial in reversed(ended):
        if not _has_failed(trial) or _way_to_fail(trial) != _way_to_fail(ended[-1]):
            break
        alike.append(trial)
    has_worked = not all(map(_has_failed, ended))
    if len(alike) < max_failures * (ONCE_ONE_WORKED if has_worked else 1):
        return None
    return len(alike), str(alike[0].user_attrs.get(DETAIL))


def _has_failed(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL


def _has_reported(trial: FrozenTrial) -> bool:
    return bool(trial.values or trial.intermediate_values)


def _way_to_fail(trial: FrozenTrial) -> tuple[str, ...]:
    """Return what trials that fail alike have in common: the message without its numbers and addresses."""
    reason, detail = trial.user_attrs.get(REASON, ""), trial.user_attrs.get(DETAIL, "")
    if reason == StopReason.OUT_OF_MEMORY.value:
        return (reason,)
    return reason, mask_numbers(detail)
