"""How a trial's process comes to be: forked from a warm server, or as a cold interpreter of its own."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future, InvalidStateError
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.workers.child import Surroundings
from lightningtune.workers.fork_server import FORK, NUMBER, kill_group

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that no process survives; Windows knows one for all."""


class Child(ABC):
    """A trial's process, seen from the host.

    Attributes:
        connection: a job goes in; values come out, then an outcome.
        number: its process number.
    """

    connection: Connection
    number: int

    @property
    @abstractmethod
    def waitables(self) -> list[Any]:
        """What ``multiprocessing.connection.wait`` waits for: something was sent, or the process has ended."""

    @abstractmethod
    def exit_code(self) -> int | None:
        """Return its exit code, negative where a signal has ended it; None while it runs."""

    def signal(self, number: int) -> None:
        """Send a signal: `KILL` to all it has started, any other to itself, for it to end softly."""
        if self.exit_code() is not None:
            return
        if number == KILL and hasattr(os, "killpg"):
            kill_group(self.number)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.number, number)

    def close(self) -> None:
        """Give back what the host holds of it."""
        self.connection.close()


class ForkedChild(Child):
    """A process that the fork server has forked.

    Args:
        connection: to the process.
        number: its process number.
        status: a pipe on which the server tells its exit code at the end.
    """

    def __init__(self, connection: Connection, number: int, status: int) -> None:
        self.connection = connection
        self.number = number
        self._status = status
        self._code: int | None = None

    @property
    def waitables(self) -> list[Any]:
        """Its connection, and the pipe."""
        return [self.connection, self._status]

    def exit_code(self) -> int | None:
        """Return what the server has told."""
        if self._code is None and wait([self._status], timeout=0):
            told = os.read(self._status, NUMBER.size)
            if not told:  # the server was killed, and the process with it, but not what that has started
                kill_group(self.number)
            self._code = NUMBER.unpack(told)[0] if told else -KILL
        return self._code

    def close(self) -> None:
        """Close both."""
        super().close()
        os.close(self._status)


class ColdChild(Child):
    """An interpreter of its own.

    Args:
        connection: to the process.
        process: the process, which reads on its standard input what it needs to know.
        told: is written there.
    """

    def __init__(self, connection: Connection, process: subprocess.Popen[bytes], told: bytes) -> None:
        self.connection = connection
        self.number = process.pid
        self._process = process
        self._end, end = Pipe(duplex=False)
        threading.Thread(target=_accompany, args=[process, told, end], daemon=True).start()

    @property
    def waitables(self) -> list[Any]:
        """Its connection, and one that is closed at its end."""
        return [self.connection, self._end]

    def exit_code(self) -> int | None:
        """Return its exit code; of one that is about to end, None."""
        return self._process.poll()

    def close(self) -> None:
        """Close both."""
        super().close()
        self._end.close()


def _accompany(process: subprocess.Popen[bytes], told: bytes, end: Connection) -> None:
    """Tell a process what it needs to know, and wait for its end: in a thread, since it may never read, nor end."""
    with end:
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin:  # it has ended
            process.stdin.write(told)
        process.wait()
        if hasattr(os, "killpg"):
            kill_group(process.pid)  # what it has started goes with it


class ForkServer:
    """Starts processes by forking a warm server, which is a process of its own.

    Args:
        payload: what the trials have in common, pickled.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._lock = threading.Lock()
        """One thread at a time talks to the server."""
        self._change = threading.Lock()
        """Guards what follows, never for long."""
        self._is_over = False
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._watch = threading.Thread()
        self._ready: Future[None] = Future()

    def start(self) -> None:
        """Start the server; it imports while the host goes on."""
        here = Surroundings.here()
        with self._change:
            if self._is_over:
                raise TrialError(_OVER)
            self._control, theirs = socket.socketpair()
            with theirs:
                self._server = subprocess.Popen(
                    [sys.executable, "-c", _SERVE, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal is the host's to handle
                    env=here.environment(),
                )
            self._ready = Future()
            connection = Connection(os.dup(self._control.fileno()))
            self._watch = threading.Thread(target=_watch, args=[self._server, self._control], daemon=True)
            self._watch.start()
            arguments = (connection, (here, self._payload), self._server, self._ready)
            threading.Thread(target=_shake_hands, args=arguments, daemon=True).start()

    def child(self) -> Child:
        """Fork a process; a server that was killed is started again.

        Raises:
            ConfigurationError: when the server could not load the payload.
            TrialError: when there is to be no further process.
            OSError: when the server could not fork.
        """
        with self._lock:
            child = self._forked()
            if child is None:
                self._end()
                self.start()
                child = self._forked()
        if child is None:
            raise TrialError("The process that trials are forked from was killed twice.")
        return child

    def abort(self) -> None:
        """Start no further process, and give up a server that still loads, however long that would take.

        Threads that wait in `child` leave it with an error; processes that were started go on.
        """
        with self._change:
            self._is_over = True
            if not self._ready.done() and self._server is not None:
                _kill(self._server)
                _fail(self._ready, TrialError(_OVER))

    def close(self) -> None:
        """End the server, and with it every process that it has forked."""
        self.abort()
        self._end()

    def _end(self) -> None:
        if self._server is None or self._control is None:
            return
        with self._control, contextlib.suppress(OSError):  # the server may have been killed
            self._control.shutdown(socket.SHUT_RDWR)
        self._watch.join(_GRACE)
        if self._watch.is_alive():
            kill_group(self._server.pid)
            self._watch.join()

    def _forked(self) -> Child | None:
        """Fork a process; return None when there is no server any more."""
        self._ready.result()
        if self._is_over or self._control is None:
            raise TrialError(_OVER)
        with contextlib.ExitStack() as undo:
            ours, theirs = Pipe()
            undo.enter_context(ours)
            status, told = os.pipe()
            undo.callback(os.close, status)
            with theirs:
                try:
                    socket.send_fds(self._control, [FORK], [theirs.fileno(), told])
                    answer = self._control.recv(NUMBER.size)
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


def _watch(server: subprocess.Popen[bytes], control: socket.socket) -> None:
    """Wait for the server's end, and see to it that nobody waits for its answers: others may have its socket, too."""
    server.wait()
    kill_group(server.pid)  # what the user's code has started in it goes with it
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)


def _shake_hands(
    connection: Connection, told: tuple[Surroundings, bytes], server: subprocess.Popen[bytes], ready: Future[None]
) -> None:
    """Send the payload, which waits for the server's imports, and hear whether it could be loaded."""
    try:
        with connection:
            connection.send(told)
            failure = connection.recv()
    except (EOFError, OSError):
        failure = _NO_SERVER.format(server.wait())
    if failure is None:
        with contextlib.suppress(InvalidStateError):  # it was given up
            ready.set_result(None)
    else:
        _fail(ready, ConfigurationError(failure))


def _fail(ready: Future[None], error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # what came first counts
        ready.set_exception(error)


def _kill(server: subprocess.Popen[bytes]) -> None:
    """Kill the server, and what the user's code has started in it."""
    if server.poll() is None:
        kill_group(server.pid)


class Cold:
    """Starts each process as an interpreter of its own, on any platform; it imports everything again.

    Args:
        payload: what the trials have in common, pickled.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._is_over = False

    def start(self) -> None:
        """There is nothing to warm up."""

    def child(self) -> Child:
        """Start a process.

        Raises:
            TrialError: when there is to be no further process.
        """
        if self._is_over:
            raise TrialError(_OVER)
        here = Surroundings.here()
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=here.environment(),
                **_inheriting(theirs.fileno()),
            )
        return ColdChild(ours, process, pickle.dumps((here, self._payload)))

    def abort(self) -> None:
        """Start no further process; those that were started go on."""
        self._is_over = True

    def close(self) -> None:
        """Start no further process; nothing was warmed up."""
        self.abort()


def _inheriting(handle: int) -> dict[str, Any]:
    """Return the options with which a process inherits a connection."""
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        return {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})}
    return {"pass_fds": [handle]}


_GRACE = 10.0
"""Seconds that the server has to end by itself."""
_SERVE = "import sys; from lightningtune.workers.fork_server import serve; serve(int(sys.argv[1]))"
_START = "from lightningtune.workers.child import start_cold; start_cold()"
_OVER = "The study has ended: no further trial is started."
_NO_SERVER = (
    "The process that trials are forked from ended with exit code {} while it loaded the classes of the study, and the "
    "data that share_data shares. What it printed says why."
)
