"""The host's side of the fork server: starting it, having it fork, and outliving it."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import shutil
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.workers.attendance import out_of_memory_kills
from lightningtune.workers.cold import OVER
from lightningtune.workers.fork_server import FORK
from lightningtune.workers.handles import KILL, NUMBER, Child, ForkedChild, kill_group
from lightningtune.workers.launch import (
    ServerProcess,
    fork_server,
    is_fit_to_fork,
    locals_of_this_thread,
    start_interpreter,
)
from lightningtune.workers.surroundings import Surroundings


class ForkServer:
    """Starts processes by forking a warm server, which is a process of its own.

    The server is forked from this process where that is fit for it, and starts at once; otherwise it is a new
    interpreter, whose imports take seconds.

    Args:
        payload: what builds the trials, pickled.
        is_fit_to_fork: whether this process is.
    """

    shares_memory = True

    def __init__(self, payload: bytes, is_fit_to_fork: Callable[[], bool] = is_fit_to_fork) -> None:
        self._payload = payload
        self._is_fit_to_fork = is_fit_to_fork
        self._lock = threading.Lock()
        """One thread at a time talks to the server."""
        self._change = threading.RLock()
        """Guards what follows, never for long; a signal may come in between, and want it too."""
        self._is_over = False
        self._number: int | None = None
        self._control: socket.socket | None = None
        self._watch = threading.Thread()
        self._ready: Future[bool] = Future()
        """Whether the server could load the payload, and was not killed meanwhile."""
        _settle(self._ready, False)
        self._folders: list[Path] = []
        """What servers make, and cannot remove when they are killed."""

    def start(self) -> None:
        """Start the server; what it has to load, it loads while the host goes on."""
        here = Surroundings.here()
        with self._change:
            if self._is_over:
                raise TrialError(OVER)
            if self._is_fit_to_fork():
                begin = functools.partial(fork_server, kept=locals_of_this_thread())
            else:
                begin = functools.partial(start_interpreter, here=here)
            self._ready = Future()
            try:
                self._begin(begin, here)
            except BaseException:
                _settle(self._ready, False)  # whoever asks for a process next starts the server again
                self._kill()
                self._end()
                raise

    def _begin(self, begin: Callable[[socket.socket, socket.socket], ServerProcess], here: Surroundings) -> None:
        self._control, theirs = socket.socketpair()
        begun: Future[ServerProcess] = Future()
        ended: Future[int] = Future()
        with theirs:
            accompany = functools.partial(_accompany, begin, self._control, theirs, begun, ended)
            watch = threading.Thread(target=contextvars.copy_context().run, args=[accompany], daemon=True)
            watch.start()
            self._watch = watch
            self._number = begun.result().number
        connection = Connection(os.dup(self._control.fileno()))
        told = (here, self._payload)
        arguments = (connection, told, ended, self._ready, self._folders)
        threading.Thread(target=_shake_hands, args=arguments, daemon=True).start()

    def child(self) -> Child:
        """Fork a process; a server that was killed is started again.

        Raises:
            ConfigurationError: when the server could not load the payload.
            TrialError: when there is to be no further process.
            OSError: when the server could not fork.
        """
        with self._lock:
            for killed in range(_STARTS):
                if killed:
                    self._end()
                    self.start()
                child = self._forked()
                if child is not None:
                    return child
        raise TrialError(f"The process that trials are forked from was killed {_STARTS} times in a row.")

    def abort(self) -> None:
        """Start no further process, and give up a server that still loads, however long that would take.

        Threads that wait in `child` leave it with an error; processes that were started go on.
        """
        with self._change:
            self._is_over = True
            if not self._ready.done() and self._number is not None:
                self._kill()
                _fail(self._ready, TrialError(OVER))

    def close(self) -> None:
        """End the server, and with it every process that it has forked."""
        self.abort()
        self._end()

    def _end(self) -> None:
        control, self._control = self._control, None
        if control is None:
            return
        with control, contextlib.suppress(OSError):  # the server may have been killed
            control.shutdown(socket.SHUT_RDWR)
        if self._watch.ident is not None:  # the system has not refused its thread
            self._watch.join(_GRACE)
            self._kill()
            self._watch.join()
        while self._folders:
            shutil.rmtree(self._folders.pop(), ignore_errors=True)

    def _kill(self) -> None:
        """Kill the server, and what the user's code has started in it, unless it has ended."""
        if self._watch.is_alive() and self._number is not None:
            kill_group(self._number)

    def _forked(self) -> Child | None:
        """Fork a process; return None when there is no server any more."""
        is_loaded = self._ready.result()
        if self._is_over:
            raise TrialError(OVER)
        if not is_loaded or self._control is None:
            return None
        with contextlib.ExitStack() as undo:
            ours, theirs = Pipe()
            undo.enter_context(ours)
            status, told = os.pipe()
            undo.callback(os.close, status)
            with theirs:
                try:
                    socket.send_fds(self._control, [FORK], [theirs.fileno(), told])
                    is_answered = wait([self._control], _ANSWER)
                    answer = self._control.recv(NUMBER.size) if is_answered else b""
                except OSError:
                    answer = b""
                finally:
                    os.close(told)
            if not answer:
                return None
            number = NUMBER.unpack(answer)[0]
            if number < 0:
                raise OSError(-number, f"The trial's process could not be forked: {os.strerror(-number)}")
            undo.pop_all()
        return ForkedChild(ours, number, status)


def _accompany(
    begin: Callable[[socket.socket, socket.socket], ServerProcess],
    control: socket.socket,
    theirs: socket.socket,
    begun: Future[ServerProcess],
    ended: Future[int],
) -> None:
    """Start the server, wait for its end, and see to it that nobody waits for its answers: others may have its socket.

    In a thread of its own: the server is killed when the thread ends that it is a child of; and what it is forked from
    must never have computed with the threads of OpenMP, which a forked process does not have, but would wait for.
    """
    try:
        process = begin(control, theirs)
    except BaseException as error:
        begun.set_exception(error)
        return
    begun.set_result(process)
    ended.set_result(process.wait())
    kill_group(process.number)  # what the user's code has started in it goes with it
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)


def _shake_hands(
    connection: Connection,
    told: tuple[Surroundings, bytes],
    ended: Future[int],
    ready: Future[bool],
    folders: list[Path],
) -> None:
    """Send the payload, which waits for the server's imports, and hear whether it could be loaded.

    The server says what went wrong, or which folder it has made, if it has.
    """
    kills = out_of_memory_kills()
    try:
        with connection:
            connection.send(told)
            said: str | Path | None = connection.recv()
    except (EOFError, OSError):
        code = ended.result()
        if code == -KILL and out_of_memory_kills() == kills:  # from outside, it seems
            _settle(ready, False)
            return
        said = _NO_SERVER.format(code)
    if isinstance(said, str):
        _fail(ready, ConfigurationError(said))
        return
    if said is not None:
        folders.append(said)
    _settle(ready, True)


def _settle(ready: Future[bool], is_loaded: bool) -> None:
    with contextlib.suppress(InvalidStateError):  # it was given up
        ready.set_result(is_loaded)


def _fail(ready: Future[bool], error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # what came first counts
        ready.set_exception(error)


_STARTS = 3
"""How often in a row a server is started that was killed."""
_ANSWER = 60.0
"""Seconds that the server has to fork; one that does not answer is killed, and started again."""
_GRACE = 10.0
"""Seconds that the server has to end by itself."""
_NO_SERVER = (
    "The process that trials are forked from ended with exit code {} while it loaded the classes of the study, and the "
    "data that share_data shares. What it printed says why."
)
