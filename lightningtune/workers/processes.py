"""Trials in processes of their own: forked from a warm server, or started from nothing where that cannot be."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle

from lightningtune.contract import Reporter, SilentReporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.study.directory import output_of
from lightningtune.workers.attendance import Attendance
from lightningtune.workers.child import Job, Payload, Result, prepare_here, train_as_rank
from lightningtune.workers.devices import Slot
from lightningtune.workers.starters import KILL, Child, Cold, ForkServer


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
        self._starter.abort()
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
        """
        threads = max(1, slot.threads // ranks)
        jobs = [
            Job(
                slot,
                variables,
                threads,
                output_of(spec.directory, rank),
                cloudpickle.dumps(functools.partial(train_as_rank, spec=spec, rank=rank)),
            )
            for rank, variables in enumerate(_ranks(ranks))
        ]
        outcome = self._result(jobs, reporter, trial_timeout)
        assert isinstance(outcome, TrialOutcome)
        return outcome

    def prepare_data(self, config: Mapping[str, Any], slot: Slot, directory: Path) -> bool:
        """Call ``prepare_data`` of a config's datamodule, and return whether that has done it for all trials.

        Raises:
            Exception: what it raised.
        """
        task = cloudpickle.dumps(functools.partial(prepare_here, config=config))
        result = self._result([Job(slot, {}, slot.threads, output_of(directory), task)], SilentReporter(), None)
        if isinstance(result, TrialOutcome):
            raise result.error or TrialError(result.detail)
        return result

    def _result(self, jobs: Sequence[Job], reporter: Reporter, trial_timeout: float | None) -> Result:
        try:
            with self._children(jobs) as children:
                result = Attendance(children, reporter, [job.output for job in jobs], trial_timeout).result()
        except TrialError as error:  # no process is started any more
            result = TrialOutcome.failed(error, StopReason.KILLED)
        if self._ended and isinstance(result, TrialOutcome) and result.reason is StopReason.KILLED:
            return dataclasses.replace(result, reason=StopReason.INTERRUPTED, detail="interrupted")
        return result

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


def _ranks(count: int) -> list[dict[str, str]]:
    """Return the variables by which torch's processes find each other; none for a trial of one process."""
    if count == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    return [{**shared, "LOCAL_RANK": str(rank), "RANK": str(rank)} for rank in range(count)]
