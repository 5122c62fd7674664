"""How the fork server's process comes to be: forked from this one where that is fit for it, or a new interpreter."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lightningtune.workers.fork_server import SIGNALS_OF_HOST, serve
from lightningtune.workers.surroundings import Surroundings


@dataclass(frozen=True)
class ServerProcess:
    """The server's process.

    Attributes:
        number: its process number.
        wait: waits for its end, and returns its exit code.
    """

    number: int
    wait: Callable[[], int]


def is_fit_to_fork() -> bool:
    """Whether this process is fit to be forked into the fork server, which then need not import anything again.

    It is where nothing but Python's main thread, and no library with threads that bear a name of their own, has ever
    been at work here: what other threads hold, and what an accelerator's driver knows, does not survive a fork. The
    threads of torch, NumPy and Arrow bear the process's own name, and are known to be harmless. A process of many
    gigabytes would make each fork slow. Whoever asks ``multiprocessing`` for another way of starting processes than by
    forking means this one, too.
    """
    wishes = multiprocessing.get_start_method(allow_none=True)
    if wishes not in (None, "fork") or threading.active_count() > 1 or torch.cuda.device_count() > 0:
        return False
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        known = {Path("/proc/self/comm").read_text(), _JEMALLOC}
        names = {(thread / "comm").read_text() for thread in Path("/proc/self/task").iterdir()}
    except OSError:  # a thread has just ended, or nobody may know
        return False
    return names <= known and pages * os.sysconf("SC_PAGE_SIZE") < _LARGE


def fork_server(control: socket.socket, theirs: socket.socket, kept: object) -> ServerProcess:
    """Fork this process; the new one serves.

    Args:
        control: the host's end of the socket.
        theirs: the server's.
        kept: lives on in the server.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it is None, or closed
            stream.flush()  # what waits there would be printed twice
    is_frozen = gc.get_freeze_count() > 0
    gc.collect()  # garbage of the user's is cleared away here, and not once more in the server
    gc.freeze()
    host = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_HOST)
    try:
        with warnings.catch_warnings():
            # Python warns of a process with several threads; that this one is fit to fork has been seen
            warnings.simplefilter("ignore", DeprecationWarning)
            number = os.fork()
        if number == 0:
            control.close()  # or the server would not notice that the host has gone
            serve(theirs.fileno(), host, is_forked=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if not is_frozen:
            gc.unfreeze()
    with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so itself, or has ended
        os.setpgid(number, number)
    return ServerProcess(number, lambda: _exit_code_of(number))


def start_interpreter(control: socket.socket, theirs: socket.socket, here: Surroundings) -> ServerProcess:
    """Start an interpreter that serves.

    Args:
        control: the host's end of the socket, which it does not inherit.
        theirs: the server's.
        here: what it is to find the package by.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(theirs.fileno()), str(os.getpid())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal is the host's to handle
        env=here.environment(),
    )
    return ServerProcess(process.pid, process.wait)


def locals_of_this_thread() -> list[object]:
    """Return what this thread holds in ``threading.local`` objects.

    In a process that another thread forks, this thread is gone, and what it held would be given up there: a database's
    session, for one, would end what it is at over the connection that it has in common with this process's.
    """
    return [vars(each) for each in gc.get_objects() if issubclass(type(each), threading.local)]


def _exit_code_of(number: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    except ChildProcessError:  # the user's code waits for all there are
        return -signal.SIGKILL


_SERVE = "import sys; from lightningtune.workers.fork_server import serve; serve(*map(int, sys.argv[1:]))"
_LARGE = 4 * 2**30
"""Bytes of memory, at some 10 milliseconds a gigabyte and fork."""
_JEMALLOC = "jemalloc_bg_thd\n"
"""Gives memory back for Arrow, which pandas imports; jemalloc starts another after a fork."""
