"""Following the processes of one trial to their end, whatever that is."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lightningtune.contract import Reporter, StopReason, TrialOutcome, Values
from lightningtune.errors import TrialError
from lightningtune.files import last_lines
from lightningtune.workers.handles import KILL, Child
from lightningtune.workers.limits import TimedReporter, timed_out
from lightningtune.workers.messages import Result

_AFTER_FAILURE, _AFTER_SUCCESS = 5.0, 60.0
"""Seconds that the other processes of a trial have to end in, when one has ended."""
_LOOK = 3600.0
"""Seconds after which a wait is begun again: no system waits for months."""


def out_of_memory_kills(counts: Sequence[str] = ("/sys/fs/cgroup/memory.events", "/proc/vmstat")) -> int:
    """Count what Linux has killed for want of memory: processes of this control group, else of the machine."""
    for path in counts:
        with contextlib.suppress(OSError):
            events = dict(line.split() for line in Path(path).read_text().splitlines())
            if "oom_kill" in events:
                return int(events["oom_kill"])
    return 0


class Attendance:
    """Follows the processes of one trial, which have just begun, to their end.

    Args:
        children: one for each rank.
        reporter: answers reports.
        output: what each prints.
        trial_timeout: seconds.
        until_gone: whether to wait until the processes are gone, too, and what they hold of an accelerator with them;
            that takes a while once they have nothing more to say.
        grace: seconds that a trial whose time is up has to end softly, and then once more after SIGTERM.
        count_kills: counts what the system has killed for want of memory.
    """

    def __init__(
        self,
        children: Sequence[Child],
        reporter: Reporter,
        output: Sequence[Path],
        trial_timeout: float | None = None,
        until_gone: bool = True,
        grace: float = 10.0,
        count_kills: Callable[[], int] = out_of_memory_kills,
    ) -> None:
        self._ranks = len(children)
        self._began = time.monotonic()
        self._until_gone = until_gone
        self._pending = dict(enumerate(children))
        self._reporter = TimedReporter(reporter, trial_timeout)
        self._output = output
        self._trial_timeout = trial_timeout
        self._results: dict[int, Result] = {}
        self._count_kills = count_kills
        self._kills = count_kills()
        self._death: TrialOutcome | None = None
        """The end of the first process that died unasked."""
        self._is_ending = False
        self._alarms: list[tuple[float, int]] = []
        """When to send which signal, the soonest first."""
        self._time_is_up = False
        if trial_timeout is not None:
            due = time.monotonic() + trial_timeout + grace
            self._alarms = [(due, signal.SIGTERM), (due + grace, KILL)]

    def result(self) -> Result:
        """Wait for the end of every process, or for its last word.

        Returns:
            The result of rank 0. Where that failed, the cause: a rank whose code pruned the trial, else the first whose
            process died, else the first that failed; the other ranks then fail because one of them is gone.
        """
        while self._pending and (self._until_gone or len(self._results) < self._ranks):
            listened = {item: rank for rank, child in self._pending.items() for item in child.waitables}
            for item in wait([*listened], self._until_next_alarm()):
                self._attend(listened[item])
            self._raise_alarms()
        result = self._results[0]
        if _is_failure(result):
            failed = [*filter(_is_failure, self._results.values())]
            result = next(filter(_is_pruned, failed), self._death or failed[0])
        if self._time_is_up and self._trial_timeout is not None and isinstance(result, TrialOutcome):
            stop = timed_out(self._trial_timeout)
            return dataclasses.replace(
                result,
                reason=stop.reason,
                detail=stop.detail,
                error=TrialError(stop.detail),
                score=None,
                traceback=f"It {stop.detail}.\n{result.traceback}",
            )
        return result

    def _attend(self, rank: int) -> None:
        """Take what a process has sent, or its end."""
        child = self._pending.get(rank)
        if child is None:
            return
        code = child.exit_code()  # first, since what it has said before it ended is to be heard
        for message in _received(child):
            if isinstance(message, tuple):
                self._answer(rank, child, message)
            elif isinstance(message, str):
                self._reporter.notice(message)
            else:
                self._results[rank] = message
        if code is not None:
            del self._pending[rank]
            if rank not in self._results:
                died = self._results[rank] = self._died(rank, code)
                self._death = self._death or (None if self._is_ending else died)
            if self._pending and not self._time_is_up:
                seconds = _AFTER_FAILURE if _is_failure(self._results[rank]) else _AFTER_SUCCESS
                self._alarms = [(time.monotonic() + seconds, KILL)]

    def _answer(self, rank: int, child: Child, values_and_step: tuple[Values, int]) -> None:
        try:
            verdict = self._reporter.report(*values_and_step)
        except Exception as error:  # the storage may be away, or a pruner may fail: it is this trial that fails
            self._results[rank] = TrialOutcome.failed(error)
            self._is_ending = True
            child.signal(KILL)
        else:
            with contextlib.suppress(OSError):  # the process has ended; its exit code says how
                child.connection.send(verdict)

    def _until_next_alarm(self) -> float | None:
        return min(max(0.0, self._alarms[0][0] - time.monotonic()), _LOOK) if self._alarms else None

    def _raise_alarms(self) -> None:
        while self._alarms and self._alarms[0][0] <= time.monotonic():
            _, number = self._alarms.pop(0)
            self._is_ending = True
            self._time_is_up = self._time_is_up or not self._results
            for child in self._pending.values():
                child.signal(number)

    def _died(self, rank: int, code: int) -> TrialOutcome:
        reason, detail = StopReason.KILLED, f"the trial's process ended with exit code {code}"
        if code < 0:
            detail = f"the trial's process was killed by {_name_of(-code)}"
        if code == -KILL and self._count_kills() > self._kills:
            reason, detail = StopReason.OUT_OF_MEMORY, "the system ran out of memory and killed the trial's process"
        said, crash = _last_words(self._output[rank])
        last = f". It printed last: {said[-1]}" if said else ""
        text = "\n".join([f"{detail}. It printed last:" if said else detail, *said, *crash])
        detail += last
        seconds = time.monotonic() - self._began
        return TrialOutcome(reason, detail, traceback=f"{text}\n", error=TrialError(detail), duration=seconds)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has none
        return f"signal {number}"


def _is_failure(result: Result) -> bool:
    """Whether a rank left the training in the middle, where the other ranks wait for it."""
    return isinstance(result, TrialOutcome) and (result.error is not None or bool(result.traceback))


def _is_pruned(result: Result) -> bool:
    return isinstance(result, TrialOutcome) and result.reason is StopReason.PRUNED


def _last_words(output: Path) -> tuple[list[str], list[str]]:
    """Return the last lines that a process has printed, and where it was when the interpreter crashed."""
    lines = [line for line in last_lines(output, 100) if not line.startswith("Extension modules: ")]
    crash = next((i for i, line in enumerate(lines) if line.startswith("Fatal Python error: ")), len(lines))
    return lines[max(0, crash - 20) : crash], lines[crash:]


def _received(child: Child) -> Iterator[Any]:
    """Yield what a process has sent, up to its end."""
    with contextlib.suppress(EOFError, OSError):
        while child.connection.poll():
            yield child.connection.recv()
