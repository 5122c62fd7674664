"""Trials in processes of their own: forked from a warm server, or started from nothing where that cannot be."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle

from lightningtune.contract import Reporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.files import last_lines
from lightningtune.workers.child import Job, Payload
from lightningtune.workers.devices import Slot
from lightningtune.workers.limits import timed_out
from lightningtune.workers.starters import Child, Cold, ForkServer

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
        self._prepared: dict[str, threading.Lock | None] = {}
        self._lock = threading.Lock()

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
            child.signal(signal.SIGKILL)

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
        environment = [{**slot.environment, **rank} for rank in _ranks(ranks)]
        output = [spec.directory / (OUTPUT if rank == 0 else f"output_rank{rank}.log") for rank in range(ranks)]
        threads = max(1, slot.threads // ranks)
        jobs = [Job(environment[rank], threads, output[rank], spec, rank) for rank in range(ranks)]
        with self._children(jobs) as children:
            outcome = _Attendance(children, reporter, output, trial_timeout).outcome()
        if self._ended and outcome.reason is StopReason.KILLED:
            outcome = dataclasses.replace(outcome, reason=StopReason.INTERRUPTED, detail="interrupted")
        if isinstance(outcome.error, ConfigurationError):
            raise outcome.error
        return outcome

    def prepare_data(self, config: Mapping[str, Any], slot: Slot, output: Path) -> None:
        """Call ``prepare_data`` of a config's datamodule, once for each different ``data`` section.

        Raises:
            TrialError: when it fails.
        """
        key = repr(config.get("data"))
        with self._lock:
            lock = self._prepared.setdefault(key, threading.Lock())
        if lock is None:
            return
        with lock:
            if self._prepared[key] is None:
                return
            job = Job(slot.environment, slot.threads, output, data={"data": config.get("data")})
            with self._children([job]) as children:
                outcome = _Attendance(children, None, [output], None).outcome()
            if outcome.error is not None:
                raise outcome.error
            self._prepared[key] = None

    @contextlib.contextmanager
    def _children(self, jobs: Sequence[Job]) -> Iterator[list[Child]]:
        children: list[Child] = []
        try:
            for job in jobs:
                work = cloudpickle.dumps(job)
                children.append(self._starter.child())
                self._running.add(children[-1])
                if self._ended:
                    children[-1].signal(signal.SIGKILL)
                with contextlib.suppress(OSError):  # it has died already, as will be seen
                    children[-1].connection.send_bytes(work)
            yield children
        finally:
            for child in children:
                child.signal(signal.SIGKILL)
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
        self, children: Sequence[Child], reporter: Reporter | None, output: Sequence[Path], trial_timeout: float | None
    ) -> None:
        self._children = children
        self._pending = dict(enumerate(children))
        self._reporter = reporter
        self._output = output
        self._trial_timeout = trial_timeout
        self._outcomes: dict[int, TrialOutcome] = {}
        self._kills = out_of_memory_kills()
        self._alarms: list[tuple[float, int]] = []
        """When to send which signal, the soonest first."""
        self._time_is_up = False
        if trial_timeout is not None:
            due = time.monotonic() + trial_timeout + _GRACE
            self._alarms = [(due, signal.SIGTERM), (due + _GRACE, signal.SIGKILL)]

    def outcome(self) -> TrialOutcome:
        """Wait for the end of every process, and return the outcome: of the first that failed, else of rank 0."""
        while self._pending:
            listened = {item: rank for rank, child in self._pending.items() for item in child.waitables}
            for item in wait([*listened], self._until_next_alarm()):
                self._attend(listened[item])
            self._raise_alarms()
        failed = [outcome for outcome in self._outcomes.values() if outcome.error is not None]
        outcome = failed[0] if failed else self._outcomes[0]
        if self._time_is_up and self._trial_timeout is not None:
            stop = timed_out(self._trial_timeout)
            return dataclasses.replace(outcome, reason=stop.reason, detail=stop.detail, error=TrialError(stop.detail))
        return outcome

    def _attend(self, rank: int) -> None:
        """Take what a process has sent, or its end."""
        child = self._pending.get(rank)
        if child is None:
            return
        try:
            while child.connection.poll():
                message = child.connection.recv()
                if isinstance(message, TrialOutcome):
                    self._outcomes[rank] = message
                elif self._reporter is not None:
                    child.connection.send(self._reporter.report(*message))
        except (EOFError, OSError):  # the process has ended; its exit code says how
            pass
        except Exception as error:  # the storage may be away, or a pruner may fail: it is this trial that fails
            self._outcomes.setdefault(rank, TrialOutcome.failed(error))
            child.signal(signal.SIGKILL)
        code = child.exit_code()
        if code is not None:
            del self._pending[rank]
            if rank not in self._outcomes:
                self._outcomes[rank] = self._died(rank, code)
            if self._pending and not self._alarms:
                self._alarms = [(time.monotonic() + _LAST_WORDS, signal.SIGKILL)]

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
        if code == -signal.SIGKILL and out_of_memory_kills() > self._kills:
            reason, detail = StopReason.OUT_OF_MEMORY, "the system ran out of memory and killed the trial's process"
        lines = last_lines(self._output[rank], 20)
        said = f". It printed last: {lines[-1]}" if lines else ""
        text = "\n".join([f"{detail}. It printed last:", *lines]) if lines else detail
        return TrialOutcome(reason, detail + said, traceback=text + "\n", error=TrialError(detail + said))


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
