"""What ends a trial from outside: Ctrl-C, SIGTERM, a terminal that is closed, and the time it may take."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightningtune.contract import Reporter, Stop, StopReason, Values

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if sys.platform != "win32":
    _NAMES[signal.SIGHUP] = "SIGHUP"


class Interruption:
    """Ctrl-C, SIGTERM and SIGHUP while a study runs: the first ends each trial softly, the second ends all at once.

    A trial that ends softly reaches its next validation and is saved. Leaving this context after a signal raises what
    the signal stands for: ``KeyboardInterrupt``, or the ``SystemExit`` of a process that the signal ends.

    Args:
        notice: is told, in the signal handler, what happens now.
        end: ends every running trial at once; where there is none, the second signal raises in the main thread.
        is_here: whether it raises there after ``end`` too, since that is where a trial trains.

    Attributes:
        is_paused: whether someone has paused the study from outside.
    """

    def __init__(
        self, notice: Callable[[str], Any], end: Callable[[], Any] | None = None, is_here: bool = False
    ) -> None:
        self._notice = notice
        self._end = end
        self._is_here = is_here
        self._number: int | None = None
        self._before: dict[int, Any] = {}
        self.is_paused = False

    @property
    def stop(self) -> Stop | None:
        """The decision that every running trial is to follow, once there was a signal or the study was paused."""
        if self._number is not None:
            return Stop(StopReason.INTERRUPTED, f"interrupted by {_NAMES[signal.Signals(self._number)]}")
        return Stop(StopReason.INTERRUPTED, "the study was paused") if self.is_paused else None

    def pause(self) -> None:
        """End each trial softly, as the first signal does; leaving this context then raises nothing.

        Any thread may call this.
        """
        self.is_paused = True
        self._notice("Paused: running trials end at their next validation.")

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # None stands for a handler that was not set from Python, and could not be put back
            wanted = [number for number in _NAMES if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._number is not None:
            raise self._error() from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            end, self._end = self._end, None
            if end is not None:
                end()
            if end is None or self._is_here:
                raise KeyboardInterrupt if number == signal.SIGINT else SIGTERMException
            return
        self._number = number
        self._notice(
            f"{_NAMES[signal.Signals(number)]}: running trials end at their next validation. Once more ends them now."
        )

    def _error(self) -> BaseException:
        if self._number in (None, signal.SIGINT):
            return KeyboardInterrupt()
        return SystemExit(128 + self._number)


class LimitedReporter:
    """A reporter that ends a trial for one more reason; where reporters share ``turn``, one reports at a time."""

    def __init__(
        self,
        reporter: Reporter,
        find_stop: Callable[[], Stop | None],
        turn: contextlib.AbstractContextManager[Any] | None = None,
    ) -> None:
        self._reporter = reporter
        self._find_stop = find_stop
        self._turn = turn or contextlib.nullcontext()

    def report(self, values: Values, step: int) -> Stop | None:
        """Report, and pass on the first reason to stop."""
        with self._turn:
            verdict = self._reporter.report(values, step)
        return verdict or self._find_stop()

    def notice(self, text: str) -> None:
        """Pass on a notice."""
        with self._turn:
            self._reporter.notice(text)


def limit_time(reporter: Reporter, trial_timeout: float | None) -> LimitedReporter:
    """Return a reporter that also ends a trial whose time, from now on, is up."""
    began = time.monotonic()

    def find_stop() -> Stop | None:
        if trial_timeout is None or time.monotonic() - began < trial_timeout:
            return None
        return timed_out(trial_timeout)

    return LimitedReporter(reporter, find_stop)


def timed_out(trial_timeout: float) -> Stop:
    """Return the decision to end a trial that takes too long."""
    return Stop(StopReason.TIMED_OUT, f"took longer than trial_timeout={trial_timeout:g} seconds")


class PausedError(Exception):
    """Ends a trial of a study that was paused, and nothing more."""


def and_pauses(catch: Iterable[type[Exception]] | type[Exception]) -> tuple[type[Exception], ...]:
    """Return which errors of a trial do not end the study: those that the user says, and that it was paused."""
    return (PausedError, *(catch if isinstance(catch, Iterable) else [catch]))
