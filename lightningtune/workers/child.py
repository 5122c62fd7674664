"""What a trial's own process does: it takes a job, trains, and sends values and the outcome to the host."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import io
import operator
import os
import pickle
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch

from lightningtune.config.overrides import Schema
from lightningtune.contract import SilentReporter, Stop, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.training.build import Blueprint
from lightningtune.training.run import failure, load_data, prepare_data, train
from lightningtune.workers.devices import Slot


@dataclass(frozen=True)
class Payload:
    """What the trials of a study have in common; cloudpickle takes it to where they run.

    Attributes:
        schema: what the sections of a config build.
        config: the base config.
        share_data: whether the datamodule is built and set up once, and its memory shared.
    """

    schema: Schema
    config: Mapping[str, Any]
    share_data: bool = False


def load(payload: bytes) -> tuple[Payload, Blueprint]:
    """Load what the trials of a study have in common, and the data that they share.

    Args:
        payload: a `Payload`, pickled.

    Returns:
        It, and what builds the trials.

    Raises:
        ConfigurationError: saying what could not be loaded, and why.
    """
    with explained(_NOT_LOADED):
        study: Payload = pickle.loads(payload)
        blueprint = Blueprint(study.schema, study.config, study.share_data)
    if study.share_data:
        with explained(_NO_DATA):
            load_data(blueprint)
    return study, blueprint


@contextlib.contextmanager
def explained(text: str) -> Iterator[None]:
    """Say what an error means.

    Args:
        text: has two ``{}``: for the error's line, and for its traceback.

    Raises:
        ConfigurationError: with the text.
    """
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


@dataclass(frozen=True)
class Surroundings:
    """What a new interpreter takes over from the host's, beside the environment's variables.

    Attributes:
        path: where modules are found.
        folder: where relative paths lead.
        python_path: the user's ``PYTHONPATH``, which the new interpreter has another of, to find this package.
    """

    path: list[str]
    folder: str
    python_path: str | None

    @classmethod
    def here(cls) -> Surroundings:
        """Return those of this process."""
        return cls([*sys.path], str(Path.cwd()), os.environ.get(_PYTHONPATH))

    def environment(self) -> dict[str, str]:
        """Return the variables with which an interpreter finds this package wherever the host has found it."""
        return {**os.environ, _PYTHONPATH: os.pathsep.join(path for path in self.path if path)}

    def take_over(self) -> None:
        """Make them those of this process; what it starts may be another Python, with other modules."""
        sys.path[:] = self.path
        os.chdir(self.folder)
        os.environ.pop(_PYTHONPATH, None)
        if self.python_path is not None:
            os.environ[_PYTHONPATH] = self.python_path


_PYTHONPATH = "PYTHONPATH"


Result: TypeAlias = TrialOutcome | bool
"""What a process ends with: a trial's outcome, or whether data is prepared for all trials."""
Task: TypeAlias = Callable[[Blueprint, Connection], Result]


@dataclass(frozen=True)
class Job:
    """One process.

    Attributes:
        slot: where it runs.
        variables: of the environment, beyond the slot's.
        threads: how many threads it computes with.
        output: the file that receives what it prints.
        task: a `Task`, pickled apart: what goes wrong when it is loaded is printed, too.
    """

    slot: Slot
    variables: Mapping[str, str]
    threads: int
    output: Path
    task: bytes


class ConnectedReporter:
    """Sends values to the host, and waits for its decision.

    Args:
        connection: to the host.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def report(self, values: Values, step: int) -> Stop | None:
        """Ask the host."""
        self._connection.send((values, step))
        verdict: Stop | None = self._connection.recv()
        return verdict


def train_as_rank(blueprint: Blueprint, connection: Connection, spec: TrialSpec, rank: int) -> TrialOutcome:
    """Train a trial as one of its processes, of which rank 0 reports."""
    outcome = train(spec, blueprint, ConnectedReporter(connection) if rank == 0 else SilentReporter())
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return outcome


def prepare_here(blueprint: Blueprint, connection: Connection, config: Mapping[str, Any]) -> bool:
    """Prepare the data of a trial's config."""
    return prepare_data(blueprint, config)


def work(connection: Connection, load: Callable[[], Blueprint]) -> None:
    """Do one job; what happens is sent to the host, whatever it is.

    Args:
        connection: to the host.
        load: returns what builds the trial; what it prints goes where the trial's output goes.
    """
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
    with contextlib.suppress(OSError):  # the host is gone
        connection.send_bytes(pickle_result(result))
    _leave_nothing(others)


def start_cold() -> None:
    """Be a process that was started from nothing, with what it needs to know on its standard input."""
    run_and_leave(_work_cold)


def _work_cold() -> None:
    try:
        surroundings, payload = pickle.load(sys.stdin.buffer)
    except EOFError:  # the host is gone
        return
    surroundings.take_over()
    work(connect(int(sys.argv[1])), lambda: load(payload)[1])


def connect(handle: int) -> Connection:
    """Return the connection that the host had this process inherit; nothing that this one starts does.

    Args:
        handle: a file descriptor, on Windows the handle of a pipe.
    """
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
    os.environ.update({**job.slot.environment, **job.variables})
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
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, errors="replace")
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="replace")
    faulthandler.enable(sys.stderr, all_threads=False)


def _seed_apart() -> None:
    """Draw new seeds: processes that are forked from one would all go on with the same random numbers."""
    random.seed()
    np.random.seed(random.getrandbits(32))
    torch.seed()


def pickle_result(result: Result) -> bytes:
    """Pickle a result for the host, whose scripts' classes are found there by their names.

    An error that cannot travel, or cannot be built again in the host, arrives as its message.
    """
    if isinstance(result, bool) or result.error is None:
        return pickle.dumps(result)
    is_mistake = isinstance(result.error, ConfigurationError)
    instead = ConfigurationError(str(result.error)) if is_mistake else TrialError(result.detail)
    try:
        sent: BaseException = _Sent(_by_reference(result.error), instead)
    except Exception:  # pickling runs whatever code the error has
        sent = instead
    return pickle.dumps(dataclasses.replace(result, error=sent))


class _Sent(Exception):  # noqa: N818 - it stands in an outcome where an error does
    """An error on its way: it is unpickled as the error itself, and, where that fails, as another."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, self.args


def _arrived(pickled: bytes, instead: BaseException) -> BaseException:
    try:
        error = pickle.loads(pickled)
    except Exception:  # many an exception pickles, and cannot be built again
        return instead
    return error if isinstance(error, BaseException) else instead


def _by_reference(error: BaseException) -> bytes:
    """Pickle an error; classes of the user's script by their names, though this process has only copies of them."""
    file = io.BytesIO()
    _ByReference(file).dump(error)
    return file.getvalue()


class _ByReference(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) and value.__module__ == "__main__":
            return _of_script, (value.__qualname__,)
        return NotImplemented


def _of_script(name: str) -> Any:
    return operator.attrgetter(name)(sys.modules["__main__"])


def _leave_nothing(others: list[BaseProcess]) -> None:
    """End the processes that this one has started, the workers of a DataLoader above all."""
    own = [process for process in active_children() if process not in others]
    for process in own:
        process.kill()
    for process in own:
        process.join()
    sys.stdout.flush()
    sys.stderr.flush()
