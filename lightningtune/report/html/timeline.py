"""When which trial ran where: lanes, as many as trials ran at a time."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from lightningtune.report.html.record import Record
from lightningtune.study.identity import WORKER, read_worker
from lightningtune.study.reporter import FACTS, PLACEMENT


@dataclass(frozen=True)
class Bar:
    """One trial in its lane.

    Attributes:
        number: the trial's.
        outcome: how it ended, or "running".
        start: when it was asked for.
        end: when its outcome was told; of a running one the moment of the report.
        training: seconds of that in which it trained, at the end; the rest it waited, for its process or its data.
    """

    number: int
    outcome: str
    start: datetime.datetime
    end: datetime.datetime
    training: float

    @property
    def waiting(self) -> float:
        """Seconds in which it did not train."""
        return (self.end - self.start).total_seconds() - self.training


@dataclass(frozen=True)
class Lane:
    """What ran in one place, one trial after the other."""

    name: str
    bars: tuple[Bar, ...]


def lanes_of(record: Record, now: datetime.datetime) -> tuple[Lane, ...]:
    """Sort the trials of a study into lanes, by the machine and the devices or cores that they ran on.

    Args:
        record: the study.
        now: the end of trials that run.
    """
    places: defaultdict[str, list[Bar]] = defaultdict(list)
    several = len({*(_host(trial) for trial in record.trials)} - {""}) > 1
    for result, trial in zip(record.results.trials, record.trials, strict=True):
        if trial.datetime_start is not None:
            end = max(trial.datetime_complete or now, trial.datetime_start)
            whole = (end - trial.datetime_start).total_seconds()
            training = min(result.duration, whole) if trial.state.is_finished() and record.is_ours else whole
            if record.is_ours and FACTS not in trial.user_attrs and trial.state.is_finished():
                # its host was killed, and nobody noticed for a while
                end = trial.datetime_start + datetime.timedelta(seconds=training)
            host = f"{_host(trial)} " if several else ""
            place = f"{host}{place_name(trial.user_attrs.get(PLACEMENT, {}))}".strip()
            places[place].append(Bar(trial.number, result.outcome, trial.datetime_start, end, training))
    packed = [(place, lane) for place in sorted(places) for lane in pack(places[place])]
    return tuple(Lane(place or f"worker {index}", lane) for index, (place, lane) in enumerate(packed, start=1))


def pack(bars: Iterable[Bar]) -> list[tuple[Bar, ...]]:
    """Lay bars into as few lanes as there may be, so that none overlaps another in its lane."""
    lanes: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.number)):
        free = next((lane for lane in lanes if lane[-1].end <= bar.start), None)
        if free is None:
            lanes.append([bar])
        else:
            free.append(bar)
    return [tuple(lane) for lane in lanes]


def place_name(placement: Mapping[str, Any]) -> str:
    """Name the devices or cores that a trial was given; "" where it was given none.

    Example:
        >>> place_name({"devices": ["0"], "cores": [], "threads": 1}), place_name({"cores": [2, 3]})
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
