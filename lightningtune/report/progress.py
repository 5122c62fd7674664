"""A running study in a few lines: how far it is, what is best, what runs."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from lightningtune.contract import StopReason, Values
from lightningtune.study.events import StudyBegan, TrialEnded, TrialPlaced, TrialStarted, ValuesReported
from lightningtune.study.progress import LATEST, time_left
from lightningtune.study.results import TrialResult, count_epochs, read_max_epochs
from lightningtune.wording import clock, counted, parameters

_BARS = "▁▂▃▄▅▆▇█"
_CURVE = 12
"""Values that a trial's curve shows."""
_SHOWN = 10
"""Running trials that have a line."""


@dataclass
class Running:
    """A trial that runs."""

    number: int
    parameters: str  # in a line
    since: float
    trainer: Mapping[str, Any]  # that section of its config
    place: str = ""  # the accelerators it has; "" on a CPU
    values: deque[float] = field(default_factory=lambda: deque(maxlen=_CURVE))  # the latest of the first metric
    step: int = -1  # of the latest value


class ProgressLines:
    """Draws how far a study is, from its events."""

    def __init__(self, metrics: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._running: dict[int, Running] = {}
        self._reset()

    def _reset(self) -> None:
        self._running.clear()
        self._total = self._done = self._before = self._most_at_once = self._ended = 0
        self._latest_seconds: deque[float] = deque(maxlen=LATEST)
        self._counts: Counter[str] = Counter()
        self._epochs: dict[str, list[int]] = {"complete": [], "pruned": []}
        self._best = ""
        self._baseline: TrialResult | None = None
        self._sign = 1.0

    def begin(self, event: StudyBegan) -> None:
        """Take over what a study has found before."""
        self._reset()
        self._done = self._before = event.done
        self._total = event.total
        self._sign = 1.0 if event.results.directions[0] == "maximize" else -1.0
        for trial in event.results.trials:
            self._count(trial)
        self._best = self._describe_best(event.results.best_trials)

    def add_trial(self, event: TrialStarted) -> None:
        """Give a running trial a line."""
        tries = "untuned defaults" if event.is_baseline else parameters(event.params)
        self._running[event.number] = Running(event.number, tries, self._clock(), event.trainer or {})
        self._most_at_once = max(self._most_at_once, len(self._running))

    def place_trial(self, event: TrialPlaced) -> None:
        """Note which accelerators a trial has."""
        if event.number in self._running:
            self._running[event.number].place = ",".join(f"device {device}" for device in event.devices)

    def add_values(self, event: ValuesReported) -> None:
        """Note the values of a validation."""
        trial = self._running.get(event.number)
        if trial is not None:
            trial.values.append(event.values[0])
            trial.step = event.step

    def end_trial(self, event: TrialEnded) -> None:
        """Count a trial that has ended."""
        trial, begun = event.trial, self._running.pop(event.trial.number, None)
        self._done = event.done
        if self._count(trial) and trial.outcome != "interrupted":
            self._ended += 1
            if trial.continues is None:  # else it was only the rest of a training
                self._latest_seconds.append(trial.duration if begun is None else self._clock() - begun.since)
        self._best = self._describe_best(event.best)

    def draw(self) -> list[Text]:
        """Return the lines: how far the study is, what is best, what has ended, and what runs."""
        parts = [f"{self._done}/{self._total} trials", self._describe_time_left()]
        lines = [Text(" · ".join(part for part in parts if part))]
        if self._best:
            lines.append(Text(f"best {self._best}"))
        if self._counts["pruned"] or self._counts["fail"]:
            lines.append(Text(self._describe_ended(), style="dim"))
        running = [*self._running.values()]
        lines += [self._draw_trial(trial) for trial in running[:_SHOWN]]
        if len(running) > _SHOWN:
            lines.append(Text(f"and {len(running) - _SHOWN} more run", style="dim"))
        return lines

    def _count(self, trial: TrialResult) -> bool:
        """Count a trial, unless another counts in its place."""
        if trial.continued_by is not None or trial.reason == StopReason.REFUSED.value:
            return False
        self._counts[trial.outcome] += 1
        if trial.outcome in self._epochs:
            self._epochs[trial.outcome].append(trial.epochs)
        if trial.is_baseline and trial.state == "complete" and trial.is_feasible:
            self._baseline = trial
        return True

    def _describe_time_left(self) -> str:
        """Predict by the pace of this session; trials of other hosts count as if more ran at a time."""
        if not self._latest_seconds:
            return ""
        running = [self._clock() - trial.since for trial in [*self._running.values()]]
        at_a_time = self._most_at_once * max((self._done - self._before) / self._ended, 1.0)
        left = time_left(self._total - self._done, statistics.fmean(self._latest_seconds), running, at_a_time)
        return f"{clock(left)} left"

    def _describe_best(self, best: Sequence[TrialResult]) -> str:
        if not best:
            return ""
        if len(self._metrics) > 1:
            return f"{len(best)} on the Pareto front"
        text = f"{named(self._metrics, best[0].values or ())} (trial {best[0].number})"
        base, value = self._baseline, best[0].value
        if base is None or base.value is None or value is None:
            return text
        gain = self._sign * (value - base.value)
        return f"{text}, better by {gain:.3g} than the untuned defaults" if gain > 0 else text

    def _describe_ended(self) -> str:
        pruned, failed = self._counts["pruned"], self._counts["fail"]
        saved = saved_by_pruning(self._epochs["complete"], self._epochs["pruned"])
        parts = [f"{pruned} pruned" + (f", which saved {counted(saved, 'epoch')}" if saved else "")] if pruned else []
        return " · ".join([*parts, *([f"{failed} failed"] if failed else [])])

    def _draw_trial(self, trial: Running) -> Text:
        values = [*trial.values]
        said = f"{values[-1]:.4g} at {_moment(trial)}" if values else "no validation yet"
        taken = clock(self._clock() - trial.since)
        line = Text(f"{trial.number:>4}  ", style="dim")
        line.append(f"{sparkline(values):<{_CURVE}} ", style="cyan")
        line.append(f"{said}  ", style="default")
        return line.append("  ".join(part for part in (taken, trial.place, trial.parameters) if part))


def _moment(trial: Running) -> str:
    """Name the epoch of the latest values, or the validation where the epoch is unknown."""
    epochs, limit = count_epochs(trial.step + 1, trial.trainer), read_max_epochs(trial.trainer)
    if epochs is None:
        return f"validation {trial.step + 1}"
    return f"epoch {epochs}" + (f"/{limit}" if limit is not None else "")


def saved_by_pruning(complete: Sequence[float], pruned: Sequence[float]) -> int:
    """Return the epochs that pruning saved, measured by the median complete trial.

    Example:
        >>> saved_by_pruning([10, 10, 4], [3, 1])
        16
    """
    if not complete:
        return 0
    full = statistics.median(complete)
    return round(sum(max(0.0, full - epochs) for epochs in pruned))


def sparkline(values: Sequence[float]) -> str:
    """Draw a curve in one line; values that are not finite are gaps.

    Example:
        >>> sparkline([0.1, 0.5, float("nan"), 0.9])
        '▁▅ █'
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, span = min(finite), max(finite) - min(finite)
    if span == 0 or not math.isfinite(span):
        return "".join("▁" if math.isfinite(value) else " " for value in values)
    return "".join(_BARS[round((v - low) / span * (len(_BARS) - 1))] if math.isfinite(v) else " " for v in values)


def named(metrics: Sequence[str], values: Values) -> str:
    """Write values with their metrics.

    Example:
        >>> named(("val_loss",), (0.12345,))
        'val_loss 0.1235'
    """
    return " ".join(f"{name} {value:.4g}" for name, value in zip(metrics, values, strict=True))
