"""When which trial ran where, what that cost, and what failed."""

from __future__ import annotations

import datetime
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from lightningtune.study.identity import WORKER, read_worker
from lightningtune.study.reporter import FACTS, PLACEMENT
from lightningtune.study.results import TrialResult
from lightningtune.wording import mask_numbers


@dataclass(frozen=True)
class Bar:
    """One trial in its lane: from its start it waits for its process and its data, then it trains until its end."""

    number: int
    outcome: str  # as `TrialResult.outcome`
    start: datetime.datetime
    end: datetime.datetime
    training: float  # seconds

    @property
    def waiting(self) -> float:
        """Seconds before it trained."""
        return (self.end - self.start).total_seconds() - self.training


@dataclass(frozen=True)
class Lane:
    """What ran in one place, one trial after the other."""

    name: str
    bars: tuple[Bar, ...]


def find_lanes(
    results: Sequence[TrialResult], trials: Sequence[FrozenTrial], is_ours: bool, now: datetime.datetime
) -> tuple[Lane, ...]:
    """Sort trials into lanes, by the machine and the devices or cores on which they ran; those that run end now."""
    places: defaultdict[str, list[Bar]] = defaultdict(list)
    has_several_hosts = len({*map(_host, trials)} - {""}) > 1
    for result, trial in zip(results, trials, strict=True):
        if trial.datetime_start is not None:
            end = max(trial.datetime_complete or now, trial.datetime_start)
            whole = (end - trial.datetime_start).total_seconds()
            training = min(result.duration, whole) if trial.state.is_finished() and is_ours else whole
            if is_ours and FACTS not in trial.user_attrs and trial.state.is_finished():
                # its host was killed, and nobody noticed for a while
                end = trial.datetime_start + datetime.timedelta(seconds=training)
            host = f"{_host(trial)} " if has_several_hosts else ""
            place = f"{host}{name_place(trial.user_attrs.get(PLACEMENT, {}))}".strip()
            places[place].append(Bar(trial.number, result.outcome, trial.datetime_start, end, training))
    packed = [(place, bars) for place in sorted(places) for bars in pack_bars(places[place])]
    return tuple(Lane(place or f"worker {index}", bars) for index, (place, bars) in enumerate(packed, start=1))


def pack_bars(bars: Iterable[Bar]) -> list[tuple[Bar, ...]]:
    """Lay bars into as few lanes as possible, so that none overlaps another in its lane."""
    lanes: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.number)):
        free = next((lane for lane in lanes if lane[-1].end <= bar.start), None)
        if free is None:
            lanes.append([bar])
        else:
            free.append(bar)
    return [tuple(lane) for lane in lanes]


def name_place(placement: Mapping[str, Any]) -> str:
    """Name the devices or cores that a trial was given; "" where it was given none.

    Example:
        >>> name_place({"devices": ["0"], "cores": [], "threads": 1}), name_place({"cores": [2, 3]})
        ('device 0', 'cores 2, 3')
    """
    for kind in ("device", "core"):
        given: Sequence[Any] = placement.get(f"{kind}s") or ()
        if given:
            return f"{kind}{'s' if len(given) > 1 else ''} {', '.join(map(str, given))}"
    return ""


def _host(trial: FrozenTrial) -> str:
    worker = read_worker(trial.user_attrs.get(WORKER))
    return worker.host if worker is not None else ""


@dataclass(frozen=True)
class Cost:
    """What a study cost, in epochs and in seconds."""

    epochs: int
    seconds: float  # of training, in all trials
    waited: float  # seconds in which a trial had been asked for but did not train
    elapsed: float  # seconds from the first trial's start to the last one's end
    median: float | None  # epochs of the median completed trial
    saved: int  # epochs that the pruned trials would have had more, had they been as long as that one

    @property
    def saved_share(self) -> float:
        """The epochs saved, as a share of what there would have been."""
        return self.saved / (self.saved + self.epochs) if self.saved else 0.0


def find_cost(trials: Sequence[TrialResult], lanes: Sequence[Lane]) -> Cost:
    """Add up what all trials cost.

    The epochs of a trial that another goes on from are the other's too, and count there only.
    """
    last_attempts = [trial for trial in trials if trial.continued_by is None]
    complete = [trial.epochs for trial in last_attempts if trial.state == "complete"]
    pruned = [trial.epochs for trial in last_attempts if trial.state == "pruned"]
    bars = [bar for lane in lanes for bar in lane.bars]
    return Cost(
        epochs=sum(trial.epochs for trial in last_attempts),
        seconds=sum(bar.training for bar in bars),
        waited=sum(bar.waiting for bar in bars),
        elapsed=(max(b.end for b in bars) - min(b.start for b in bars)).total_seconds() if bars else 0.0,
        median=statistics.median(complete) if complete else None,
        saved=saved_by_pruning(complete, pruned),
    )


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


def group_failures(trials: Sequence[TrialResult]) -> list[list[TrialResult]]:
    """Group the trials that failed by their message, the most frequent first; numbers in a message may differ.

    Trials that another goes on from, or that the user has ended, did not fail.
    """
    alike: defaultdict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    for trial in trials:
        if trial.outcome == "fail" and trial.continued_by is None:
            alike[trial.reason, mask_numbers(trial.detail)].append(trial)
    return sorted(alike.values(), key=lambda group: (-len(group), group[0].number))
