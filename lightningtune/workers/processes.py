"""Trials in processes of their own: forked from a warm server, or started from nothing where that cannot be."""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import cloudpickle

from lightningtune.contract import Reporter, SilentReporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.study.directory import output_path
from lightningtune.training.build import Blueprint
from lightningtune.workers.attendance import Attendance
from lightningtune.workers.child import Job, prepare_here, train_as_rank
from lightningtune.workers.cold import Cold
from lightningtune.workers.devices import Slot
from lightningtune.workers.forking import ForkServer
from lightningtune.workers.handles import KILL, Child
from lightningtune.workers.messages import Result
from lightningtune.workers.ranks import variables_of_ranks
from lightningtune.workers.travel import check_travels

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
        """Train one trial; may be called from several threads at a time.

        Args:
            spec: what to train.
            slot: where.
            reporter: answers the trial's reports, in the calling thread.
            ranks: how many processes train it together.
            trial_timeout: seconds from its processes' beginning after which it is ended: softly at its next
                validation, by SIGTERM 10 seconds later, by SIGKILL after another 10.

        Returns:
            How it ended, whatever happened to its processes.
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
            for rank, variables in enumerate(variables_of_ranks(ranks))
        ]
        outcome = self._result(jobs, reporter, trial_timeout, self._running)
        assert isinstance(outcome, TrialOutcome)
        return outcome

    def prepare_data(self, spec: TrialSpec, slot: Slot, ranks: int = 1) -> bool:
        """Call ``prepare_data`` as the first of a trial's processes does.

        Args:
            spec: the trial's.
            slot: where.
            ranks: how many processes train the trial.

        Returns:
            Whether that has done it for all trials of the same data.

        Raises:
            KeyboardInterrupt: when the study was interrupted.
            Exception: what it raised.
        """
        task = cloudpickle.dumps(functools.partial(prepare_here, spec=spec))
        job = Job(slot, variables_of_ranks(ranks)[0], slot.threads, output_path(spec.directory), task)
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
                result = Attendance(children, reporter, output, trial_timeout, until_gone, self._grace).result()
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

    @contextlib.contextmanager
    def threads(self, count: int) -> Iterator[ThreadPoolExecutor]:
        """Yield a pool of threads that have all started: a pool loses the trial for which a thread is refused."""

        def start() -> None:
            have_started = threading.Event()
            try:
                for _ in range(count):
                    threads.submit(have_started.wait)
            finally:
                have_started.set()

        with ThreadPoolExecutor(count, "lightningtune-trial") as threads:
            self._start_patiently(start)
            yield threads

    def _start_patiently(self, start: Callable[[], _T]) -> _T:
        """Start a process; where the system refuses one, try again until others have ended and made room."""
        began, is_told = time.monotonic(), False
        while True:
            try:
                return start()
            except (OSError, RuntimeError) as error:
                is_refused = isinstance(error, BlockingIOError) or str(error) == _NO_THREAD
                if not is_refused or time.monotonic() - began > self._patience:
                    raise
                if not is_told:
                    log.warning(
                        "The system starts no process for a trial, and is asked again for %g seconds: %s",
                        self._patience,
                        error,
                    )
                is_told = True
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
_NO_THREAD = "can't start new thread"
"""What Python says where the system refuses a thread, which counts as a process there."""
_PAUSE = 0.2
"""Seconds until a process that was refused is asked for again."""
