"""What a study with one objective found: the best trial, what it gained, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.wording import counted, short

TOP = 5  # as many of the best trials are looked at for how close they lie
ENOUGH = 10  # of fewer tuned trials, the best five are most of all


@dataclass(frozen=True)
class Gain:
    """By how much the best trial is better than the untuned defaults."""

    value: float  # positive where it is better
    error: float | None  # standard error; None where no training was repeated with another seed
    seeds: tuple[int, int]  # trainings of the best, and of the defaults, that it comes from


@dataclass(frozen=True)
class ResultSummary:
    """What comes first in a report."""

    best: TrialResult
    baseline: TrialResult | None  # the untuned defaults, where they completed
    gain: Gain | None  # None without a baseline, or with one that violates a constraint
    spread: float | None  # of the values of the best tuned trials; None for too few, or infinite ones
    refits: tuple[float, ...]  # scores of more trainings of the best trial, with other seeds

    @property
    def gain_line(self) -> str:
        """How the best trial compares with the untuned defaults, in a line."""
        if self.baseline is None:
            return "There is no completed trial of the untuned defaults to compare with."
        defaults = short(self.baseline.value)
        if self.gain is None:
            return f"The untuned defaults ({defaults}) violate a constraint: there is nothing to compare with."
        if self.best.number == self.baseline.number:
            return f"These are the untuned defaults ({defaults}): nothing better was found."
        error = f" ± {self.gain.error:.2g}" if self.gain.error is not None else ""
        better = "better" if self.gain.value >= 0 else "worse"
        return f"{short(abs(self.gain.value), 3)}{error} {better} than the untuned defaults ({defaults})"

    @property
    def certainty(self) -> list[str]:
        """How much the result would differ in another training, in sentences."""
        lines = []
        if len(self.refits) > 1:
            mean, deviation = statistics.mean(self.refits), statistics.stdev(self.refits)
            lines.append(
                f"Trained again with {len(self.refits)} seeds, trial {self.best.number} comes to {short(mean)} ± "
                f"{deviation:.2g} (standard deviation)."
            )
            if self.gain is not None and self.gain.error is not None:
                trained = counted(self.gain.seeds[1], "training")
                assumed = ", whose variance is taken to be the same" if self.gain.seeds[1] == 1 else ""
                lines.append(
                    f"The gain compares these with {trained} of the defaults{assumed}; "
                    "behind ± stands its standard error."
                )
            return lines
        if self.spread is not None:
            lines.append(f"The {TOP} best tuned trials lie within {short(self.spread, 2)} of each other.")
            if self.gain is not None and 0 < self.gain.value <= self.spread:
                lines.append("The gain is no larger than that.")
        lines.append(
            "How much one training differs from the next was not measured, and the best of many scores is partly luck."
        )
        return lines


def summarize(results: StudyResults) -> ResultSummary | None:
    """Summarize a study; None where no trial completed, or there are several objectives."""
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
    refits = results.repetitions(best.number)
    gain = None
    if baseline is not None and baseline.is_feasible:
        gain = find_gain(best, baseline, refits, results.repetitions(baseline.number), sign)
    return ResultSummary(
        best=best,
        baseline=baseline,
        gain=gain,
        spread=spread if math.isfinite(spread) else None,
        refits=refits,
    )


def find_gain(
    best: TrialResult, baseline: TrialResult, best_refits: Sequence[float], baseline_refits: Sequence[float], sign: int
) -> Gain:
    """Compare the best trial with the baseline, where ``sign`` is 1 if more is better, and -1 if less is.

    The score by which a trial was chosen as the best of many is too good. So its refits are compared once there are at
    least two. Their variance stands for the baseline's too where that was trained only once.
    """
    best_value, baseline_value = best.value or 0.0, baseline.value or 0.0
    if best.number == baseline.number:
        return Gain(0.0, None, (1, 1))
    if len(best_refits) < 2:
        return Gain(sign * (best_value - baseline_value) + 0.0, None, (1, 1))  # + 0.0: never -0.0
    baseline_scores = list(baseline_refits) or [baseline_value]
    variance = statistics.variance(best_refits)
    baseline_variance = statistics.variance(baseline_scores) if len(baseline_scores) > 1 else variance
    error = math.sqrt(variance / len(best_refits) + baseline_variance / len(baseline_scores))
    value = sign * (statistics.mean(best_refits) - statistics.mean(baseline_scores))
    return Gain(value + 0.0, error, (len(best_refits), len(baseline_scores)))
