"""The warm process that trials are forked from: what they all need is imported and warmed up in it, once.

It has one thread, no CUDA context, and a frozen heap, so that a fork is quick, safe, and shares its memory. The host
tells it to fork over a Unix socket, with two descriptors each time: the connection that the trial's process shall have,
and a pipe on which the server tells the process's number at once and its exit status at the end. When the host goes, so
does every process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import selectors
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from lightningtune.training.build import Blueprint
from lightningtune.workers.child import Payload, work
from lightningtune.workers.warmup import warm_up

STATUS = struct.Struct("i")
FORK = b"F"
_PR_SET_PDEATHSIG = 1


def serve(descriptor: int) -> None:
    """Serve the host at the other end of a socket, until it closes it.

    Args:
        descriptor: of the socket.
    """
    control = socket.socket(fileno=descriptor)
    connection = Connection(os.dup(descriptor))
    torch.set_num_threads(1)  # threads of OpenMP would not survive a fork
    try:
        blueprint = _load(connection)
    except BaseException:  # the host says it to the user
        connection.send(traceback.format_exc())
        return
    connection.send(None)
    connection.close()
    gc.collect()
    gc.freeze()
    _Server(control, lambda trial: work(trial, blueprint)).run()
    os._exit(0)  # an interpreter with torch in it needs a second to end


def _load(connection: Connection) -> Blueprint:
    sys.path[:], folder, payload = connection.recv()
    os.chdir(folder)
    study: Payload = pickle.loads(payload)
    blueprint = study.load()
    warm_up(blueprint, study.config)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("Loading the model's and the data's classes started CUDA, which does not survive a fork.")
    return blueprint


class _Server:
    def __init__(self, control: socket.socket, work: Callable[[Connection], None]) -> None:
        self._control = control
        self._work = work
        self._statuses: dict[int, int] = {}
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        os.read(self._wake, 4096)
                        self._reap()
                    elif not self._fork():
                        self._end()
                        return

    def _fork(self) -> bool:
        """Fork a process for the trial that the host asks for; return False when there is no host any more."""
        message, descriptors, *_ = socket.recv_fds(self._control, len(FORK), 2)
        if not message:
            return False
        connection, status = descriptors
        number = os.fork()
        if number == 0:
            self._become_child(status)
            try:
                self._work(Connection(connection))
            finally:
                os._exit(0)
        os.close(connection)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so itself, or has ended
            os.setpgid(number, number)
        os.write(status, STATUS.pack(number))
        self._statuses[number] = status
        return True

    def _become_child(self, status: int) -> None:
        os.setpgid(0, 0)
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        for descriptor in (self._wake, status, *self._statuses.values()):
            os.close(descriptor)

    def _reap(self) -> None:
        while self._statuses:
            number, status = os.waitpid(-1, os.WNOHANG)
            if number == 0:
                return
            _kill_group(number)  # what it has started goes with it
            descriptor = self._statuses.pop(number)
            os.write(descriptor, STATUS.pack(os.waitstatus_to_exitcode(status)))
            os.close(descriptor)

    def _end(self) -> None:
        for number in self._statuses:
            _kill_group(number)
            os.waitpid(number, 0)


def _kill_group(number: int) -> None:
    try:
        os.killpg(number, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nothing is left of it
        return


def _die_with_parent() -> None:
    """Have Linux kill this process when the server is killed; elsewhere it ends at its next report."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
