"""Trials in processes of their own, from the host's side: starting them, and watching them to their end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import cloudpickle

from lightningtune.contract import Reporter, SilentReporter, StopReason, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.files import last_lines
from lightningtune.study.directory import output_path
from lightningtune.training.build import Blueprint
from lightningtune.workers.child import Job, prepare_here, train_as_rank
from lightningtune.workers.devices import Slot, get_rank_variables
from lightningtune.workers.limits import limit_time, timed_out
from lightningtune.workers.starters import KILL, Child, Cold, ForkServer, count_memory_kills
from lightningtune.workers.travel import Result, check_travels

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class TrialProcesses:
    """Runs each trial in a process, or in one for each rank, and survives whatever becomes of them.

    A context: entering starts the server, which loads while the host goes on; leaving ends every process.

    Args:
        blueprint: builds the trials.
        starter: how processes come to be; by default they are forked where that is safe, which is on Linux.
        grace: seconds that a trial whose time is up has to end softly, and then once more after SIGTERM.
        patience: seconds for which a process that the system refuses, since there are too many, is asked for again.

    Raises:
        ConfigurationError: when the blueprint cannot travel, naming what cannot.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        starter: Callable[[bytes], ForkServer | Cold] = ForkServer if sys.platform == "linux" else Cold,
        grace: float = 10.0,
        patience: float = 600.0,
    ) -> None:
        for name, part in blueprint.parts.items():
            check_travels(name, part)
        self._starter = starter(cloudpickle.dumps(blueprint))
        if blueprint.share_data and not self._starter.shares_memory:
            raise ConfigurationError("share_data needs processes that are forked, which this platform does not have.")
        self._grace = grace
        self._patience = patience
        self._running: set[Child] = set()
        self._preparing: set[Child] = set()
        self._is_interrupted = self._is_over = False

    def __enter__(self) -> TrialProcesses:
        try:
            self._start_patiently(self._starter.start)
        except BaseException:  # Ctrl-C above all
            self._starter.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._starter.close()

    def interrupt(self) -> None:
        """Begin nothing more, and end now what has no validation to reach: processes that prepare data, or still load.

        A signal handler may call this.
        """
        self._is_interrupted = True
        self._starter.abort()
        for child in [*self._preparing]:
            child.signal(KILL)

    def end(self) -> None:
        """End every process now."""
        self._is_over = True
        self.interrupt()
        for child in [*self._running]:
            child.signal(KILL)

    def run(
        self, spec: TrialSpec, slot: Slot, reporter: Reporter, ranks: int = 1, trial_timeout: float | None = None
    ) -> TrialOutcome:
        """Train one trial in as many processes as it has ranks; any thread may call this.

        The reporter answers in the calling thread. When ``trial_timeout`` seconds are over, the trial is ended: softly
        at its next validation, by SIGTERM 10 seconds later, by SIGKILL after another 10.
        """
        threads = max(1, slot.threads // ranks)
        jobs = [
            Job(
                slot,
                variables,
                threads,
                output_path(spec.directory, rank),
                cloudpickle.dumps(functools.partial(train_as_rank, spec=spec, rank=rank)),
            )
            for rank, variables in enumerate(get_rank_variables(ranks))
        ]
        outcome = self._result(jobs, reporter, trial_timeout, self._running)
        assert isinstance(outcome, TrialOutcome)
        return outcome

    def prepare_data(self, spec: TrialSpec, slot: Slot, ranks: int = 1) -> bool:
        """Call ``prepare_data`` as a trial's first process does; return whether that does for all trials of its data.

        Raises:
            KeyboardInterrupt: when the study was interrupted.
        """
        task = cloudpickle.dumps(functools.partial(prepare_here, spec=spec))
        job = Job(slot, get_rank_variables(ranks)[0], slot.threads, output_path(spec.directory), task)
        result = self._result([job], SilentReporter(), None, self._preparing)
        if not isinstance(result, TrialOutcome):
            return result
        if result.reason is StopReason.INTERRUPTED:
            raise KeyboardInterrupt
        raise result.error or TrialError(result.detail)

    def _result(
        self, jobs: Sequence[Job], reporter: Reporter, trial_timeout: float | None, among: set[Child]
    ) -> Result:
        output, until_gone = [job.output for job in jobs], any(job.slot.devices for job in jobs)
        try:
            with self._children(jobs, among) as children:
                watcher = TrialProcessWatcher(children, reporter, output, trial_timeout, until_gone, self._grace)
                result = watcher.result()
        except TrialError as error:  # no process is started any more
            result = TrialOutcome.failed(error, StopReason.KILLED)
            was_ended = self._is_interrupted
        else:
            was_ended = self._is_ended(among)
        if was_ended and isinstance(result, TrialOutcome) and result.reason is StopReason.KILLED:
            why = TrialError(_INTERRUPTED)
            return TrialOutcome(StopReason.INTERRUPTED, _INTERRUPTED, error=why, duration=result.duration)
        return result

    def _is_ended(self, among: set[Child]) -> bool:
        return self._is_over or (self._is_interrupted and among is self._preparing)

    def _start_patiently(self, start: Callable[[], _T]) -> _T:
        """Start a process; where the system refuses one, try again until others have ended and made room."""
        began, is_first = time.monotonic(), True
        while True:
            try:
                return start()
            except BlockingIOError as error:
                if time.monotonic() - began > self._patience:
                    raise
                if is_first:
                    text = "The system starts no process for a trial, and is asked again for %g seconds: %s"
                    log.warning(text, self._patience, error)
                is_first = False
            time.sleep(_PAUSE)

    @contextlib.contextmanager
    def _children(self, jobs: Sequence[Job], among: set[Child]) -> Iterator[list[Child]]:
        children: list[Child] = []
        try:
            for job in jobs:
                children.append(self._start_patiently(self._starter.child))
                among.add(children[-1])
                if self._is_ended(among):
                    children[-1].signal(KILL)
                with contextlib.suppress(OSError):  # it has died already, as will be seen
                    children[-1].connection.send_bytes(pickle.dumps(job))
            yield children
        finally:
            for child in children:
                among.discard(child)
                child.signal(KILL)
                child.close()


_INTERRUPTED = "interrupted before it had ended"
_PAUSE = 0.2
"""Seconds until a process that was refused is asked for again."""


_AFTER_SUCCESS = 60.0
"""Seconds that the other processes of a trial have to end in, when one has ended; ``after_failure`` if it failed."""
_LOOK = 3600.0
"""Seconds after which a wait is begun again: no system waits for months."""


class TrialProcessWatcher:
    """Watches the processes of one trial, one for each rank, from their beginning to their end."""

    def __init__(
        self,
        children: Sequence[Child],
        reporter: Reporter,
        output: Sequence[Path],
        trial_timeout: float | None = None,
        until_gone: bool = True,
        grace: float = 10.0,
        after_failure: float = 5.0,
        count_kills: Callable[[], int] = count_memory_kills,
    ) -> None:
        self._ranks = len(children)
        self._after_failure = after_failure
        self._began = time.monotonic()
        self._until_gone = until_gone
        self._pending = dict(enumerate(children))
        self._reporter = limit_time(reporter, trial_timeout)
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
        for message in _receive(child):
            if isinstance(message, tuple):
                self._answer(rank, child, message)
            elif isinstance(message, str):
                self._reporter.notice(message)
            else:
                self._results[rank] = message
        if code is not None:
            del self._pending[rank]
            if rank not in self._results:
                died = self._results[rank] = self._describe_death(rank, code)
                self._death = self._death or (None if self._is_ending else died)
            if self._pending and not self._time_is_up:
                seconds = self._after_failure if _is_failure(self._results[rank]) else _AFTER_SUCCESS
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

    def _describe_death(self, rank: int, code: int) -> TrialOutcome:
        reason, detail = StopReason.KILLED, f"the trial's process ended with exit code {code}"
        if code < 0:
            detail = f"the trial's process was killed by {_name_signal(-code)}"
        if code == -KILL and self._count_kills() > self._kills:
            reason, detail = StopReason.OUT_OF_MEMORY, "the system ran out of memory and killed the trial's process"
        said, crash = _read_last_lines(self._output[rank])
        last = f". It printed last: {said[-1]}" if said else ""
        text = "\n".join([f"{detail}. It printed last:" if said else detail, *said, *crash])
        detail += last
        seconds = time.monotonic() - self._began
        return TrialOutcome(reason, detail, traceback=f"{text}\n", error=TrialError(detail), duration=seconds)


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has none
        return f"signal {number}"


def _is_failure(result: Result) -> bool:
    """Whether a rank left the training in the middle, where the other ranks wait for it."""
    return isinstance(result, TrialOutcome) and (result.error is not None or bool(result.traceback))


def _is_pruned(result: Result) -> bool:
    return isinstance(result, TrialOutcome) and result.reason is StopReason.PRUNED


def _read_last_lines(output: Path) -> tuple[list[str], list[str]]:
    """Return the last lines that a process has printed, and where it was when the interpreter crashed."""
    lines = [line for line in last_lines(output, 100) if not line.startswith("Extension modules: ")]
    crash = next((i for i, line in enumerate(lines) if line.startswith("Fatal Python error: ")), len(lines))
    return lines[max(0, crash - 20) : crash], lines[crash:]


def _receive(child: Child) -> Iterator[Any]:
    """Yield what a process has sent, up to its end."""
    with contextlib.suppress(EOFError, OSError):
        while child.connection.poll():
            yield child.connection.recv()
