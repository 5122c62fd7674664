"""Trials in processes of their own: forked from a warm server, or started from nothing where that cannot be."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pickle
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle

from lightningtune.contract import Reporter, SilentReporter, StopReason, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.files import last_lines
from lightningtune.workers.child import Job, Payload, Result, prepare_here, train_as_rank
from lightningtune.workers.devices import Slot
from lightningtune.workers.limits import timed_out
from lightningtune.workers.starters import KILL, Child, Cold, ForkServer

OUTPUT = "output.log"
_GRACE = 10.0
"""Seconds that a trial whose time is up has to end softly, and then once more after SIGTERM."""
_LAST_WORDS = 5.0
"""Seconds that the other processes of a trial have to end when one has ended."""


class TrialProcesses:
    """Runs each trial in a process, or in one for each rank, and survives whatever becomes of them.

    A context: entering starts the server, which imports while the host goes on; leaving ends every process.

    Args:
        payload: what the trials of the study have in common.
        forks: whether trials are forked from a warm server; by default where that is safe, which is on Linux.

    Raises:
        ConfigurationError: when the payload cannot travel, naming what cannot.
    """

    def __init__(self, payload: Payload, forks: bool = sys.platform == "linux") -> None:
        if payload.share_data and not forks:
            raise ConfigurationError("share_data needs processes that are forked, which this platform does not have.")
        for name, part in {"model_class": payload.schema.model, "datamodule_class": payload.schema.data}.items():
            check_travels(name, part)
        self._starter: ForkServer | Cold = (ForkServer if forks else Cold)(cloudpickle.dumps(payload))
        self._running: set[Child] = set()
        self._ended = False

    def __enter__(self) -> TrialProcesses:
        self._starter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._starter.close()

    def end(self) -> None:
        """End every running trial now."""
        self._ended = True
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
            trial_timeout: seconds after which it is ended: softly at its next validation, by SIGTERM 10 seconds
                later, by SIGKILL after another 10.

        Returns:
            How it ended, whatever happened to its processes.

        Raises:
            ConfigurationError: when the trial shows that none can succeed.
        """
        threads = max(1, slot.threads // ranks)
        jobs = [
            Job(
                slot,
                variables,
                threads,
                spec.directory / (f"output_rank{rank}.log" if rank else OUTPUT),
                cloudpickle.dumps(functools.partial(train_as_rank, spec=spec, rank=rank)),
            )
            for rank, variables in enumerate(_ranks(ranks))
        ]
        outcome = self._result(jobs, reporter, trial_timeout)
        assert isinstance(outcome, TrialOutcome)
        if self._ended and outcome.reason is StopReason.KILLED:
            outcome = dataclasses.replace(outcome, reason=StopReason.INTERRUPTED, detail="interrupted")
        if isinstance(outcome.error, ConfigurationError):
            raise outcome.error
        return outcome

    def prepare_data(self, config: Mapping[str, Any], slot: Slot, output: Path) -> bool:
        """Call ``prepare_data`` of a config's datamodule, and return whether that has done it for all trials.

        Raises:
            Exception: what it raised.
        """
        task = cloudpickle.dumps(functools.partial(prepare_here, config=config))
        result = self._result([Job(slot, {}, slot.threads, output, task)], SilentReporter(), None)
        if isinstance(result, TrialOutcome):
            raise result.error or TrialError(result.detail)
        return result

    def _result(self, jobs: Sequence[Job], reporter: Reporter, trial_timeout: float | None) -> Result:
        with self._children(jobs) as children:
            return _Attendance(children, reporter, [job.output for job in jobs], trial_timeout).result()

    @contextlib.contextmanager
    def _children(self, jobs: Sequence[Job]) -> Iterator[list[Child]]:
        children: list[Child] = []
        try:
            for job in jobs:
                children.append(self._starter.child())
                self._running.add(children[-1])
                if self._ended:
                    children[-1].signal(KILL)
                with contextlib.suppress(OSError):  # it has died already, as will be seen
                    children[-1].connection.send_bytes(pickle.dumps(job))
            yield children
        finally:
            for child in children:
                child.signal(KILL)
                child.close()
                self._running.discard(child)


class _Attendance:
    """Follows the processes of one trial to their end.

    Args:
        children: one for each rank.
        reporter: answers reports.
        output: what each prints.
        trial_timeout: seconds.
    """

    def __init__(
        self, children: Sequence[Child], reporter: Reporter, output: Sequence[Path], trial_timeout: float | None
    ) -> None:
        self._children = children
        self._pending = dict(enumerate(children))
        self._reporter = reporter
        self._output = output
        self._trial_timeout = trial_timeout
        self._results: dict[int, Result] = {}
        self._kills = out_of_memory_kills()
        self._alarms: list[tuple[float, int]] = []
        """When to send which signal, the soonest first."""
        self._time_is_up = False
        if trial_timeout is not None:
            due = time.monotonic() + trial_timeout + _GRACE
            self._alarms = [(due, signal.SIGTERM), (due + _GRACE, KILL)]

    def result(self) -> Result:
        """Wait for the end of every process, and return the result: of the first that failed, else of rank 0."""
        while self._pending:
            listened = {item: rank for rank, child in self._pending.items() for item in child.waitables}
            for item in wait([*listened], self._until_next_alarm()):
                self._attend(listened[item])
            self._raise_alarms()
        outcomes = [result for result in self._results.values() if isinstance(result, TrialOutcome)]
        result = next((outcome for outcome in outcomes if outcome.error is not None), self._results[0])
        if self._time_is_up and self._trial_timeout is not None and isinstance(result, TrialOutcome):
            stop = timed_out(self._trial_timeout)
            return dataclasses.replace(result, reason=stop.reason, detail=stop.detail, error=TrialError(stop.detail))
        return result

    def _attend(self, rank: int) -> None:
        """Take what a process has sent, or its end."""
        child = self._pending.get(rank)
        if child is None:
            return
        for message in _received(child):
            if isinstance(message, tuple):
                self._answer(rank, child, message)
            else:
                self._results[rank] = message
        code = child.exit_code()
        if code is not None:
            del self._pending[rank]
            if rank not in self._results:
                self._results[rank] = self._died(rank, code)
            if self._pending and not self._time_is_up:
                self._alarms = [(time.monotonic() + _LAST_WORDS, KILL)]

    def _answer(self, rank: int, child: Child, values_and_step: tuple[Values, int]) -> None:
        try:
            verdict = self._reporter.report(*values_and_step)
        except Exception as error:  # the storage may be away, or a pruner may fail: it is this trial that fails
            self._results[rank] = TrialOutcome.failed(error)
            child.signal(KILL)
        else:
            with contextlib.suppress(OSError):  # the process has ended; its exit code says how
                child.connection.send(verdict)

    def _until_next_alarm(self) -> float | None:
        return max(0.0, self._alarms[0][0] - time.monotonic()) if self._alarms else None

    def _raise_alarms(self) -> None:
        while self._alarms and self._alarms[0][0] <= time.monotonic():
            _, number = self._alarms.pop(0)
            self._time_is_up = len(self._pending) == len(self._children)
            for child in self._pending.values():
                child.signal(number)

    def _died(self, rank: int, code: int) -> TrialOutcome:
        reason, detail = StopReason.KILLED, f"the trial's process ended with exit code {code}"
        if code < 0:
            detail = f"the trial's process was killed by {signal.Signals(-code).name}"
        if code == -KILL and out_of_memory_kills() > self._kills:
            reason, detail = StopReason.OUT_OF_MEMORY, "the system ran out of memory and killed the trial's process"
        said, crash = _last_words(self._output[rank])
        last = f". It printed last: {said[-1]}" if said else ""
        text = "\n".join([f"{detail}. It printed last:" if said else detail, *said, *crash])
        return TrialOutcome(reason, detail + last, traceback=text + "\n", error=TrialError(detail + last))


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


def check_travels(name: str, part: Any) -> None:
    """Check that something can be sent to a trial's process.

    Raises:
        ConfigurationError: naming it, and the way out.
    """
    try:
        cloudpickle.dumps(part)
    except Exception as error:  # pickling runs whatever code the part has
        raise ConfigurationError(
            f"{name} cannot be sent to a trial's process: {type(error).__name__}: {error}. Open files, connections and "
            "locks inside the class or the function, or train in this process with n_jobs=1 and isolate=False."
        ) from error


def out_of_memory_kills() -> int:
    """Count what Linux has killed for want of memory: processes of this control group, else of the machine."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        with contextlib.suppress(OSError):
            counts = dict(line.split() for line in Path(path).read_text().splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def _ranks(count: int) -> list[dict[str, str]]:
    """Return the variables by which torch's processes find each other; none for a trial of one process."""
    if count == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    return [{**shared, "LOCAL_RANK": str(rank), "RANK": str(rank)} for rank in range(count)]
