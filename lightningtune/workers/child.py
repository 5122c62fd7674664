"""What a trial's own process does: it takes a job, trains, and sends values and the outcome to the host."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import pickle
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from lightningtune.config.overrides import Schema
from lightningtune.contract import SilentReporter, Stop, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.training.build import Blueprint
from lightningtune.training.run import load_data, prepare_data, train
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

    def load(self) -> Blueprint:
        """Return what builds the trials."""
        blueprint = Blueprint(self.schema, self.config, self.share_data)
        if self.share_data:
            load_data(blueprint)
        return blueprint


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


def work(connection: Connection, blueprint: Blueprint) -> None:
    """Do one job; what happens is sent to the host, whatever it is."""
    job: Job = pickle.loads(connection.recv_bytes())
    os.environ.update({**job.slot.environment, **job.variables})
    if job.slot.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.slot.cores)
    _capture(job.output)
    torch.set_num_threads(job.threads)
    _seed_apart()
    try:
        task: Task = pickle.loads(job.task)
        result = task(blueprint, connection)
    except BaseException as error:  # the host must hear of it, whatever it is
        result = TrialOutcome.failed(error)
    with contextlib.suppress(BrokenPipeError):  # the host is gone
        connection.send_bytes(_pickled(result))
    _leave_nothing()


def start_cold() -> None:
    """Be a process that was started from nothing: the host's address stands on the standard input."""
    address, key = pickle.load(sys.stdin.buffer)
    with Client(address, authkey=key) as connection:
        sys.path[:], folder, payload = connection.recv()
        os.chdir(folder)
        try:
            blueprint = pickle.loads(payload).load()
        except Exception as error:
            connection.recv()
            connection.send_bytes(_pickled(TrialOutcome.failed(error)))
            return
        work(connection, blueprint)


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


def _pickled(result: Result) -> bytes:
    """Pickle a result; where the error in it cannot travel, its message does."""
    if isinstance(result, bool) or result.error is None:
        return pickle.dumps(result)
    try:
        sent = pickle.dumps(result)
        pickle.loads(sent)  # many an exception pickles, and cannot be built again
    except Exception:
        is_mistake = isinstance(result.error, ConfigurationError)
        error = ConfigurationError(str(result.error)) if is_mistake else TrialError(result.detail)
        return pickle.dumps(dataclasses.replace(result, error=error))
    return sent


def _leave_nothing() -> None:
    """End the processes that this one has started, the workers of a DataLoader above all."""
    for process in active_children():
        process.kill()
    for process in active_children():
        process.join()
    sys.stdout.flush()
    sys.stderr.flush()
