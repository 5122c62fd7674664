"""What a pruner can do in a study: tried out on trials that get worse and worse, since no pruner tells."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import optuna
from optuna.pruners import HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner

from lightningtune.study.opening import quiet_optuna

_CALLS = 6000
"""How often a pruner is asked at most: about a second."""
_COMPARING = (MedianPruner, PercentilePruner, SuccessiveHalvingPruner, HyperbandPruner)
"""Pruners that compare trials with each other, so that one which is worst of all shows whether they ever prune."""


@dataclass(frozen=True)
class Reach:
    """What a pruner has done with trials each of which was worse than all before it.

    Attributes:
        pruner: its class.
        trials: how many there were.
        pruned: how many of them it has pruned.
        first_trial: the number of the first that it has pruned.
        first_step: the earliest validation at which it has pruned any, 0-based.
        is_whole: whether all trials of the study were tried, to their ends.
    """

    pruner: str
    trials: int
    pruned: int
    first_trial: int | None
    first_step: int | None
    is_whole: bool


def reach_of(
    pruner: optuna.pruners.BasePruner | None, study_name: str, n_trials: int, validations: int
) -> Reach | None:
    """Try a copy of a pruner on a study in memory.

    Args:
        pruner: a pruner; Optuna's default where it is None.
        study_name: the study's, from which Hyperband draws a trial's bracket.
        n_trials: the study's total.
        validations: of one trial; at the last nothing is pruned, for nothing would be saved.

    Returns:
        None for a pruner that does not judge a trial by the others, and so cannot be tried.

    Example:
        >>> reach_of(MedianPruner(n_startup_trials=3), "study", n_trials=9, validations=5)
        Reach(pruner='MedianPruner', trials=9, pruned=6, first_trial=3, first_step=0, is_whole=True)
    """
    if pruner is not None and type(pruner) not in _COMPARING:
        return None
    tried = MedianPruner() if pruner is None else copy.deepcopy(pruner)
    steps = min(validations - 1, _CALLS // 10)
    trials = min(n_trials, max(10, _CALLS // max(steps, 1)))
    ended: list[tuple[int, int]] = []
    with quiet_optuna():
        study = optuna.create_study(
            study_name=study_name, pruner=tried, sampler=optuna.samplers.RandomSampler(seed=0), direction="minimize"
        )
        for number in range(trials):
            trial = study.ask()
            step = _prune_at(trial, steps, number)
            if step is None:
                study.tell(trial, float(number))
            else:
                ended.append((number, step))
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return Reach(
        type(tried).__name__,
        trials,
        len(ended),
        min((number for number, _ in ended), default=None),
        min((step for _, step in ended), default=None),
        trials == n_trials and steps == validations - 1,
    )


def _prune_at(trial: optuna.Trial, steps: int, number: int) -> int | None:
    """Report values that are worse than those of all trials before, and get worse; return where the pruner ends it."""
    for step in range(steps):
        trial.report(number + step / steps, step)
        if trial.should_prune():
            return step
    return None


def largest_resource(pruner: optuna.pruners.BasePruner | None) -> int | None:
    """Return the ``max_resource`` of a `HyperbandPruner`; None where it has none, or is to find it by itself.

    Optuna keeps it in a private attribute, and has no other place for it.
    """
    found = getattr(pruner, "_max_resource", None) if isinstance(pruner, HyperbandPruner) else None
    return found if isinstance(found, int) else None
