"""What a running study says of itself in a few lines: how far it is, what is best, what runs."""

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
from lightningtune.study.epochs import epochs_in, max_epochs_of
from lightningtune.study.progress import LATEST, time_left
from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.wording import clock, counted, printable

_BARS = "▁▂▃▄▅▆▇█"
_CURVE = 12
"""Values of a trial that its curve shows."""
_SHOWN = 10
"""Running trials that have a line."""


@dataclass
class Running:
    """A trial that runs.

    Attributes:
        number: its number.
        tries: its parameters in a line.
        since: when it began, by the clock of the progress.
        place: the accelerators it has; "" on a CPU.
        trainer: that section of its config.
        values: its latest values of the first metric.
        step: of the latest.
    """

    number: int
    tries: str
    since: float
    place: str = ""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    values: deque[float] = field(default_factory=lambda: deque(maxlen=_CURVE))
    step: int = -1


class Progress:
    """Counts what has ended, and knows what runs.

    Args:
        metrics: the names of the tuned metrics.
        clock: tells seconds.
    """

    def __init__(self, metrics: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = metrics
        self.running: dict[int, Running] = {}
        self._clock = clock
        self._total = self._done = self._before = self._most = 0
        self._taken: deque[float] = deque(maxlen=LATEST)
        self._ended = 0
        self._counts: Counter[str] = Counter()
        self._epochs: dict[str, list[int]] = {"complete": [], "pruned": []}
        self._failure = self._best = ""
        self._baseline: TrialResult | None = None
        self._sign = 1.0

    def begin(self, so_far: StudyResults, done: int, total: int) -> None:
        """Take over what a study has come to before.

        Args:
            so_far: the study's.
            done: how many trials need not be run again.
            total: how many trials it is to have.
        """
        self.running.clear()
        self._done = self._before = done
        self._total, self._most, self._ended = total, 0, 0
        self._taken.clear()
        self._sign = 1.0 if so_far.directions[0] == "maximize" else -1.0
        self._counts.clear()
        self._epochs = {"complete": [], "pruned": []}
        self._baseline = None
        for trial in so_far.trials:
            self._count(trial)
        self._failure = ""
        self._best = self._best_of(so_far.best_trials)

    def started(self, number: int, tries: str) -> None:
        """Note that a trial runs."""
        self.running[number] = Running(number, tries, self._clock())
        self._most = max(self._most, len(self.running))

    def placed(self, number: int, place: str) -> None:
        """Note which accelerators a trial has."""
        if number in self.running:
            self.running[number].place = place

    def trains(self, number: int, trainer: Mapping[str, Any]) -> None:
        """Note how a trial is trained, by that section of its config."""
        if number in self.running:
            self.running[number].trainer = trainer

    def reported(self, number: int, values: Values, step: int) -> None:
        """Note the values of a validation."""
        trial = self.running.get(number)
        if trial is not None:
            trial.values.append(values[0])
            trial.step = step

    def ended(self, trial: TrialResult, best: Sequence[TrialResult], done: int) -> None:
        """Note a trial's end, and which are the best now.

        Args:
            trial: which has ended.
            best: the best one, or the Pareto front.
            done: how many trials need not be run again; other hosts may have had a share.
        """
        begun = self.running.pop(trial.number, None)
        self._done = done
        if self._count(trial) and trial.outcome != "interrupted":
            self._ended += 1
            if trial.continues is None:  # else it was the rest of one
                self._taken.append(trial.duration if begun is None else self._clock() - begun.since)
        self._best = self._best_of(best)

    def lines(self) -> list[Text]:
        """Return what there is to say, each line on its own."""
        parts = [f"{self._done}/{self._total} trials", self._time_left()]
        lines = [Text(" · ".join(part for part in parts if part))]
        if self._best:
            lines.append(Text(f"best {self._best}"))
        ended = [part for part in (self._pruned(), self._failed()) if part]
        if ended:
            lines.append(Text(" · ".join(ended), style="dim"))
        running = [*self.running.values()]
        lines += [self._line(trial) for trial in running[:_SHOWN]]
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
        if trial.outcome == "fail":
            self._failure = printable(" ".join(trial.detail.split()))
        if trial.is_baseline and trial.state == "complete" and trial.is_feasible:
            self._baseline = trial
        return True

    def _time_left(self) -> str:
        """By the pace of this session; what other hosts have ended in it counts as if so many more ran at a time."""
        if not self._taken:
            return ""
        running = [self._clock() - trial.since for trial in [*self.running.values()]]
        at_a_time = self._most * max((self._done - self._before) / self._ended, 1.0)
        left = time_left(self._total - self._done, statistics.fmean(self._taken), running, at_a_time)
        return f"{clock(left)} left"

    def _best_of(self, best: Sequence[TrialResult]) -> str:
        if not best:
            return ""
        if len(self.metrics) > 1:
            return f"{len(best)} on the Pareto front"
        text = f"{named(self.metrics, best[0].values or ())} (trial {best[0].number})"
        base, value = self._baseline, best[0].value
        if base is None or base.value is None or value is None:
            return text
        gain = self._sign * (value - base.value)
        return f"{text}, better by {gain:.3g} than the untuned defaults" if gain > 0 else text

    def _pruned(self) -> str:
        count = self._counts["pruned"]
        saved = saved_by_pruning(self._epochs["complete"], self._epochs["pruned"])
        return f"{count} pruned" + (f", which saved {counted(saved, 'epoch')}" if saved else "") if count else ""

    def _failed(self) -> str:
        count = self._counts["fail"]
        return f"{count} failed" + (f", the last with {self._failure}" if self._failure else "") if count else ""

    def _line(self, trial: Running) -> Text:
        values = [*trial.values]
        said = f"{values[-1]:.4g} at {_moment(trial)}" if values else "no validation yet"
        taken = clock(self._clock() - trial.since)
        line = Text(f"{trial.number:>4}  ", style="dim")
        line.append(f"{sparkline(values):<{_CURVE}} ", style="cyan")
        line.append(f"{said}  ", style="default")
        return line.append("  ".join(part for part in (taken, trial.place, trial.tries) if part))


def _moment(trial: Running) -> str:
    """Say when its latest values were reported: after which epoch, or at which validation where that is not sure."""
    epochs, limit = epochs_in(trial.step + 1, trial.trainer), max_epochs_of(trial.trainer)
    if epochs is None:
        return f"validation {trial.step + 1}"
    return f"epoch {epochs}" + (f"/{limit}" if limit is not None else "")


def saved_by_pruning(complete: Sequence[float], pruned: Sequence[float]) -> int:
    """Return how many epochs more the pruned trials would have had, had each been as long as the median complete one.

    Args:
        complete: the epochs of each completed trial.
        pruned: those of each pruned one.

    Example:
        >>> saved_by_pruning([10, 10, 4], [3, 1])
        16
    """
    if not complete:
        return 0
    full = statistics.median(complete)
    return round(sum(max(0.0, full - epochs) for epochs in pruned))


def sparkline(values: Sequence[float]) -> str:
    """Draw a curve in one line, its lowest value lowest; what is not finite is a gap.

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
