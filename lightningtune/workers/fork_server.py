"""The warm process that trials are forked from: what they all need is imported and warmed up in it, once.

It has one thread, no CUDA context, and a frozen heap, so that a fork is quick, safe, and shares its memory. The host
tells it to fork over a Unix socket, with two descriptors each time: the connection that the trial's process shall have,
and a pipe on which the server tells its exit code at the end. The server answers with the number of the process, or,
negative, of the error for which there is none. When the host goes, so does every process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import os
import selectors
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, TrialSpec
from lightningtune.errors import ConfigurationError, InvalidConfigError
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train
from lightningtune.training.tracker_names import list_imports
from lightningtune.workers.child import explain_failure, load, open_own_streams, run_and_leave, work


class _Nothing(LightningModule):
    """Learns nothing: no backward pass is run, since autograd's threads would not survive a fork."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.log("train_loss", 0.0)
        self.optimizers().step()  # type: ignore[union-attr]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch[0]).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def _data() -> tuple[DataLoader[Any], DataLoader[Any]]:
    data = TensorDataset(torch.zeros(2, 1))
    return DataLoader(data), DataLoader(data)


_IN_MEMORY = {"class_path": "CSVLogger", "init_args": {"save_dir": "memory://warm-up", "name": "", "version": ""}}
"""The logger that trials have by default, in memory: a server may be killed at any time, and would leave its files."""


def warm_up(blueprint: Blueprint) -> None:
    """Run a fit of two steps on the CPU, and parse the base config: trials differ from it in few sections.

    It writes no file.
    """
    with contextlib.suppress(InvalidConfigError):  # the search space may give what it lacks
        blueprint.check(blueprint.config)
    for module in list_imports(blueprint.config.get("trainer") or {}):
        with contextlib.suppress(Exception):  # that a tracker fails, whatever it raises, is for the trial to tell
            importlib.import_module(module)
    own = {"seed_everything": 0, "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": _IN_MEMORY}}
    spec = TrialSpec(0, own, Path(os.devnull), Objective(("val_loss",), ("min",)), save_checkpoints=False)
    train(spec, Blueprint(Schema(_Nothing, _data, Trainer), own), SilentReporter())


FORK = b"F"
NUMBER = struct.Struct("i")
"""How the fork server tells the number of a process, and its exit code."""
SIGNALS_OF_HOST = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
"""What ends a whole job, a scheduler's SIGTERM above all, is the host's to handle: its trials may end softly."""
_PR_SET_PDEATHSIG = 1


def kill_group(number: int) -> None:
    """Kill a process and all that it has started, as far as there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(number, signal.SIGKILL)


def serve(descriptor: int, host: int, is_forked: bool = False) -> NoReturn:
    """Serve the host at the other end of a socket, until it closes it."""
    run_and_leave(lambda: _serve(descriptor, host, is_forked))


def _serve(descriptor: int, host: int, is_forked: bool) -> None:
    # While it loads, it dies with the host at once. Afterwards `_Server` undoes this: when the host is gone, its socket
    # says so, and the processes that it has forked are killed first.
    die_with_parent(host)
    if is_forked:
        _leave_host_behind()
    os.set_inheritable(descriptor, False)  # what the user's code starts would keep the socket open
    control = socket.socket(fileno=descriptor)
    torch.set_num_threads(1)  # threads of OpenMP would not survive a fork
    with Connection(os.dup(descriptor)) as connection:
        try:
            blueprint = _load(connection)
        except BaseException as error:  # the host says it to the user, unless it has given the study up
            failure = str(error) if isinstance(error, ConfigurationError) else traceback.format_exc()
            with contextlib.suppress(OSError):
                connection.send(failure)
            return
        with contextlib.suppress(OSError):
            connection.send(None)
    with _one_folder_for_sockets():
        gc.collect()
        gc.freeze()
        _Server(control, lambda trial: work(trial, lambda: blueprint)).run()


@contextlib.contextmanager
def _one_folder_for_sockets() -> Iterator[None]:
    """Let all forked processes share one folder for ``multiprocessing``'s sockets: a killed process leaves its own."""
    others = {*Path(tempfile.gettempdir()).glob("pymp-*")}
    folder = Path(get_temp_dir())
    try:
        yield
    finally:
        if folder not in others:  # the host's folder, which it removes itself
            shutil.rmtree(folder, ignore_errors=True)


def _leave_host_behind() -> None:
    """Give up what a forked process has from the host and a new interpreter would not have."""
    os.setpgid(0, 0)  # Ctrl-C in a terminal goes to the host's group only
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS_OF_HOST)
    threading.main_thread().name = "MainThread"
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if nothing > 1:
        os.close(nothing)
    open_own_streams()


def _load(connection: Connection) -> Blueprint:
    surroundings, payload = connection.recv()
    surroundings.take_over()
    blueprint = load(payload)
    with explain_failure("The process that trials are forked from could not be warmed up: {}\n{}"):
        warm_up(blueprint)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise ConfigurationError(
            "Loading the classes of the study, or the data that share_data shares, started CUDA in the process that "
            "trials are forked from, which does not survive a fork. Use CUDA only where a trial trains, or train in "
            "this process with n_jobs=1 and isolate=False."
        )
    return blueprint


class _Server:
    """Forks, and tells how what it has forked ends; what goes wrong with one trial is no other trial's concern."""

    def __init__(self, control: socket.socket, work: Callable[[Connection], None]) -> None:
        self._control = control
        self._work = work
        self._number = os.getpid()
        self._statuses: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        ignored = {*SIGNALS_OF_HOST, signal.SIGPIPE}
        self._before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        _outlive_parent()

    def run(self) -> None:
        """Serve until the host closes its end of the socket; then end every process."""
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.fileobj is self._control:
                        if not self._fork():
                            return
                    else:
                        os.read(self._wake, 4096)
                        self._reap()
        finally:
            self._end()

    def _fork(self) -> bool:
        """Fork a process for the trial that the host asks for; return False when there is no host any more."""
        try:
            message, descriptors, *_ = socket.recv_fds(self._control, len(FORK), 2)
        except ConnectionError:
            return False
        if not message:
            return False
        number = self._fork_child(descriptors)
        with contextlib.suppress(OSError):  # the host is gone, as the next message will say
            self._control.sendall(NUMBER.pack(number))
        return True

    def _fork_child(self, descriptors: list[int]) -> int:
        """Fork; return the process's number, or the negative number of an error."""
        try:
            connection, status = descriptors
        except ValueError:  # Linux drops those for which this process has no room
            for descriptor in descriptors:
                os.close(descriptor)
            return -errno.EMFILE
        try:
            number = os.fork()
        except OSError as error:
            os.close(connection)
            os.close(status)
            return -(error.errno or errno.EAGAIN)
        if number == 0:
            run_and_leave(lambda: self._be_child(connection, status))
        os.close(connection)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so itself, or has ended
            os.setpgid(number, number)
        self._statuses[number] = status
        return number

    def _be_child(self, connection: int, status: int) -> None:
        os.setpgid(0, 0)
        die_with_parent(self._number)
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._selector.close()
        self._control.close()
        for descriptor in (self._wake, self._woken, status, *self._statuses.values()):
            os.close(descriptor)
        self._work(Connection(connection))

    def _reap(self) -> None:
        """Tell how each process ended that has; others than those forked here are not asked for."""
        for number, status in [*self._statuses.items()]:
            code = _ended(number)
            if code is None:
                continue
            kill_group(number)  # what it has started goes with it
            del self._statuses[number]
            with contextlib.suppress(OSError), Connection(status, readable=False) as told:
                told.send_bytes(NUMBER.pack(code))  # this fails where the host does not want to know

    def _end(self) -> None:
        for number in self._statuses:
            kill_group(number)
        for number in self._statuses:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(number, 0)


def _ended(number: int) -> int | None:
    """Return the exit code of a process that has ended, None of one that runs."""
    try:
        ended, status = os.waitpid(number, os.WNOHANG)
    except ChildProcessError:  # a thread of the user's has waited for it: nobody knows
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if ended else None


def die_with_parent(parent: int) -> None:
    """Set PR_SET_PDEATHSIG: Linux kills this process when its parent ends; elsewhere it ends at its next message."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the call, which then has no effect
            os._exit(1)


def _outlive_parent() -> None:
    """Undo PR_SET_PDEATHSIG, so that this process outlives its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
