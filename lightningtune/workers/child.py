"""What a trial's own process does: it takes a job, trains, and sends values and the outcome to the host."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import active_children, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn, TypeAlias

import numpy as np
import torch

from lightningtune.contract import SilentReporter, Stop, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError
from lightningtune.training.build import Blueprint
from lightningtune.training.failures import failure
from lightningtune.training.run import load_data, prepare_data, train
from lightningtune.training.trackers import leave_trackers
from lightningtune.workers.devices import Slot, take_rank
from lightningtune.workers.travel import Result, pickle_result


def load(payload: bytes) -> Blueprint:
    """Load what builds the trials of a study, and the data that they share."""
    with explain_failure(_NOT_LOADED):
        blueprint: Blueprint = pickle.loads(payload)
    if blueprint.share_data:
        with explain_failure(_NO_DATA):
            load_data(blueprint)
    return blueprint


@contextlib.contextmanager
def explain_failure(text: str) -> Iterator[None]:
    """Raise a `ConfigurationError` with a text that says what an error means."""
    try:
        yield
    except ConfigurationError:  # it says it better
        raise
    except BaseException as error:  # what is imported may do anything, and calls sys.exit when it is a script
        failed = TrialOutcome.failed(error)
        raise ConfigurationError(text.format(failed.detail, failed.traceback)) from error


_NOT_LOADED = (
    "The classes of the study could not be loaded in a trial's process. Import them from a module that is installed or "
    "lies beside the script, or train in this process with n_jobs=1 and isolate=False. It said: {}\n{}"
)
_NO_DATA = "The data that share_data shares could not be loaded: {}\n{}"


Task: TypeAlias = Callable[[Blueprint, Connection], Result]


@dataclass(frozen=True)
class Job:
    """What one process does, and where."""

    slot: Slot
    variables: Mapping[str, str]
    """Variables of the environment, by which the ranks of a trial find each other."""
    threads: int
    output: Path
    """The file that receives what it prints."""
    task: bytes
    """A `Task`, pickled apart: what goes wrong when it is loaded is printed, too."""


class ConnectedReporter:
    """Sends values to the host, and waits for its decision."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def report(self, values: Values, step: int) -> Stop | None:
        """Ask the host."""
        self._connection.send((values, step))
        verdict: Stop | None = self._connection.recv()
        return verdict

    def notice(self, text: str) -> None:
        """Send a notice to the host, which does not answer."""
        self._connection.send(text)


def train_as_rank(blueprint: Blueprint, connection: Connection, spec: TrialSpec, rank: int) -> TrialOutcome:
    """Train a trial as one of its processes, of which rank 0 reports."""
    outcome = train(spec, blueprint, ConnectedReporter(connection) if rank == 0 else SilentReporter())
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return outcome


def prepare_here(blueprint: Blueprint, connection: Connection, spec: TrialSpec) -> bool:
    """Prepare the data of a trial."""
    return prepare_data(blueprint, spec)


def work(connection: Connection, load: Callable[[], Blueprint]) -> None:
    """Do one job; what happens is sent to the host, whatever it is."""
    others = active_children()  # of the server, where this process was forked from one that has any
    try:
        job: Job = pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):  # the host is gone, or has given the job up
        return
    try:
        _settle(job)
        task: Task = pickle.loads(job.task)
        result = task(load(), connection)
    except BaseException as error:  # the host must hear of it, whatever it is
        result = failure(error)
    try:
        _leave_nothing(others)
    finally:  # the last word: the host may begin the next trial, and end what is left of this process
        with contextlib.suppress(OSError):  # the host is gone
            connection.send_bytes(pickle_result(result))


def work_cold() -> None:
    """Do the job of a process that was started from nothing, with what it needs to know on its standard input."""
    handle = int(sys.argv[1])
    try:
        surroundings, payload = pickle.load(sys.stdin.buffer)
    except EOFError:  # the host is gone
        return
    surroundings.take_over()
    work(_connect(handle), lambda: load(payload))


def _connect(handle: int) -> Connection:
    """Return the connection that the host had this process inherit; nothing that this one starts does."""
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection

        os.set_handle_inheritable(handle, False)
        return PipeConnection(handle)
    os.set_inheritable(handle, False)
    return Connection(handle)


def run_and_leave(task: Callable[[], None]) -> NoReturn:
    """Do something, and end this process: an interpreter with torch in it would need a second to end.

    What the task raises is printed, and makes the exit code 1.
    """
    code = 1
    try:
        task()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _settle(job: Job) -> None:
    os.environ.update(job.slot.environment)
    take_rank(job.variables)
    _capture(job.output)  # first, for what else goes wrong to be printed there
    if job.slot.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.slot.cores)
    torch.set_num_threads(job.threads)
    _seed_apart()


def _capture(output: Path) -> None:
    """Have everything that this process prints, and a crash of the interpreter too, go to a file."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    open_own_streams()
    faulthandler.enable(sys.stderr, all_threads=False)


def open_own_streams() -> None:
    """Have Python print where this process's standard output and standard error lead, whatever stood there before."""
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, errors="replace")
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="replace")


def _seed_apart() -> None:
    """Draw new seeds: processes that are forked from one would all go on with the same random numbers."""
    random.seed()
    np.random.seed(random.getrandbits(32))
    torch.seed()


def _leave_nothing(others: list[BaseProcess]) -> None:
    """End the processes that this one has started, the workers of a DataLoader above all, and unlink semaphores."""
    leave_trackers()
    own = [process for process in active_children() if process not in others]
    for process in own:
        process.kill()
    for process in own:
        process.join()
    # unlink semaphores, as an interpreter does when it ends; the function for it is private, and is the only one
    util._run_finalizers(0)  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
