"""What a study with one objective found: the best trial, what it gained, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightningtune.study.results import StudyResults, TrialResult

TOP = 5
"""How many of the best trials are looked at for how close they lie."""
ENOUGH = 10
"""Of fewer tuned trials the best five are most of all, and lie as far apart as the search space lets them."""


@dataclass(frozen=True)
class Choice:
    """A parameter of the best trial beside its default, where one was tried."""

    name: str
    value: object
    default: object = None
    has_default: bool = False

    @property
    def is_changed(self) -> bool:
        """Whether the search chose another value than the default."""
        return self.has_default and self.value != self.default


@dataclass(frozen=True)
class Gain:
    """By how much the best trial is better than the untuned defaults.

    Attributes:
        value: positive where it is better.
        error: the standard error of that; None where no training was repeated with another seed.
        seeds: how many trainings of the best, and of the defaults, it comes from.
    """

    value: float
    error: float | None
    seeds: tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """What comes first in a report.

    Attributes:
        best: the best trial.
        baseline: the untuned defaults, where they completed.
        gain: over the baseline; None where there is none, or it violates a constraint.
        spread: of the values of the five best trials, the untuned defaults apart; None where there are too few, or
            not all of them are finite.
        refits: what more trainings of the best trial, with other seeds, came to.
        choices: its parameters.
    """

    best: TrialResult
    baseline: TrialResult | None
    gain: Gain | None
    spread: float | None
    refits: tuple[float, ...]
    choices: tuple[Choice, ...]


def find_answer(results: StudyResults, refits: Mapping[int, Sequence[float]]) -> Answer | None:
    """Find it; None where no trial completed, or there are several objectives.

    Args:
        results: of the study.
        refits: the scores of more trainings, by the trial's number.
    """
    if len(results.directions) > 1 or not results.best_trials:
        return None
    best, baseline = results.best, results.baseline
    if baseline is not None and (baseline.state != "complete" or baseline.value is None):
        baseline = None
    sign = 1 if results.directions[0] == "maximize" else -1
    tuned = [
        sign * trial.value
        for trial in results.trials
        if trial.state == "complete" and not trial.is_baseline and trial.is_feasible
        if trial.value is not None
    ]
    top = sorted(tuned, reverse=True)[:TOP]
    spread = top[0] - top[-1] if len(tuned) >= ENOUGH else math.inf
    defaults = baseline.params if baseline is not None else {}
    return Answer(
        best=best,
        baseline=baseline,
        gain=find_gain(best, baseline, refits, sign) if baseline and baseline.is_feasible else None,
        spread=spread if math.isfinite(spread) else None,
        refits=tuple(refits.get(best.number, ())),
        choices=tuple(Choice(name, value, defaults.get(name), name in defaults) for name, value in best.params.items()),
    )


def find_gain(best: TrialResult, baseline: TrialResult, refits: Mapping[int, Sequence[float]], sign: int) -> Gain:
    """Compare the best trial with the baseline.

    Once the best trial was trained again with at least two seeds, it is those trainings that are compared: the score by
    which a trial was chosen as the best of many is too good. Its variance stands for the baseline's too where that was
    trained only once.

    Args:
        best: the best trial.
        baseline: the untuned defaults.
        refits: the scores of more trainings, by the trial's number.
        sign: 1 where more is better, -1 where less is.

    Example:
        >>> from pathlib import Path
        >>> best, baseline = (
        ...     TrialResult(number, "complete", (value,), {}, "", "", 1, 1.0, False, Path(), None)
        ...     for number, value in ((1, 0.9), (0, 0.7))
        ... )
        >>> find_gain(best, baseline, {1: [0.8, 0.9]}, sign=1)
        Gain(value=0.15..., error=0.08..., seeds=(2, 1))
    """
    own, others = list(refits.get(best.number, ())), list(refits.get(baseline.number, ()))
    one, other = best.value or 0.0, baseline.value or 0.0
    if best.number == baseline.number:
        return Gain(0.0, None, (1, 1))
    if len(own) < 2:
        return Gain(sign * (one - other) + 0.0, None, (1, 1))
    others = others or [other]
    variance = statistics.variance(own)
    variance_of_others = statistics.variance(others) if len(others) > 1 else variance
    error = math.sqrt(variance / len(own) + variance_of_others / len(others))
    value = sign * (statistics.mean(own) - statistics.mean(others))
    return Gain(value + 0.0, error, (len(own), len(others)))
