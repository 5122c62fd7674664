"""What a host tells of a running study. The live view, the log and a progress bar subscribe to it."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightningtune.contract import Notice, Values
from lightningtune.study.results import StudyResults, TrialResult


@dataclass(frozen=True)
class StudyBegan:
    """A session of a study begins; ``results`` are those of earlier sessions."""

    results: StudyResults
    done: int
    total: int
    headline: str


@dataclass(frozen=True)
class TrialStarted:
    """A trial begins; ``trainer`` is that section of its config."""

    number: int
    params: Mapping[str, Any]
    is_baseline: bool = False
    trainer: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TrialPlaced:
    """A trial has a slot; ``devices`` are its accelerators, none on a CPU."""

    number: int
    devices: tuple[str, ...]


@dataclass(frozen=True)
class ValuesReported:
    """A running trial reports the values of a validation."""

    number: int
    values: Values
    step: int


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended, and its folder is as it stays. Trials of other hosts are ``done`` too."""

    trial: TrialResult
    best: tuple[TrialResult, ...]
    done: int


class Level(enum.Enum):
    """How urgent a message is."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"
    SIGNAL = "signal"
    """Comes from a signal handler, where no lock may be taken."""


@dataclass(frozen=True)
class Message:
    """A sentence for a person. Warnings and errors reach the log where nothing is shown."""

    text: str
    level: Level = Level.NOTE


@dataclass(frozen=True)
class StudyEnded:
    """A session has ended; ``is_empty`` says that no trial is best."""

    summary: str
    is_empty: bool


Event = StudyBegan | TrialStarted | TrialPlaced | ValuesReported | TrialEnded | Message | StudyEnded
Subscriber = Callable[[Any], None]


class Events:
    """Passes events to all subscribers.

    Example:
        >>> events = Events([lambda event: print(event.text)])
        >>> for number in range(2):
        ...     events.tell_once(Notice("WandbLogger failed", "no route to the server."), number)
        Trial 0: WandbLogger failed: no route to the server.
    """

    def __init__(self, subscribers: Sequence[Subscriber]) -> None:
        self._subscribers = [*subscribers]
        self._told: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        for subscriber in self._subscribers:
            subscriber(event)

    @contextlib.contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        """Pass events to one more subscriber while this context lasts."""
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    def note(self, text: str) -> None:
        """Tell a person something that is good to know."""
        self(Message(text))

    def warn(self, text: str) -> None:
        """Tell a person something that must be seen."""
        self(Message(text, Level.WARNING))

    def warn_once(self, text: str) -> None:
        """Warn of what every trial of the study would repeat."""
        if text not in self._told:
            self._told.add(text)
            self.warn(text)

    def tell_once(self, notice: Notice, number: int) -> None:
        """Warn of a trial's notice, unless an earlier trial had one of the same subject."""
        if notice.subject not in self._told:
            self._told.add(notice.subject)
            self.warn(f"Trial {number}: {notice}")
