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
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import NoReturn

import torch

from lightningtune.errors import ConfigurationError
from lightningtune.training.build import Blueprint
from lightningtune.workers.child import explained, load, own_streams, run_and_leave, work
from lightningtune.workers.handles import NUMBER, kill_group
from lightningtune.workers.warmup import warm_up

FORK = b"F"
SIGNALS_OF_HOST = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
"""What ends a whole job, a scheduler's SIGTERM above all, is the host's to handle: its trials may end softly."""
_PR_SET_PDEATHSIG = 1


def serve(descriptor: int, host: int, is_forked: bool = False) -> NoReturn:
    """Serve the host at the other end of a socket, until it closes it.

    Args:
        descriptor: of the socket.
        host: its process number.
        is_forked: whether this process was forked from the host's, and is not a new interpreter.
    """
    run_and_leave(lambda: _serve(descriptor, host, is_forked))


def _serve(descriptor: int, host: int, is_forked: bool) -> None:
    die_with_parent(host)  # while it loads; later it ends what it has forked first
    if is_forked:
        _become_own()
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
        folder = _folder_for_sockets()
        with contextlib.suppress(OSError):
            connection.send(folder)
    try:
        gc.collect()
        gc.freeze()
        _Server(control, lambda trial: work(trial, lambda: blueprint)).run()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _folder_for_sockets() -> Path | None:
    """Have what is forked here share one folder for ``multiprocessing``'s sockets: a killed process leaves its own.

    Returns:
        The folder, unless it is the host's, which has used it already, and will remove it.
    """
    others = {*Path(tempfile.gettempdir()).glob("pymp-*")}
    folder = Path(get_temp_dir())
    return None if folder in others else folder


def _become_own() -> None:
    """Have nothing of the process that this one was forked from that a new interpreter would not have."""
    os.setpgid(0, 0)
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
    own_streams()


def _load(connection: Connection) -> Blueprint:
    surroundings, payload = connection.recv()
    surroundings.take_over()
    blueprint = load(payload)
    with explained("The process that trials are forked from could not be warmed up: {}\n{}"):
        warm_up(blueprint)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise ConfigurationError(
            "Loading the classes of the study, or the data that share_data shares, started CUDA in the process that "
            "trials are forked from, which does not survive a fork. Use CUDA only where a trial trains, or train in "
            "this process with n_jobs=1 and isolate=False."
        )
    return blueprint


class _Server:
    """Forks, and tells how what it has forked ends; what goes wrong with one trial is no other trial's concern.

    Args:
        control: the socket.
        work: what a forked process does with its connection.
    """

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
        _live_on()

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
        number = self._forked(descriptors)
        with contextlib.suppress(OSError):  # the host is gone, as the next message will say
            self._control.sendall(NUMBER.pack(number))
        return True

    def _forked(self, descriptors: list[int]) -> int:
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
            with contextlib.suppress(OSError):  # the host does not want to know
                os.write(status, NUMBER.pack(code))
            os.close(status)

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
    """Have Linux kill this process when its parent ends; elsewhere it ends at its next message."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended just before
            os._exit(1)


def _live_on() -> None:
    """Have Linux kill this process no more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
