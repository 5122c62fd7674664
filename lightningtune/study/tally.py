"""What the trials of a study come to: how many count, which are best, which go on. Updated as trials end."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightningtune.contract import StopReason
from lightningtune.errors import ConfigurationError, SharedWeightsError
from lightningtune.study.outage import is_away
from lightningtune.study.reporter import BASELINE, DETAIL, REASON
from lightningtune.study.succession import ATTEMPTS, CONTINUES, ORIGIN, get_lineage, next_attempt
from lightningtune.wording import mask_numbers

VOID = "lightningtune:void"
"""How many trials at the beginning of a study do not count."""
ONCE_ONE_WORKED = 10
"""How many times ``max_failures`` trials in a row may fail alike once a trial has worked."""
SAY_WHAT_IS_IMPOSSIBLE = (
    "If some points of the space are impossible, say so in the space: a function of the trial can raise "
    "optuna.TrialPruned or call trial.set_constraint, and one parameter can have the allowed combinations as its "
    "choices. max_failures= sets how many failures end a study."
)
"""What to do where trials fail alike."""

_CONSTRAINTS = "constraints"
"""Optuna keeps constraints among a trial's system attributes, under this name or with it as the prefix."""


class TrialTally:
    """Counts and ranks the trials of a study, those of other hosts too.

    A finished trial cannot change in Optuna, so an update reads new trials and those that had not finished, and takes
    as long in a large study as in a small one, but for Optuna's own list of trials. Whoever sees a trial sees all with
    a lower number, so new trials stand at the end of that list.

    Attributes:
        trials: all trials, by number.
        successors: trials in whose place another goes on, with the other's number. None of them counts.
        unfinished: trials that run or wait.
        cut_short: finished trials without a successor that were killed or interrupted.

    Example:
        >>> study = optuna.create_study()
        >>> tally = TrialTally(study)
        >>> study.add_trials([optuna.create_trial(value=value) for value in (3.0, 1.0, 2.0)])
        >>> tally.update()
        >>> tally.count, tally.get_top(2)
        (3, [1, 2])
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._signs = [1 if direction is StudyDirection.MINIMIZE else -1 for direction in study.directions]
        self.trials: list[FrozenTrial] = []
        self.successors: dict[int, int] = {}
        self.unfinished: set[int] = set()
        self.cut_short: set[int] = set()
        self._void = 0
        self._counted: set[int] = set()
        self._continuations: list[int] = []
        self._scores: list[tuple[float, int]] = []
        self._front: dict[int, list[float]] = {}
        self._ended: list[int] = []
        self._has_worked = False
        self.update()

    def update(self) -> None:
        """Read what is new in the study."""
        void = self._study.user_attrs.get(VOID, 0)
        if void != self._void:
            self._void = void
            self._counted = {number for number in self._counted if number >= void}
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials[len(self.trials) :]:
            self._add(trial)
        self.trials = trials
        for number in sorted(self.unfinished):
            if trials[number].state.is_finished():
                self.unfinished.remove(number)
                self._add_finished(trials[number])

    def _add(self, trial: FrozenTrial) -> None:
        self.unfinished.add(trial.number)
        before = trial.user_attrs.get(CONTINUES)
        if before is None:
            return
        self._continuations.append(trial.number)
        if before in self.successors:  # another goes on already, in place of this one too
            self.successors[trial.number] = self.successors[before]
            return
        self.successors[before] = trial.number
        self._counted.discard(before)
        self.cut_short.discard(before)
        if before in self._ended:
            self._ended.remove(before)

    def _add_finished(self, trial: FrozenTrial) -> None:
        number, reason = trial.number, trial.user_attrs.get(REASON)
        has_failed = trial.state is TrialState.FAIL
        if trial.state is TrialState.COMPLETE and is_feasible(trial):
            self._add_score(number, [sign * value for sign, value in zip(self._signs, trial.values, strict=True)])
        if number in self.successors:
            return
        if reason in {StopReason.KILLED, StopReason.INTERRUPTED}:
            self.cut_short.add(number)
        if has_failed or has_reported(trial):
            insort(self._ended, number)
            self._has_worked |= not has_failed
        # the user interrupted it, or a mistake of theirs ended it: it is run again
        is_void = has_failed and reason in {StopReason.INTERRUPTED, StopReason.REFUSED}
        if number >= self._void and not is_void:
            self._counted.add(number)

    def _add_score(self, number: int, score: list[float]) -> None:
        """Put a trial into the ranking, or on the Pareto front. Lower is better in both."""
        if len(score) == 1:
            insort(self._scores, (score[0], number))
        elif not any(_dominates(other, score) for other in self._front.values()):
            beaten = [other for other, values in self._front.items() if _dominates(score, values)]
            for other in beaten:
                del self._front[other]
            self._front[number] = score

    @property
    def count(self) -> int:
        """How many finished trials need not be run again."""
        return len(self._counted)

    @property
    def is_untried(self) -> bool:
        """Whether no trial that counts has ended or runs."""
        running = (n for n in self.unfinished if n >= self._void and self.trials[n].state is TrialState.RUNNING)
        return not self._counted and all(number in self.successors for number in running)

    @property
    def best(self) -> list[int]:
        """The best trial, or each on the Pareto front; empty when there is none."""
        return self.get_top(1)

    def get_top(self, count: int) -> list[int]:
        """Return the ``count`` best trials, the best first, or the Pareto front. Infeasible ones are left out."""
        if len(self._signs) > 1:
            return sorted(self._front)
        return [number for _, number in self._scores[:count]]

    def find_kept(self, top_k: int) -> set[int]:
        """Return the trials whose weights are kept.

        These are the ``top_k`` best, or the Pareto front, those that still run or may go on, and those that such a
        trial goes on from.
        """
        going_on = {*self.unfinished, *filter(self._may_go_on, self.cut_short)} - self.successors.keys()
        before = {trial.number for number in going_on for trial in get_lineage(self.trials, number)}
        return {*self.get_top(top_k), *before}

    def _may_go_on(self, number: int) -> bool:
        """Whether a trial may go on: before a killed one is queued again, another host may look at it."""
        is_killed = self.trials[number].user_attrs.get(REASON) == StopReason.KILLED
        return not is_killed or next_attempt(get_lineage(self.trials, number)) <= ATTEMPTS

    def get_place(self, number: int) -> int:
        """Return which training of the study a trial is, from 0: one that goes on from another is the same training.

        Where none goes on from another, it is the trial's number.
        """
        origin: int = self.trials[number].user_attrs.get(ORIGIN, number)
        return origin - bisect_left(self._continuations, origin)

    def find_failing_alike(self, max_failures: int) -> tuple[int, str] | None:
        """Return how many trials in a row failed the same way, and how, once they are enough to end the study.

        Enough are ``max_failures`` while no trial has worked, and `ONCE_ONE_WORKED` times as many afterwards: then the
        training works, and some points of the space are impossible. A trial has worked when it completed, or was
        pruned after it reported a value. One that was pruned without a value says nothing, and neither does one that
        another trial goes on from.
        """
        count, detail = 0, ""
        for number in reversed(self._ended):
            trial = self.trials[number]
            if trial.state is not TrialState.FAIL:
                break
            if count and _way_to_fail(trial) != _way_to_fail(self.trials[self._ended[-1]]):
                break
            count += 1
            detail = detail or str(trial.user_attrs.get(DETAIL))
        enough = max_failures * (ONCE_ONE_WORKED if self._has_worked else 1)
        return (count, detail) if count >= enough else None


def has_value(study: optuna.Study) -> bool:
    """Whether any trial has reported anything: the metric is logged, and the config can be trained."""
    return any(map(has_reported, study.get_trials(deepcopy=False)))


def start_over(study: optuna.Study) -> None:
    """Let no trial count where each so far has failed without a value: the user has corrected something."""
    if _has_only_failed(study):
        study.set_user_attr(VOID, len(study.get_trials(deepcopy=False)))


def is_over(study: optuna.Study, n_trials: int) -> bool:
    """Whether a study has its trials, and they do not start over when it is run again."""
    return not _has_only_failed(study) and count_finished(study) >= n_trials


def _has_only_failed(study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False)
    return bool(trials) and all(trial.state is TrialState.FAIL and not has_reported(trial) for trial in trials)


def is_new(study: optuna.Study) -> bool:
    """Whether no trial counts yet, and none waits that this library has queued."""
    tally = TrialTally(study)
    waiting = (tally.trials[number] for number in tally.unfinished)
    return tally.is_untried and not any({BASELINE, CONTINUES} & {*trial.user_attrs} for trial in waiting)


def count_finished(study: optuna.Study) -> int:
    """Count the trials that need not be run again."""
    return TrialTally(study).count


def describe_progress(study: optuna.Study, n_trials: int) -> str:
    """Say how many of a study's trials are done, or that its storage is away and nobody knows."""
    try:
        return f"{count_finished(study)} of {n_trials} trials are done"
    except Exception as error:
        if not is_away(error):
            raise
        return "The study's storage is away"


def find_fatal_error(study: optuna.Study, error: BaseException | None) -> ConfigurationError | None:
    """Return what a trial raised if no other trial can succeed either; None if others may."""
    if not isinstance(error, ConfigurationError) or (has_value(study) and not isinstance(error, SharedWeightsError)):
        return None
    return error


def has_reported(trial: FrozenTrial) -> bool:
    """Whether a trial has any value."""
    return bool(trial.values or trial.intermediate_values)


def get_constraint_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """Return the system attributes that hold a trial's constraints; a copy of the trial needs them."""
    return {name: value for name, value in trial.system_attrs.items() if name.partition(":")[0] == _CONSTRAINTS}


def get_constraints(trial: FrozenTrial) -> Mapping[str, float]:
    """Return the constraints of a trial by name.

    Optuna 4 has no names and no public method: it keeps the numbers that a sampler's ``constraints_func`` returns. They
    are named by their position.
    """
    if hasattr(trial, "constraints"):
        return trial.constraints
    return {str(position): value for position, value in enumerate(trial.system_attrs.get(_CONSTRAINTS) or ())}


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial violates no constraint: each is zero or less."""
    return all(value <= 0 for value in get_constraints(trial).values())


def _dominates(one: list[float], other: list[float]) -> bool:
    """Whether one trial is nowhere worse than another, and better somewhere."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _way_to_fail(trial: FrozenTrial) -> tuple[str, ...]:
    """Return what trials that fail alike have in common: the message without its numbers and addresses."""
    reason, detail = trial.user_attrs.get(REASON, ""), trial.user_attrs.get(DETAIL, "")
    return (reason,) if reason == StopReason.OUT_OF_MEMORY else (reason, mask_numbers(detail))
