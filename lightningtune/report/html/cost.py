"""What a study has cost, what pruning saved of that, and what failed."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lightningtune.report.html.timeline import Lane
from lightningtune.report.progress import saved_by_pruning
from lightningtune.study.results import TrialResult


@dataclass(frozen=True)
class Cost:
    """What was spent.

    Attributes:
        epochs: trained, by all trials.
        seconds: of training, in all trials.
        waited: seconds in which a trial had been asked for but did not train.
        elapsed: seconds from the first trial's start to the last one's end.
        full: epochs of the median completed trial; None where none completed.
        saved: epochs that the pruned trials would have had more, had they been as long as that one.
    """

    epochs: int
    seconds: float
    waited: float
    elapsed: float
    full: float | None
    saved: int

    @property
    def saved_share(self) -> float:
        """The epochs saved, as a share of what there would have been."""
        return self.saved / (self.saved + self.epochs) if self.saved else 0.0


@dataclass(frozen=True)
class Failure:
    """Trials that failed in the same way."""

    reason: str
    detail: str
    trials: tuple[TrialResult, ...]


def find_cost(trials: Sequence[TrialResult], lanes: Sequence[Lane]) -> Cost:
    """Add up what was spent.

    Of a trial that another goes on from, the other has the epochs, and only what the first took itself is added.

    Args:
        trials: all of the study.
        lanes: when they ran.
    """
    counted = [trial for trial in trials if trial.continued_by is None]
    complete = [trial.epochs for trial in counted if trial.state == "complete"]
    full = statistics.median(complete) if complete else None
    pruned = [trial.epochs for trial in counted if trial.state == "pruned"]
    bars = [bar for lane in lanes for bar in lane.bars]
    return Cost(
        epochs=sum(trial.epochs for trial in counted),
        seconds=sum(bar.training for bar in bars),
        waited=sum(bar.waiting for bar in bars),
        elapsed=(max(b.end for b in bars) - min(b.start for b in bars)).total_seconds() if bars else 0.0,
        full=full,
        saved=saved_by_pruning(complete, pruned),
    )


def find_failures(trials: Sequence[TrialResult]) -> tuple[Failure, ...]:
    """Group the trials that failed by what they said, the most frequent first; numbers in a message may differ.

    Args:
        trials: all of the study; those that another goes on from, or that the user has ended, did not fail.
    """
    alike: defaultdict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    for trial in trials:
        if trial.outcome == "fail" and trial.continued_by is None:
            alike[trial.reason, re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", trial.detail)].append(trial)
    groups = sorted(alike.values(), key=lambda group: (-len(group), group[0].number))
    return tuple(Failure(group[0].outcome, group[0].detail, tuple(group)) for group in groups)
